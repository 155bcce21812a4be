"""Life cycle of one worker process: join, record, end. What is recorded happens in `pipeline.py`, READ THAT FIRST.

The event loop does input and output only; decoding, mixing, encoding and muxing run in the media thread.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from recorder import log as logs
from recorder.channels import ChannelError, ChannelRefused, Connector, Kicked, Place, TokenExpired, create
from recorder.frames import Kind
from recorder.private_memory import hide_memory
from recorder.protocol import (
    Done,
    Ended,
    EventBody,
    Faulted,
    ImageReady,
    Message,
    Metered,
    Outcome,
    PhaseChanged,
    Reason,
    Refused,
    SaveSpace,
    SetLayout,
    Stop,
    StreamChanged,
    Subscribe,
    Warned,
)
from recorder.rtp.capture_writer import CaptureWriter
from recorder.rtp.meters import Meters
from recorder.spec import RecordingSpec
from recorder.worker.absence import Absence
from recorder.worker.agent_link import AgentLink, Command, hello
from recorder.worker.audience import Audience
from recorder.worker.chronicle import Chronicle
from recorder.worker.launch import Launch
from recorder.worker.media_thread import MediaThread
from recorder.worker.metering import Metering
from recorder.worker.pipeline import ImageLoaded, Surroundings, Thrift, check_layout
from recorder.worker.salvage import salvage
from recorder.worker.scenery import read_pixels
from recorder.worker.streams import Streams
from recorder.worker.vigil import NO_MEDIA
from storage.errors import SpoolError
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

INTERRUPTED = 111  # `errorCode`: the connection to the channel is away
_SUPERVISE_SECONDS = 0.25
_LOCK_SECONDS = 15.0  # a worker that lost its agent ends within 12 s; ours waits 20 s for our first word
_LOCK_POLL_SECONDS = 0.1
# From one note of loss and drift to the next, doubled each time: a killed worker's timeline file lacks what came after the last one.
_FIRST_FIGURES_SECONDS, _FIGURES_SECONDS = 10.0, 300.0


def run(launch: Launch) -> None:
    """Record until told to stop, idle, or fenced. The body of a worker process."""
    hide_memory()  # it holds the channel's token
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C ends the agent, which asks us to stop
    spec = RecordingSpec.model_validate_json(launch.spec_json)
    logs.configure(launch.settings.log_level, json_lines=launch.settings.log_json, sid=spec.sid)
    spool = RecordingSpool(launch.folder, spec.seal())
    if launch.task == "salvage":
        salvage(spool, launch.epoch)
    elif not _locked(spool):
        log.error("another worker still writes this recording")
        sys.exit(1)  # the agent tries again; two that write would ruin each other's files
    else:
        asyncio.run(_record(launch, spec, spool))


def _locked(spool: RecordingSpool) -> bool:
    deadline = time.monotonic() + _LOCK_SECONDS
    while not (locked := spool.lock()) and time.monotonic() < deadline:
        time.sleep(_LOCK_POLL_SECONDS)
    return locked


async def _record(launch: Launch, spec: RecordingSpec, spool: RecordingSpool) -> None:
    await _Worker(launch, spec, spool).run()


class _Worker:
    def __init__(self, launch: Launch, spec: RecordingSpec, spool: RecordingSpool) -> None:
        self._settings = launch.settings
        self._spec = spec
        self._link = AgentLink(
            launch.settings.agent_socket,
            hello(spec.sid, launch.epoch),
            lease_seconds=launch.settings.recording.lease_seconds,
            on_command=self._obey,
        )
        self._ending: asyncio.Future[tuple[Outcome, Reason, str]] = asyncio.get_running_loop().create_future()
        self._zero_ns, self._zero_utc_ns = time.monotonic_ns(), time.time_ns()
        self._capture = self._begin_capture(launch)
        self._hurried = False  # another worker may be waiting
        self._recording = False  # something has been written
        self._spool = spool
        loop = asyncio.get_running_loop()
        around = Surroundings(
            spec=spec,
            settings=launch.settings.recording,
            spool=self._spool,
            epoch=launch.epoch,
            zero_utc_ns=self._zero_utc_ns,
            report=lambda body: self._journaled(body, lambda: loop.call_soon_threadsafe(self._media_told, body)),
            finish_parts=lambda: not self._hurried,
            request_keyframe=lambda track: loop.call_soon_threadsafe(self._connector.request_keyframe, track),
        )
        self._meters = Meters()
        self._chronicle = self._begin_chronicle(launch)
        self._figures_every = _FIRST_FIGURES_SECONDS
        self._figures_due = time.monotonic() + self._figures_every
        self._media = MediaThread(
            around,
            clock=self._now_ns,
            failed=self._media_failed,
            observe=self._chronicle.observe if self._chronicle else None,
        )
        self._metering = Metering(
            spec,
            launch.epoch,
            report_seconds=launch.settings.usage.report_seconds,
            report=self._link.report,
            now_ms=lambda: (self._zero_utc_ns + self._now_ns()) // 1_000_000,
        )
        self._epoch = launch.epoch
        self._streams = Streams(
            mixed=spec.mode == "mix",
            changed=self._stream_changed,
            missed=lambda: self._link.report(Warned(module=0, code=NO_MEDIA, uid=0)),
        )
        self._metered: Metered | None = None  # of all the time of this worker, when it has ended
        self._audience = Audience(
            spec,
            self._media,
            receive=lambda wanted: self._connector.subscribe(wanted),  # noqa: PLW0108  # it is created below
            on_lost=self._channel_lost,
            on_interrupted=self._channel_interrupted,
            capture=self._capture,
            metering=self._metering,
            streams=self._streams,
            absence=Absence(spool.absence),
            now_ns=self._now_ns,
        )
        self._connector: Connector = create(self._place(), spec, self._audience)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self._end("complete", "shutdown", hurried=True))
        line = asyncio.create_task(self._link.run())
        try:
            outcome, reason, detail = await self._record()
            self._streams.end(self._now_ns())
            last = (*((self._metered,) if self._metered else ()), Ended(outcome=outcome, reason=reason, detail=detail))
            for body in last:
                with contextlib.suppress(SpoolError):  # the disk has failed; the agent hears it by the line
                    self._spool.append(body.model_dump(mode="json"))
                self._link.report(body)
            with contextlib.suppress(TimeoutError):  # the journal has it; an agent that comes back later reads it there
                async with asyncio.timeout(max(1.0, self._link.lease_left)):
                    await self._link.delivered()
        finally:
            line.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await line

    async def _record(self) -> tuple[Outcome, Reason, str]:
        self._link.report(PhaseChanged(phase="starting"))
        joining = asyncio.create_task(self._connector.join())
        try:
            await self._until_the_end(joining)
            if joining.done():
                await joining
                self._connector.subscribe(self._audience.received)
                self._media.start()
                self._metering.begin()
                self._link.report(PhaseChanged(phase="ready"))
                await self._until_the_end()
                self._link.report(PhaseChanged(phase="stopping"))
            return self._ending.result()
        except ChannelError as error:
            return "failed", _why_lost(error), str(error)
        finally:
            self._note_figures()
            joining.cancel()
            await asyncio.wait((joining,))
            try:
                await self._connector.leave()
            finally:
                if self._capture:
                    await asyncio.to_thread(self._capture.close, time.monotonic_ns())
                # It raises what stopped the media path, as `leave` what stopped the connector. A worker that failed goes
                # without an `Ended`: the agent then starts another, which continues the recording.
                await asyncio.to_thread(self._media.close)

    async def _until_the_end(self, joining: "asyncio.Task[None] | None" = None) -> None:
        """Until the recording shall end, or `joining` is done."""
        waits: set[asyncio.Future[Any]] = {self._ending, *({joining} if joining else ())}
        while not any(wait.done() for wait in waits):
            await asyncio.wait(waits, timeout=_SUPERVISE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not joining and self._audience.idle_seconds() >= self._spec.max_idle_seconds:
                self._end("complete", "idle")
            self._metering.tell_when_due()
            if not joining:
                self._streams.look(self._now_ns())
            if self._link.lease_left <= 0:
                self._end("interrupted", "shutdown", "the agent is gone", hurried=True)
            if time.monotonic() >= self._figures_due:
                self._figures_due += self._figures_every
                self._figures_every = min(2 * self._figures_every, _FIGURES_SECONDS)
                self._note_figures()

    def _end(self, outcome: Outcome, reason: Reason, detail: str = "", *, hurried: bool = False) -> None:
        if not self._ending.done():
            self._hurried = hurried
            log.info("ending", extra={"reason": reason})
            self._media.end_now()
            self._metered = self._metering.end()
            self._ending.set_result((outcome, reason, detail))

    async def _obey(self, command: Command) -> Message:
        if self._ending.done():
            return Refused(reason="exiting")
        if isinstance(command, Stop):
            self._end("limit_reached" if command.reason == "spool_full" else "complete", command.reason)
        elif isinstance(command, SaveSpace):
            self._media.put(Thrift(command.on))
        elif isinstance(command, Subscribe):
            self._audience.subscribe(command.subscription)  # it may come before we have joined
        elif isinstance(command, SetLayout):
            try:
                check_layout(command.layout)
            except ValueError as error:
                return Refused(reason="bad_request", detail=str(error))
            self._media.put(command.layout)
        elif isinstance(command, ImageReady):
            try:
                picture = await asyncio.to_thread(read_pixels, self._spool.folder, command)
            except (OSError, ValueError) as error:
                return Refused(reason="bad_request", detail=str(error))
            self._media.put(ImageLoaded(command.url, picture))
        return Done()

    def _channel_interrupted(self) -> None:
        self._link.report(Faulted(module=0, code=INTERRUPTED, detail="the connection to the channel is interrupted, media goes on"))

    def _channel_lost(self, error: ChannelError) -> None:
        self._end("aborted", _why_lost(error), str(error))

    def _media_told(self, body: EventBody) -> None:
        if not self._recording:
            self._recording = True
            self._link.report(PhaseChanged(phase="recording"))
        self._link.report(body)

    def _stream_changed(self, uid: int, kind: Kind, receiving: bool, at_ns: int) -> None:
        at_ms = (self._zero_utc_ns + at_ns) // 1_000_000
        self._link.report(StreamChanged(epoch=self._epoch, uid=uid, kind=kind, receiving=receiving, at_ms=at_ms))

    def _media_failed(self, error: Exception) -> None:
        self._end("failed", "crashed", f"{type(error).__name__}: {error}")

    def _journaled(self, body: EventBody, then: Callable[[], object]) -> None:
        """Journal what an agent that was away must find. Slices are journaled by their commit. Called from one thread at a time."""
        if body.type != "slice":
            self._spool.append(body.model_dump(mode="json"))
        then()

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._zero_ns

    def _begin_chronicle(self, launch: Launch) -> Chronicle | None:
        if not launch.settings.recording.timeline_file:
            return None
        return Chronicle(self._spool.notes, epoch=launch.epoch, zero_utc_ns=self._zero_utc_ns)

    def _note_figures(self) -> None:
        if self._chronicle:
            self._chronicle.measured(self._meters.read(), self._now_ns())

    def _begin_capture(self, launch: Launch) -> CaptureWriter | None:
        recording = launch.settings.recording
        if recording.capture_dir is None:
            return None
        return CaptureWriter(
            recording.capture_dir / f"{self._spec.sid}-{launch.epoch}",
            self._spec,
            zero_ns=self._zero_ns,
            zero_utc_ns=self._zero_utc_ns,
            jitter_ms=recording.jitter_ms,
            limit_bytes=recording.capture_megabytes << 20,
        )

    def _place(self) -> Place:
        replayed = self._settings.agent.replay
        return Place(
            connector="replay" if replayed else "hub",
            url=str(replayed) if replayed else self._settings.agent.hub_url,
            zero_ns=self._zero_ns,
            jitter_ms=self._settings.recording.jitter_ms,
            capture=self._capture,
            meters=self._meters,
            addresses=self._settings.agent.addresses,
        )


def _why_lost(error: ChannelError) -> Reason:
    match error:
        case Kicked():
            return "kicked"
        case TokenExpired():
            return "token_expired"
        case ChannelRefused():
            return "token"
        case _:
            return "channel"
