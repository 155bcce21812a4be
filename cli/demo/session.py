"""The demo's recording session: the real service, three real publishers, and the public HTTP API as any customer uses it.

Knows how to make recordings; `judge.py` says whether they are good.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from cli.demo.processes import end, free_ports, spawned, until_said
from recorder.tools.api_client import ApiClient, ApiError, Credentials, RunningRecording, folder_storage
from recorder.tools.content import Style
from recorder.tools.publish_media import Library, VideoCodec

CHANNEL: Final = "demo"
BUCKET: Final = "demo"
WIDTH, HEIGHT, FPS = 640, 360, 30  # of the composite and of each camera: one grid, so that sync can be judged to a frame

RECORDERS: Final = {"mix": 900001, "individual": 900002}  # the recorder's own uid by mode
LEAVER, LATE, AUDIO_ONLY = 101, 102, 103
JOINS_AT, LEAVES_AT = 0.2, 0.75  # of the whole time

FILES_SECONDS = 60.0  # after stop, until the last playlist is closed


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the API told it."""

    mode: str
    sid: str
    folder: Path
    asked_ms: int  # when start was sent
    started_ms: int  # `sliceStartTime`: Unix ms of the first media
    statuses: frozenset[int]  # all that query gave
    files: tuple[str, ...]  # names in the list that stop gave


@dataclass(slots=True)
class Take:
    """What happened and when, Unix ms; the judge compares the files with it."""

    recordings: list[Recording] = field(default_factory=list)
    joined_ms: dict[int, int] = field(default_factory=dict)
    left_ms: dict[int, int] = field(default_factory=dict)
    stopped_ms: int = 0


Say = Callable[[str], None]
Tick = Callable[[float, str], None]  # seconds recorded, what goes on


async def run(folder: Path, seconds: float, say: Say, tick: Tick) -> Take:
    """Record for `seconds` into `folder`, which is empty.

    Raises:
        DemoError: something did not come up.
        ApiError: the API answered wrongly.
    """
    cache = folder.with_name("demo-media")
    say("encoding what the publishers will send")
    await _encode(Library(cache))
    async with contextlib.AsyncExitStack() as stack:
        say("starting the service")
        service = await stack.enter_async_context(_service(folder))
        channel = _Channel(service, folder, cache, stack)
        client = await stack.enter_async_context(ApiClient(f"http://127.0.0.1:{service.api_port}", service.credentials))
        say("joining: 101 with H.264, 103 with sound only")
        await channel.join(LEAVER, "h264")
        await channel.join(AUDIO_ONLY, "none")
        take = Take(joined_ms=channel.joined_ms, left_ms=channel.left_ms)
        say("recording the channel twice at once: composite and individual")
        running = await asyncio.gather(*(_start(client, mode, uid) for mode, uid in RECORDERS.items()))
        await _perform(channel, running, seconds, tick)
        take.stopped_ms = _now_ms()
        say("stopping; the last files are on their way")
        recordings = folder / "data" / "recordings" / BUCKET
        stops = (_stop(recording, mode, recordings) for recording, mode in zip(running, RECORDERS, strict=True))
        take.recordings = list(await asyncio.gather(*stops))
        await _complete(take)
    return take


async def _perform(channel: "_Channel", recordings: list[RunningRecording], seconds: float, tick: Tick) -> None:
    """Let the late one join and the early one leave while the recording runs, and look at it as a customer would."""
    begun = time.monotonic()
    late: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        while (passed := time.monotonic() - begun) < seconds:
            if late is None and passed >= JOINS_AT * seconds:
                late = group.create_task(channel.join(LATE, "vp8"))
            if LEAVER not in channel.left_ms and passed >= LEAVES_AT * seconds:
                await channel.leave(LEAVER)
            statuses = [(await recording.query())["status"] for recording in recordings]
            present = ", ".join(str(uid) for uid in sorted(channel.joined_ms.keys() - channel.left_ms.keys()))
            tick(passed, f"status {'/'.join(map(str, statuses))} · in the channel: {present}")
            await asyncio.sleep(max(0, min(1, seconds - (time.monotonic() - begun))))
    tick(seconds, "done")


async def _complete(take: Take) -> None:
    """Wait until every playlist is closed, those that were announced and those that are there."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FILES_SECONDS):
            while not all(_closed(recording) for recording in take.recordings):
                await asyncio.sleep(0.2)


def _closed(recording: Recording) -> bool:
    announced = {recording.folder / name for name in recording.files if name.endswith(".m3u8")}
    playlists = announced | set((recording.folder / recording.mode).glob("*.m3u8"))
    return bool(playlists) and all(path.exists() and "#EXT-X-ENDLIST" in path.read_text() for path in playlists)


# ---- the API -----------------------------------------------------------------------------------------------------


async def _start(client: ApiClient, mode: str, uid: int) -> RunningRecording:
    config: dict[str, Any] = {"channelType": 0, "streamTypes": 2, "maxIdleTime": 30}
    request: dict[str, Any] = {
        "recordingConfig": config,
        "storageConfig": folder_storage(BUCKET, mode),
        "recordingFileConfig": {"avFileType": ["hls", "mp4"] if mode == "mix" else ["hls"]},
    }
    if mode == "mix":
        config["transcodingConfig"] = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "bitrate": 1500, "mixedVideoLayout": 1}
    else:
        config["subscribeUidGroup"] = 1
    return await client.start(CHANNEL, uid, mode, request)


async def _stop(recording: RunningRecording, mode: str, folder: Path) -> Recording:
    files: list[str] = []
    try:
        listed = (await recording.stop())["fileList"]
        files = [listed] if isinstance(listed, str) else [entry["fileName"] for entry in listed]
    except ApiError as error:
        if error.status != httpx.codes.PARTIAL_CONTENT:  # not everything is stored yet
            raise
    return Recording(
        mode=mode,
        sid=recording.sid,
        folder=folder,
        asked_ms=recording.asked_ms,
        started_ms=recording.slice_start_ms,
        statuses=frozenset(recording.statuses),
        files=tuple(files),
    )


# ---- the service and its publishers -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Service:
    api_port: int
    hub_port: int
    credentials: Credentials


@contextlib.asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[_Service]:
    """`cloud-recorder serve` with its defaults, on free ports of loopback."""
    api, probes, hub = free_ports(3)
    settings = {
        "DATA_DIR": str(folder / "data"),
        "API__PORT": api,
        "API__PROBE_PORT": probes,
        "HUB__PORT": hub,
        "AGENT__HUB_URL": f"http://127.0.0.1:{hub}",
    }
    async with spawned(folder / "serve.log", "serve", environment={f"CLOUD_RECORDER_{k}": str(v) for k, v in settings.items()}) as process:
        await until_said(process, folder / "serve.log", "ready;", "the service")
        yield _Service(api, hub, Credentials.read(folder / "data" / "credentials.json"))


class _Channel:
    """The publishers, each a process of its own."""

    def __init__(self, service: _Service, folder: Path, cache: Path, stack: contextlib.AsyncExitStack) -> None:
        self._service = service
        self._folder = folder
        self._cache = cache
        self._stack = stack
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self.joined_ms: dict[int, int] = {}
        self.left_ms: dict[int, int] = {}

    async def join(self, uid: int, video: str) -> None:
        log = self._folder / f"publish-{uid}.log"
        where = ("--hub", f"http://127.0.0.1:{self._service.hub_port}", "--app", self._service.credentials.app_id, "--channel", CHANNEL)
        what = ("--uid", str(uid), "--video", video, "--size", f"{WIDTH}x{HEIGHT}", "--fps", str(FPS), "--cache", str(self._cache))
        process = await self._stack.enter_async_context(spawned(log, "publish", *where, *what))
        await until_said(process, log, f"publishing as {uid}", f"publisher {uid}")
        self._processes[uid] = process
        self.joined_ms[uid] = _now_ms()

    async def leave(self, uid: int) -> None:
        self.left_ms[uid] = _now_ms()
        await end(self._processes[uid])


async def _encode(library: Library) -> None:
    """Publishers take it from the cache, so that joining takes no seconds of encoding in the middle of the recording."""
    videos: dict[int, VideoCodec] = {LEAVER: "h264", LATE: "vp8"}
    for uid, codec in videos.items():
        await library.video(Style(uid, WIDTH, HEIGHT, FPS), codec, 600)
    for uid in (*videos, AUDIO_ONLY):
        await library.audio(uid)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
