"""Screenshots of a real channel by a real worker: real WebRTC, the agent played by the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

from recorder.protocol import Slice
from recorder.spec import RecordingSpec, Snapshots
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.live import ROOT, TestedWorker, hub, settings
from tests.shots import counter, pixels, psnr, sent

SID = "c0ffee" * 5 + "00"


def _shots(worker: TestedWorker, uid: int) -> list[Slice]:
    return [item for item in worker.slices if item.content == "snapshot" and f"__uid_s_{uid}__uid_e_video_" in item.name]


@contextlib.asynccontextmanager
async def _publishing(wanted: Publication) -> AsyncIterator[Publisher]:
    person = Publisher(wanted, Library(ROOT / "build" / "media"))
    try:
        await person.start()
        yield person
    finally:
        await person.stop()


async def test_sharp_pictures_of_each_but_not_while_muted(tmp_path: Path) -> None:
    at = settings(tmp_path, slice_seconds=4)
    spec = RecordingSpec(
        sid=SID, app_id="app", channel="room", uid=900, mode="individual", files=False, snapshots=Snapshots(interval_seconds=1)
    )
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        people = [
            Publication(url, "app", "room", 101, video="h264", bitrate_kbps=1500),
            Publication(url, "app", "room", 102, video="vp8", width=320, height=180, bitrate_kbps=800),
        ]
        first, _ = [await stack.enter_async_context(_publishing(person)) for person in people]
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: len(_shots(worker, 101)) >= 3)
        await first.mute(video=True)
        before = len(_shots(worker, 102))
        await worker.until(lambda: len(_shots(worker, 102)) >= before + 4)
        await first.mute(video=False)
        seen = len(_shots(worker, 101))
        await worker.until(lambda: len(_shots(worker, 101)) >= seen + 2)
        await asyncio.sleep(0.2)
        await worker.stop()
        assert worker.phases() == ["starting", "ready", "recording", "stopping"]
        assert {item.content for item in worker.slices} == {"snapshot"}
        times = {uid: [item.start_ns / 1e9 for item in _shots(worker, uid)] for uid in (101, 102)}
        seconds = [round(time) for time in times[102]]
        assert len(seconds) == len(set(seconds))  # one each second; a busy machine may leave one out
        assert len(seconds) >= seconds[-1] - seconds[0]
        ages = [second - time for second, time in zip(seconds, times[102], strict=True)]  # of the last frame before the second
        assert min(ages) >= 0
        assert median(ages) < 0.1
        missing = set(seconds) - {round(time) for time in times[101]}
        assert 2 <= len([second for second in missing if seconds[0] + 2 < second < seconds[-1]]) <= 5, times
        for person in people:
            for item in _shots(worker, person.uid):
                picture = pixels(worker.folder / "files" / item.name)
                assert picture.shape == (person.height, person.width, 3)
                number = counter(picture)
                assert number is not None
                assert psnr(picture, sent(person.style, number)) > 33
