"""Writes what happens to recordings into the outbox, in the transaction of the state change that it tells."""

from collections.abc import Callable, Iterable

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api import events
from api.events import Told
from api.listing import files_of
from api.outbox import Outbox, selects
from api.tables import Endpoint, Recording, Slice
from recorder import protocol
from recorder.protocol import Event, Outcome, Reason


class Notices:
    """Every method takes the recording's row as the transaction has changed it, and nothing is told after a recording's end."""

    def __init__(self, outbox: Outbox, *, late_uploads: bool, now_ms: Callable[[], int]) -> None:
        """`late_uploads`: tell when files of an ended recording have come from the backup store to the customer's."""
        self._outbox = outbox
        self._late_uploads = late_uploads
        self._now_ms = now_ms

    async def tell(self, session: AsyncSession, row: Recording, event: Event, *, before: int, ended: bool) -> None:
        """An event of a node. `before`: the row's status when it came; `ended`: the recorder had left by then."""
        told: list[Told]
        match event.body:
            case protocol.Ended(outcome=outcome, reason=reason, detail=detail):
                told = [] if ended else events.leaving(outcome, reason, detail, before=before)
            case protocol.Finished(outcome=outcome, reason=reason, uploading=uploading, detail=detail):
                told = [] if ended else events.leaving(outcome, reason, detail, before=before)
                told += events.stored(row, uploading, await files_of(session, row))
                told.append(events.session_exit(outcome))
            case protocol.BackupDone(uploading=uploading):
                late = self._late_uploads and uploading == "uploaded"
                told = [events.late(row, await files_of(session, row))] if late else []
            case body if row.finished:
                told = []
            case protocol.TrackBegan() as body:
                told = events.of_body(row, body, before=before, discontinued_ms=await _last_end_ms(session, row, body))
            case body:
                told = events.of_body(row, body, before=before)
        await self._add(session, row, told, event.at_ms)

    async def tell_failover(self, session: AsyncSession, row: Recording) -> None:
        """Another worker goes on, with the uid that the row has now."""
        await self._add(session, row, [events.failover(events.recorder_uid(row))], self._now_ms())

    async def tell_lost(self, session: AsyncSession, row: Recording, *, before: int, ended: bool) -> None:
        """Its node has lost it."""
        told = [] if ended else events.leaving("interrupted", "crashed", "lost by its node", before=before)
        await self._add(session, row, [*told, events.session_exit("interrupted")], self._now_ms())

    async def tell_never_begun(self, session: AsyncSession, row: Recording, outcome: Outcome, reason: Reason) -> None:
        """It is over before a node has taken it."""
        told = (
            [] if reason == "stopped" else [events.error(events.SERVICE, events.SLOW_START, events.FATAL, "no node has taken it in time")]
        )
        await self._add(session, row, [*told, events.session_exit(outcome)], self._now_ms())

    async def wants_refusals(self, session: AsyncSession, app_id: str) -> bool:
        """Whether this app is told of refused calls."""
        endpoint = await session.get(Endpoint, app_id)
        return endpoint is not None and endpoint.enabled and selects(endpoint.event_types, events.STATUS)

    async def tell_refusal(self, session: AsyncSession, row: Recording) -> None:
        """A call was refused, because it does not fit the recording's state."""
        if not row.finished:
            await self._add(session, row, [events.refused(row, await files_of(session, row))], self._now_ms())

    async def _add(self, session: AsyncSession, row: Recording, all_told: Iterable[Told], at_ms: int) -> None:
        for told in all_told:
            if events.is_wanted(row, told):
                await self._outbox.add(
                    session,
                    app_id=row.app_id,
                    sid=row.sid,
                    event_type=told.event_type,
                    payload=events.payload(row, told, at_ms=at_ms),
                    now_ms=self._now_ms(),
                    alarm=told.alarm,
                )


async def _last_end_ms(session: AsyncSession, row: Recording, began: protocol.TrackBegan) -> int | None:
    """When the media of the workers before ended in this playlist; None: there is none, or it does not lie before."""
    end_ms = func.max(Slice.start_ms + Slice.duration_ns / 1_000_000)
    former = (Slice.sid == row.sid, Slice.playlist == began.playlist, Slice.epoch < began.epoch)
    found = await session.scalar(select(end_ms).where(*former))
    return None if found is None else min(round(found), began.start_ms)
