"""A recording with screenshots and one of the whole channel, through the HTTP API; people mute, leave and return, workers are killed.

What is in the bucket is judged: the pictures, and whether the timeline files say of the media what ffprobe finds in it.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from recorder.outputs import GAP_NS
from recorder.outputs.timeline_file import Media, Timeline
from recorder.tools.api_client import RunningRecording, folder_storage
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.e2e import requests
from tests.e2e.playlist import entries
from tests.e2e.test_process_death import Serve, answering
from tests.live import ROOT, publisher
from tests.packet_gaps import frame_times, gaps
from tests.shots import counter, pixels, psnr, sent

FRAME = 1 / 30


def _timeline(serve: Serve, recording: RunningRecording, bucket: Path) -> Timeline:
    (row,) = [row for row in serve.slices(recording.sid) if row[0].endswith("_timeline.json")]
    assert row[0] == f"{recording.sid}_room_timeline.json"
    return Timeline.model_validate_json((bucket / row[0]).read_bytes())


def _frame_times(serve: Serve, sid: str, media: Media, timeline: Timeline, bucket: Path) -> list[float]:
    """What is in the files, on the axis of the timeline file."""
    zeros = {worker.epoch: worker.zero_ms / 1000 for worker in timeline.workers}
    kind = "audio" if media.track == "audio" else "video"
    times = []
    for name, epoch, start_ns in serve.rows("SELECT name, epoch, start_ns FROM slices WHERE sid = ? AND playlist = ?", sid, media.file):
        times += [zeros[epoch] + time for time in frame_times(bucket / name, kind, start_ns=start_ns)]
    return times


def _says_what_is_there(serve: Serve, recording: RunningRecording, timeline: Timeline, bucket: Path) -> None:
    assert timeline.media
    for media in timeline.media:
        said = [(gap.from_ms / 1000, gap.to_ms / 1000) for gap in media.gaps]
        times = _frame_times(serve, recording.sid, media, timeline, bucket)
        longer, shorter = (gaps(times, longer_than=GAP_NS / 1e9 + difference) for difference in (FRAME, -FRAME))
        assert len(longer) <= len(said) <= len(shorter), (media, shorter)
        for gap in said:
            assert any(gap == pytest.approx(found, abs=FRAME) for found in shorter), (media, shorter)


async def test_pictures_and_timelines_survive_a_killed_worker(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "data")
    buckets = {mode: serve.data / "recordings" / mode for mode in ("mix", "individual")}
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serve.running())
        client = await stack.enter_async_context(serve.client())
        app = serve.credentials.app_id
        wanted = Publication(serve.hub, app, "room", 101, video="h264", bitrate_kbps=1500)
        first = Publisher(wanted, Library(ROOT / "build" / "media"))
        stack.push_async_callback(first.stop)
        await first.start()
        body = requests.individual(folder_storage("individual")) | {"snapshotConfig": {"captureInterval": 1, "fileType": ["jpg"]}}
        alone = await client.start("room", 902, "individual", body)
        mix = await client.start("room", 901, "mix", requests.mix(folder_storage("mix"), mp4=False))
        async with publisher(serve.hub, 102, app=app):
            await asyncio.sleep(3)
        await first.mute(video=True)
        await asyncio.sleep(2.5)
        await first.mute(video=False)
        async with publisher(serve.hub, 102, app=app):
            await asyncio.sleep(3)
            for recording in (alone, mix):
                os.kill(serve.worker(recording.sid), signal.SIGKILL)
            await asyncio.sleep(5)
            assert [await answering(recording) for recording in (alone, mix)] == [5, 5]
            assert (await alone.query()).keys() == {"status", "sliceStartTime"}
            assert await alone.stop() == {"uploadingStatus": "uploaded"}
            listed = {"fileListMode": "string", "fileList": f"{mix.sid}_room.m3u8"}
            assert await mix.stop() == listed | {"uploadingStatus": "uploaded"}
        for recording, mode in ((alone, "individual"), (mix, "mix")):
            serve.lies_complete(recording.sid, buckets[mode])
            named = {path.name for playlist in buckets[mode].glob("*.m3u8") for path in (playlist, *entries(playlist))}
            beside = {path.name for path in buckets[mode].iterdir()} - named
            assert {Path(name).suffix for name in beside} == ({".jpg", ".json"} if mode == "individual" else {".json"})
        await serve.spool_is_empty()

    timelines = {}
    for recording, mode in ((alone, "individual"), (mix, "mix")):
        timeline = timelines[recording.sid] = _timeline(serve, recording, buckets[mode])
        _says_what_is_there(serve, recording, timeline, buckets[mode])
        assert [worker.epoch for worker in timeline.workers] == [1, 2]
        happened = Counter((event.type, event.uid, event.kind) for event in timeline.events)
        assert happened["left", 102, None] == 1  # before the kill
        assert happened["joined", 102, None] == 3  # the second worker met him too
        assert happened["stopped", 101, "video"] == 1
        assert {(track.uid, track.kind, track.epoch) for track in timeline.tracks} >= {(uid, "video", 2) for uid in (101, 102)}
        for track in timeline.tracks:
            assert track.packets_received > 100
            assert track.packets_lost == 0
        offsets = [track.av_offset_ms for track in timeline.tracks if track.av_offset_ms is not None]
        assert offsets
        assert max(map(abs, offsets)) < 40
    causes = {(one.uid, one.track): Counter(gap.cause for gap in one.gaps) for one in timelines[alone.sid].media}
    for uid in (101, 102):
        assert causes[uid, "video"]["stopped"] == 1
        assert causes[uid, "video"].total() == 1 + causes[uid, "video"]["worker_lost"] <= 2
    (whole,) = timelines[mix.sid].media
    assert {gap.cause for gap in whole.gaps} <= {"worker_lost"}

    shots = sorted(buckets["individual"].glob(f"{alone.sid}_room__uid_s_101__uid_e_video_*.jpg"))
    assert 6 <= len(shots) <= 15
    for shot in shots:
        picture = pixels(shot)
        number = counter(picture)
        assert number is not None
        assert psnr(picture, sent(wanted.style, number)) > 33
    stored = serve.rows("SELECT COUNT(*) FROM slices WHERE sid = ? AND name LIKE '%.jpg' AND stored = 'customer'", alone.sid)
    assert stored == [(len(list(buckets["individual"].glob("*.jpg"))),)]
