"""Processes of the service are killed while they record: recordings go on or end, complete, and nothing is told before it is true."""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.demo.processes import free_ports, spawned, until_said
from recorder.tools import measure
from recorder.tools.api_client import ApiClient, ApiError, Credentials, RunningRecording, folder_storage
from tests.e2e import requests
from tests.e2e.playlist import entries
from tests.live import publisher


@dataclass
class Serve:
    """`cloud-recorder serve` on the same ports and the same data, however often it is started."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    pid: int = 0
    starts: int = 0

    @property
    def hub(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}"

    @property
    def credentials(self) -> Credentials:
        return Credentials.read(self.data / "credentials.json")

    def client(self) -> ApiClient:
        return ApiClient(f"http://127.0.0.1:{self.ports[0]}", self.credentials)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.data.mkdir(exist_ok=True)
        own = {
            "DATA_DIR": str(self.data),
            "API__PORT": str(self.ports[0]),
            "API__PROBE_PORT": str(self.ports[1]),
            "HUB__PORT": str(self.ports[2]),
            "AGENT__HUB_URL": self.hub,
            "RECORDING__SLICE_SECONDS": "2",
        }
        self.starts += 1
        log = self.data / f"serve-{self.starts}.log"
        async with spawned(
            log, "serve", environment={f"CLOUD_RECORDER_{key}": value for key, value in (own | self.environment).items()}
        ) as process:
            await until_said(process, log, "ready;", "the service")
            self.pid = process.pid
            yield

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.data.glob("serve-*.log")))

    def part(self, name: str) -> int:
        """The process of one part."""
        return next(pid for pid in children(self.pid) if name in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))

    def worker(self, sid: str) -> int:
        """The newest worker of a recording."""
        return int(re.findall(rf"worker started pid=(\d+).*sid={sid}", self.log())[-1])

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self.data / 'recorder.db'}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def slices(self, sid: str) -> list[tuple[Any, ...]]:
        return self.rows("SELECT name, playlist, sha256, stored FROM slices WHERE sid = ? ORDER BY epoch, sequence", sid)

    async def finished(self, sid: str, seconds: float = 20) -> tuple[Any, ...]:
        async with asyncio.timeout(seconds):
            while True:
                ((finished, *how),) = self.rows("SELECT finished, status, outcome, reason, uploading FROM recordings WHERE sid = ?", sid)
                if finished:
                    return tuple(how)
                await asyncio.sleep(0.1)

    def lies_complete(self, sid: str, folder: Path) -> None:
        """What was committed is in the bucket to the byte, and every playlist is closed and names each of its slices once."""
        committed = self.slices(sid)
        assert committed
        for name, _, digest, stored in committed:
            assert stored == "customer"
            assert sha256((folder / name).read_bytes()).hexdigest() == digest
        for playlist in {playlist for _, playlist, _, _ in committed if playlist}:
            assert [path.name for path in entries(folder / playlist)] == [name for name, listed, _, _ in committed if listed == playlist]

    async def spool_is_empty(self) -> None:
        async with asyncio.timeout(10):
            while any(path.name not in (".lock", ".reserve") for path in (self.data / "spool").iterdir()):
                await asyncio.sleep(0.1)


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in family(child))]


async def gone(pids: list[int], seconds: float) -> None:
    def alive(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    async with asyncio.timeout(seconds):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.05)


async def committed_more(serve: Serve, known: dict[str, int], *, epoch: int = 1) -> None:
    """Until each recording has more slices than that, of this epoch or a later one; how long that takes depends on the machine."""
    query = "SELECT COUNT(*) FROM slices WHERE sid = ? AND epoch >= ?"
    async with asyncio.timeout(40):
        while any(serve.rows(query, sid, epoch)[0][0] <= count for sid, count in known.items()):
            await asyncio.sleep(0.1)


async def answering(recording: RunningRecording) -> int:
    """The status, as soon as the control plane is there."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.TransportError):
                return int((await recording.query())["status"])
            await asyncio.sleep(0.2)


async def test_recordings_outlive_api_then_agent_then_everything_at_once(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "data")
    bucket = serve.data / "recordings" / "bucket"
    async with contextlib.AsyncExitStack() as stack:
        async with serve.running():
            client = await stack.enter_async_context(serve.client())
            async with publisher(serve.hub, 101, app=serve.credentials.app_id):
                mix = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket"), mp4=False))
                alone = await client.start("room", 902, "individual", requests.individual(folder_storage("bucket")))
                await committed_more(serve, {mix.sid: 0, alone.sid: 0})
                os.kill(serve.part("api"), signal.SIGKILL)
                await asyncio.sleep(0.5)
                assert [await answering(one) for one in (mix, alone)] == [5, 5]
                known = {one.sid: len(serve.slices(one.sid)) for one in (mix, alone)}
                os.kill(serve.part("agent"), signal.SIGKILL)
                await committed_more(serve, known)  # which only an agent that adopted them can tell
                assert [await answering(one) for one in (mix, alone)] == [5, 5]
                assert not serve.rows("SELECT sid FROM recordings WHERE workers_lost > 0")  # both were adopted
                doomed = [*family(serve.pid), *(serve.worker(one.sid) for one in (mix, alone))]
                before = {one.sid: serve.slices(one.sid) for one in (mix, alone)}
                os.kill(serve.pid, signal.SIGSTOP)  # neither it nor, by its death, the others may begin an orderly end in between
                for pid in reversed(doomed):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await gone(doomed, 5)
        async with serve.running(), publisher(serve.hub, 101, app=serve.credentials.app_id):
            assert [await answering(one) for one in (mix, alone)] != [20, 20]
            await committed_more(serve, {mix.sid: 0, alone.sid: 0}, epoch=2)
            for one in (mix, alone):
                answer = await one.stop()
                assert answer["uploadingStatus"] == "uploaded"
                committed = serve.slices(one.sid)
                assert committed[: len(before[one.sid])] == [(*known[:3], "customer") for known in before[one.sid]]
                assert len(committed) > len(before[one.sid]) > 1
                serve.lies_complete(one.sid, bucket)
            playlist = bucket / f"{mix.sid}_room.m3u8"
            assert playlist.read_text().count("#EXT-X-DISCONTINUITY") == 2
            assert not [error for path in entries(playlist) for error in measure.decode_errors([path])]
            await serve.spool_is_empty()


async def test_the_service_may_start_again_soon_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "data")
    async with contextlib.AsyncExitStack() as stack:
        async with serve.running(), publisher(serve.hub, 101, app=serve.credentials.app_id):
            client = await stack.enter_async_context(serve.client())
            mix = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
            await asyncio.sleep(4)
            everybody = [*family(serve.pid), serve.worker(mix.sid)]
            os.kill(serve.pid, signal.SIGKILL)
            await gone(everybody, 15)
        async with serve.running():
            # The end of the recording is told now; until then nobody could.
            assert await serve.finished(mix.sid) == (8, "complete", "shutdown", "uploaded")
            serve.lies_complete(mix.sid, serve.data / "recordings" / "bucket")
            with pytest.raises(ApiError, match="failed to find worker"):
                await mix.query()
            await serve.spool_is_empty()
            again = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
            with pytest.raises(ApiError, match="435"):
                await again.stop()


class SlowBucket(BaseHTTPRequestHandler):
    """An S3-compatible store that takes a file only when it is `open`."""

    protocol_version = "HTTP/1.1"
    open = threading.Event()
    objects: dict[str, bytes] = {}  # noqa: RUF012  # of the one bucket

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.open.wait(60)
        self.objects[self.path] = body
        self._answer(200, body)

    def do_HEAD(self) -> None:
        body = self.objects.get(self.path)
        self._answer(200 if body is not None else 404, body or b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{md5(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("Content-Length", str(len(body) if self.command == "HEAD" else 0))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def slow_bucket() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowBucket)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        SlowBucket.open.set()
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_slow_bucket_is_waited_for_but_not_by_the_caller_and_secrets_stay_secret(tmp_path: Path) -> None:
    secrets = {name: f"canary-{name}-7f3a9c".encode() for name in ("access", "secret", "token")}
    serve = Serve(tmp_path / "data", {"AGENT__ALLOWED_NETWORKS": '["127.0.0.0/8"]', "LOG_LEVEL": "DEBUG"})
    with slow_bucket() as endpoint:
        storage = {
            "vendor": 11,
            "region": 0,
            "bucket": "slow",
            "accessKey": secrets["access"].decode(),
            "secretKey": secrets["secret"].decode(),
            "extensionParams": {"endpoint": endpoint},
        }
        async with serve.running(), serve.client() as client, publisher(serve.hub, 101, app=serve.credentials.app_id):
            wanted = requests.mix(storage, mp4=False) | {"token": secrets["token"].decode()}
            mix = await client.start("room", 901, "mix", wanted)
            await asyncio.sleep(4)
            assert await answering(mix) == 5
            processes = [*family(serve.pid), serve.worker(mix.sid)]
            assert leaks(secrets, serve.data, processes) == []
            asked = time.monotonic()
            with pytest.raises(ApiError, match=r'206: .*"code":50') as refused:
                await mix.stop()
            assert 19 < time.monotonic() - asked < 24
            assert mix.sid in str(refused.value)
            assert await answering(mix) == 7
            with pytest.raises(ApiError, match=r'400: .*"code":49'):
                await mix.stop()
            assert SlowBucket.objects == {}
            SlowBucket.open.set()
            assert await serve.finished(mix.sid) == (8, "complete", "stopped", "uploaded")
            committed = serve.slices(mix.sid)
            assert {f"/slow/{name}": digest for name, _, digest, _ in committed}.items() <= {
                path: sha256(body).hexdigest() for path, body in SlowBucket.objects.items()
            }.items()
            assert SlowBucket.objects[f"/slow/{mix.sid}_room.m3u8"].endswith(b"#EXT-X-ENDLIST\n")
            assert len(SlowBucket.objects) == len(committed) + 2  # the playlist, the manifest
            await serve.spool_is_empty()
            assert leaks(secrets, serve.data, family(serve.pid)) == []


def leaks(secrets: dict[str, bytes], folder: Path, processes: list[int]) -> list[str]:
    """Where a secret stands in clear: files of the service, command lines, environments."""
    places = [path for path in folder.rglob("*") if path.is_file()]
    places += [Path(f"/proc/{pid}/{what}") for pid in processes for what in ("cmdline", "environ")]
    found = []
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            content = place.read_bytes()
            found += [f"{name} in {place}" for name, secret in secrets.items() if secret in content]
    return found
