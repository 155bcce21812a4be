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
from pydantic import BaseModel

from cli.demo.processes import DemoError, end, free_ports, spawned, until_said
from recorder.tools.content import Style
from recorder.tools.publish_media import Library, VideoCodec

CHANNEL: Final = "demo"
BUCKET: Final = "demo"
WIDTH, HEIGHT, FPS = 640, 360, 30  # of the composite and of each camera: one grid, so that sync can be judged to a frame

LEAVER, LATE, AUDIO_ONLY = 101, 102, 103
JOINS_AT, LEAVES_AT = 0.2, 0.75  # of the whole time

FILES_SECONDS = 60.0  # after stop, until the last playlist is closed


class Credentials(BaseModel):
    customer_id: str
    customer_secret: str
    app_id: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the API told it."""

    mode: str
    sid: str
    folder: Path
    asked_ms: int  # when start was answered
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
        DemoError: something did not come up or answered wrongly.
    """
    cache = folder.with_name("demo-media")
    say("encoding what the publishers will send")
    await _encode(Library(cache))
    async with contextlib.AsyncExitStack() as stack:
        say("starting the service")
        service = await stack.enter_async_context(_service(folder))
        channel = _Channel(service, folder, cache, stack)
        client = await stack.enter_async_context(_client(service))
        say("joining: 101 with H.264, 103 with sound only")
        await channel.join(LEAVER, "h264")
        await channel.join(AUDIO_ONLY, "none")
        take = Take(joined_ms=channel.joined_ms, left_ms=channel.left_ms)
        say("recording the channel twice at once: composite and individual")
        starts = [_start(client, service, mode, number) for number, mode in ((900001, "mix"), (900002, "individual"))]
        handles = await asyncio.gather(*starts)
        await _perform(channel, handles, seconds, tick)
        take.stopped_ms = _now_ms()
        say("stopping; the last files are on their way")
        recordings = folder / "data" / "recordings" / BUCKET
        take.recordings = list(await asyncio.gather(*(handle.stop(recordings) for handle in handles)))
        await _complete(take)
    return take


async def _perform(channel: "_Channel", handles: "list[_Handle]", seconds: float, tick: Tick) -> None:
    """Let the late one join and the early one leave while the recording runs, and look at it as a customer would."""
    begun = time.monotonic()
    late: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        while (passed := time.monotonic() - begun) < seconds:
            if late is None and passed >= JOINS_AT * seconds:
                late = group.create_task(channel.join(LATE, "vp8"))
            if LEAVER not in channel.left_ms and passed >= LEAVES_AT * seconds:
                await channel.leave(LEAVER)
            statuses = [await handle.query() for handle in handles]
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


@dataclass(slots=True)
class _Handle:
    """A running recording: acquire and start have been answered."""

    client: httpx.AsyncClient
    mode: str
    uid: str
    resource_id: str
    sid: str
    asked_ms: int
    started_ms: int = 0
    statuses: set[int] = field(default_factory=set)

    @property
    def _path(self) -> str:
        return f"resourceid/{self.resource_id}/sid/{self.sid}/mode/{self.mode}"

    async def query(self) -> int:
        answer = await _answer(await self.client.get(f"{self._path}/query"), "query")
        response: dict[str, Any] = answer["serverResponse"]
        self.started_ms = response.get("sliceStartTime") or self.started_ms
        status = int(response["status"])
        self.statuses.add(status)
        return status

    async def stop(self, folder: Path) -> Recording:
        body = {"cname": CHANNEL, "uid": self.uid, "clientRequest": {}}
        answer = await self.client.post(f"{self._path}/stop", json=body)
        files: list[str] = []
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:  # 206: not everything is stored yet
            listed = (await _answer(answer, "stop"))["serverResponse"]["fileList"]
            files = [listed] if isinstance(listed, str) else [entry["fileName"] for entry in listed]
        return Recording(
            mode=self.mode,
            sid=self.sid,
            folder=folder,
            asked_ms=self.asked_ms,
            started_ms=self.started_ms,
            statuses=frozenset(self.statuses),
            files=tuple(files),
        )


async def _start(client: httpx.AsyncClient, service: "_Service", mode: str, uid: int) -> _Handle:
    storage = {"vendor": 100, "region": 0, "bucket": BUCKET, "fileNamePrefix": [mode]}
    config: dict[str, Any] = {"channelType": 0, "streamTypes": 2, "maxIdleTime": 30}
    request: dict[str, Any] = {"recordingConfig": config, "storageConfig": storage, "recordingFileConfig": {"avFileType": ["hls"]}}
    if mode == "mix":
        config["transcodingConfig"] = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "bitrate": 1500, "mixedVideoLayout": 1}
        request["recordingFileConfig"] = {"avFileType": ["hls", "mp4"]}
    else:
        config["subscribeUidGroup"] = 1
    envelope = {"cname": CHANNEL, "uid": str(uid)}
    acquired = await _answer(await client.post("acquire", json={**envelope, "clientRequest": {}}), "acquire")
    resource_id = acquired["resourceId"]
    path = f"resourceid/{resource_id}/mode/{mode}/start"
    started = await _answer(await client.post(path, json={**envelope, "clientRequest": request}), "start")
    return _Handle(client, mode, str(uid), resource_id, started["sid"], asked_ms=_now_ms())


async def _answer(response: httpx.Response, call: str) -> dict[str, Any]:
    if response.status_code != httpx.codes.OK:
        raise DemoError(f"{call} was answered with {response.status_code}: {response.text[:300]}")
    answer: dict[str, Any] = response.json()
    return answer


def _client(service: "_Service") -> httpx.AsyncClient:
    known = service.credentials
    url = f"http://127.0.0.1:{service.api_port}/v1/apps/{known.app_id}/cloud_recording/"
    return httpx.AsyncClient(base_url=url, auth=(known.customer_id, known.customer_secret), timeout=30, trust_env=False)


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
        credentials = Credentials.model_validate_json((folder / "data" / "credentials.json").read_bytes())
        yield _Service(api, hub, credentials)


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
