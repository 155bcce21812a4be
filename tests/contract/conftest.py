"""The control plane with a fake clock, called through HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api.accounts import Accounts, unix_ms
from api.audit import command_line
from api.masterkey import load_master_key
from api.plane import ControlPlane, open_plane
from api.service import Patience
from recorder.metrics import REGISTRY
from recorder.settings import Api, Callbacks, Settings
from recorder.spec import RecordingSpec
from tests.canary import secret
from tests.contract.fake_agent import FakeAgent, connected

STORAGE = {
    "vendor": 11,
    "region": 0,
    "bucket": "rec",
    "accessKey": secret("access-key"),
    "secretKey": secret("secret-key"),
    "extensionParams": {"endpoint": "s3.example.com"},
}

PATIENCE = Patience(start_seconds=1, stop_seconds=1)


class Clock:
    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return unix_ms() + self.ahead_ms


@dataclass
class Caller:
    """A customer's client for one app, one channel and one recorder uid."""

    http: httpx.AsyncClient
    app_id: str
    cname: str = "room1"
    uid: str = "527841"

    @property
    def base(self) -> str:
        return f"/v1/apps/{self.app_id}/cloud_recording"

    def envelope(self, request: object) -> dict[str, object]:
        return {"cname": self.cname, "uid": self.uid, "clientRequest": request}

    async def acquire(self, **request: object) -> httpx.Response:
        return await self.http.post(f"{self.base}/acquire", json=self.envelope(request))

    async def resource(self, **request: object) -> str:
        answer = await self.acquire(**request)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["resourceId"])

    async def start(self, resource: str, mode: str = "mix", **request: object) -> httpx.Response:
        body = self.envelope({"storageConfig": STORAGE} | request)
        return await self.http.post(f"{self.base}/resourceid/{resource}/mode/{mode}/start", json=body)

    async def started(self, mode: str = "mix", **request: object) -> "Task":
        resource = await self.resource()
        answer = await self.start(resource, mode, **request)
        assert answer.status_code == 200, answer.text
        return Task(self, resource, answer.json()["sid"], mode)


@dataclass
class Task:
    caller: Caller
    resource: str
    sid: str
    mode: str = "mix"

    @property
    def path(self) -> str:
        return f"{self.caller.base}/resourceid/{self.resource}/sid/{self.sid}/mode/{self.mode}"

    @property
    def identity(self) -> dict[str, str]:
        return {"cname": self.caller.cname, "uid": self.caller.uid, "resourceId": self.resource, "sid": self.sid}

    async def query(self) -> httpx.Response:
        return await self.caller.http.get(f"{self.path}/query")

    async def post(self, call: str, request: object) -> httpx.Response:
        return await self.caller.http.post(f"{self.path}/{call}", json=self.caller.envelope(request))

    async def stop(self, **request: object) -> httpx.Response:
        return await self.post("stop", request)


@dataclass
class World:
    """One deployment: its control plane, and a customer of it."""

    settings: Settings
    plane: ControlPlane
    clock: Clock
    caller: Caller
    http: Callable[[str, str], httpx.AsyncClient] = field(repr=False)

    @contextlib.asynccontextmanager
    async def agent(self, node: str = "node-1", **options: Any) -> AsyncIterator[FakeAgent]:
        async with connected(self.settings.control_socket, node, **options) as agent:
            yield agent

    async def another_customer(self) -> Caller:
        customer = await self.accounts.create("customer")
        return Caller(self.http(customer.id, customer.secret), await self.accounts.create_app(customer.id))

    @property
    def accounts(self) -> Accounts:
        """As the command line has them: nothing of the running control plane but its database."""
        return Accounts(self.plane.store, load_master_key(self.settings.key_file), by=command_line())


@contextlib.asynccontextmanager
async def open_world(settings: Settings, clock: Clock | None = None, patience: Patience | None = PATIENCE) -> AsyncIterator[World]:
    clock = clock or Clock()
    async with (
        open_plane(settings, now_ms=clock, patience=patience, answer_seconds=0.5) as plane,
        contextlib.AsyncExitStack() as clients,
    ):
        transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)

        def http(name: str, secret: str) -> httpx.AsyncClient:
            client = httpx.AsyncClient(transport=transport, base_url="http://api.test", auth=(name, secret))
            clients.push_async_callback(client.aclose)
            return client

        first = json.loads(settings.credentials_file.read_text())
        caller = Caller(http(first["customer_id"], first["customer_secret"]), first["app_id"])
        yield World(settings, plane, clock, caller, http)


def a_deployment(data_dir: Path, *, callbacks: Callbacks | None = None, **api: Any) -> Settings:
    return Settings(data_dir=data_dir, api=Api(**{"requests_per_second": 10_000} | api), callbacks=callbacks or Callbacks())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path / "data")) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """For tests that change nothing of the deployment; they must run in the loop of their module."""
    async with open_world(a_deployment(tmp_path_factory.mktemp("data"))) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_agent(shared_world: World) -> AsyncIterator[FakeAgent]:
    async with shared_world.agent() as agent:
        yield agent


_rooms = count()


@pytest.fixture
def somebody(shared_world: World) -> Caller:
    """A caller of the shared deployment, with a channel of its own."""
    return replace(shared_world.caller, cname=f"room {next(_rooms)}")


class Listener:
    """Stands where the service stands, and keeps what it would record."""

    def __init__(self) -> None:
        self.spec: RecordingSpec | None = None

    async def start(self, _caller: object, _resource_id: str, spec: RecordingSpec, _parameters: object) -> None:
        self.spec = spec


@pytest.fixture
def listener(shared_world: World) -> Iterator[Listener]:
    state = shared_world.plane.app.state
    service, state.service = state.service, Listener()
    yield state.service
    state.service = service


@pytest.fixture
async def agent(world: World) -> AsyncIterator[FakeAgent]:
    async with world.agent() as agent:
        yield agent


def counted(name: str, **labels: str) -> float:
    """What a counter of this process says; tests look at how it grows."""
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
