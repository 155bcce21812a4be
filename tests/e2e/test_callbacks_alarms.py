"""Each alarm is told within ten seconds of what it warns of, and none of a recording that goes well."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorder.tools.api_client import RunningRecording, folder_storage
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import AudioCodec, AudioLoop, Library, VideoEncoder
from tests.e2e import requests
from tests.e2e.test_callbacks_events import told
from tests.e2e.test_process_death import Serve
from tests.integration.test_worker_overload import starved
from tests.live import ROOT, publisher
from tests.strict_receiver import StrictReceiver

ALARMS = range(10001, 10007)
IN_TIME = 10.0  # seconds
STORAGE = folder_storage("bucket")
OPUS_SILENCE = b"\xf8\xff\xfe"  # 20 ms


class StillVideo:
    """Sends the same picture again and again."""

    def __init__(self, of: Publication, luma: int | None) -> None:
        """`luma`: of all of it; None: there is something to see."""
        self.fps = of.fps
        self._encoder = VideoEncoder(of.style, "h264", of.bitrate_kbps)
        self._picture = np.full((of.height * 3 // 2, of.width), 128, np.uint8)
        coarse = np.random.default_rng(1).integers(60, 180, (of.height // 20, of.width // 20), np.uint8)
        self._picture[: of.height] = np.kron(coarse, np.ones((20, 20), np.uint8)) if luma is None else luma

    async def frame(self, index: int, *, keyframe: bool) -> tuple[bytes, bool] | None:
        return await asyncio.to_thread(self._encoder.encode, self._picture, keyframe=keyframe), keyframe


class Silence(Library):
    async def audio(self, uid: int, seconds: int = 8, codec: AudioCodec = "opus") -> AudioLoop:
        return AudioLoop((OPUS_SILENCE,), 0)


@contextlib.asynccontextmanager
async def person(hub: str, app: str, channel: str, *, uid: int = 101, library: Library | None = None) -> AsyncIterator[Publisher]:
    where = Publication(hub, app, channel, uid, width=320, height=180, fps=15, bitrate_kbps=200)
    one = Publisher(where, library or Library(ROOT / "build" / "media"))
    try:
        await one.start()
        yield one
    finally:
        await one.stop()


@contextlib.contextmanager
def mute_store() -> Iterator[dict[str, Any]]:
    """A store that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        keys = {"accessKey": "a", "secretKey": "b", "bucket": "rec"}
        yield {"vendor": 11, "region": 0, **keys, "extensionParams": {"endpoint": endpoint}}


def mix(storage: dict[str, Any] = STORAGE) -> dict[str, Any]:
    body = requests.mix(storage, mp4=False)
    body["recordingConfig"]["transcodingConfig"] |= {"width": 320, "height": 180, "fps": 15, "bitrate": 200}
    return body


def individual() -> dict[str, Any]:
    return requests.individual(STORAGE)


async def committed(serve: Serve, recording: RunningRecording) -> None:
    """Wait for the first file that is to be uploaded."""
    async with asyncio.timeout(30):
        while not serve.slices(recording.sid):
            await asyncio.sleep(0.05)


async def alarms(there: StrictReceiver, recording: RunningRecording) -> list[tuple[int, str | None]]:
    """Code and uid of each."""
    found = (await there.report()).details(recording.sid, 2)
    return [(one["warnCode"], one.get("streamUid")) for one in found if one["warnCode"] in ALARMS]


async def raised(there: StrictReceiver, recording: RunningRecording, since: float, *expected: tuple[int, str | None]) -> None:
    """Wait for these alarms, which must come in time and alone."""
    while True:
        came, waited = await alarms(there, recording), time.time() - since
        if set(came) >= set(expected):
            assert sorted(came, key=str) == sorted(expected, key=str)
            assert waited < IN_TIME
            return
        assert waited < IN_TIME, (expected, came)
        await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_what_can_still_be_put_right_is_told(tmp_path: Path) -> None:
    settings = {"AGENT__ALLOWED_NETWORKS": '["127.0.0.0/8"]'}
    async with told(tmp_path, *ALARMS, **settings) as (serve, client, there), contextlib.AsyncExitStack() as stack:
        hub, app = serve.hub, serve.credentials.app_id
        first = await stack.enter_async_context(person(hub, app, "healthy"))
        await stack.enter_async_context(person(hub, app, "healthy", uid=102))
        healthy = [await client.start("healthy", 900, "mix", mix()), await client.start("healthy", 901, "individual", individual())]
        began = time.monotonic()

        async with person(hub, app, "sick") as sender:
            recording = await client.start("sick", 902, "mix", mix())
            await asyncio.sleep(4)
            assert sender.video
            sender.video.change(StillVideo(sender.publication, 16), 0)
            await raised(there, recording, time.time(), (10001, "101"))
            sender.video.change(StillVideo(sender.publication, None), 0)
            await raised(there, recording, time.time(), (10001, "101"), (10002, "101"))
            await recording.stop(at_once=True)

        async with person(hub, app, "silent", library=Silence(ROOT / "build" / "media")):
            started = time.time()
            both = [await client.start("silent", 903, "mix", mix()), await client.start("silent", 904, "individual", individual())]
            for one in both:
                await raised(there, one, started + 2, (10003, "0"))  # they need so long to join
                await one.stop(at_once=True)

        async with publisher(hub, 101, "--fps", "15", app=app, channel="gone") as process:
            both = [await client.start("gone", 905, "mix", mix()), await client.start("gone", 906, "individual", individual())]
            await asyncio.sleep(4)
            process.send_signal(signal.SIGSTOP)
            try:
                stopped = time.time()
                for one in both:
                    await raised(there, one, stopped, (10004, "0"))
                    await one.stop(at_once=True)
            finally:
                process.send_signal(signal.SIGCONT)

        with mute_store() as storage:
            recording = await client.start("healthy", 907, "mix", mix(storage))
            await committed(serve, recording)
            await raised(there, recording, time.time(), (10005, None))
            await recording.stop(at_once=True)

        await first.mute(audio=True, video=True)  # on purpose
        await asyncio.sleep(max(0.0, began + 60 - time.monotonic()))
        for one in healthy:
            assert await alarms(there, one) == []
            assert (await one.stop())["uploadingStatus"] == "uploaded"
        assert (await there.report()).problems == []


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_an_encoder_that_is_late_is_told(tmp_path: Path) -> None:
    """And none of a recording beside it that keeps up."""
    async with told(tmp_path, *ALARMS) as (serve, client, there), publisher(serve.hub, 101, app=serve.credentials.app_id):
        recording = await client.start("room", 901, "mix", requests.mix(STORAGE, mp4=False))
        healthy = await client.start("room", 902, "mix", mix())
        await asyncio.sleep(6)
        assert await alarms(there, recording) == []
        async with starved(serve.worker(recording.sid)):
            await raised(there, recording, time.time(), (10006, None))
        assert await alarms(there, healthy) == []
        for one in (recording, healthy):
            await one.stop(at_once=True)
