"""A browser shows merged files as they are meant: the hidden part before a window, and pictures that stand through an absence."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recorder.tools import measure
from recorder.tools.offline.merge import merge
from recorder.tools.offline.options import ALL, Options
from tests.e2e.browser import chromium, needs_chromium, served
from tests.offline_media import person, recording

LOOP = 240  # frames until the picture begins anew

# Seeking takes a server that knows ranges, or a file that is there as a whole.
SHOW = """async ([source, times]) => {
  const video = document.createElement('video')
  video.src = URL.createObjectURL(await (await fetch(source)).blob())
  await new Promise((done, failed) => { video.onloadeddata = done; video.onerror = () => failed(video.error.message) })
  const shown = []
  for (const time of times) {
    const sought = new Promise(done => { video.onseeked = done })
    // It can be told before its picture is there to be drawn; where that is the same as before, no other comes.
    const presented = new Promise(done => { video.requestVideoFrameCallback(done); setTimeout(done, 1000) })
    video.currentTime = time
    await Promise.all([sought, presented])
    const canvas = document.createElement('canvas')
    canvas.width = video.videoWidth
    canvas.height = video.videoHeight
    canvas.getContext('2d').drawImage(video, 0, 0)
    shown.push(canvas.toDataURL('image/png').split(',')[1])
  }
  return [video.duration, shown]
}"""


@needs_chromium
@pytest.mark.timeout(120)
async def test_a_browser_shows_what_was_seen_then(tmp_path: Path) -> None:
    folder = recording(tmp_path, [person(end=6), person(start=12, end=18)], 18).path
    (window,) = merge(folder, Options(mode=ALL, begin_s=2.5, length_s=3))
    (whole,) = merge(folder, Options(mode=ALL))
    async with chromium() as browser:
        with served(folder) as url:
            page = await browser.new_page()
            await page.goto(url)
            for path, lasts, begin, times in ((window, 3, 2.5, (0, 0.5, 2.9)), (whole, 18, 0, (0.1, 5, 8, 11.5, 12.5, 17.9))):
                duration, shown = await page.evaluate(SHOW, [f"{url}/{path.name}", times])
                assert duration == pytest.approx(lasts, abs=0.05)
                pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L")) for png in shown]
                for time, picture in zip(times, pictures, strict=True):
                    at = begin + time
                    seen = 6 - 1 / 30 if 6 <= at < 12 else at
                    assert measure.read_counter(picture) == pytest.approx(seen * 30 % LOOP, abs=2), time
