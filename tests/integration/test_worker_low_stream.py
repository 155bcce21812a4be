"""Dual stream on the hub: a recorder that wants low streams gets those there are, and follows when they come and go."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from recorder.spec import RecordingSpec
from recorder.tools import measure
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library, VideoCodec
from tests.live import ROOT, TestedWorker, hub, settings

SID = "c0ffee" * 5 + "00"
HIGH, LOW = (320, 180), (160, 90)


def _spec(**changes: object) -> RecordingSpec:
    return RecordingSpec(sid=SID, app_id="app", channel="room", uid=900, mode="individual", max_idle_seconds=30).model_copy(update=changes)


@contextlib.asynccontextmanager
async def _person(
    url: str, uid: int, library: Library, *, low: tuple[int, int] | None, video: VideoCodec = "h264"
) -> AsyncIterator[Publisher]:
    person = Publisher(Publication(url, "app", "room", uid, video=video, width=HIGH[0], height=HIGH[1], fps=15, low=low), library)
    try:
        await person.start()
        yield person
    finally:
        await person.stop()


def _sizes(worker: TestedWorker, uid: int) -> list[tuple[int, int]]:
    """As the playlist tells them, and as the pictures are."""
    slices = worker.playlist(f"{SID}_room__uid_s_{uid}__uid_e_video.m3u8")
    told = [(int(w), int(h)) for item in slices for tag in item.tags for w, h in re.findall(r"WIDTH=(\d+),HEIGHT=(\d+)", tag)]
    for item in slices:
        probe = measure.probe(worker.folder / "files" / item.name).stream("video")
        assert probe
        assert (probe.width, probe.height) in told
    return told


@pytest.mark.parametrize("video", ["h264", "vp8"])
async def test_the_low_stream_is_recorded_when_it_is_wanted_and_there(tmp_path: Path, video: VideoCodec) -> None:
    library = Library(ROOT / "build" / "media")
    for low in (True, False):
        at = settings(tmp_path / str(low), slice_seconds=60)
        at.data_dir.mkdir()
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(hub(at))
            for uid, size in ((101, LOW), (102, None)):
                await stack.enter_async_context(_person(url, uid, library, low=size, video=video))
            worker = await stack.enter_async_context(TestedWorker(at, _spec(low_stream=low)).running())
            await worker.until(lambda worker=worker: "recording" in worker.phases(), 30)
            await asyncio.sleep(3)
            await worker.stop()
            assert _sizes(worker, 101) == [LOW if low else HIGH]
            assert _sizes(worker, 102) == [HIGH]  # who sends one stream gives that


async def test_the_recorder_follows_a_low_stream_that_ends_and_comes_back(tmp_path: Path) -> None:
    at = settings(tmp_path, slice_seconds=60)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        person = await stack.enter_async_context(_person(url, 101, Library(ROOT / "build" / "media"), low=LOW))
        worker = await stack.enter_async_context(TestedWorker(at, _spec(low_stream=True)).running())
        await worker.until(lambda: "recording" in worker.phases(), 30)
        await asyncio.sleep(2)
        assert person.low_video
        person.low_video.muted = True
        await asyncio.sleep(6)  # it counts as gone after three seconds
        person.low_video.muted = False
        await asyncio.sleep(4)
        await worker.stop()
        assert _sizes(worker, 101) == [LOW, HIGH, LOW]
        sound = worker.playlist(f"{SID}_room__uid_s_101__uid_e_audio.m3u8")
        assert len(sound) == 1  # whose sound goes on meanwhile
        assert sound[0].duration_ns / 1e9 > 11


async def test_the_hub_knows_two_qualities(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with hub(at) as url, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/whep/app/room/101?video=medium", content="v=0", headers={"Content-Type": "application/sdp"})
        assert (answer.status_code, answer.json()) == (400, {"reason": "video must be high or low"})
