"""Scripted worker processes for tests of the agent: real processes and sockets, no media.

The channel's name is the script. `slices` commits a slice every SLICE_SECONDS until it is told to stop; further words
change how it behaves.
"""

import asyncio
import contextlib
import os
import signal
import time

from recorder.outputs import FRAGMENTS, Draft, Shelf
from recorder.outputs.names import Names
from recorder.protocol import (
    Done,
    Ended,
    File,
    FileOpened,
    ImageReady,
    Lease,
    Message,
    PhaseChanged,
    Refused,
    SetLayout,
    Slice,
    SliceCommitted,
    Stop,
    Subscribe,
)
from recorder.spec import RecordingSpec
from recorder.worker.agent_link import AgentLink, hello
from recorder.worker.chronicle import Chronicle
from recorder.worker.launch import Launch
from recorder.worker.pipeline import Joined
from storage.spool import RecordingSpool

SLICE_SECONDS = 0.1
SLICE_BYTES = 20_000
LARGE_BYTES = 65 << 20  # goes up in parts


def run(launch: Launch) -> None:
    script = set(RecordingSpec.model_validate_json(launch.spec_json).channel.split("-"))
    if "stillborn" in script:
        os._exit(3)
    if launch.task == "salvage":
        return  # in vain: what it finishes when it can, tests of the whole service see
    if "late" in script:
        time.sleep(1.5)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Worker(launch, script).run())


class _Worker:
    def __init__(self, launch: Launch, script: set[str]) -> None:
        self._script = script
        self._spec = RecordingSpec.model_validate_json(launch.spec_json)
        assert self._spec.storage is None, "a worker must not know the bucket"
        self._epoch = launch.epoch
        with (launch.folder / "layouts").open("a") as file:
            file.write(f"{self._spec.layout.number}\n")
        self._spool = RecordingSpool(launch.folder, self._spec.seal())
        self._stop = asyncio.Event()
        self._reason = "stopped"
        self._sequence = 0
        self._link = AgentLink(
            launch.settings.agent_socket,
            hello(self._spec.sid, launch.epoch),
            lease_seconds=launch.settings.recording.lease_seconds,
            on_command=self._obey,
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        if "deaf" in self._script:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            loop.add_signal_handler(signal.SIGTERM, self._end, "shutdown")
        line = asyncio.create_task(self._link.run())
        self._link.report(PhaseChanged(phase="recording"))
        await self._record()
        outcome = "complete" if self._stop.is_set() else "interrupted"
        ended = Ended(outcome=outcome, reason=self._reason if self._stop.is_set() else "shutdown")
        self._spool.append(ended.model_dump(mode="json"))
        if "wordless" not in self._script:
            self._link.report(ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._link.delivered()
        line.cancel()

    async def _record(self) -> None:
        if "silent" in self._script:
            await asyncio.sleep(0.5)
            time.sleep(60)  # holds the event loop as a native hang would
        if "empty" in self._script:
            await self._stop.wait()
            return
        playlist = f"{self._spec.sid}_{self._spec.channel}.m3u8"
        file = File(name=playlist, track="audio_and_video", uid=0, mixed=True, playable=True, start_ms=_now_ms())
        opened = FileOpened(file=file)
        self._spool.append(opened.model_dump(mode="json"))
        self._link.report(opened)
        if "unfinished" in self._script:
            shelf = Shelf(self._spool, Names(self._spec.sid, self._spec.channel), epoch=self._epoch, epoch_utc_ns=time.time_ns())
            part = shelf.open(Draft(shelf.names.mp4(0), None, 0, _now_ms()))
            part.with_name(f"{part.name}{FRAGMENTS}").write_bytes(os.urandom(SLICE_BYTES))
        if "noted" in self._script:
            chronicle = Chronicle(self._spool.notes, epoch=self._epoch, zero_utc_ns=time.time_ns())
            chronicle.observe(Joined(100 + self._epoch), 0)
        if "jpg" in self._script:
            self._commit(f"{self._spec.sid}_{self._spec.channel}_{self._epoch}.jpg", None, "snapshot")
        if "mp4" in self._script:
            self._commit(f"{self._spec.sid}_{self._spec.channel}_{self._epoch}.mp4", None)
        if "large" in self._script:
            self._commit(f"{self._spec.sid}_{self._spec.channel}_{self._epoch}.mp4", None, size=LARGE_BYTES)
        while not self._stop.is_set() and self._link.lease_left > 0:
            self._commit(f"{self._spec.sid}_{self._spec.channel}_{self._epoch:02}{self._sequence:06}.ts", playlist)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLICE_SECONDS):
                    await self._stop.wait()

    def _commit(self, name: str, playlist: str | None, content: str = "media", size: int = SLICE_BYTES) -> None:
        self._spool.partial(name).write_bytes(os.urandom(size))
        record = {
            "type": "slice",
            "playlist": playlist,
            "content": content,
            "epoch": self._epoch,
            "sequence": self._sequence,
            "start_ms": _now_ms(),
            "start_ns": self._sequence * 10**9,
            "duration_ns": 10**9,
        }
        full = self._spool.commit(name, record)
        self._sequence += 1
        if "untold" in self._script and self._sequence > 3:
            os.kill(os.getpid(), signal.SIGKILL)  # committed, never reported
        self._link.report(SliceCommitted(slice=Slice.model_validate(full)))

    def _end(self, reason: str) -> None:
        self._reason = reason
        self._stop.set()

    async def _obey(self, command: Message) -> Message:
        match command:
            case Stop(reason=reason):
                if "deaf" not in self._script:
                    self._end(reason)
                return Done()
            case Subscribe() | SetLayout() | ImageReady():
                folder = self._spool.folder
                with (folder / "commands").open("a") as file:
                    file.write(f"{command.type}\n")
                return Done()
            case Lease():
                return Done()
        return Refused(reason="bad_request")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
