"""A worker process records a real channel of the hub: real WebRTC, real processes, the agent played by the test."""

import asyncio
import contextlib
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.outputs.playlist import render
from recorder.protocol import Done, Faulted, FileOpened, Lease, Refused, SetLayout, Stop, Subscribe
from recorder.settings import Settings
from recorder.spec import Canvas, Layout, RecordingSpec, Subscription, UidRule
from recorder.tools import measure
from recorder.tools.content import tone_hz
from storage.spool import RecordingSpool
from tests.live import TestedWorker, hub, publisher, settings

SID = "c0ffee" * 5 + "00"


def _spec(mode: str, **changes: object) -> RecordingSpec:
    base = RecordingSpec.model_validate({"sid": SID, "app_id": "app", "channel": "room", "uid": 900, "mode": mode})
    canvas = Canvas(width=640, height=360, fps=30)
    return base.model_copy(update={"canvas": canvas, "layout": Layout(number=1), "max_idle_seconds": 5, **changes})


def _joined(worker: TestedWorker, playlist: str, folder: Path) -> Path:
    whole = folder / f"whole-{playlist}.ts"
    whole.write_bytes(b"".join((worker.folder / "files" / item.name).read_bytes() for item in worker.playlist(playlist)))
    return whole


Codecs = tuple[tuple[str, str], ...]  # video and audio of 101, 102, …
USUAL: Codecs = (("h264", "opus"), ("vp8", "opus"), ("none", "opus"))  # the third is only heard
OTHERS: Codecs = (("vp9", "pcmu"), ("av1", "pcma"), ("none", "g722"))


async def _three_people(stack: contextlib.AsyncExitStack, at: Settings, codecs: Codecs) -> None:
    """A hub that these people join in order."""
    url = await stack.enter_async_context(hub(at))
    for uid, (video, audio) in enumerate(codecs, 101):
        await stack.enter_async_context(publisher(url, uid, "--video", video, "--audio", audio))


@pytest.mark.parametrize("codecs", [USUAL, OTHERS])
async def test_composite_of_a_live_channel(tmp_path: Path, codecs: Codecs) -> None:
    at = settings(tmp_path, slice_seconds=4)
    async with contextlib.AsyncExitStack() as stack:
        await _three_people(stack, at, codecs)
        worker = await stack.enter_async_context(TestedWorker(at, _spec("mix", mp4=True)).running())
        await worker.until(lambda: any(isinstance(r.body, FileOpened) for r in worker.reports), 30)
        await asyncio.sleep(10)
        await worker.stop()
        assert worker.ended is not None
        assert worker.ended.reason == "stopped"
        assert worker.phases() == ["starting", "ready", "recording", "stopping"]
        name = f"{SID}_room.m3u8"
        whole = _joined(worker, name, tmp_path)
        assert measure.decode_errors([whole]) == []
        probe = measure.probe(whole)
        video = probe.stream("video")
        assert video is not None
        assert video.frames >= 0.97 * 30 * probe.duration
        offsets = {uid: measure.av_offsets(whole, tone_hz(uid), rect) for uid, rect in _tiles().items()}
        for uid in (101, 102):
            middle = sorted(abs(offset) for offset in offsets[uid])
            assert len(middle) >= 5, offsets
            assert middle[len(middle) // 2] <= 0.04, offsets
        assert len(measure.beep_onsets(whole, tone_hz(103))) >= 5
        assert "#EXT-X-ENDLIST" in render(worker.playlist(name), ended=True, correct_extinf=False)
        (mp4,) = [item for item in worker.slices if item.playlist is None]
        assert measure.decode_errors([worker.folder / "files" / mp4.name]) == []


def _tiles() -> dict[int, measure.Rect]:
    return {101: measure.Rect(0, 0, 320, 180), 102: measure.Rect(320, 0, 320, 180)}


@pytest.mark.parametrize("codecs", [USUAL, OTHERS])
async def test_individual_tracks_of_a_live_channel(tmp_path: Path, codecs: Codecs) -> None:
    at = settings(tmp_path, slice_seconds=4)
    async with contextlib.AsyncExitStack() as stack:
        await _three_people(stack, at, codecs)
        worker = await stack.enter_async_context(TestedWorker(at, _spec("individual")).running())
        await worker.until(lambda: sum(isinstance(r.body, FileOpened) for r in worker.reports) == 5, 30)
        await asyncio.sleep(9)
        await worker.stop()
        files = {r.body.file.name: r.body.file for r in worker.reports if isinstance(r.body, FileOpened)}
        stem = f"{SID}_room__uid_s"
        assert set(files) == {
            f"{stem}_{u}__uid_e_{k}.m3u8" for u, k in ((101, "audio"), (101, "video"), (102, "audio"), (102, "video"), (103, "audio"))
        }
        assert files[f"{stem}_101__uid_e_video.m3u8"].playable == (codecs is USUAL)
        assert not files[f"{stem}_102__uid_e_video.m3u8"].playable
        for playlist in files:
            slices = worker.playlist(playlist)
            assert len(slices) >= 2
            assert 7 < sum(item.duration_ns for item in slices) / 1e9 < 16
            for item in slices:
                assert measure.decode_errors([worker.folder / "files" / item.name]) == []
        for uid in (101, 102):
            slices = worker.playlist(f"{stem}_{uid}__uid_e_video.m3u8")
            shown = [measure.video_frames(worker.folder / "files" / item.name) for item in slices]
            counters = [measure.read_counter(measure.luma_of(frame)) for pictures in shown for _, frame in pictures]
            assert None not in counters
            assert len(counters) > 7 * 30
            assert all((b - a) % 240 == 1 for a, b in pairwise(counters) if a is not None and b is not None)


async def test_a_worker_ends_when_everybody_has_left(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        worker = await stack.enter_async_context(TestedWorker(at, _spec("mix")).running())
        async with publisher(url, 101):
            await worker.until(lambda: any(isinstance(r.body, FileOpened) for r in worker.reports), 30)
        await worker.until(lambda: worker.ended is not None, 20)
        assert worker.ended is not None
        assert (worker.ended.outcome, worker.ended.reason) == ("complete", "idle")
        assert worker.slices


async def test_commands_are_obeyed_until_the_end(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(hub(at))
        worker = await stack.enter_async_context(TestedWorker(at, _spec("mix", max_idle_seconds=60)).running())
        await worker.until(lambda: "ready" in worker.phases())
        assert isinstance(await worker.tell(Lease()), Done)
        assert isinstance(await worker.tell(SetLayout(sid=SID, layout=Layout(number=0))), Done)
        assert isinstance(await worker.tell(SetLayout(sid=SID, layout=Layout(number=9))), Refused)
        assert isinstance(await worker.tell(SetLayout(sid=SID, layout=Layout(background_color="red"))), Refused)
        assert isinstance(await worker.tell(Stop(sid=SID)), Done)
        assert isinstance(await worker.tell(Stop(sid=SID)), Refused)
        await worker.until(lambda: worker.ended is not None)
        assert worker.slices == []


async def test_a_worker_waits_for_the_one_before_it_to_let_go_of_the_files(tmp_path: Path) -> None:
    at = settings(tmp_path)
    writing = RecordingSpool(at.spool_dir / SID)
    assert writing.lock()
    async with TestedWorker(at, _spec("mix")).running() as worker:
        await asyncio.sleep(4)
        assert worker.reports == []
        writing.close()
        await worker.until(lambda: "starting" in worker.phases(), 5)


async def test_without_a_hub_the_recording_fails_with_a_reason(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with TestedWorker(at, _spec("mix")).running() as worker:
        await worker.until(lambda: worker.ended is not None, 30)
        assert worker.ended is not None
        assert (worker.ended.outcome, worker.ended.reason) == ("failed", "channel")


async def test_a_channel_that_is_away_is_an_error_and_no_end(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with TestedWorker(at, _spec("mix", max_idle_seconds=60)).running() as worker:
        async with hub(at):
            await worker.until(lambda: "ready" in worker.phases(), 30)
        await worker.until(lambda: any(isinstance(r.body, Faulted) for r in worker.reports), 15)
        async with hub(at):
            await asyncio.sleep(2)
            assert [(r.body.module, r.body.code, r.body.level) for r in worker.reports if isinstance(r.body, Faulted)] == [(0, 111, 4)]
            assert worker.ended is None
            await worker.stop()


async def test_who_is_wanted_may_change_while_joining(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        worker = await stack.enter_async_context(TestedWorker(at, _spec("individual", max_idle_seconds=60)).running())
        await worker.until(lambda: "starting" in worker.phases())
        assert await worker.tell(Subscribe(sid=SID, subscription=Subscription(video=UidRule(kind="none")))) == Done()
        url = await stack.enter_async_context(hub(at))
        await worker.until(lambda: "ready" in worker.phases(), 30)
        await stack.enter_async_context(publisher(url, 101))
        await worker.until(lambda: any(isinstance(r.body, FileOpened) for r in worker.reports), 30)
        await asyncio.sleep(2)
        await worker.stop()
        assert [r.body.file.track for r in worker.reports if isinstance(r.body, FileOpened)] == ["audio"]


async def test_a_stop_while_joining_is_obeyed_at_once(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with TestedWorker(at, _spec("mix")).running() as worker:  # no hub: joining is tried for ten seconds
        await worker.until(lambda: "starting" in worker.phases())
        await worker.tell(Stop(sid=SID))
        await worker.until(lambda: worker.ended is not None, 4)
        assert worker.ended is not None
        assert (worker.ended.outcome, worker.ended.reason) == ("complete", "stopped")
