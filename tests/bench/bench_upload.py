"""How long after its end a slice can be read in the customer's store, and how long after stop an hour's MP4 is there."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from pydantic import SecretStr

from recorder.destination import open_destination
from recorder.outputs import Shelf
from recorder.outputs.mp4 import CompositeMp4
from recorder.outputs.names import Names
from recorder.protocol import Slice
from recorder.settings import Agent, Settings
from recorder.spec import Canvas, Storage
from storage.journal import Journal
from storage.spool import RecordingSpool
from storage.uploader import Destination, MediaFile, Uploader, UploadReport, Verified
from tests import outputs_media, seaweedfs
from tests.bench import Result
from tests.bench.density import ROOMS
from tests.fault_store import BUCKET, FaultStore, fault_store
from tests.service import Service, service

RECORDINGS = 20
SECONDS = 70
HOUR_SECONDS = 3600
_FPS, _GOP = 15, 30
_VIDEO_BYTES = 1_000_000 // 8 // _FPS  # a picture of 1 Mbit/s

# ---- slices -----------------------------------------------------------------------------------------------------------


def _request(store: FaultStore) -> dict[str, object]:
    storage = {"vendor": 11, "bucket": BUCKET, "accessKey": "AK", "secretKey": "SK", "extensionParams": {"endpoint": store.endpoint}}
    config = {"channelType": 0, "streamTypes": 0, "maxIdleTime": 300}
    return {"recordingConfig": config, "recordingFileConfig": {"avFileType": ["hls"]}, "storageConfig": storage}


def _closed_ms(of: Service) -> dict[str, int]:
    """When each slice of the recordings that run was closed, by the workers' words."""
    closed: dict[str, int] = {}
    for folder in (of.data / "spool").glob("*/files"):
        for record in Journal(folder.with_name("uploads")).read().records:
            if record["type"] == "event" and record["body"]["type"] == "slice":
                closed[record["body"]["slice"]["name"]] = record["at_ms"]
    return closed


def _readable_ms(store: FaultStore) -> dict[str, int]:
    """When a slice was there and first named by a stored playlist."""
    named: dict[str, int] = {}
    for at_ms, _, data in store.lists:
        for line in data.decode().splitlines():
            if line and not line.startswith("#"):
                named.setdefault(unquote(line), at_ms)
    return named


async def _delays(folder: Path, capture: Path) -> list[float]:
    with fault_store() as store:
        limits = {"API__MAX_RECORDINGS": "100", "API__REQUESTS_PER_SECOND": "1000", "AGENT__MAX_RECORDINGS": "100"}
        networks = {"AGENT__ALLOWED_NETWORKS": '["127.0.0.0/8"]', "AGENT__REPLAY": str(capture)}
        async with service(folder, **limits, **networks) as running, running.client() as client:
            for number in range(RECORDINGS):
                await client.start(f"room{number}", 900, "mix", _request(store))
            await asyncio.sleep(SECONDS)
            closed = await asyncio.to_thread(_closed_ms, running)
            await asyncio.sleep(5)
            readable = _readable_ms(store)
            assert store.dangling == []
    assert len(closed) >= RECORDINGS * (SECONDS // 20)
    return [(readable[name] - at_ms) / 1000 for name, at_ms in closed.items()]


# ---- an hour's MP4 ----------------------------------------------------------------------------------------------------


def _hour() -> Iterator[tuple[str, bytes, int, bool]]:
    """Packets of one hour in their order: video of 1 Mbit/s, and silence beside it."""
    video = outputs_media.video("h264", _GOP, fps=_FPS, gop=_GOP)
    sound = outputs_media.aac(1)
    padding = b"\0\0\0\1\x0c" + b"\xff" * _VIDEO_BYTES  # filler data, as encoders of constant rate write
    audio_index = 0
    for number in range(HOUR_SECONDS * _FPS):
        time_ns = number * 1_000_000_000 // _FPS
        picture = video[number % _GOP]
        while audio_index * 1024 * 1_000_000_000 // 48_000 <= time_ns:
            yield "audio", sound[audio_index % len(sound)].data, audio_index * 1024 * 1_000_000_000 // 48_000, False
            audio_index += 1
        yield "video", picture.data + padding[: max(0, _VIDEO_BYTES - len(picture.data))], time_ns, picture.keyframe


def _recorded(spool: RecordingSpool) -> CompositeMp4:
    """An hour in an open part, as it stands when `stop` comes."""
    shelf = Shelf(spool, Names("b" * 32, "room"), epoch=1, epoch_utc_ns=time.time_ns())
    output = CompositeMp4(shelf, canvas=Canvas(width=160, height=120, fps=_FPS), audio=True)
    for kind, data, time_ns, keyframe in _hour():
        if kind == "video":
            output.video(data, time_ns, keyframe=keyframe)
        else:
            output.audio(data, time_ns)
    return output


async def _complete_seconds(folder: Path, server: seaweedfs.SeaweedFS) -> float:
    spool = RecordingSpool(folder)
    output = await asyncio.to_thread(_recorded, spool)
    keys = {"access_key": SecretStr(server.owner.access_key), "secret_key": SecretStr(server.owner.secret_key)}
    where = Storage(vendor=11, bucket=seaweedfs.BUCKET, endpoint=server.endpoint, **keys)
    settings = Settings(agent=Agent(allowed_networks=("127.0.0.0/8",)))
    stored: list[Verified] = []

    async def report(told: UploadReport) -> None:
        assert isinstance(told, Verified), told
        stored.append(told)

    uploader = Uploader(Destination(lambda: open_destination(where, settings), str), report)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(uploader.run())
        await uploader.ask(lambda store: store.head("warm"))
        started = time.perf_counter()
        (committed,) = [made for made in await asyncio.to_thread(output.close) if isinstance(made, Slice)]
        uploader.add(MediaFile(committed.name, spool.file(committed.name), committed.sha256, committed.size))
        await uploader.settled()
        seconds = time.perf_counter() - started
        running.cancel()
    assert stored
    assert committed.size > HOUR_SECONDS * 1_000_000 // 8 * 0.9
    spool.destroy()
    return seconds


def upload() -> Iterable[Result]:
    capture = ROOMS["voices"].capture().folder
    with tempfile.TemporaryDirectory() as folder:
        delays = asyncio.run(_delays(Path(folder) / "data", capture))
    yield Result("upload", round(statistics.quantiles(delays, n=20)[-1], 3), "s")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weed").mkdir()
        with seaweedfs.running(Path(folder) / "weed") as server:
            yield Result("upload/mp4", round(asyncio.run(_complete_seconds(Path(folder) / "spool", server)), 2), "s")


BENCHES = {"upload": upload}
