"""How long a customer waits: from start to the first recorded picture, and from stop to complete files."""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recorder.tools.api_client import ApiClient, RunningRecording, folder_storage
from tests.bench import Result
from tests.live import publisher
from tests.service import service

ROUNDS = 5
AT_ONCE = 3
RECORDED_SECONDS = 60
CHANNEL = "room"
_LIMIT_SECONDS = 30


def _request() -> dict[str, Any]:
    canvas = {"width": 640, "height": 360, "fps": 15, "bitrate": 500, "mixedVideoLayout": 1}
    return {
        "recordingConfig": {"channelType": 0, "streamTypes": 2, "maxIdleTime": 30, "transcodingConfig": canvas},
        "recordingFileConfig": {"avFileType": ["hls", "mp4"]},
        "storageConfig": folder_storage("bench"),
    }


async def _first_frame(client: ApiClient, uid: int) -> tuple[RunningRecording, float]:
    """Start; returns the seconds until the moment of the first recorded media."""
    recording = await client.start(CHANNEL, uid, "mix", _request())
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not recording.slice_start_ms:
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was recorded")
        await asyncio.sleep(0.2)
        await recording.query()
    return recording, (recording.slice_start_ms - recording.asked_ms) / 1000


async def _stopped(recording: RunningRecording, folder: Path) -> float:
    """Stop; returns the seconds until the playlist and the MP4 lie complete in the customer's storage."""
    asked = time.monotonic()
    files = (await recording.stop())["fileList"]
    playlist = next(folder / file["fileName"] for file in files if file["fileName"].endswith(".m3u8"))
    while "#EXT-X-ENDLIST" not in playlist.read_text() or not all((folder / file["fileName"]).exists() for file in files):
        await asyncio.sleep(0.02)
        if time.monotonic() - asked > _LIMIT_SECONDS:
            raise TimeoutError("the files are not complete")
    return time.monotonic() - asked


async def _measure() -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(service(Path(folder), API__REQUESTS_PER_SECOND="1000"))
            client = await stack.enter_async_context(running.client())
            for uid, video in ((101, "h264"), (102, "vp8"), (103, "none")):
                words = ("--video", video, "--fps", "15", "--bitrate", "500")
                await stack.enter_async_context(publisher(running.hub, uid, *words, app=running.credentials.app_id, channel=CHANNEL))
            starts = []
            for number in range(ROUNDS):
                recording, seconds = await _first_frame(client, 900 + number)
                starts.append(seconds)
                await recording.stop()
            recordings = [(await _first_frame(client, 950 + number))[0] for number in range(AT_ONCE)]
            await asyncio.sleep(RECORDED_SECONDS)
            stops = [await _stopped(recording, running.data / "recordings" / "bench") for recording in recordings]
    return starts, stops


def latency() -> Iterable[Result]:
    starts, stops = asyncio.run(_measure())
    yield Result("latency", round(statistics.median(starts), 3), "s from start to the first recorded frame")
    yield Result("latency/stop", round(statistics.median(stops), 3), "s from stop to complete files, one-minute recording")


BENCHES = {"latency": latency}
