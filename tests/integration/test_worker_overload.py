"""A worker that gets too little CPU makes fewer pictures, says so, keeps every sample of sound, and recovers."""

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.protocol import FileOpened, Warned
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from tests.live import TestedWorker, hub, publisher, settings
from tests.viewer import silences

pytestmark = pytest.mark.alone

FPS = 30
BURN_SECONDS = 10
RIVALS = 19


def _burn(cpu: int) -> None:
    os.setsid()  # Linux shares a CPU among sessions first: together they would count as one
    os.sched_setaffinity(0, {cpu})
    while os.getppid() == PARENT:
        sum(range(10_000))


PARENT = os.getpid()


@contextlib.asynccontextmanager
async def starved(pid: int) -> AsyncIterator[None]:
    """The process and RIVALS that never wait share one CPU."""
    cpu = max(os.sched_getaffinity(0))
    _move(pid, {cpu})
    rivals = [multiprocessing.get_context("fork").Process(target=_burn, args=(cpu,), daemon=True) for _ in range(RIVALS)]
    for rival in rivals:
        rival.start()
    try:
        yield
    finally:
        for rival in rivals:
            rival.kill()
            rival.join()
        _move(pid, os.sched_getaffinity(0))


def _move(pid: int, cpus: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def _recovered(worker: TestedWorker) -> bool:
    """Pictures were left out of some slice, and none of the newest."""
    full = []
    for item in worker.slices:
        video = measure.probe(worker.folder / "files" / item.name).stream("video")
        full.append(video is not None and video.frames >= item.duration_ns * FPS // 10**9)
    return not all(full) and full[-1]


@pytest.mark.timeout(240)
async def test_pictures_give_way_and_sound_does_not(tmp_path: Path) -> None:
    at = settings(tmp_path, slice_seconds=5)
    spec = RecordingSpec(
        sid="b" * 32,
        app_id="app",
        channel="room",
        uid=900,
        mode="mix",
        canvas=Canvas(width=640, height=360, fps=FPS, bitrate_kbps=1000),
        layout=Layout(number=1),
    )
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        await stack.enter_async_context(publisher(url, 101, "--video", "h264", "--fps", str(FPS)))
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: any(isinstance(report.body, FileOpened) for report in worker.reports), 30)
        await asyncio.sleep(4)
        assert worker.process
        async with starved(worker.process.pid):
            await asyncio.sleep(BURN_SECONDS)
        await worker.until(lambda: _recovered(worker), 120)
        await worker.stop()
        whole = tmp_path / "whole.ts"
        whole.write_bytes(b"".join((worker.folder / "files" / item.name).read_bytes() for item in worker.slices))
    warned = [report.body for report in worker.reports if isinstance(report.body, Warned)]
    assert [(warning.module, warning.code) for warning in warned[:1]] == [(0, 10006)]
    times = [time for time, _ in measure.video_frames(whole)]
    steps = [round((b - a) * FPS) for a, b in pairwise(times)]
    assert max(abs((b - a) * FPS - step) for (a, b), step in zip(pairwise(times), steps, strict=True)) < 0.01  # all on the grid
    assert set(steps[:FPS]) == {1}
    assert {2, 4} & set(steps)
    degraded = next(number for number, step in enumerate(steps) if step != 1)
    assert [1] * 4 * FPS in (steps[at : at + 4 * FPS] for at in range(degraded, len(steps)))  # whatever else this machine did meanwhile
    length = sum(item.duration_ns for item in worker.slices) / 1e9
    probe = measure.probe(whole)
    video, audio = probe.stream("video"), probe.stream("audio")
    assert video
    assert audio
    assert abs(video.duration - length) < 0.1
    assert abs(audio.duration - length) < 0.1
    assert silences(whole) == ()
    beeps = measure.beep_onsets(whole, tone_hz(101))
    assert len(beeps) >= int(length) - 1
    assert max(abs(b - a - 1) for a, b in pairwise(beeps)) < 0.02  # no gap, no shift
    offsets = measure.av_offsets(whole, tone_hz(101))
    assert len(offsets) >= 5  # few pictures a second miss most flashes
    assert max(abs(offset) for offset in offsets[-3:]) < 0.067
