"""People come late, leave, mute and are only heard; a worker dies; nobody stays: through the HTTP API, with real media."""

import asyncio
import contextlib
import os
import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.tools import measure
from recorder.tools.api_client import ApiError, folder_storage
from recorder.tools.content import tone_hz
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.e2e import requests
from tests.e2e.playlist import entries, joined
from tests.live import ROOT, publisher
from tests.service import Service, service


def _stored(of: Service, *prefix: str) -> Path:
    return of.data.joinpath("recordings", "bucket", *prefix)


def _publisher(of: Service, uid: int, *, video: str | None = "h264") -> Publisher:
    wanted = Publication(of.hub, of.credentials.app_id, "room", uid, video=video)  # type: ignore[arg-type]  # h264, vp8 or None
    return Publisher(wanted, Library(ROOT / "build" / "media"))


async def test_muted_picture_freezes_and_muted_sound_is_silent(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(tmp_path))
        client = await stack.enter_async_context(running.client())
        person = _publisher(running, 101)
        stack.push_async_callback(person.stop)
        await person.start()
        mixed = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket", "mix"), mp4=False))
        alone = await client.start("room", 902, "individual", requests.individual(folder_storage("bucket", "individual")))
        await asyncio.sleep(5)
        await person.mute(audio=True, video=True)
        await asyncio.sleep(4)
        await person.mute(audio=False, video=False)
        await asyncio.sleep(4)
        assert [(await r.stop())["uploadingStatus"] for r in (mixed, alone)] == ["uploaded", "uploaded"]
        assert mixed.envelope["cname"] == "room"
    (playlist,) = _stored(running, "mix").glob("*.m3u8")
    whole = joined(playlist, tmp_path / "mix.ts")
    assert measure.decode_errors([whole]) == []
    probe = measure.probe(whole)
    assert 12 < probe.duration < 16
    beeps = measure.beep_onsets(whole, tone_hz(101))
    pauses = [b - a for a, b in pairwise(beeps)]
    assert max(pauses) == pytest.approx(round(max(pauses)), abs=0.05)  # whole seconds: the muted time has its exact length
    assert 3.5 < max(pauses) < 6.5
    assert sorted(pauses)[-2] < 1.1
    pictures = [measure.read_counter(measure.luma_of(frame)) for _, frame in measure.video_frames(whole)]
    longest = max(len(run) for run in _runs(pictures))
    assert 3.5 * 30 < longest < 6 * 30
    offsets = measure.av_offsets(whole, tone_hz(101))
    assert sorted(map(abs, offsets))[len(offsets) // 2] <= 0.04
    # Individual: the sound goes on with silence in one segment; the picture has an interruption.
    (sound,) = _stored(running, "individual").glob("*_audio.m3u8")
    assert sum(map(float, re.findall(r"#EXTINF:([\d.]+)", sound.read_text()))) == pytest.approx(probe.duration, abs=1)
    (video,) = _stored(running, "individual").glob("*_video.m3u8")
    assert video.read_text().count("#EXT-X-DISCONTINUITY") == 2
    for path in (*entries(sound), *entries(video)):
        assert measure.decode_errors([path]) == []


def _runs(values: list[int | None]) -> list[list[int | None]]:
    """Equal neighbours together."""
    runs: list[list[int | None]] = []
    for value in values:
        if runs and runs[-1][-1] == value:
            runs[-1].append(value)
        else:
            runs.append([value])
    return runs


async def test_a_killed_worker_goes_on_in_the_same_playlist(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(tmp_path, RECORDING__SLICE_SECONDS="2"))
        client = await stack.enter_async_context(running.client())
        await stack.enter_async_context(publisher(running.hub, 101, app=running.credentials.app_id))
        recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
        await asyncio.sleep(7)
        pid = int(re.findall(r"worker (?:is here|started|adopted).*?pid=(\d+)", running.log)[-1])
        os.kill(pid, signal.SIGKILL)
        for _ in range(14):
            await asyncio.sleep(0.5)
            assert (await recording.query())["status"] in (4, 5)
        answer = await recording.stop()
        assert answer["uploadingStatus"] == "uploaded"
    folder = _stored(running)
    playlist = folder / f"{recording.sid}_room.m3u8"
    slices = entries(playlist)
    assert len(slices) == len(set(slices)) >= 5
    assert playlist.read_text().count("#EXT-X-DISCONTINUITY") == 2
    for path in slices:
        assert measure.decode_errors([path]) == []
    beeps = sum(len(measure.beep_onsets(path, tone_hz(101))) for path in slices)
    assert beeps >= 9  # of 14 seconds, less what the dead worker had not committed and the time to come back


async def test_a_channel_without_people_ends_by_itself(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(tmp_path))
        client = await stack.enter_async_context(running.client())
        async with publisher(running.hub, 101, app=running.credentials.app_id):
            recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket"), idle_seconds=5))
            await asyncio.sleep(4)
        await recording.gone(20)
        assert entries(_stored(running) / f"{recording.sid}_room.m3u8")
        silent = await client.start("empty", 901, "mix", requests.mix(folder_storage("bucket")))
        await asyncio.sleep(1)
        with pytest.raises(ApiError, match="435"):
            await silent.stop()
        assert not list(_stored(running).glob(f"{silent.sid}*"))
