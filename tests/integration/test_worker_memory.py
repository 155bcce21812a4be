"""The memory of a worker that records nine people, before an image as large as the canvas."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from recorder.protocol import IMAGES_FOLDER, Done, ImageReady
from recorder.spec import Canvas, Layout, RecordingSpec
from tests.live import TestedWorker, hub, publisher, settings

LIMIT_MB = 250
PEOPLE = 9


@pytest.mark.timeout(240)
async def test_nine_people_fit_into_a_quarter_of_a_gigabyte(tmp_path: Path) -> None:
    at = settings(tmp_path, slice_seconds=4, mp4_part_seconds=8)  # parts are closed while it records
    canvas = Canvas(width=1280, height=720, fps=30, bitrate_kbps=1800)
    layout = Layout(number=1, background_image="u", default_user_background_image="u")
    spec = RecordingSpec(sid="b" * 32, app_id="app", channel="room", uid=900, mode="mix", canvas=canvas, layout=layout, mp4=True)
    peak_mb = 0
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        await stack.enter_async_context(publisher(url, 101, "--count", str(PEOPLE), "--video", "vp8", "--fps", "15"))
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: "ready" in worker.phases(), 30)
        (worker.folder / IMAGES_FOLDER).mkdir()
        size = canvas.width * canvas.height * 3 // 2
        (worker.folder / IMAGES_FOLDER / "0").write_bytes(bytes(size))
        assert await worker.tell(ImageReady(url="u", file="0", width=canvas.width, height=canvas.height)) == Done()
        log = tmp_path / "hub.log"
        everybody = {str(uid) for uid in range(101, 101 + PEOPLE)}
        await worker.until(lambda: everybody <= set(re.findall(r"participant joined channel=room uid=(\d+)", log.read_text())), 90)
        before = len(worker.slices)
        await worker.until(lambda: len(worker.slices) >= before + 3, 60)
        assert worker.process
        stopping = asyncio.create_task(worker.stop())
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.process.pid}/status").read_text()):
                peak_mb = int(found[1]) // 1024
                await asyncio.sleep(0.02)
        await stopping
    assert 50 < peak_mb <= LIMIT_MB
