"""One recording on this node, from its claim to its last byte in the bucket: workers one after the other, uploads, events."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

from recorder import log as logs
from recorder.agent.commands import Commands
from recorder.agent.events import EventLog, restore
from recorder.agent.node import Node
from recorder.agent.ownership import Abandoned, Ownership
from recorder.agent.progress import UploadProgress
from recorder.agent.reports import Reports
from recorder.agent.supervisor import Supervisor
from recorder.agent.uploads import Uploads
from recorder.agent.workers import Workers
from recorder.outputs import salvage, timeline_file
from recorder.peer import Peer
from recorder.protocol import (
    BackupDone,
    Done,
    Ended,
    Finished,
    Message,
    Reason,
    Refused,
    RenewStorage,
    Report,
    SetLayout,
    Stop,
    Subscribe,
    UploaderStarted,
    Uploading,
    WorkerHello,
)
from recorder.spec import RecordingSpec
from storage.errors import PermanentStorageError, SpoolError
from storage.sealed import Seal
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 5.0
_DAY_SECONDS: Final = 86_400


class SpoolFailed(Exception):
    """The spool of a recording can be written no more."""


class Recording:
    """`run()` is its whole life; commands and the worker's messages come in meanwhile."""

    def __init__(self, sid: str, node: Node, spool: RecordingSpool) -> None:
        self.sid = sid
        self._node = node
        self._spool = spool
        history = restore(spool.uploads.read().records)
        self._resumed = history.epoch is not None
        self._began_ms = history.began_ms or time.time_ns() // 1_000_000
        self._finished = history.finished
        self._finished_ms = history.finished_ms
        self._closed = history.closed
        self._resting = history.finished is not None and not history.closed
        self._uploader_started = history.uploader_started
        self._progress = UploadProgress(lambda: self._uploads.lost)
        self._events = EventLog(sid, spool.uploads, history, noted=self._progress.note)
        self._supervisor = Supervisor(sid, node.timing)
        self._uploads = Uploads(
            spool,
            self._events.emit,
            sign=node.bus.sign,
            turned_away=lambda: self._supervisor.stop("storage"),
            pace=node.pace,
            slices=history.slices,
            stored=history.stored,
            backed_up=history.backed_up,
            announced=history.published,
        )
        self._ownership = Ownership(sid, node, self._events, self._given, self._uploads.leave)
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
        return self._closed and self._events.all_delivered

    @property
    def resting(self) -> bool:
        """Its end is told; what is left is to bring files to the customer's store once that takes them."""
        return self._resting and self._events.all_delivered

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
        claimed = self._ownership.claimed.is_set()
        return (
            self._events.epoch is None
            or self._workers.waits_for_key
            or (self.over and (self._finished is not None or not claimed or self._uploads.waits_for_signature))
        )

    @property
    def folder(self) -> Path:
        """Its part of the spool."""
        return self._spool.folder

    @property
    def seal(self) -> Seal | None:
        """What its files are sealed with, as far as that is known."""
        return self._spool.seal

    @property
    def told_to_stop(self) -> Reason | None:
        return self._supervisor.stopping

    @property
    def began_ms(self) -> int:
        """Unix ms of when this node took it on."""
        return self._began_ms

    @property
    def stopping(self) -> bool:
        """It has ended, or was told to."""
        return self.over or self._supervisor.stopping is not None

    def save_space(self, on: bool) -> None:  # as told to the worker
        """Have it take less of the disk, or as much as usual again."""
        self._commands.save_space(on)

    def stop(self, reason: Reason) -> None:
        self._supervisor.stop(reason)

    async def command(self, message: Stop | Subscribe | SetLayout | RenewStorage) -> Message:
        """A command of the customer's."""
        return await self._commands.obey(message)

    async def worker_hello(self, hello: WorkerHello, peer: Peer) -> Message:
        """A worker has connected."""
        if hello.epoch != self._events.epoch or self.over:
            log.warning("a worker of another epoch is turned away", extra={"epoch": hello.epoch, "pid": hello.pid})
            if self._events.epoch is not None and not self.over:
                await self._reports.fenced(hello.epoch)
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
        """Record and upload; returns when the control plane knows how it ended, or says that the recording is not ours.

        Raises:
            SpoolFailed: the disk fails; the recording can go on in the other spool.
        """
        logs.current_sid.set(self.sid)
        keep, moves = True, False
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._events.run(self._node.bus.deliver)), group.create_task(self._fail())]
                if not self._closed:  # else only the telling is left: uploading would reopen the playlists
                    if self._resumed:
                        background.append(group.create_task(self._ownership.claim_again()))
                    else:
                        await self._ownership.claim()
                    if not self._uploader_started:
                        await self._events.emit(UploaderStarted())
                    works = (self._upload(), self._progress.run(self._events.emit), self._commands.images.run(), self._commands.brief())
                    more = (self._commands.tell_to_save(), self._ownership.move())
                    background += [group.create_task(work) for work in (*works, *more)]
                await self._finish(self._reports.ended or await self._workers.record())
                if not self._closed:
                    await self._see_through()
                for task in background:
                    task.cancel()
            keep = not self._is_stored()
        except* Abandoned as errors:
            log.error("recording abandoned", extra={"reason": str(errors.exceptions[0])})  # noqa: TRY400  # not a fault of ours
            keep = not (self._uploads.empty or (self._finished and self._is_stored()))
        except* Exception as errors:
            log.exception("recording failed")
            failed = errors.subgroup((SpoolError, OSError)) is not None
            moves = failed and self._may_move()
            if not moves:
                await self._last_words("spool_full" if failed else "crashed")
        if moves:
            await self._workers.kill()
            self._spool.close()
            raise SpoolFailed
        self._tidy(keep)

    def tidy(self) -> None:
        """Of a settled one: remove the folder unless it holds what could not be stored."""
        self._tidy(not self._is_stored())

    def _may_move(self) -> bool:
        second = self._node.second_spool
        return second is not None and self._spool.folder.parent != second.root and not self._node.disk.is_full

    async def give_up(self) -> None:
        """There is no other spool either: tell the end."""
        await self._last_words("spool_full")
        self._tidy(True)

    def _is_stored(self) -> bool:
        """All that was recorded, so that nothing in the folder is of use."""
        return self._uploads.safe and not salvage.parts(self._spool)

    def _tidy(self, keep: bool) -> None:
        if keep:
            log.error("files that are not stored stay in the spool", extra={"folder": str(self._spool.folder)})
        try:
            self._spool.close() if keep else self._spool.destroy()
        except OSError:
            log.exception("the spool's folder cannot be removed")

    async def _upload(self) -> None:
        await self._ownership.claimed.wait()
        if not self.over:  # loading a vendor's SDK must not hold up the worker's start
            await self._workers.begun.wait()
        await self._uploads.run()

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
            self._finished_ms = time.time_ns() // 1_000_000
            self._closed = not self._finished.leaves_behind
            await self._events.emit(self._finished, self._finished_ms)
        await self._events.flushed()

    async def _see_through(self) -> None:
        """After the end: bring to the customer's store what it refused or was not there to take, for some days."""
        assert self._finished
        assert self._finished_ms
        self._resting = True
        log.warning("files wait for the customer's storage", extra={"folder": str(self._spool.folder)})
        await self._ownership.claimed.wait()
        until_seconds = self._finished_ms / 1000 + self._node.settings.agent.rescue_days * _DAY_SECONDS
        try:
            async with asyncio.timeout(until_seconds - time.time()):
                await self._uploads.catch_up()
            whole = (self._finished.uploading == "backuped" or self._finished.reason == "storage") and not self._uploads.lost
            done = BackupDone(uploading="uploaded" if whole else "unknown")
        except TimeoutError:
            done = BackupDone(uploading=self._finished.uploading, detail="the customer's storage did not take it in time")
        log.info("nothing waits any more", extra={"uploading": done.uploading})
        self._closed, self._resting = True, False
        await self._events.emit(done)
        await self._events.flushed()

    async def _add_timeline(self) -> None:
        """Have the timeline file uploaded, which also tells what could not be."""
        if not self._node.settings.recording.timeline_file or self._uploads.empty:
            return
        assert self._ownership.spec
        assert self._events.epoch is not None
        await self._uploads.settled()
        spool = RecordingSpool(self._spool.folder, self._spool.seal)
        try:
            await asyncio.to_thread(timeline_file.write, spool, self._ownership.spec, epoch=self._events.epoch, lost=self._uploads.lost)
        except Exception:  # it must not cost the end of a recording that is complete
            log.exception("there is no timeline file")
        await self._reports.recover()

    def _how_it_ended(self, ended: Ended, refused: PermanentStorageError | None, lost_parts: int) -> Finished:
        behind = self._uploads.behind
        if refused:
            behind = not (self._uploads.empty or self._uploads.complete)
            return Finished(outcome="failed", reason="storage", uploading="unknown", leaves_behind=behind, detail=str(refused))
        if lost_parts:
            detail = f"{lost_parts} MP4 files could not be finished"
            return Finished(outcome="interrupted", reason=ended.reason, uploading="unknown", leaves_behind=behind, detail=detail)
        if self._uploads.empty:
            # Why there is nothing matters more than that there is nothing.
            reason: Reason = ended.reason if ended.outcome == "failed" else "nothing_recorded"
            return Finished(outcome=ended.outcome, reason=reason, uploading="unknown", detail=ended.detail)
        if self._uploads.lost:
            detail = f"{len(self._uploads.lost)} files were lost"
            return Finished(outcome="interrupted", reason=ended.reason, uploading="unknown", leaves_behind=behind, detail=detail)
        uploading: Uploading = "backuped" if behind else "uploaded"
        return Finished(outcome=ended.outcome, reason=ended.reason, uploading=uploading, leaves_behind=behind, detail=ended.detail)

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
            seal = spec.seal()
            if seal:
                self._spool.use(seal)
            self._uploads.start(spec, self._node.settings, ended=self.over)
        elif former.storage != spec.storage or self._uploads.left:
            self._uploads.renew(spec)
            log.info("storage keys renewed")
        self._commands.want_images()
