"""Each quota of a customer: what counts against it, over all its apps, and what happens to what is more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import httpx
import pytest

from api.accounts import Accounts, Limits
from api.audit import SERVICE
from recorder.protocol import BackupDone, Ended, EventBody, Finished, SliceCommitted, SliceStored
from recorder.settings import Callbacks
from tests.contract.conftest import STORAGE, Caller, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, a_slice
from tests.notices import KEY, LOOPBACK, Office, office

OVER_QUOTA = (400, 406, "vendor_over_load")
NOWHERE = "http://127.0.0.1:8009/callbacks"
SLICE_BYTES = a_slice("s.ts", 0).size
SMALL_PIXELS = 360 * 640 * 15  # of a composite that asks for nothing else
SOMEBODY: dict[str, Any] = {"recordingConfig": {"subscribeAudioUids": ["1"], "subscribeVideoUids": ["1"]}}  # two streams


def config(**given: object) -> dict[str, Any]:
    return {"recordingConfig": given}


@dataclass
class Tenant:
    """The customer under test, with two apps."""

    world: World
    id: str
    apps: tuple[Caller, Caller]

    async def may(self, **limits: Unpack[Limits]) -> None:
        await self.world.accounts.set_customer(self.id, **limits)


@pytest.fixture
async def tenant(world: World) -> Tenant:
    issued = await world.accounts.create("customer")
    one, other = [Caller(world.http(issued.id, issued.secret), await world.accounts.create_app(issued.id)) for _ in range(2)]
    return Tenant(world, issued.id, (one, other))


def refusal(answer: httpx.Response) -> tuple[int, int, str]:
    return answer.status_code, answer.json()["code"], answer.json()["reason"]


# ---- streams and pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "request_", "streams", "pixels"),
    [
        ("mix", {}, 49 + 49, SMALL_PIXELS),
        ("individual", {}, 49 + 32, 0),
        ("mix", config(streamTypes=0), 49, 0),
        ("individual", config(streamTypes=1), 32, 0),
        ("mix", config(subscribeAudioUids=["1", "2"], subscribeVideoUids=["3"]), 3, SMALL_PIXELS),
        ("individual", config(subscribeVideoUids=["3"]), 1, 0),
        ("individual", config(subscribeAudioUids=["#allstream#"], unSubscribeVideoUids=["3"]), 49 + 32, 0),
        ("mix", config(transcodingConfig={"width": 1280, "height": 720, "fps": 30, "bitrate": 2000}), 98, 1280 * 720 * 30),
    ],
)
async def test_what_a_recording_takes(
    tenant: Tenant, agent: FakeAgent, mode: str, request_: dict[str, object], streams: int, pixels: int
) -> None:
    caller = tenant.apps[0]
    resource = await caller.resource()
    for most_streams, most_pixels in ((streams - 1, pixels), (streams, pixels - 1)):
        if most_pixels >= 0:
            await tenant.may(max_streams=most_streams, max_pixels=most_pixels)
            assert refusal(await caller.start(resource, mode, **request_)) == OVER_QUOTA
    await tenant.may(max_streams=streams, max_pixels=pixels)
    answer = await caller.start(resource, mode, **request_)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("limits", [{"max_streams": 3}, {"max_pixels": SMALL_PIXELS * 2 - 1}])
async def test_what_is_live_counts_over_all_apps(tenant: Tenant, agent: FakeAgent, limits: Limits) -> None:
    await tenant.may(**limits)
    one, other = tenant.apps
    task = await one.started(**SOMEBODY)
    resource = await other.resource()
    assert refusal(await other.start(resource, **SOMEBODY)) == OVER_QUOTA
    await (await tenant.world.another_customer()).started(**SOMEBODY)  # others are not held up
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, Ended(outcome="complete", reason="idle"))
    assert (await other.start(resource, **SOMEBODY)).status_code == 200
    await tenant.may(max_streams=None, max_pixels=None)
    await one.started(**SOMEBODY)


@pytest.mark.parametrize("limits", [{"max_streams": 5}, {"max_pixels": SMALL_PIXELS * 3 - 1}])
async def test_starts_at_the_same_time_cannot_take_the_last_place(tenant: Tenant, agent: FakeAgent, limits: Limits) -> None:
    await tenant.may(**limits)
    callers = [replace(tenant.apps[number % 2], cname=f"room{number}") for number in range(6)]
    resources = [await caller.resource() for caller in callers]
    pairs = zip(callers, resources, strict=True)
    answers = await asyncio.gather(*(caller.start(resource, **SOMEBODY) for caller, resource in pairs))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [400] * 4
    assert {refusal(answer) for answer in answers if answer.status_code == 400} == {OVER_QUOTA}


async def test_what_acquire_can_tell(tenant: Tenant, agent: FakeAgent) -> None:
    one, other = tenant.apps
    await one.started(**SOMEBODY)
    for most_streams, status in ((2, 400), (3, 200), (1, 400), (None, 200)):  # 1: lowered below what is taken
        await tenant.may(max_streams=most_streams, max_pixels=0)  # which is no reason: it may become one that encodes nothing
        assert (await other.acquire()).status_code == status, most_streams
    await other.started("individual")
    assert refusal(await replace(other, cname="b").start(await replace(other, cname="b").resource())) == OVER_QUOTA


async def test_an_update_takes_and_gives_back_streams(tenant: Tenant, agent: FakeAgent) -> None:
    await tenant.may(max_streams=5)
    one, other = tenant.apps
    task, neighbour = await one.started(**SOMEBODY), await other.started(**SOMEBODY)
    await eventually(lambda: {task.sid, neighbour.sid} <= agent.claimed.keys())
    two_more = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1", "2", "3", "4"]}}}
    refused = await task.post("update", {**two_more, "storageConfig": STORAGE | {"accessKey": "another"}})
    assert refusal(refused) == OVER_QUOTA
    assert agent.commands(task.sid) == []  # nothing of it was done
    assert (await neighbour.post("update", {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}})).status_code == 200
    assert (await task.post("update", two_more)).status_code == 200
    assert (await task.post("update", two_more)).status_code == 200  # its own streams are not in its way
    assert refusal(await replace(one, cname="b").acquire()) == OVER_QUOTA


# ---- spool -------------------------------------------------------------------------------------------------------


async def test_what_waits_in_the_spool(tenant: Tenant, agent: FakeAgent) -> None:
    await tenant.may(max_spool_bytes=2 * SLICE_BYTES)
    one, other = tenant.apps
    task, neighbour = await one.started(), await other.started()
    await eventually(lambda: {task.sid, neighbour.sid} <= agent.claimed.keys())
    waiting = replace(one, cname="waiting")
    resource = await waiting.resource()
    for sid in (task.sid, neighbour.sid):
        assert (await waiting.acquire()).status_code == 200
        await agent.emit(sid, SliceCommitted(slice=a_slice("s0.ts", 0)))
    assert refusal(await waiting.acquire()) == refusal(await waiting.start(resource)) == OVER_QUOTA
    await (await tenant.world.another_customer()).started()
    await tenant.may(max_spool_bytes=2 * SLICE_BYTES + 1)
    assert (await waiting.acquire()).status_code == 200
    await tenant.may(max_spool_bytes=2 * SLICE_BYTES)
    await agent.emit(task.sid, SliceStored(name="s0.ts"))
    assert (await waiting.start(resource)).status_code == 200


@pytest.mark.parametrize(
    "told",
    [SliceStored(name="s0.ts"), SliceStored(name="s0.ts", backup=True), BackupDone(uploading="unknown")],
    ids=["stored", "in the backup store", "given up"],
)
async def test_when_a_file_of_an_ended_recording_counts_no_more(tenant: Tenant, agent: FakeAgent, told: EventBody) -> None:
    await tenant.may(max_spool_bytes=SLICE_BYTES)
    one, other = tenant.apps
    task = await one.started()
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, SliceCommitted(slice=a_slice("s0.ts", 0)))
    await agent.finish(task.sid, Finished(outcome="complete", reason="stopped", uploading="unknown", leaves_behind=True))
    assert refusal(await other.acquire()) == OVER_QUOTA
    await agent.emit(task.sid, told)
    assert (await other.acquire()).status_code == 200


async def test_what_a_node_has_lost_waits_no_more(tenant: Tenant) -> None:
    await tenant.may(max_spool_bytes=SLICE_BYTES)
    one, other = tenant.apps
    async with tenant.world.agent() as agent:
        task = await one.started()
        await eventually(lambda: task.sid in agent.claimed)
        await agent.emit(task.sid, SliceCommitted(slice=a_slice("s0.ts", 0)))
        assert refusal(await other.acquire()) == OVER_QUOTA
    async with tenant.world.agent(live=()):  # as the same node, on an empty disk
        assert (await other.acquire()).status_code == 200


# ---- callbacks ---------------------------------------------------------------------------------------------------


@dataclass
class Post:
    """A customer's notices, which nobody delivers."""

    office: Office
    customer_id: str
    apps: tuple[str, str]

    async def may(self, max_callbacks: int | None) -> None:
        await Accounts(self.office.store, KEY, by=SERVICE).set_customer(self.customer_id, max_callbacks=max_callbacks)

    async def states(self, **where: object) -> list[tuple[int | None, str, str | None]]:
        return [(notice.sequence, notice.state, notice.failure) for notice in await self.office.notices(**where)]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with office(tmp_path) as opened:
        accounts = Accounts(opened.store, KEY, by=SERVICE)
        issued = await accounts.create("customer")
        apps = (await accounts.create_app(issued.id), await accounts.create_app(issued.id))
        for app in apps:
            await opened.endpoints.set(app, url=NOWHERE)
        yield Post(opened, issued.id, apps)


async def test_callbacks_that_would_be_too_many_are_dead_letters(post: Post) -> None:
    one, other = post.apps
    stranger = await post.office.app(NOWHERE)
    await post.may(3)
    await post.office.say(other, None, 40)
    sid = await post.office.recording(one)
    await post.office.say(one, sid, 40, 41)
    await post.office.say(one, sid, 42, 43)
    await post.office.say(stranger, None, 40)
    dead = (None, "dead", "over_quota")
    assert await post.states(sid=sid) == [(0, "waiting", None), (1, "waiting", None), (2, *dead[1:]), (3, *dead[1:])]
    await post.office.say(other, None, 41)
    assert sorted(await post.states(app_id=other), key=str) == sorted([(None, "waiting", None), dead], key=str)
    assert await post.states(app_id=stranger) == [(None, "waiting", None)]
    assert (await post.office.endpoints.show(one)).dead == 2
    await post.may(None)
    await post.office.say(one, sid, 44)
    assert (await post.states(sid=sid))[-1] == (4, "waiting", None)


async def test_one_transaction_counts_its_own_callbacks(post: Post) -> None:
    await post.may(2)
    sid = await post.office.recording(post.apps[0])
    await post.office.say(post.apps[0], sid, 40, 41, 42)
    assert [state for _, state, _ in await post.states()] == ["waiting", "waiting", "dead"]


@pytest.mark.parametrize(("most", "replayed"), [(0, [0, 0]), (1, [1, 0]), (3, [3, 0]), (4, [3, 1]), (None, [3, 2])])
async def test_a_replay_fills_the_quota_at_most_oldest_first(post: Post, most: int | None, replayed: list[int]) -> None:
    one, other = post.apps
    await post.may(0)
    sid = await post.office.recording(one)
    await post.office.say(one, sid, 40, 41, 42)
    later = await post.office.say(other, None, 43, 44)
    await post.may(most)
    assert await post.office.endpoints.replay(one) == replayed[0]
    assert [state for _, state, _ in await post.states(sid=sid)] == ["waiting"] * replayed[0] + ["dead"] * (3 - replayed[0])
    assert await post.office.endpoints.replay(other, [one_id for one_id in later if one_id]) == replayed[1]


async def test_a_recording_whose_callbacks_are_too_many_goes_on(tmp_path: Path) -> None:
    callbacks = Callbacks(allow_http=True, allowed_networks=LOOPBACK)
    async with open_world(a_deployment(tmp_path / "data", callbacks=callbacks)) as world, world.agent() as agent:
        (customer,) = await world.accounts.list_all("customer")
        await world.plane.endpoints.set(world.caller.app_id, url=NOWHERE)
        await world.accounts.set_customer(customer.id, max_callbacks=0)
        task = await world.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        await agent.record(task.sid, "s0.ts")
        await agent.finish(task.sid)
        letters = await world.plane.endpoints.dead_letters(world.caller.app_id)
        assert sorted(letter.sequence or 0 for letter in letters) == list(range(len(letters)))
        assert 11 in {letter.event_type for letter in letters}
        assert {letter.failure for letter in letters} == {"over_quota"}
