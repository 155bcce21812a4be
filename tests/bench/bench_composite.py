"""Composite recording: CPU of one recording against the codecs' own share of it, and against the ffmpeg command.

From a capture it is the pipeline alone, in this process; `/loopback` is a worker with its network path and all its duties.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from recorder.protocol import FileOpened
from recorder.spec import Canvas
from tests.bench import Result
from tests.bench.composing import FIRST_UID, SMALL, Room
from tests.bench.composing.command import Ffmpeg
from tests.bench.composing.floor import Floor
from tests.bench.composing.ours import replayed
from tests.live import TestedWorker, hub, publisher, settings

ROUNDS = 5
WARM_SECONDS = 3
MEASURED_SECONDS = 10

LARGE = Canvas(width=1280, height=720, fps=30, bitrate_kbps=1800)
HUGE = Canvas(width=1920, height=1080, fps=30, bitrate_kbps=3000)
ROOMS = {
    "composite_9x360p15_640x360p15": Room(9, SMALL),
    "composite_9x360p15_1280x720p30": Room(9, LARGE),
    "composite_17x360p15_1280x720p30": Room(17, LARGE),
    "composite_4x720p30_1920x1080p30": Room(4, HUGE, (1280, 720, 30), source_kbps=1800, seconds=8),
    "audio_only_17": Room(17, SMALL, None),
}
WITH_PEERS = ("composite_9x360p15_640x360p15", "composite_9x360p15_1280x720p30")


def _compared(name: str, ours: list[float], theirs: list[float], peer: str) -> Result:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return Result(name, round(statistics.median(ours), 1), "CPU ms per s", f"{peer} {statistics.median(theirs):.1f}", round(ratio, 3))


def replay(name: str, *, rounds: int = ROUNDS) -> Iterable[Result]:
    """The pipeline alone, in turn with the codecs and the ffmpeg command."""
    room = ROOMS[name]
    floor = Floor(room)
    ffmpeg = Ffmpeg(room) if name in WITH_PEERS else None
    ours, floors, others, mixing = [], [], [], []
    for _ in range(rounds):
        recorded = replayed(room)
        ours.append(recorded.all)
        mixing.append(100 * recorded.mixing / recorded.all)
        floors.append(floor.milliseconds_per_second())
        if ffmpeg:
            others.append(ffmpeg.milliseconds_per_second())
    yield _compared(name, ours, floors, "codec floor")
    yield Result(f"{name}/mixing", round(statistics.median(mixing), 1), "% of it")
    if ffmpeg:
        yield _compared(f"{name}/ffmpeg", ours, others, f"ffmpeg {ffmpeg.version()}")


async def _recorded(room: Room, floor: Floor, rounds: int) -> tuple[list[float], list[float]]:
    """CPU in ms per second of one recording over the network of this machine, and of the floor, in turn."""
    ours, floors = [], []
    with tempfile.TemporaryDirectory() as folder:
        at = settings(Path(folder))
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(hub(at))
            video = ["none"]
            if room.source:
                video = ["vp8", "--fps", str(room.source[2]), "--bitrate", str(room.source_kbps)]
            await stack.enter_async_context(publisher(url, FIRST_UID, "--count", str(room.people), "--video", *video))
            await asyncio.sleep(3)  # the others join
            for number in range(rounds):
                async with TestedWorker(at, room.spec(f"{number:032x}")).running() as worker:
                    await worker.until(lambda worker=worker: any(isinstance(r.body, FileOpened) for r in worker.reports), 30)
                    await asyncio.sleep(WARM_SECONDS)
                    cpu, clock = worker.cpu_seconds(), time.monotonic()
                    await asyncio.sleep(MEASURED_SECONDS)
                    ours.append((worker.cpu_seconds() - cpu) * 1000 / (time.monotonic() - clock))
                    await worker.stop()
                floors.append(floor.milliseconds_per_second())
    return ours, floors


def loopback(name: str, *, rounds: int = ROUNDS) -> Iterable[Result]:
    """A worker in a room of real publishers."""
    room = ROOMS[name]
    floor = Floor(room)  # before there is an event loop: making a capture needs one of its own
    ours, floors = asyncio.run(_recorded(room, floor, rounds))
    yield _compared(name if name == "audio_only_17" else f"{name}/loopback", ours, floors, "codec floor")


def _with_loopback(name: str) -> Iterable[Result]:
    yield from replay(name)
    yield from loopback(name)


def audio_only_17() -> Iterable[Result]:
    yield from loopback("audio_only_17")
    for result in replay("audio_only_17"):
        yield result if "/" in result.name else replace(result, name=f"{result.name}/replay")


BENCHES = {name: partial(_with_loopback if name in WITH_PEERS else replay, name) for name in ROOMS} | {"audio_only_17": audio_only_17}
