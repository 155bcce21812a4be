"""One recording on this node, from its claim to its last byte in the bucket: workers one after the other, uploads, events."""

import asyncio
import contextlib
import logging
from typing import Final

from recorder import log as logs
from recorder.agent.commands import Commands
from recorder.agent.events import EventLog, restore
from recorder.agent.node import Node
from recorder.agent.ownership import Abandoned, Ownership
from recorder.agent.reports import Reports
from recorder.agent.supervisor import Supervisor
from recorder.agent.uploads import Uploads
from recorder.agent.workers import Workers
from recorder.outputs import salvage, timeline_file
from recorder.peer import Peer
from recorder.protocol import Done, Ended, Finished, Message, Reason, Refused, RenewStorage, Report, SetLayout, Stop, Subscribe, WorkerHello
from recorder.spec import RecordingSpec
from storage.errors import PermanentStorageError, SpoolError
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 5.0


class Recording:
    """`run()` is its whole life; commands and the worker's messages come in meanwhile."""

    def __init__(self, sid: str, node: Node, spool: RecordingSpool) -> None:
        self.sid = sid
        self._node = node
        self._spool = spool
        history = restore(spool.uploads.read().records)
        self._resumed = history.epoch is not None
        self._finished = next((body for body in history.bodies if isinstance(body, Finished)), None)
        self._events = EventLog(sid, spool.uploads, history)
        self._uploads = Uploads(spool, self._events.emit, slices=history.slices, stored=history.stored)
        self._supervisor = Supervisor(sid, node.timing)
        self._ownership = Ownership(sid, node, self._events, self._given)
        self._reports = Reports(spool, history, self._events, self._uploads, self._supervisor)
        self._commands = Commands(
            sid,
            node,
            spool.folder,
            events=self._events,
            ownership=self._ownership,
            supervisor=self._supervisor,
            reports=self._reports,
        )
        self._workers = Workers(
            node,
            spool,
            history,
            events=self._events,
            ownership=self._ownership,
            supervisor=self._supervisor,
            reports=self._reports,
            uploads=self._uploads,
            launching=self._commands.launching,
        )

    @property
    def claimed_before(self) -> bool:
        """A former life of this agent worked on it."""
        return self._resumed

    @property
    def settled(self) -> bool:
        """A former life has seen it to its end and told so."""
        return self._finished is not None and self._events.all_delivered

    @property
    def over(self) -> bool:
        """Nothing is recorded any more; uploads may still go on."""
        return self._reports.ended is not None

    @property
    def worker_pid(self) -> int | None:
        """The worker that connected last; it may be gone."""
        return self._supervisor.link.pid

    @property
    def waits_for_control(self) -> bool:
        """Nothing can be done before a control plane is there: to give the recording or the bucket's keys, or to be told the end."""
        return self._events.epoch is None or (self.over and (self._finished is not None or not self._ownership.claimed.is_set()))

    def stop(self, reason: Reason) -> None:
        self._supervisor.stop(reason)

    async def command(self, message: Stop | Subscribe | SetLayout | RenewStorage) -> Message:
        """A command of the customer's."""
        return await self._commands.obey(message)

    def worker_hello(self, hello: WorkerHello, peer: Peer) -> Message:
        """A worker has connected."""
        if hello.epoch != self._events.epoch or self.over:
            log.warning("a worker of another epoch is turned away", extra={"epoch": hello.epoch, "pid": hello.pid})
            return Refused(reason="stale")
        self._supervisor.link.attach(peer, hello.pid)
        self._commands.worker_arrived()
        return Done()

    def worker_gone(self, peer: Peer) -> None:
        """Its connection has ended."""
        self._supervisor.link.detach(peer)

    async def report(self, report: Report) -> Message:
        """Something happened in the worker; answered when it is durable."""
        return await self._reports.hear(report)

    async def run(self) -> None:
        """Record and upload; returns when the control plane knows how it ended, or says that the recording is not ours."""
        logs.current_sid.set(self.sid)
        keep = True
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._events.run(self._node.bus.deliver)), group.create_task(self._fail())]
                if self._finished is None:  # else only the telling is left: uploading would reopen the playlists
                    if self._resumed:
                        background.append(group.create_task(self._ownership.claim_again()))
                    else:
                        await self._ownership.claim()
                    background += [
                        group.create_task(work) for work in (self._upload(), self._commands.images.run(), self._commands.brief())
                    ]
                await self._finish(self._reports.ended or await self._workers.record())
                for task in background:
                    task.cancel()
            keep = not self._is_stored()
        except* Abandoned as errors:
            log.error("recording abandoned", extra={"reason": str(errors.exceptions[0])})  # noqa: TRY400  # not a fault of ours
            keep = not (self._uploads.empty or (self._finished and self._is_stored()))
        except* Exception as errors:
            log.exception("recording failed")
            await self._last_words("spool_full" if errors.subgroup((SpoolError, OSError)) else "crashed")
        self._tidy(keep)

    def tidy(self) -> None:
        """Of a settled one: remove the folder unless it holds what could not be stored."""
        self._tidy(not self._is_stored())

    def _is_stored(self) -> bool:
        """All that was recorded, so that nothing in the folder is of use."""
        return self._uploads.complete and not salvage.parts(self._spool)

    def _tidy(self, keep: bool) -> None:
        if keep:
            log.error("files that are not stored stay in the spool", extra={"folder": str(self._spool.folder)})
        try:
            self._spool.close() if keep else self._spool.destroy()
        except OSError:
            log.exception("the spool's folder cannot be removed")

    async def _upload(self) -> None:
        await self._ownership.claimed.wait()
        refused = await self._uploads.run()
        log.error("the customer's storage refuses us", extra={"error": str(refused)})
        self._supervisor.stop("storage")

    async def _finish(self, ended: Ended) -> None:
        """Upload the rest and say so. The spool is kept when not everything is stored."""
        if self._reports.ended is None:
            self._reports.ended = ended
            await self._events.emit(ended)
        if self._finished is None:
            await self._ownership.claimed.wait()
            lost_parts = await self._workers.salvage()
            await self._add_timeline()
            self._finished = self._how_it_ended(ended, await self._uploads.finish(), lost_parts)
            log.info("recording finished", extra={"outcome": self._finished.outcome, "reason": self._finished.reason})
            await self._events.emit(self._finished)
        await self._events.flushed()

    async def _add_timeline(self) -> None:
        """Have the timeline file uploaded, which also tells what could not be."""
        if not self._node.settings.recording.timeline_file or self._uploads.empty:
            return
        assert self._ownership.spec
        assert self._events.epoch is not None
        await self._uploads.settled()
        spool = RecordingSpool(self._spool.folder)
        try:
            await asyncio.to_thread(timeline_file.write, spool, self._ownership.spec, epoch=self._events.epoch, lost=self._uploads.lost)
        except Exception:  # it must not cost the end of a recording that is complete
            log.exception("there is no timeline file")
        await self._reports.recover()

    def _how_it_ended(self, ended: Ended, refused: PermanentStorageError | None, lost_parts: int) -> Finished:
        if refused:
            return Finished(outcome="failed", reason="storage", uploading="unknown", detail=str(refused))
        if lost_parts:
            detail = f"{lost_parts} MP4 files could not be finished"
            return Finished(outcome="interrupted", reason=ended.reason, uploading="unknown", detail=detail)
        if self._uploads.empty:
            # Why there is nothing matters more than that there is nothing.
            reason: Reason = ended.reason if ended.outcome == "failed" else "nothing_recorded"
            return Finished(outcome=ended.outcome, reason=reason, uploading="unknown", detail=ended.detail)
        if self._uploads.lost:
            detail = f"{len(self._uploads.lost)} files were lost before they were uploaded"
            return Finished(outcome="interrupted", reason=ended.reason, uploading="unknown", detail=detail)
        return Finished(outcome=ended.outcome, reason=ended.reason, uploading="uploaded", detail=ended.detail)

    async def _fail(self) -> None:
        """Carries a failure that a message of the worker met into the group of tasks."""
        await self._reports.failure

    async def _last_words(self, reason: Reason) -> None:
        """Tell the end although nothing can be written any more; files already on disk stay there."""
        if self._events.epoch is None:
            return
        await self._events.emit_unsaved(Finished(outcome="failed", reason=reason, uploading="unknown"))
        with contextlib.suppress(TimeoutError, ExceptionGroup):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                async with asyncio.TaskGroup() as group:
                    delivering = group.create_task(self._events.run(self._node.bus.deliver))
                    await self._events.flushed()
                    delivering.cancel()

    def _given(self, former: RecordingSpec | None, spec: RecordingSpec) -> None:
        """The control plane has answered a claim."""
        if former is None:
            self._uploads.start(spec, self._node.settings)
        elif former.storage != spec.storage:
            self._uploads.renew(spec)
            log.info("storage keys renewed")
        self._commands.want_images()
