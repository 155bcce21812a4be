"""Two customers record at the same time, in channels of one name: nothing of one is in reach of the other's worker or calls."""

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from recorder.tools.api_client import ApiClient, Credentials, RunningRecording, folder_storage
from tests.canary import secret
from tests.e2e.test_process_death import Serve, answering, gone
from tests.e2e.test_tenants_tokens import command
from tests.live import publisher

CHANNEL, UID = "room", 901
NOWHERE = "0" * 32


@dataclass
class Customer:
    """One who records, and secrets that only this one has."""

    name: str
    url: str  # of the API
    client: ApiClient
    app_id: str

    @property
    def token(self) -> str:
        return secret(f"token-of-{self.name}")

    @property
    def keys(self) -> list[str]:
        """Of the bucket: no worker is to know any."""
        return [secret(f"access-of-{self.name}"), secret(f"secret-of-{self.name}")]

    async def start(self) -> RunningRecording:
        storage = folder_storage(self.name) | dict(zip(("accessKey", "secretKey"), self.keys, strict=True))
        config = {"channelType": 0, "streamTypes": 0, "maxIdleTime": 30}
        return await self.client.start(CHANNEL, UID, "mix", {"recordingConfig": config, "storageConfig": storage, "token": self.token})


@pytest.mark.skipif(os.geteuid() != 0, reason="looks into processes that are closed to all but root")
@pytest.mark.timeout(120)
async def test_workers_of_two_customers_share_nothing(tmp_path: Path) -> None:
    serve = service(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        first, second = await stack.enter_async_context(two_customers(serve))
        async with (
            publisher(serve.hub, 101, "--video", "none", app=first.app_id),
            publisher(serve.hub, 101, "--video", "none", app=second.app_id),
        ):
            ours, theirs = await first.start(), await second.start()
            for recording in (ours, theirs):
                await until_recording(serve, recording)
            pids = {first.name: serve.worker(ours.sid), second.name: serve.worker(theirs.sid)}
            assert len(set(pids.values())) == 2
            for own, recording, other, another in ((first, ours, second, theirs), (second, theirs, first, ours)):
                pid = pids[own.name]
                assert foreign_paths(pid, serve.data, serve.data / "spool" / recording.sid) == []
                assert said_of(pid, [another.sid, other.token, own.token, *own.keys, *other.keys]) == []
                assert remembered(pid, [own.token, recording.sid]) == {own.token, recording.sid}  # where the look goes, something is
                assert remembered(pid, [other.token, other.app_id, another.sid, *own.keys, *other.keys]) == set()
            one, two = (open_sockets(pid) for pid in pids.values())
            assert one
            assert two
            assert not one & two
            assert open_to_others(serve.data) == []
            await ours.stop()
            await gone([pids[first.name]], 10)
            again = await first.start()
            await until_recording(serve, again)
            assert serve.worker(again.sid) not in pids.values()
            assert serve.worker(theirs.sid) == pids[second.name]
            assert foreign_paths(serve.worker(again.sid), serve.data, serve.data / "spool" / again.sid) == []
            assert remembered(serve.worker(again.sid), [ours.sid, theirs.sid, second.token]) == set()


@pytest.mark.timeout(120)
async def test_every_call_takes_anothers_recording_for_one_that_is_not_there(tmp_path: Path) -> None:
    """Every call of the served description that names a resource or a recording, whichever there are."""
    serve = service(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        first, second = await stack.enter_async_context(two_customers(serve))
        ours, theirs = await first.start(), await second.start()
        mine, foreign = resource_of(ours), resource_of(theirs)
        fresh = await acquired(second)
        calls = await described_calls(first)
        assert {call.name for call in calls} >= {"start", "query", "update", "updateLayout", "stop", "{sid}", "storage"}
        for call in calls:
            unknown = await call.made(first, resource="A" * len(fresh) if call.name == "start" else mine, sid=NOWHERE)
            assert unknown.status_code in (400, 404), call
            places = [(fresh, NOWHERE)] if call.name == "start" else [(foreign, theirs.sid), (mine, theirs.sid), (foreign, ours.sid)]
            for resource, sid in places if call.of_an_app else places[:1]:
                answer = await call.made(first, resource=resource, sid=sid)
                assert (answer.status_code, told(answer)) == (unknown.status_code, told(unknown)), call
                assert second.app_id not in answer.text
            if call.of_an_app:
                closed = [await call.made(first, app_id=app_id, resource=foreign, sid=theirs.sid) for app_id in (second.app_id, "f" * 32)]
                assert {(answer.status_code, answer.text) for answer in closed} == {(400, '{"message":"appid is invalid"}')}, call
        for customer, recording, other, another in ((first, ours, second, theirs), (second, theirs, first, ours)):
            assert await answering(recording) in (4, 5)
            about = await customer.client.http.get(f"{customer.url}/v1/ext/recordings/{recording.sid}")
            assert about.status_code == 200
            usage = await customer.client.http.get(f"{customer.url}/v1/ext/usage", params={"groupBy": "app,channel,session"})
            assert usage.status_code == 200, usage.text
            for text in (about.text, usage.text):
                assert not [word for word in (other.app_id, another.sid, *other.keys, other.token) if word in text]
        assert serve.rows("SELECT sid FROM recordings WHERE finished OR outcome IS NOT NULL") == []


@dataclass(frozen=True)
class Call:
    method: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def of_an_app(self) -> bool:
        return "{appid}" in self.path

    async def made(self, by: Customer, *, resource: str, sid: str, app_id: str | None = None) -> httpx.Response:
        path = self.path.format(appid=app_id or by.app_id, resourceid=resource, sid=sid, mode="mix")
        storage = folder_storage("elsewhere")
        bodies: dict[str, dict[str, Any]] = {
            "start": {"storageConfig": storage},
            "update": {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}},
            "updateLayout": {"mixedVideoLayout": 1},
            "stop": {"async_stop": True},
        }
        body = (
            {"storageConfig": storage}
            if self.name == "storage"
            else {"cname": CHANNEL, "uid": str(UID), "clientRequest": bodies.get(self.name)}
        )
        return await by.client.http.request(self.method, by.url + path, json=None if self.method == "get" else body)


async def described_calls(by: Customer) -> list[Call]:
    paths = (await by.client.http.get(f"{by.url}/openapi.json")).json()["paths"]
    named = [(method, path) for path, methods in paths.items() for method in methods if "{resourceid}" in path or "{sid}" in path]
    return [Call(method, path) for method, path in named if "individual" not in path]


def told(answer: httpx.Response) -> dict[str, object]:
    """Without what the caller itself said."""
    return {name: value for name, value in answer.json().items() if name not in ("resourceId", "sid", "cname", "uid")}


async def acquired(by: Customer) -> str:
    return str((await by.client.call("acquire", {"cname": "another", "uid": "1", "clientRequest": {}}))["resourceId"])


def resource_of(recording: RunningRecording) -> str:
    return recording.path.split("/")[1]


# ---- the service -------------------------------------------------------------------------------------------------


def service(folder: Path) -> Serve:
    return Serve(folder / "data", {"AGENT__CORES": "16", "API__REQUESTS_PER_SECOND": "100"})


@contextlib.asynccontextmanager
async def two_customers(serve: Serve) -> AsyncIterator[tuple[Customer, Customer]]:
    async with serve.running(), contextlib.AsyncExitStack() as stack:
        created = json.loads(await asyncio.to_thread(command, serve.data, "customers", "create", "--json"))
        app_id = json.loads(await asyncio.to_thread(command, serve.data, "apps", "create", created["customer_id"], "--json"))["app_id"]
        second = Credentials(customer_id=created["customer_id"], customer_secret=SecretStr(created["customer_secret"]), app_id=app_id)
        url = f"http://127.0.0.1:{serve.ports[0]}"
        one, two = [await stack.enter_async_context(ApiClient(url, login)) for login in (serve.credentials, second)]
        yield Customer("first", url, one, serve.credentials.app_id), Customer("second", url, two, app_id)


async def until_recording(serve: Serve, recording: RunningRecording) -> None:
    """Until its worker has a file open in the spool."""
    folder = serve.data / "spool" / recording.sid
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(IndexError):  # there is no worker yet
                if any(path.is_relative_to(folder) for path in open_files(serve.worker(recording.sid))):
                    return
            await asyncio.sleep(0.1)


# ---- what a process can reach ------------------------------------------------------------------------------------


def links(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(path.readlink()))
    return found


def open_files(pid: int) -> list[Path]:
    return [Path(link) for link in links(pid) if link.startswith("/")]


def open_sockets(pid: int) -> set[str]:
    return {link for link in links(pid) if link.startswith("socket:")}


def foreign_paths(pid: int, data: Path, own: Path) -> list[Path]:
    """What the process holds of the service's data and is not its recording's: open, mapped, or as its working directory."""
    mapped = [Path(line.split(maxsplit=5)[5]) for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if " /" in line]
    held = [*open_files(pid), *mapped, Path(f"/proc/{pid}/cwd").readlink(), Path(f"/proc/{pid}/root").readlink()]
    return [path for path in held if path.is_relative_to(data) and not path.is_relative_to(own) and not path.name.startswith("serve-")]


def said_of(pid: int, words: list[str]) -> list[str]:
    """Those that stand in its arguments or its environment."""
    text = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    return [word for word in words if word.encode() in text]


def remembered(pid: int, words: list[str]) -> set[str]:
    """Those that stand in its memory."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for first, last in writable(pid):
            with contextlib.suppress(OSError, ValueError):  # given back meanwhile, or of the kernel
                memory.seek(first)
                content = memory.read(last - first)
                found |= {word for word in words if word.encode() in content}
    return found


def writable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, rights, *_ = line.split()
        if rights.startswith("rw"):
            first, last = (int(end, 16) for end in area.split("-"))
            yield first, last


def open_to_others(data: Path) -> list[Path]:
    """Folders of the spool that somebody else may enter; there are some folders."""
    folders = [path for path in (data / "spool", *(data / "spool").rglob("*")) if path.is_dir()]
    assert len(folders) > 2
    return [path for path in folders if stat.S_IMODE(path.stat().st_mode) != 0o700]
