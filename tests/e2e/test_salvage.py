"""A worker is killed with its files open: what was in them is in the bucket, up to the last two seconds."""

import asyncio
import os
import signal
import time
from pathlib import Path

from recorder.tools import measure
from recorder.tools.api_client import folder_storage
from tests.e2e import requests
from tests.e2e.playlist import entries
from tests.e2e.test_process_death import Serve, answering
from tests.live import publisher

LOST_SECONDS = 2.0


def spans(serve: Serve, sid: str, suffix: str) -> list[tuple[int, float, float]]:
    """Epoch, start and end (Unix seconds) of the committed files of a kind, in order of time."""
    rows = serve.rows("SELECT epoch, start_ms, duration_ns FROM slices WHERE sid = ? AND name LIKE ? ORDER BY start_ms", sid, f"%{suffix}")
    return [(epoch, start / 1000, start / 1000 + duration / 1e9) for epoch, start, duration in rows]


def total(spanned: list[tuple[int, float, float]]) -> float:
    return sum(end - start for _, start, end in spanned)


def parts_are_complete(bucket: Path, sid: str, count: int) -> float:
    """Every MP4 has its index in front and decodes; returns how long they are together, as a player sees it."""
    parts = [bucket / f"{sid}_room_{index}.mp4" for index in range(count)]
    assert sorted(bucket.glob("*.mp4")) == parts
    for part in parts:
        content = part.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")
        assert measure.decode_errors([part]) == []
        probe = measure.probe(part)
        assert {stream.kind for stream in probe.streams} == {"video", "audio"}
        assert abs(probe.streams[0].duration - probe.streams[1].duration) < 0.2
    return sum(measure.probe(part).duration for part in parts)


async def test_a_recording_whose_worker_was_killed_is_whole(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "data", {"RECORDING__SLICE_SECONDS": "15"})  # nothing was committed before the kill
    bucket = serve.data / "recordings" / "bucket"
    async with serve.running(), serve.client() as client, publisher(serve.hub, 101, app=serve.credentials.app_id):
        mix = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
        await asyncio.sleep(7)
        assert serve.slices(mix.sid) == []
        killed = time.time()
        os.kill(serve.worker(mix.sid), signal.SIGKILL)
        await asyncio.sleep(8)
        assert await answering(mix) == 5
        slices = spans(serve, mix.sid, ".ts")
        assert [epoch for epoch, _, _ in slices] == [1]
        assert 0 < killed - slices[0][2] < LOST_SECONDS
        parts = spans(serve, mix.sid, ".mp4")  # made by the next worker, while it records
        assert len(parts) == 1
        assert 0 < killed - parts[0][2] < LOST_SECONDS
        assert (await mix.stop())["uploadingStatus"] == "uploaded"
        serve.lies_complete(mix.sid, bucket)
        playlist = bucket / f"{mix.sid}_room.m3u8"
        assert playlist.read_text().count("#EXT-X-DISCONTINUITY") == 2
        assert [error for path in entries(playlist) for error in measure.decode_errors([path])] == []
        seconds = total(spans(serve, mix.sid, ".ts"))
        assert seconds > 8
        assert abs(sum(measure.probe(path).duration for path in entries(playlist)) - seconds) < 0.3
        assert abs(parts_are_complete(bucket, mix.sid, 2) - seconds) < LOST_SECONDS
        await serve.spool_is_empty()


async def test_what_is_left_open_when_no_worker_follows_is_finished_too(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "data", {"RECORDING__SLICE_SECONDS": "15", "RECORDING__MAX_RESTARTS": "0"})
    bucket = serve.data / "recordings" / "bucket"
    async with serve.running(), serve.client() as client, publisher(serve.hub, 101, app=serve.credentials.app_id):
        mix = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
        await asyncio.sleep(7)
        for pid in (serve.part("agent"), serve.worker(mix.sid)):
            os.kill(pid, signal.SIGKILL)
        status, outcome, reason, uploading = await serve.finished(mix.sid, 30)
        assert (outcome, reason, uploading) == ("interrupted", "crashed", "uploaded"), status
        serve.lies_complete(mix.sid, bucket)
        seconds = total(spans(serve, mix.sid, ".ts"))
        assert seconds > 3
        assert abs(parts_are_complete(bucket, mix.sid, 1) - seconds) < LOST_SECONDS
        await serve.spool_is_empty()
