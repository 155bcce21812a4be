"""One recording on this node, from its claim to its last byte in the bucket: workers one after the other, uploads, events."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from recorder import log as logs
from recorder.agent.bus import Bus
from recorder.agent.events import EventLog, restore
from recorder.agent.images import ImageHelpers, Images
from recorder.agent.process import Launcher, WorkerProcess
from recorder.agent.supervisor import COMMAND_SECONDS, Supervisor, Timing
from recorder.agent.uploads import Uploads
from recorder.outputs import salvage, timeline_file
from recorder.peer import Peer, PeerLost
from recorder.protocol import (
    Claim,
    Claimed,
    Done,
    Ended,
    EventBody,
    FileOpened,
    Finished,
    ImageReady,
    Message,
    Metered,
    PhaseChanged,
    Reason,
    Refused,
    RenewStorage,
    Report,
    SetLayout,
    Slice,
    SliceCommitted,
    Stop,
    Subscribe,
    Warned,
    WorkerHello,
    WorkerLost,
)
from recorder.settings import Settings
from recorder.spec import RecordingSpec
from recorder.worker.launch import Launch
from storage.errors import PermanentStorageError, SpoolError
from storage.journal import Record
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

LAST_WORDS_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 8.0
SALVAGE_SECONDS: Final = 120.0
SALVAGE_BYTES_PER_SECOND: Final = 10_000_000  # of a slow disk, which reads and writes it


@dataclass(frozen=True, slots=True)
class Node:
    """What the recordings of one node share."""

    settings: Settings
    bus: Bus
    launcher: Launcher
    timing: Timing
    images: ImageHelpers


class Abandoned(Exception):
    """The control plane says that this recording is not ours, or no more."""


class Recording:
    """`run()` is its whole life; commands and the worker's messages come in meanwhile."""

    def __init__(self, sid: str, node: Node, spool: RecordingSpool) -> None:
        self.sid = sid
        self._node = node
        self._spool = spool
        history = restore(spool.uploads.read().records)
        self._resumed = history.epoch is not None
        self._worker = history.worker
        self._restarts = history.restarts
        self._files = history.files
        self._slices = {known.name for known in history.slices}
        self._ended = next((body for body in history.bodies if isinstance(body, Ended)), None)
        self._finished = next((body for body in history.bodies if isinstance(body, Finished)), None)
        self._events = EventLog(sid, spool.uploads, history)
        self._uploads = Uploads(spool, self._events.emit, slices=history.slices, stored=history.stored)
        self._images = Images(spool.folder, node.images.fetch, tell=self._hand_over, emit=self._events.emit)
        self._metered: Metered | None = None  # as told last
        self._supervisor = Supervisor(sid, node.timing)
        self._spec: RecordingSpec | None = None
        self._changes: dict[str, object] = {}  # what the customer changed of it in this life
        self._launched: RecordingSpec | None = None  # with which the worker was started; None: what it knows is uncertain
        self._claimed = asyncio.Event()
        self._arrived = asyncio.Event()  # a worker, that is not briefed yet
        self._claiming = asyncio.Lock()  # one at a time, so that an answer never comes with an epoch that is over
        self._turn = asyncio.Lock()  # of who tells the worker what to record, so that the last word is the newest
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._read = 0  # records of the worker's journal seen so far

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
        return self._ended is not None

    @property
    def worker_pid(self) -> int | None:
        """The worker that connected last; it may be gone."""
        return self._supervisor.link.pid

    @property
    def waits_for_control(self) -> bool:
        """Nothing can be done before a control plane is there: to give the recording or the bucket's keys, or to be told the end."""
        return self._events.epoch is None or (self.over and (self._finished is not None or not self._claimed.is_set()))

    def stop(self, reason: Reason) -> None:
        self._supervisor.stop(reason)

    async def run(self) -> None:
        """Record and upload; returns when the control plane knows how it ended, or says that the recording is not ours."""
        logs.current_sid.set(self.sid)
        keep = True
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._events.run(self._node.bus.deliver)), group.create_task(self._fail())]
                if self._finished is None:  # else only the telling is left: uploading would reopen the playlists
                    if self._resumed:
                        background.append(group.create_task(self._claim_again()))
                    else:
                        await self._claim()
                    background += [group.create_task(work) for work in (self._upload(), self._images.run(), self._brief())]
                await self._finish(self._ended or await self._record())
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

    # ---- the claim -----------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        claim = Claim(sid=self.sid, node=self._node.settings.agent.node)
        async with self._claiming:
            answer = await self._events.claim(lambda: self._node.bus.claim(claim))
            self._take(answer)

    async def _claim_again(self) -> None:
        """After the agent's own restart: the same epoch, to get the secrets back."""
        claim = Claim(sid=self.sid, node=self._node.settings.agent.node, resume=self._events.epoch)
        answer = await self._node.bus.claim(claim)
        if isinstance(answer, Refused) and answer.reason == "stale":
            await self._claim()  # killed after an epoch was given out and before it was noted: nobody uses that one
        else:
            self._take(answer)

    async def _renew_storage(self) -> Message:
        """The customer's new keys. The place is the old one, which the control plane has seen to."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._claimed.wait()
                async with self._claiming:
                    claim = Claim(sid=self.sid, node=self._node.settings.agent.node, resume=self._events.epoch)
                    answer = await self._node.bus.claim(claim)
                    if isinstance(answer, Refused):
                        return answer
                    self._take(answer)
        except TimeoutError:
            return Refused(reason="stale")
        return Done()

    def _take(self, answer: Claimed | Refused) -> None:
        if isinstance(answer, Refused):
            raise Abandoned(answer.reason)
        spec = RecordingSpec.model_validate(answer.spec).model_copy(update=self._changes)
        if self._spec is None:
            self._uploads.start(spec, self._node.settings)
        elif self._spec.storage != spec.storage:
            self._uploads.renew(spec)
            log.info("storage keys renewed")
        self._spec = spec
        self._want_images()
        self._claimed.set()

    # ---- uploads and the end -------------------------------------------------------------------------------------

    async def _upload(self) -> None:
        await self._claimed.wait()
        refused = await self._uploads.run()
        log.error("the customer's storage refuses us", extra={"error": str(refused)})
        self._supervisor.stop("storage")

    async def _finish(self, ended: Ended) -> None:
        """Upload the rest and say so. The spool is kept when not everything is stored."""
        if self._ended is None:
            self._ended = ended
            await self._events.emit(ended)
        if self._finished is None:
            await self._claimed.wait()
            lost_parts = await self._salvage()
            await self._add_timeline()
            self._finished = self._how_it_ended(ended, await self._uploads.finish(), lost_parts)
            log.info("recording finished", extra={"outcome": self._finished.outcome, "reason": self._finished.reason})
            await self._events.emit(self._finished)
        await self._events.flushed()

    async def _add_timeline(self) -> None:
        """Have the timeline file uploaded, which also tells what could not be."""
        if not self._node.settings.recording.timeline_file or self._uploads.empty:
            return
        assert self._spec
        assert self._events.epoch is not None
        await self._uploads.settled()
        spool = RecordingSpool(self._spool.folder)
        try:
            await asyncio.to_thread(timeline_file.write, spool, self._spec, epoch=self._events.epoch, lost=self._uploads.lost)
        except Exception:  # it must not cost the end of a recording that is complete
            log.exception("there is no timeline file")
        await self._recover()

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
        await self._failure

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

    # ---- workers -------------------------------------------------------------------------------------------------

    async def _record(self) -> Ended:
        """One worker after the other, until one ends by itself, is told to, or too many have died."""
        process = await self._adopt() if self._resumed else await self._spawn()
        seconds = self._node.timing.lease if self._resumed else self._node.timing.hello
        while True:
            how = "it is not there"
            if process:
                how = await self._supervisor.attend(process, seconds)
            await self._recover()
            ended = self._ended or await self._go_on(how)
            if ended:
                return ended
            process = await self._spawn()
            seconds = self._node.timing.hello

    async def _go_on(self, how: str) -> Ended | None:
        """A worker is gone without an end: None when another one shall continue, else how the recording ends."""
        ended = self._stopped(how)
        if ended:
            return ended
        self._restarts += 1
        log.error("worker lost", extra={"how": how, "restarts": self._restarts})
        await self._events.emit(WorkerLost(detail=how))
        if self._restarts > self._node.settings.recording.max_restarts:
            return Ended(outcome="failed" if self._uploads.empty else "interrupted", reason="crashed", detail=how)
        # The first one is replaced at once; one that dies at each start must not keep the node busy.
        pause = 0.0 if self._restarts == 1 else min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._restarts - 2))
        await self._supervisor.stopped_within(pause)
        await self._claimed.wait()
        try:
            if not self._supervisor.stopping:
                await self._claim()
        except Abandoned as refused:
            return Ended(outcome="interrupted", reason="stopped", detail=f"not started again: {refused}")
        return self._stopped(how)

    def _stopped(self, how: str) -> Ended | None:
        reason = self._supervisor.stopping
        return Ended(outcome="interrupted", reason=reason, detail=f"worker: {how}") if reason else None

    async def _spawn(self) -> WorkerProcess | None:
        if self._supervisor.stopping:
            return None
        self._launched = self._spec
        process = await self._start("record")
        if process:
            log.info("worker started", extra={"pid": process.pid, "epoch": self._events.epoch})
            await self._events.note_worker(process.pid, process.identity)
        return process

    async def _start(self, task: Literal["record", "salvage"]) -> WorkerProcess | None:
        assert self._spec
        assert self._events.epoch is not None
        launch = Launch(
            spec_json=self._spec.for_worker().with_secrets(),
            settings=self._node.settings,
            epoch=self._events.epoch,
            folder=self._spool.folder.absolute(),
            task=task,
        )
        try:
            return await self._node.launcher.start(launch)
        except (OSError, EOFError):
            log.exception("a worker could not be started", extra={"task": task})
            return None

    async def _adopt(self) -> WorkerProcess | None:
        """The worker of a former life. It has its lease to find us; one whose pid was never noted must do so first."""
        if self._worker:
            return WorkerProcess.find(*self._worker)
        if await self._supervisor.link.attached(self._node.timing.lease) and self._supervisor.link.pid:
            return WorkerProcess.find(self._supervisor.link.pid)
        return None

    async def _salvage(self) -> int:
        """Have the MP4 parts finished that the last worker left open; a worker that goes on does so with those before it.

        Returns how many could not be; they stay in the spool.
        """
        open_parts = await asyncio.to_thread(salvage.parts, self._spool)
        if not open_parts:
            return 0
        size = sum(salvage.open_bytes(self._spool, item) for item in open_parts)
        process = await self._start("salvage")
        if process:
            try:
                async with asyncio.timeout(SALVAGE_SECONDS + size / SALVAGE_BYTES_PER_SECOND):
                    await process.wait()
            except TimeoutError:
                log.exception("open MP4 parts are not finished in time")
            finally:
                process.send(signal.SIGKILL)
                await process.wait()
        await self._recover()
        return len(await asyncio.to_thread(salvage.parts, self._spool))

    async def _recover(self) -> None:
        """Take over what the worker had no time to commit, or to report."""
        await asyncio.to_thread(salvage.salvage_slices, RecordingSpool(self._spool.folder))
        records = await asyncio.to_thread(self._spool.records)
        for body in _bodies(records[self._read :]):
            await self._take_report(body, None)
        self._read = len(records)

    # ---- messages ------------------------------------------------------------------------------------------------

    def worker_hello(self, hello: WorkerHello, peer: Peer) -> Message:
        """A worker has connected."""
        if hello.epoch != self._events.epoch or self.over:
            log.warning("a worker of another epoch is turned away", extra={"epoch": hello.epoch, "pid": hello.pid})
            return Refused(reason="stale")
        self._supervisor.link.attach(peer, hello.pid)
        self._arrived.set()
        return Done()

    def worker_gone(self, peer: Peer) -> None:
        """Its connection has ended."""
        self._supervisor.link.detach(peer)

    async def report(self, report: Report) -> Message:
        """Something happened in the worker; answered when it is durable."""
        try:
            await self._take_report(report.body, report.at_ms)
        except SpoolError as error:
            if not self._failure.done():
                self._failure.set_exception(error)
            return Refused(reason="exiting")
        return Done()

    async def _take_report(self, body: EventBody, at_ms: int | None) -> None:
        """Pass on what is new; a worker repeats itself after a reconnect, and its journal repeats it again."""
        match body:
            case SliceCommitted(slice=committed):
                if committed.name in self._slices:
                    return
                self._slices.add(committed.name)
                await self._events.emit(body, at_ms)
                self._uploads.add(committed)
                return
            case FileOpened(file=file):
                if file.name in self._files:
                    return
                self._files.add(file.name)
            case Ended(reason=reason):
                asked = self._supervisor.stopping
                if self._ended is not None or (reason == "shutdown" and not asked):
                    return  # the worker was ended, or left alone for too long: that is not the end of the recording
                if reason == "shutdown" and asked:  # SIGTERM is a rung of the ladder
                    body = body.model_copy(update={"reason": asked})
                self._ended = body
            case Metered():
                if body == self._metered:
                    return
                self._metered = body
            case PhaseChanged() | Warned():
                pass
            case _:
                log.warning("a worker reports what is not its business", extra={"type": body.type})
                return
        await self._events.emit(body, at_ms)
        if isinstance(body, Ended):
            self._supervisor.worker_is_over()

    async def command(self, message: Stop | Subscribe | SetLayout | RenewStorage) -> Message:
        """A command of the customer's. What changes the recording also holds for the workers to come."""
        if isinstance(message, RenewStorage):  # files are uploaded after the end, too
            return await self._renew_storage()
        if self.over or self._supervisor.stopping:
            return Refused(reason="exiting")
        if isinstance(message, Stop):
            self._supervisor.stop(message.reason)
            return Done()
        async with self._turn:
            if isinstance(message, SetLayout):  # what is there already shows from the layout's first picture on
                await self._images.give(message.layout)
            answer = await self._tell(message)
            if isinstance(answer, Refused):
                return answer
            changed = {"subscription": message.subscription} if isinstance(message, Subscribe) else {"layout": message.layout}
            self._changes |= changed
            self._launched = None
            if self._spec:
                self._spec = self._spec.model_copy(update=changed)
                self._want_images()
        return Done()

    async def _brief(self) -> None:
        """Tell each worker that connects what was changed after its start, then the images."""
        while True:
            await self._arrived.wait()
            await self._claimed.wait()
            self._arrived.clear()
            async with self._turn:
                assert self._spec
                known, spec = self._launched, self._spec
                if spec.mode == "mix" and (known is None or known.layout != spec.layout):
                    await self._tell(SetLayout(sid=self.sid, layout=spec.layout))
                if known is None or known.subscription != spec.subscription:
                    await self._tell(Subscribe(sid=self.sid, subscription=spec.subscription))
            self._images.worker_is_here()

    async def _tell(self, message: Subscribe | SetLayout) -> Message | None:
        """The worker's answer; None when there is none: it, or the next one, is told when it connects."""
        try:
            return await self._supervisor.link.request(message, COMMAND_SECONDS)
        except (PeerLost, TimeoutError):
            log.warning("a command does not reach the worker, the next one will have it", extra={"type": message.type})
            return None

    def _want_images(self) -> None:
        assert self._spec
        if self._spec.mode == "mix" and self._spec.video:
            self._images.want(self._spec.layout, self._spec.canvas)

    async def _hand_over(self, image: ImageReady) -> None:
        """Tell the worker that an image is there; the next worker is told anew."""
        try:
            answer = await self._supervisor.link.request(image, COMMAND_SECONDS)
        except (PeerLost, TimeoutError):
            log.warning("an image does not reach the worker")
        else:
            if isinstance(answer, Refused):
                log.error("the worker cannot use an image", extra={"detail": answer.detail})


def _bodies(records: Iterable[Record]) -> Iterable[EventBody]:
    """The worker's journal as the reports it stands for."""
    for record in records:
        try:
            match record.get("type"):
                case "slice":
                    yield SliceCommitted(slice=Slice.model_validate(record))
                case "file":
                    yield FileOpened.model_validate(record)
                case "usage":
                    yield Metered.model_validate(record)
                case "ended":
                    yield Ended.model_validate(record)
        except ValidationError:
            log.exception("a record of the worker's journal makes no sense")
