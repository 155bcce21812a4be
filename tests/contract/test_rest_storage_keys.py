"""`update` with `storageConfig`: new keys for the same place, handed to the node by a claim, never by a command."""

import asyncio

import pytest

from recorder.protocol import Ended, Message, PhaseChanged, RenewStorage
from tests.canary import secret
from tests.contract.conftest import STORAGE, Task, World, eventually
from tests.contract.fake_agent import FakeAgent, refusing
from tests.contract.test_wrong_input import assert_invalid

NEW_KEY = secret("new-key")
S3 = {
    "vendor": 1,
    "region": 7,
    "bucket": "rec",
    "accessKey": "AK",
    "secretKey": secret("old-key"),
    "stsToken": "t1",
    "stsExpiration": 1_900_000_000,
}
RENEWED = S3 | {"accessKey": "AK2", "secretKey": NEW_KEY, "stsToken": "t2", "stsExpiration": 1_900_003_600}


async def running(world: World, agent: FakeAgent, storage: dict[str, object] = S3, mode: str = "mix") -> Task:
    task = await world.caller.started(mode, storageConfig=storage)
    await eventually(lambda: task.sid in agent.claimed)
    return task


@pytest.mark.parametrize("mode", ["mix", "individual"])
async def test_the_node_is_told_to_claim_the_new_keys(world: World, agent: FakeAgent, mode: str) -> None:
    task = await running(world, agent, mode=mode)
    answer = await task.post("update", {"storageConfig": RENEWED})
    assert (answer.status_code, answer.json()) == (200, task.identity)
    assert agent.commands(task.sid) == [RenewStorage(sid=task.sid)]
    assert NEW_KEY not in repr(agent.received)
    await agent.claim(task.sid, resume=1)
    claimed = agent.claimed[task.sid]
    assert claimed.epoch == 1
    storage = claimed.spec["storage"]
    assert [storage[key] for key in ("access_key", "secret_key", "sts_token", "sts_expires_at")] == ["AK2", NEW_KEY, "t2", 1_900_003_600]


async def test_keys_and_lists_in_one_call(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    lists = {"audioUidList": {"subscribeAudioUids": ["7"]}}
    assert (await task.post("update", {"storageConfig": RENEWED, "streamSubscribe": lists})).status_code == 200
    assert [command.type for command in agent.commands(task.sid)] == ["renew_storage", "subscribe"]
    await agent.claim(task.sid)
    spec = agent.claimed[task.sid].spec
    assert (spec["storage"]["secret_key"], spec["subscription"]["audio"]["uids"]) == (NEW_KEY, [7])


@pytest.mark.parametrize(
    ("start", "changed", "named"),
    [
        (S3, {"vendor": 11, "extensionParams": {"endpoint": "s3.example.com"}}, ["vendor", "extensionParams.endpoint"]),
        (S3, {"region": 8}, ["region"]),
        (S3, {"bucket": "other"}, ["bucket"]),
        (S3, {"fileNamePrefix": ["d1"]}, ["fileNamePrefix"]),
        (S3, {"extensionParams": {"sse": "kms", "tag": "A=b"}}, ["extensionParams.sse", "extensionParams.tag"]),
        (STORAGE, {"extensionParams": {"endpoint": "other.example.com"}}, ["extensionParams.endpoint"]),
    ],
)
async def test_the_place_cannot_be_changed(
    world: World, agent: FakeAgent, start: dict[str, object], changed: dict[str, object], named: list[str]
) -> None:
    task = await running(world, agent, start)
    answer = await task.post("update", {"storageConfig": start | changed})
    assert_invalid(answer, [f"clientRequest.storageConfig.{field}" for field in named])
    assert agent.commands(task.sid) == []


async def test_a_place_that_changes_after_it_was_looked_at(world: World) -> None:
    """New keys for the first place come while another call changes the place: they must not lead back."""
    async with world.agent(claims=False) as agent:
        task = await world.caller.started(storageConfig=S3)
        turn = world.plane.app.state.service._turns.setdefault(task.sid, asyncio.Lock())
        calls = []
        async with turn, asyncio.TaskGroup() as group:
            for call in (
                world.caller.http.post(f"/v1/ext/recordings/{task.sid}/storage", json={"storageConfig": RENEWED | {"bucket": "other"}}),
                task.post("update", {"storageConfig": RENEWED}),
            ):
                calls.append(group.create_task(call))
                while len(turn._waiters or ()) < len(calls):
                    await asyncio.sleep(0)
            turn.release()
            changed, updated = [await call for call in calls]
            await turn.acquire()
        assert changed.status_code == 200
        assert_invalid(updated, ["clientRequest.storageConfig.bucket"])
        await agent.claim(task.sid)
        assert agent.claimed[task.sid].spec["storage"]["bucket"] == "other"


async def test_keys_can_be_renewed_while_files_are_uploaded(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    await agent.emit(task.sid, PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="idle"))
    assert (await task.post("update", {"storageConfig": RENEWED})).status_code == 200
    await agent.finish(task.sid)
    assert (await task.post("update", {"storageConfig": RENEWED})).status_code == 404


@pytest.mark.parametrize(("reason", "status", "code"), [("stale", 206, 65), ("exiting", 404, 404), ("not_yours", 404, 404)])
async def test_a_node_that_cannot_claim_them(world: World, reason: str, status: int, code: int) -> None:
    def script(message: Message) -> Message | None:
        return refusing(RenewStorage, reason)(message)

    async with world.agent(script=script) as agent:
        task = await running(world, agent)
        answer = await task.post("update", {"storageConfig": RENEWED})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        await agent.claim(task.sid)  # by the next worker they are used all the same
        assert agent.claimed[task.sid].spec["storage"]["secret_key"] == NEW_KEY
