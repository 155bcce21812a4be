"""What customers change over HTTP, and sign-ins that are locked, are in the audit log; and it is forgotten in time."""

import asyncio
import json
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import select

from api import audit, auth, erasure
from api.audit import Action, Actor, Entry
from api.auth import Gatekeeper
from api.errors import GatewayError
from api.limits import Buckets
from api.masterkey import load_master_key
from api.tables import Audit, Notice
from tests.canary import MARK, secret
from tests.contract.conftest import STORAGE, World, eventually
from tests.contract.fake_agent import FakeAgent

HERE: Final = "127.0.0.1"  # where the calls of these tests come from
CHANGING: Final = {
    "set_callbacks": Action.CALLBACKS_SET,
    "rotate_callback_secret": Action.CALLBACKS_ROTATE,
    "replay_callbacks": Action.CALLBACKS_REPLAY,
    "remove_callbacks": Action.CALLBACKS_REMOVE,
    "change_storage": Action.RECORDING_STORAGE,
    "update": Action.RECORDING_STORAGE,
}
TOLD_BY_RECORDINGS: Final = {"acquire", "start_mix", "start_individual", "update_layout", "stop"}
TRYING: Final = {"test_storage", "test_callbacks"}


async def entries(world: World) -> list[Entry]:
    """Without those of the first start, the oldest first."""
    found = await audit.recent(world.plane.store, limit=1000)
    return [entry for entry in reversed(found) if entry.actor != audit.SERVICE.name]


async def written(world: World, count: int) -> list[Entry]:
    async with asyncio.timeout(5):
        while len(found := await entries(world)) < count:
            await asyncio.sleep(0.005)
    return found


async def raw(world: World) -> str:
    async with world.plane.store.read() as session:
        return repr([vars(row) for row in await session.scalars(select(Audit))])


async def dead_letter(world: World) -> None:
    row = Notice(
        notice_id="1" * 32,
        app_id=world.caller.app_id,
        event_type=40,
        product_id=3,
        payload="{}",
        created_ms=1,
        state="dead",
        next_ms=1,
        done_ms=world.clock(),
    )
    async with world.plane.store.write() as session:
        session.add(row)


async def test_each_changing_call_leaves_one_row_and_no_secret(world: World, agent: FakeAgent) -> None:
    caller = world.caller
    task = await caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await dead_letter(world)
    callbacks = f"/v1/ext/apps/{caller.app_id}/callbacks"
    url = {"url": "https://1.1.1.1/in-path?key=in-query", "events": [31]}
    storage = {"storageConfig": STORAGE | {"secretKey": secret("audited-storage")}}
    moved = {"storageConfig": STORAGE | {"bucket": "other"}}
    own = {"secret": secret("audited-signing")}
    renewed = caller.envelope(storage)
    calls: list[tuple[str, str, str, Any, str, dict[str, object]]] = [
        ("set_callbacks", "PUT", callbacks, url, caller.app_id, {"new": True, "host": "1.1.1.1", "events": [31], "enabled": True}),
        ("rotate_callback_secret", "POST", f"{callbacks}/secret", own, caller.app_id, {"overlap_ms": 86_400_000}),
        ("replay_callbacks", "POST", f"{callbacks}/replay", {"noticeIds": ["1" * 32]}, caller.app_id, {"notices": 1}),
        ("remove_callbacks", "DELETE", callbacks, None, caller.app_id, {}),
        ("change_storage", "POST", f"/v1/ext/recordings/{task.sid}/storage", storage, task.sid, {"another_place": False}),
        ("change_storage", "POST", f"/v1/ext/recordings/{task.sid}/storage", moved, task.sid, {"another_place": True}),
        ("update", "POST", f"{task.path}/update", renewed, task.sid, {"another_place": False}),
    ]
    customer_id = json.loads(world.settings.credentials_file.read_text())["customer_id"]
    for number, (name, method, path, body, target, details) in enumerate(calls):
        answer = await caller.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        found = await entries(world)
        assert len(found) == number + 1, name
        last = found[-1]
        assert (last.actor, last.address, last.action) == (f"customer:{customer_id}", HERE, CHANGING[name])
        assert (last.target, last.details) == (target, details)
    assert {name for name, *_ in calls} == CHANGING.keys()
    everything = await raw(world)
    for hidden in (MARK, "in-path", "in-query"):
        assert hidden not in everything


async def test_what_recordings_tell_and_refused_calls_leave_none(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    assert (await task.query()).status_code == 200
    lists = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["7"]}}}
    assert (await task.post("update", lists)).status_code == 200
    stranger = await world.another_customer()
    before = await entries(world)
    for answer in (
        await stranger.http.post(f"/v1/ext/recordings/{task.sid}/storage", json={"storageConfig": STORAGE}),
        await stranger.http.put(f"/v1/ext/apps/{world.caller.app_id}/callbacks", json={"url": "https://1.1.1.1/"}),
        await world.caller.http.put(f"/v1/ext/apps/{world.caller.app_id}/callbacks", json={"url": "https://127.0.0.1/"}),
        await world.caller.http.delete(f"/v1/ext/apps/{world.caller.app_id}/callbacks"),
        await task.post("update", {"storageConfig": STORAGE | {"bucket": "other"}}),
    ):
        assert answer.status_code in (400, 401, 403, 404), answer.text
    assert (await task.stop(async_stop=True)).status_code == 200
    assert await entries(world) == before
    assert {entry.action for entry in before} == {Action.CUSTOMER_CREATE, Action.APP_CREATE}  # of the stranger


async def test_no_call_is_forgotten(world: World) -> None:
    described = world.plane.app.openapi()["paths"]
    calls = [call for methods in described.values() for method, call in methods.items() if method != "get"]
    assert {call["summary"].lower().replace(" ", "_") for call in calls} == CHANGING.keys() | TOLD_BY_RECORDINGS | TRYING


async def test_the_first_start_is_told(world: World) -> None:
    first = json.loads(world.settings.credentials_file.read_text())
    operator = json.loads(world.settings.operator_file.read_text())
    found = [entry for entry in await audit.recent(world.plane.store, limit=10) if entry.actor == audit.SERVICE.name]
    assert [(entry.action, entry.target) for entry in found] == [
        (Action.OPERATOR_CREATE, operator["operator_id"]),
        (Action.CUSTOMER_CREATE, first["customer_id"]),
    ]
    assert found[1].details["app"] == first["app_id"]
    assert first["customer_secret"] not in await raw(world)


# ---- locks -------------------------------------------------------------------------------------------------------


async def sign_in(http: httpx.AsyncClient) -> int:
    return (await http.get("/v1/ncs/ip")).status_code


async def test_a_lock_is_one_row(world: World) -> None:
    customer = await world.accounts.create("customer")
    (made,) = await entries(world)
    wrong = world.http(customer.id, secret("wrong-secret"))
    assert [await sign_in(wrong) for _ in range(20)] == [401] * 10 + [429] * 10
    swapped = world.http(customer.secret, customer.id)  # the fields are mistaken: no such id
    assert [await sign_in(swapped) for _ in range(11)] == [401] * 10 + [429]
    _, first, second = await written(world, 3)
    assert made.action == Action.CUSTOMER_CREATE
    assert (first.actor, first.address, first.action, first.target) == ("unknown", HERE, Action.CUSTOMER_LOCKED, customer.id)
    assert first.details == {"seconds": {"pair": 30, "id": 30}}
    assert (second.action, second.target) == (Action.CUSTOMER_LOCKED, "")
    everything = await raw(world)
    for hidden in (MARK, customer.secret):
        assert hidden not in everything


async def test_operators_are_locked_in_the_log_too(world: World) -> None:
    operator = json.loads(world.settings.operator_file.read_text())["operator_id"]
    gatekeeper: Gatekeeper = world.plane.app.state.gatekeeper
    header = httpx.BasicAuth(operator, "guess")._auth_header
    for _ in range(15):
        with pytest.raises(GatewayError):
            await gatekeeper.operator(header, "192.0.2.7")
    (locked,) = await written(world, 1)
    assert (locked.address, locked.action, locked.target) == ("192.0.2.7", Action.OPERATOR_LOCKED, operator)


async def test_many_locks_do_not_fill_the_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_LOCKS_AT_ONCE", 2)
    monkeypatch.setattr(auth, "_LOCKS_PER_SECOND", 0)
    keeper = Gatekeeper(world.plane.store, load_master_key(world.settings.key_file))

    async def lock(number: int) -> None:
        for _ in range(10):
            with pytest.raises(GatewayError):
                await keeper.customer(httpx.BasicAuth(f"guessed{number}", "x")._auth_header, f"192.0.2.{number}")

    for number in range(5):
        await lock(number)
    await keeper._write_locks()
    assert [entry.address for entry in await entries(world)] == ["192.0.2.0", "192.0.2.1"]
    keeper._lock_rates = Buckets(per_second=1)
    await lock(5)
    await keeper._write_locks()
    await keeper._write_locks()
    found = await entries(world)
    assert len(found) == 3
    assert found[-1].details == {"seconds": {"pair": 30, "id": 30}, "untold_before": 3}


# ---- what is kept ------------------------------------------------------------------------------------------------


async def test_rows_are_forgotten_after_a_year(world: World) -> None:
    await world.accounts.create("customer")
    world.clock.ahead_ms = 364 * 86_400_000
    await world.plane.recovery.look()
    assert len(await entries(world)) == 1
    async with world.plane.store.write() as session:
        audit.add(session, Actor("cli:later"), Action.APP_SET, "app", at_ms=world.clock())
    world.clock.ahead_ms = 366 * 86_400_000
    for _ in range(2):
        await world.plane.recovery.look()
        assert [entry.actor for entry in await audit.recent(world.plane.store, limit=10)] == ["cli:later"]


async def test_an_erased_recording_is_not_named(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    answer = await world.caller.http.post(f"/v1/ext/recordings/{task.sid}/storage", json={"storageConfig": STORAGE})
    assert answer.status_code == 200
    await agent.finish(task.sid)
    await erasure.write_down(world.plane.store, task.sid, Actor("cli:me"), at_ms=world.clock())
    assert "rows of audit" in await erasure.left_in_database(world.plane.store, task.sid)
    await erasure.erase_rows(world.plane.store, task.sid)
    assert await erasure.left_in_database(world.plane.store, task.sid) == []
    assert [(entry.action, entry.target) for entry in await entries(world)] == [
        (Action.RECORDING_STORAGE, audit.erased(task.sid)),
        (Action.RECORDING_ERASE, audit.erased(task.sid)),
    ]
    assert task.sid not in await raw(world)
