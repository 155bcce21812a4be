"""The same control plane on PostgreSQL, on a Unix socket of its own."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import select, update

from api.accounts import Accounts, AppChange, Certificates, Limits
from api.audit import SERVICE
from api.masterkey import MasterKey, read, write_private
from api.rotation import open_rotation
from api.store import open_store
from api.tables import App
from recorder.protocol import Done, Event, Metered, PhaseChanged, SliceCommitted, UsedTime
from recorder.settings import Settings
from tests.canary import secret
from tests.contract.conftest import a_deployment, eventually, open_world
from tests.contract.fake_agent import a_slice
from tests.notices import KEY, office
from tests.rotation import whole_rotation

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))

pytestmark = pytest.mark.skipif(not _BINARIES or os.getuid() != 0, reason="needs Debian's package postgresql, and root to become its user")


def _as_postgres(folder: Path, name: str, *arguments: str) -> None:
    command = ("runuser", "-u", "postgres", "--", str(_BINARIES[-1].parent / name), *arguments)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The folder with the server's socket."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # the path of a socket must be short
    shutil.chown(folder, "postgres")
    data = folder / "data"
    try:
        _as_postgres(folder, "initdb", "-A", "trust", "-N", "-D", str(data))
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        _as_postgres(folder, "pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield folder
        finally:
            _as_postgres(folder, "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(server: Path, request: pytest.FixtureRequest) -> str:
    name = request.node.name
    _as_postgres(server, "createdb", "-h", str(server), name)
    return f"postgresql+asyncpg://postgres@/{name}?host={server}"


async def test_control_planes_that_start_together_migrate_once(database_url: str) -> None:
    async def open_and_ping() -> None:
        async with open_store(database_url) as store:
            await store.ping()

    await asyncio.gather(*(open_and_ping() for _ in range(4)))


async def test_the_whole_life_of_a_recording(database_url: str, tmp_path: Path) -> None:
    settings: Settings = a_deployment(tmp_path / "data", database_url=database_url)
    async with open_world(settings) as world, world.agent() as agent:
        resource = await world.caller.resource()
        answers = await asyncio.gather(*(world.caller.start(resource) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] + [201] * 19
        (sid,) = {answer.json()["sid"] for answer in answers}
        assert (await world.caller.start(await world.caller.resource())).json()["code"] == 53
        await eventually(lambda: sid in agent.claimed)
        await agent.record(sid, "0.ts", "1.ts")
        path = f"{world.caller.base}/resourceid/{resource}/sid/{sid}/mode/mix"
        assert (await world.caller.http.get(f"{path}/query")).json()["serverResponse"]["status"] == 5
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(world.caller.http.post(f"{path}/stop", json=world.caller.envelope({})))
            await eventually(lambda: bool(agent.commands(sid)))
            await agent.finish(sid)
        assert stopping.result().json()["serverResponse"]["uploadingStatus"] == "uploaded"
        assert (await world.caller.http.get(f"{path}/query")).status_code == 404
        assert (await world.caller.http.get(f"{path.replace(sid, 'a%00b')}/query")).status_code == 404


async def test_events_keep_their_order_though_transactions_could_overtake(database_url: str, tmp_path: Path) -> None:
    async with open_world(a_deployment(tmp_path / "data", database_url=database_url)) as world, world.agent() as agent:
        task = await world.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        for first in range(0, 200, 20):
            phases = [PhaseChanged(phase="ready" if n % 2 else "recording") for n in range(20)]
            events = [Event(sid=task.sid, epoch=1, sequence=first + n, at_ms=0, body=phase) for n, phase in enumerate(phases)]
            assert await asyncio.gather(*(agent.peer.request(event) for event in events)) == [Done()] * 20
            assert (await task.query()).json()["serverResponse"]["status"] == 4


async def test_two_control_planes_share_the_state(database_url: str, tmp_path: Path) -> None:
    settings = a_deployment(tmp_path / "one", database_url=database_url)
    replica = a_deployment(tmp_path / "two", database_url=database_url)
    async with open_world(settings) as world, world.agent() as agent:
        replica.data_dir.mkdir(mode=0o700)  # replicas share keys and credentials, not the socket
        for path in (settings.data_dir / "master.key", settings.credentials_file):
            shutil.copy2(path, replica.data_dir / path.name)
        task = await world.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        async with open_world(replica) as other:
            assert (await replace(task, caller=other.caller).query()).status_code == 200
            repeated = await other.caller.start(task.resource)
            assert (repeated.status_code, repeated.json()["sid"]) == (201, task.sid)
            assert (await other.caller.start(await other.caller.resource())).json()["code"] == 53


async def test_usage_is_summed_and_paged(database_url: str, tmp_path: Path) -> None:
    async with open_world(a_deployment(tmp_path / "data", database_url=database_url)) as world, world.agent() as agent:
        for cname in ("B", "a"):
            world.caller.cname = cname
            task = await world.caller.started()
            await eventually(lambda sid=task.sid: sid in agent.claimed)  # type: ignore[misc]  # mypy cannot infer such a lambda
            for milliseconds in (2000, 1000, 2000):
                days = ("2026-02-28", "2026-03-01")
                used = tuple(UsedTime(day=day, category="hd", milliseconds=milliseconds) for day in days)
                assert await agent.emit(task.sid, Metered(epoch=1, used=used)) == Done()
        for groups, count in (("month", 2), ("day", 2), ("app", 1), ("channel", 2), ("session", 2), ("channel,month,day", 4)):
            query = {"from": "2026-01-01", "to": "2026-12-31", "groupBy": groups, "limit": "1"}
            rows = []
            while True:
                page = (await world.caller.http.get("/v1/ext/usage", params=query)).json()
                rows += page["rows"]
                if "next" not in page:
                    break
                query["after"] = page["next"]
            assert len(rows) == count
            assert sum(row["seconds"]["hd"] for row in rows) == 8
            assert [month["minutes"] for month in page["months"]] == [{"hd": 1}] * 2


async def test_the_master_key_is_rotated(database_url: str, tmp_path: Path) -> None:
    await whole_rotation(tmp_path / "data", database_url=database_url)


def opens(certificates: Certificates, app: App) -> bool:
    try:
        return certificates.open(app) is not None
    except InvalidTag:
        return False


async def test_a_rotation_waits_for_nobody_who_holds_a_row(database_url: str, tmp_path: Path) -> None:
    settings = a_deployment(tmp_path / "data", database_url=database_url)
    async with open_world(settings) as world:
        held, wiped, free = [await world.accounts.create_app((await world.accounts.list_all("customer"))[0].id) for _ in range(3)]
        for app_id in (held, wiped, free):
            await world.accounts.set_app(app_id, AppChange(certificate=secret("certificate-in-postgres")))

        async def keys_of() -> dict[str, bool]:
            new = Certificates(MasterKey(read(settings.key_file).secrets[0]))
            async with world.plane.store.read() as session:
                apps = {app.id: app for app in (await session.scalars(select(App).where(App.id.in_((held, free))))).all()}
            return {name: opens(new, app) for name, app in apps.items()}

        async with open_rotation(settings, SERVICE) as rotation, asyncio.TaskGroup() as group:
            async with world.plane.store.write() as session:
                await session.get(App, held, with_for_update=True)
                await session.execute(update(App).where(App.id == wiped).values(sealed_certificate=None))
                rotating = group.create_task(rotation.rotate())
                async with asyncio.timeout(5):
                    while await keys_of() != {held: False, free: True}:
                        await asyncio.sleep(0.02)
                assert not rotating.done()
        assert rotating.result().sealed["certificates of apps"] == 2
        assert await keys_of() == {held: True, free: True}
        async with world.plane.store.read() as session:
            assert (await session.get_one(App, wiped)).sealed_certificate is None


async def test_control_planes_that_start_together_make_one_customer(database_url: str, tmp_path: Path) -> None:
    planes = [a_deployment(tmp_path / str(number), database_url=database_url) for number in range(3)]
    credentials = {"customer_id": "c" * 32, "customer_secret": "s" * 32, "app_id": "a" * 32}
    for settings in planes:
        write_private(settings.key_file, "00" * 32)
        write_private(settings.credentials_file, json.dumps(credentials))
        write_private(settings.operator_file, json.dumps({"operator_id": "o" * 32, "operator_secret": "t" * 32}))

    async def start(settings: Settings) -> tuple[int, list[str]]:
        async with open_world(settings) as world:
            answer = await world.caller.acquire()
            return answer.status_code, [account.id for account in await world.accounts.list_all("customer")]

    assert await asyncio.gather(*(start(settings) for settings in planes)) == [(200, ["c" * 32])] * 3


@pytest.mark.parametrize(
    ("of_app", "of_customer"),
    [(3, {}), (50, {"max_streams": 3 * 98}), (50, {"max_pixels": 4 * 360 * 640 * 15 - 1})],
    ids=["recordings", "streams", "pixels"],
)
async def test_two_control_planes_do_not_exceed_a_quota(database_url: str, tmp_path: Path, of_app: int, of_customer: Limits) -> None:
    settings = a_deployment(tmp_path / "one", database_url=database_url, max_recordings=of_app)
    replica = a_deployment(tmp_path / "two", database_url=database_url, max_recordings=of_app)
    async with open_world(settings) as world, world.agent():
        (customer,) = await world.accounts.list_all("customer")
        await world.accounts.set_customer(customer.id, **of_customer)
        replica.data_dir.mkdir(mode=0o700)
        for path in (settings.key_file, settings.credentials_file):
            shutil.copy2(path, replica.data_dir / path.name)
        async with open_world(replica) as other, other.agent("node-2"):
            callers = [replace((world, other)[number % 2].caller, cname=f"room{number}") for number in range(12)]
            resources = [await caller.resource() for caller in callers]
            answers = await asyncio.gather(*(caller.start(resource) for caller, resource in zip(callers, resources, strict=True)))
            assert sorted(answer.status_code for answer in answers) == [200] * 3 + [400] * 9
            assert {answer.json()["code"] for answer in answers if answer.status_code == 400} == {406}


async def test_what_waits_counts_against_the_quotas_of_a_customer(database_url: str, tmp_path: Path) -> None:
    async with open_world(a_deployment(tmp_path, database_url=database_url)) as world, world.agent() as agent:
        (customer,) = await world.accounts.list_all("customer")
        task = await world.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        await agent.emit(task.sid, SliceCommitted(slice=a_slice("0.ts", 0)))
        for most, status in ((1000, 400), (1001, 200)):
            await world.accounts.set_customer(customer.id, max_spool_bytes=most)
            assert (await world.caller.acquire()).status_code == status
    async with office(tmp_path, database_url=database_url) as post:
        app = world.caller.app_id
        await post.endpoints.set(app, url="http://127.0.0.1:8009/callbacks")
        await Accounts(post.store, KEY, by=SERVICE).set_customer(customer.id, max_callbacks=2)
        await post.say(app, task.sid, 40, 41, 42, 43)
        assert [notice.failure for notice in await post.notices()] == [None, None, "over_quota", "over_quota"]
        await Accounts(post.store, KEY, by=SERVICE).set_customer(customer.id, max_callbacks=3)
        assert await post.endpoints.replay(app) == 1
        assert [notice.state for notice in await post.notices()] == ["waiting"] * 3 + ["dead"]
