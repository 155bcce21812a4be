"""Ending recordings: the wish is stored before it is told, so that neither a lost answer nor a restart forgets it."""

import logging
from collections.abc import Callable

from sqlalchemy import delete, select, update

from api import lifecycle
from api.bus import Bus, BusError, NoAnswer
from api.changes import Changes
from api.errors import Fault, ServiceError
from api.lifecycle import Status
from api.notices import Notices
from api.store import Store
from api.tables import Recording, SeenEvent
from recorder import metrics
from recorder.protocol import Refused, Stop

log = logging.getLogger(__name__)


class Stops:
    def __init__(self, *, store: Store, bus: Bus, changes: Changes, notices: Notices, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._bus = bus
        self._changes = changes
        self._notices = notices
        self._now_ms = now_ms

    async def stop(self, sid: str) -> None:
        """Have the recording stopped; returns when its node has taken the command.

        Raises:
            ServiceError: it is gone, ending already, was never recording, or its node does not answer. In the last case
                the command is repeated until it arrives.
        """
        node = await self._wish(sid)
        self._changes.tell(sid)
        if node is None:
            raise ServiceError(Fault.NO_DATA)
        await self._deliver(sid, node)

    async def deliver_pending(self) -> None:
        """Repeat what did not arrive."""
        async with self._store.read() as session:
            pending = await session.execute(select(Recording.sid, Recording.node).where(~Recording.finished, Recording.stop == "pending"))
            wishes = pending.all()
        for sid, node in wishes:
            if node is None or not await self._mark(sid, "pending", "sending"):
                continue
            try:
                await self._deliver(sid, node)
            except ServiceError as error:
                log.warning("stop not delivered", extra={"sid": sid, "node": node, "code": error.fault.value.code})

    async def forget_senders(self) -> None:
        """At start: whoever was sending was interrupted."""
        async with self._store.write() as session:
            await session.execute(update(Recording).where(Recording.stop == "sending").values(stop="pending"))

    async def _wish(self, sid: str) -> str | None:
        """Returns the node to be told, None when no node has it yet: then it is over."""
        async with self._store.write() as session:
            row = await session.get(Recording, sid, with_for_update=True)
            if row is None or row.finished:
                raise ServiceError(Fault.NO_SUCH_TASK)
            if row.node is None:
                lifecycle.finish(row, outcome="aborted", reason="stopped", uploading="unknown", now_ms=self._now_ms())
                await self._notices.tell_never_begun(session, row, "aborted", "stopped")
                return None
            if row.status >= Status.STOPPING and row.stop != "pending":
                raise ServiceError(Fault.EXITING)
            lifecycle.begin_stop(row)
            row.stop = "sending"
            return row.node

    async def _deliver(self, sid: str, node: str) -> None:
        try:
            answer = await self._bus.command(node, Stop(sid=sid))
        except BusError as error:
            await self._mark(sid, "sending", "pending")
            raise ServiceError(Fault.NOT_COMPLETED if isinstance(error, NoAnswer) else Fault.UNREACHABLE) from error
        if isinstance(answer, Refused) and answer.reason == "not_yours":
            await self._lost(sid, node)
            raise ServiceError(Fault.NO_SUCH_TASK)
        if isinstance(answer, Refused) and answer.reason != "exiting":
            log.error("stop refused", extra={"sid": sid, "node": node, "reason": answer.reason})
            await self._mark(sid, "sending", "pending")
            raise ServiceError(Fault.NOT_COMPLETED)
        await self._mark(sid, "sending", "sent")
        if isinstance(answer, Refused):
            raise ServiceError(Fault.EXITING)

    async def _lost(self, sid: str, node: str) -> None:
        """The node that owns it has not got it any more: nobody would ever end it, and its channel and uid would stay taken."""
        async with self._store.write() as session:
            row = await session.get(Recording, sid, with_for_update=True)
            if row is None or row.finished:
                return
            before, ended = row.status, row.ended_ms is not None
            lifecycle.finish(row, outcome="interrupted", reason="crashed", uploading="unknown", now_ms=self._now_ms())
            await self._notices.tell_lost(session, row, before=before, ended=ended)
            await session.execute(delete(SeenEvent).where(SeenEvent.sid == sid))
        log.error("recording lost by its node", extra={"sid": sid, "node": node})
        metrics.RECORDINGS_ENDED.labels("interrupted", "crashed").inc()
        self._changes.tell(sid)

    async def _mark(self, sid: str, before: str, after: str) -> bool:
        async with self._store.write() as session:
            changed = await session.execute(
                update(Recording).where(Recording.sid == sid, Recording.stop == before).values(stop=after).returning(Recording.sid)
            )
            return changed.first() is not None
