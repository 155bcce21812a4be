"""A browser publishes its camera and microphone from a small page; the recording shows and sounds it, and a browser plays it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser

from recorder.tools import measure
from recorder.tools.api_client import folder_storage
from tests.e2e import requests
from tests.e2e.browser import chromium, needs_chromium, publishing_page, served
from tests.e2e.playlist import joined
from tests.service import Service, service

pytestmark = [needs_chromium, pytest.mark.timeout(180)]

PLAY = """
async (url) => {
  const video = document.createElement("video");
  video.src = url;
  document.body.append(video);
  const ended = new Promise((resolve, reject) => {
    video.onended = resolve;
    video.onerror = () => reject(new Error(video.error.message));
  });
  video.playbackRate = 4;
  await video.play();
  await ended;
  const quality = video.getVideoPlaybackQuality();
  return { frames: quality.totalVideoFrames, seconds: video.currentTime, sound: video.webkitAudioDecodedByteCount,
           width: video.videoWidth, height: video.videoHeight };
}
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


async def _record(running: Service, browser: Browser, codec: str, seconds: float) -> Path:
    """Composite of one browser; returns its playlist."""
    where = {"hub": running.hub, "app_id": running.credentials.app_id, "channel": "room", "uid": 55}
    async with running.client() as client, publishing_page(browser, **where, video=codec):  # type: ignore[arg-type]
        recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
        await asyncio.sleep(seconds)
        assert (await recording.stop())["uploadingStatus"] == "uploaded"
    return running.data / "recordings" / "bucket" / f"{recording.sid}_room.m3u8"


@pytest.mark.parametrize("codec", ["VP8", "H264", "VP9", "AV1"])
async def test_the_recording_shows_and_sounds_what_the_browser_sent(tmp_path: Path, browser: Browser, codec: str) -> None:
    async with service(tmp_path) as running:
        playlist = await _record(running, browser, codec, 9)
    whole = joined(playlist, tmp_path / "whole.ts")
    assert measure.decode_errors([whole]) == []
    pictures = [measure.luma_of(frame).astype(np.int16) for _, frame in measure.video_frames(whole)]
    # Chromium's fake camera: a turning figure and a running clock on a coloured ground; the first pictures may be empty.
    settled = pictures[60:]
    assert len(settled) > 120
    assert min(float(picture.std()) for picture in settled) > 10
    changes = [float(np.abs(b - a).mean()) for a, b in zip(settled[::10], settled[10::10], strict=False)]
    assert min(changes) > 0.05
    # Its fake microphone beeps twice a second.
    start, samples = measure.samples_of(whole)
    level = np.abs(samples[: len(samples) // 480 * 480]).reshape(-1, 480).max(axis=1) > 0.1
    beeps = np.flatnonzero(np.diff(level.astype(np.int8)) == 1)
    pauses = np.diff(beeps) * 0.01
    assert start >= 0
    assert len(beeps) >= 10
    assert float(np.median(pauses[pauses > 0.2])) == pytest.approx(0.5, abs=0.03)


async def test_a_browser_plays_the_files_to_the_end(tmp_path: Path, browser: Browser) -> None:
    async with service(tmp_path) as running:
        playlist = await _record(running, browser, "H264", 6)
    with served(playlist.parent) as url:
        page = await browser.new_page()
        await page.goto(url)
        for name in (playlist.name, playlist.name.replace(".m3u8", "_0.mp4")):
            played = await page.evaluate(PLAY, f"{url}/{name}")
            assert (played["width"], played["height"]) == (640, 360)
            assert played["seconds"] > 4.5
            assert played["frames"] > 100
            assert played["sound"] > 10_000
