"""Individual recording: CPU of eight participants in 720p30, each written by itself with sound as AAC.

`/replay` is the pipeline alone on a capture, in this process; the other is a worker with its network path and all its duties.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from recorder.protocol import FileOpened
from recorder.spec import RecordingSpec
from recorder.tools.replay import replay
from tests.bench import Result
from tests.bench.composing import SMALL, Room
from tests.live import TestedWorker, hub, publisher, settings

NAME = "individual_8x720p30"
ROUNDS = 5
WARM_SECONDS = 3
MEASURED_SECONDS = 10
PEOPLE, WIDTH, HEIGHT, FPS, KBPS = 8, 1280, 720, 30, 1800
ROOM = Room(PEOPLE, SMALL, (WIDTH, HEIGHT, FPS), source_kbps=KBPS, seconds=8)
_FIRST_UID = 101


class BenchFailed(Exception):
    """What was recorded is not what the bench is about."""


def _spec(sid: str) -> RecordingSpec:
    return RecordingSpec(sid=sid, app_id="app", channel="room", uid=900, mode="individual")


async def _recorded() -> list[float]:
    """CPU seconds per second and participant, over the network of this machine."""
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        at = settings(Path(folder))
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(hub(at))
            video = ("--video", "h264", "--size", f"{WIDTH}x{HEIGHT}", "--fps", str(FPS), "--bitrate", str(KBPS))
            await stack.enter_async_context(publisher(url, _FIRST_UID, "--count", str(PEOPLE), *video))
            await asyncio.sleep(3)  # the others join
            for number in range(ROUNDS):
                async with TestedWorker(at, _spec(f"{number:032x}")).running() as worker:
                    await worker.until(partial(_all_opened, worker), 30)
                    await asyncio.sleep(WARM_SECONDS)
                    cpu, clock = worker.cpu_seconds(), time.monotonic()
                    await asyncio.sleep(MEASURED_SECONDS)
                    spent.append((worker.cpu_seconds() - cpu) / (time.monotonic() - clock) / PEOPLE)
                    await worker.stop()
    return spent


def _all_opened(worker: TestedWorker) -> bool:
    return sum(isinstance(report.body, FileOpened) for report in worker.reports) == 2 * PEOPLE


def _replayed() -> float:
    """The same of the pipeline alone.

    Raises:
        BenchFailed: not all was recorded.
    """
    capture = ROOM.capture()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        done = replay(capture, Path(folder) / "out", _spec("b" * 32))
        spent = time.process_time() - started
    if len(done.playlists()) != 2 * PEOPLE:
        raise BenchFailed(f"{len(done.playlists())} of {2 * PEOPLE} playlists were made")
    return spent / ROOM.seconds / PEOPLE


def individual() -> Iterable[Result]:
    unit = "CPU s per s and participant"
    yield Result(NAME, round(statistics.median(asyncio.run(_recorded())), 4), unit)
    yield Result(f"{NAME}/replay", round(statistics.median(_replayed() for _ in range(ROUNDS)), 4), unit)


BENCHES = {NAME: individual}
