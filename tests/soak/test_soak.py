"""One composite recording while publishers join, mute and leave two hundred times, and then while nine stay.

`SOAK_CYCLES` (200) and `SOAK_MINUTES` (30) shorten it; what was measured is in build/soak.json.
"""

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from recorder.protocol import FileOpened, Slice
from recorder.rtp.negotiation import use_addresses
from recorder.settings import Settings
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from recorder.tools.publish import Publication, Publisher, local_addresses
from recorder.tools.publish_media import Library
from tests.live import ROOT, TestedWorker, hub, publisher, settings
from tests.soak.footprint import Footprint, footprint

CYCLES = int(os.environ.get("SOAK_CYCLES", "200"))
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
WARM_CYCLES = 150  # the allocators of a process that opens and closes connections need about so many to find their size
WARM_SECONDS = 60
LANES = 3  # cycles at the same time
GROWTH_LIMIT_MB = 10
IDLE_CONNECTIONS = LANES  # that the worker's pool may hold to the hub: none to as many as were in use at once
LENGTH_TOLERANCE_SECONDS = 0.3
SAMPLE_SECONDS = 5
STEADY_PEOPLE = 9
_HOST = 101  # stays all the time, so that there is always something to record
_SID = "50a4" * 8
_REPORT = ROOT / "build" / "soak.json"

pytestmark = pytest.mark.timeout((WARM_CYCLES + CYCLES) * 5 + MINUTES * 60 + 300)


class _Watched:
    """The footprints of the worker and of the hub over time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self.samples: list[tuple[float, dict[str, Footprint]]] = []
        self._zero = time.monotonic()

    def sample(self) -> dict[str, Footprint]:
        found = {name: footprint(pid) for name, pid in self._pids.items()}
        self.samples.append((round(time.monotonic() - self._zero, 1), found))
        return found

    async def sample_for(self, seconds: float) -> dict[str, Footprint]:
        """Sample until the time is over; returns the last one."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(SAMPLE_SECONDS, max(0.0, end - time.monotonic())))
            self.sample()
        return self.sample()

    def report(self) -> list[dict[str, object]]:
        return [{"seconds": at} | {name: asdict(one) for name, one in found.items()} for at, found in self.samples]


def _spec() -> RecordingSpec:
    canvas = Canvas(width=640, height=360, fps=15)
    return RecordingSpec(
        sid=_SID, app_id="app", channel="room", uid=900, mode="mix", canvas=canvas, layout=Layout(number=1), max_idle_seconds=60
    )


@contextlib.asynccontextmanager
async def _recording(folder: Path) -> AsyncIterator[tuple[str, TestedWorker, _Watched]]:
    at: Settings = settings(folder)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        await stack.enter_async_context(publisher(url, _HOST, "--video", "vp8", "--fps", "15"))
        worker = await stack.enter_async_context(TestedWorker(at, _spec()).running())
        await worker.until(lambda: any(isinstance(report.body, FileOpened) for report in worker.reports), 30)
        assert worker.process
        yield url, worker, _Watched({"worker": worker.process.pid, "hub": _listener_pid(at.hub.port)})


def _listener_pid(port: int) -> int:
    """The process that listens on this TCP port of loopback."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [fields[9] for fields in lines if fields[1] == wanted and fields[3] == "0A"]
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                return int(process.name)
    raise LookupError(port)


async def _cycle(url: str, uid: int, library: Library) -> None:
    """Join, be seen, mute, come back, leave."""
    publication = Publication(url, "app", "room", uid, video="vp8", fps=15, bitrate_kbps=300, own_content=False)
    person = Publisher(publication, library)
    await person.start()
    try:
        await asyncio.sleep(0.6)
        await person.mute(audio=True, video=True)
        await asyncio.sleep(0.3)
        await person.mute(audio=False, video=False)
        await asyncio.sleep(0.3)
    finally:
        await person.stop()


async def _cycles(uids: range, url: str, library: Library, watched: _Watched) -> None:
    """One cycle for each uid: what is kept for one who left would be kept two hundred times."""
    to_come = iter(uids)

    async def lane() -> None:
        for uid in to_come:
            await _cycle(url, uid, library)
            watched.sample()

    async with asyncio.TaskGroup() as group:
        for _ in range(LANES):
            group.create_task(lane())
    await asyncio.sleep(8)  # what follows the last one who left: sessions end, tiles go


def _check_growth(before: dict[str, Footprint], after: dict[str, Footprint]) -> None:
    for name, then in before.items():
        now = after[name]
        assert now.rss_mb - then.rss_mb < GROWTH_LIMIT_MB, f"{name} grew from {then.rss_mb} to {now.rss_mb} MB"
        more = now.descriptors - then.descriptors
        assert more <= IDLE_CONNECTIONS, f"{name} holds {now.descriptors} descriptors, before {then.descriptors}"
        assert now.threads <= then.threads, f"{name} has {now.threads} threads, before {then.threads}"


def _check_length(slices: list[Slice], stopped: float, folder: Path) -> dict[str, float]:
    """The recording lasts exactly from its first picture to the request to stop, and has no hole."""
    for earlier, later in itertools.pairwise(slices):
        assert abs(earlier.start_ns + earlier.duration_ns - later.start_ns) < 1_000_000
    expected = stopped - slices[0].start_ms / 1000
    length = sum(item.duration_ns for item in slices) / 1e9
    whole = folder / "whole.ts"
    with whole.open("wb") as file:
        for item in slices:
            file.write((folder / "spool" / _SID / "files" / item.name).read_bytes())
    found = measure.probe(whole)
    assert abs(length - expected) < LENGTH_TOLERANCE_SECONDS, (length, expected)
    assert abs(found.duration - expected) < LENGTH_TOLERANCE_SECONDS, (found.duration, expected)
    return {"expected_seconds": round(expected, 3), "seconds": round(length, 3), "played_seconds": round(found.duration, 3)}


def _save(part: str, figures: dict[str, object]) -> None:
    """Each part keeps the figures of the others."""
    _REPORT.parent.mkdir(exist_ok=True)
    known = json.loads(_REPORT.read_text()) if _REPORT.is_file() else {}
    _REPORT.write_text(json.dumps(known | {part: figures}, indent=1) + "\n")


async def test_people_who_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    library = Library(ROOT / "build" / "media")
    async with _recording(tmp_path) as (url, worker, watched):
        use_addresses(local_addresses(url))
        await _cycles(range(1000, 1000 + WARM_CYCLES), url, library, watched)
        before = watched.sample()
        await _cycles(range(2000, 2000 + CYCLES), url, library, watched)
        after = watched.sample()
        stopped = time.time()
        await worker.stop()
        figures: dict[str, object] = {"cycles": CYCLES, "before": _named(before), "after": _named(after), "samples": watched.report()}
        _save("cycles", figures)
        length = _check_length(worker.playlist(f"{_SID}_room.m3u8"), stopped, tmp_path)
        _save("cycles", figures | {"length": length})
        _check_growth(before, after)


async def test_nine_who_stay_need_no_more_with_time(tmp_path: Path) -> None:
    async with _recording(tmp_path) as (url, worker, watched):
        others = ("--count", str(STEADY_PEOPLE - 1), "--video", "vp8", "--fps", "15", "--bitrate", "500")
        async with publisher(url, 201, *others):
            before = await watched.sample_for(WARM_SECONDS)
            after = await watched.sample_for(MINUTES * 60)
            stopped = time.time()
            await worker.stop()
        figures: dict[str, object] = {"minutes": MINUTES, "before": _named(before), "after": _named(after), "samples": watched.report()}
        _save("steady", figures)
        length = _check_length(worker.playlist(f"{_SID}_room.m3u8"), stopped, tmp_path)
        _save("steady", figures | {"length": length})
        _check_growth(before, after)


def _named(found: dict[str, Footprint]) -> dict[str, object]:
    return {name: asdict(one) for name, one in found.items()}
