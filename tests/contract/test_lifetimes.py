"""Lifetimes, repeats and ownership: rest-api.md sections 5, 9, 10 and 11, and the idempotency rules of faults.md."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from recorder.protocol import Ended, Finished, Load, Message, Offer, PhaseChanged, SetLayout, Stop
from recorder.spec import Canvas
from tests.contract.conftest import STORAGE, Clock, Task, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, a_file, refusing

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


async def running(world: World, agent: FakeAgent, **request: object) -> Task:
    task = await world.caller.started(**request)  # type: ignore[arg-type]  # the mode is not among them
    await eventually(lambda: task.sid in agent.claimed)
    return task


# ---- start -------------------------------------------------------------------------------------------------------


async def test_a_repeated_start_answers_with_the_running_sid(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    answer = await world.caller.start(task.resource)
    assert answer.status_code == 201
    assert answer.json() == task.identity | {"code": 7, "reason": "already started"}
    assert sum(isinstance(message, Offer) for message in agent.received) == 1


async def test_fifty_parallel_starts_make_one_recording(world: World, agent: FakeAgent) -> None:
    resource = await world.caller.resource()
    answers = await asyncio.gather(*(world.caller.start(resource) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] + [201] * 49
    assert len({answer.json()["sid"] for answer in answers}) == 1
    assert sum(isinstance(message, Offer) for message in agent.received) == 1


async def test_nodes_are_told_how_much_a_recording_takes(world: World, agent: FakeAgent) -> None:
    canvas = {"width": 1280, "height": 720, "fps": 30, "bitrate": 1800}
    await running(world, agent, recordingConfig={"transcodingConfig": canvas}, recordingFileConfig={"avFileType": ["hls", "mp4"]})
    (offer,) = [message for message in agent.received if isinstance(message, Offer)]
    assert offer.load == Load(canvas=Canvas(width=1280, height=720, fps=30, bitrate_kbps=1800), mp4=True)


async def test_what_is_offered_again_takes_what_it_took(world: World) -> None:
    canvas = {"width": 1920, "height": 1080, "fps": 30, "bitrate": 3000}
    async with world.agent(claims=False) as agent:
        await world.caller.started(recordingConfig={"transcodingConfig": canvas}, recordingFileConfig={"avFileType": ["hls", "mp4"]})
        await replace(world.caller, uid="7").started("individual")
        world.clock.ahead_ms = MINUTE_MS // 2
        await world.plane.recovery.look()
        offers = [message for message in agent.received if isinstance(message, Offer)]
    first, again = ({offer.sid: offer.load for offer in some} for some in (offers[:2], offers[2:]))
    assert again == first
    assert Load(canvas=Canvas(width=1920, height=1080, fps=30, bitrate_kbps=3000), mp4=True) in again.values()


async def test_the_same_recorder_twice_is_a_conflict(world: World, agent: FakeAgent) -> None:
    await running(world, agent)
    answer = await world.caller.start(await world.caller.resource())
    assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (400, 53, "task conflict")
    for other in (replace(world.caller, uid="2"), replace(world.caller, cname="room2")):
        assert (await other.start(await other.resource())).status_code == 200


async def test_a_channel_is_free_again_when_the_last_file_is_written(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    await agent.emit(task.sid, Ended(outcome="complete", reason="idle"))
    await running(world, agent)
    assert (await task.query()).json()["serverResponse"]["status"] == 7


async def test_an_expired_resource(world: World, agent: FakeAgent) -> None:
    resource = await world.caller.resource()
    world.clock.ahead_ms = 5 * MINUTE_MS + 1000
    answer = await world.caller.start(resource)
    assert (answer.status_code, answer.json()["code"]) == (400, 433)
    world.clock.ahead_ms = 0
    task = await running(world, agent)
    world.clock.ahead_ms = 5 * MINUTE_MS + 1000
    assert (await world.caller.start(task.resource)).status_code == 201


async def test_a_resource_serves_one_recording(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    await agent.finish(task.sid)
    answer = await world.caller.start(task.resource)
    assert (answer.status_code, answer.json()["code"]) == (400, 433)


@pytest.mark.parametrize("change", ["garbage", "flipped", "long", "foreign"])
async def test_a_resource_that_is_not_ours(world: World, agent: FakeAgent, change: str) -> None:
    resource = await world.caller.resource()
    other = await world.another_customer()
    bad = {
        "garbage": "abc",
        "flipped": ("B" if resource[0] == "A" else "A") + resource[1:],
        "long": resource * 10,
        "foreign": await other.resource(),
    }
    answer = await world.caller.start(bad[change])
    assert (answer.status_code, answer.json()["code"]) == (400, 1001)


@pytest.mark.parametrize("changed", [{"cname": "room2"}, {"uid": "7"}])
async def test_cname_and_uid_must_be_those_of_acquire(world: World, agent: FakeAgent, changed: dict[str, str]) -> None:
    task = await running(world, agent)
    other = replace(world.caller, **changed)  # type: ignore[arg-type]  # only these two
    unused = await world.caller.resource()
    layout = {"mixedVideoLayout": 1}
    again = replace(task, caller=other)
    for answer in (await other.start(unused), await again.post("updateLayout", layout), await again.stop()):
        assert (answer.status_code, answer.json()["code"]) == (400, 432)
    assert agent.commands(task.sid) == []


async def test_start_must_keep_what_acquire_was_told(world: World, agent: FakeAgent) -> None:
    told = {"storageConfig": STORAGE, "recordingConfig": {"maxIdleTime": 60, "streamTypes": 2}}
    resource = await world.caller.resource(startParameter=told)
    answer = await world.caller.start(resource, recordingConfig={"maxIdleTime": 61, "streamTypes": 2})
    assert (answer.status_code, answer.json()["code"]) == (400, 2)
    answer = await world.caller.start(resource, recordingConfig={"streamTypes": 2, "maxIdleTime": 60})
    assert answer.status_code == 200


async def test_no_agent(world: World) -> None:
    resource = await world.caller.resource()
    answer = await world.caller.start(resource)
    assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (500, 502, "Failed to allocate worker")
    async with world.agent():  # clients repeat the start with the same resourceId
        assert (await world.caller.start(resource)).status_code == 200


async def test_no_capacity(world: World) -> None:
    async with world.agent("full", script=refusing(Offer, "no_capacity")) as full:
        resource = await world.caller.resource()
        assert (await world.caller.start(resource)).json()["code"] == 502
        async with world.agent("free") as free:
            assert (await world.caller.start(resource)).status_code == 200
            await eventually(lambda: len(free.claimed) == 1)
        assert full.claimed == {}


async def test_an_agent_that_does_not_answer(world: World, agent: FakeAgent) -> None:
    agent.silent.set()
    resource = await world.caller.resource()
    first = await world.caller.start(resource)
    assert (first.status_code, first.json()["code"], first.json()["reason"]) == (206, 65, "request not completed")
    second = await world.caller.start(resource)
    assert (second.status_code, second.json()["code"]) == (206, 65)
    offered = [message.sid for message in agent.received if isinstance(message, Offer)]
    await agent.claim(offered[0])
    third = await world.caller.start(resource)
    assert (third.status_code, third.json()["sid"]) == (201, offered[0])


# ---- foreign and unknown -----------------------------------------------------------------------------------------


async def test_foreign_and_unknown_recordings_look_the_same(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    other = await world.another_customer()
    unused = await world.caller.resource()
    strangers = [
        replace(task, caller=other),
        replace(task, caller=other, resource=await other.resource()),
        replace(task, sid="0" * 32),
        replace(task, sid="x%00" * 8),
        replace(task, resource="abc"),
        replace(task, resource=unused),
    ]
    wanted = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}}
    for stranger in strangers:
        for answer in (
            await stranger.query(),
            await stranger.post("update", wanted),
            await stranger.post("updateLayout", {}),
            await stranger.stop(),
        ):
            assert answer.status_code == 404
            assert (answer.json()["code"], answer.json()["reason"]) == (404, "failed to find worker")
    assert agent.commands(task.sid) == []


async def test_the_mode_is_the_started_one(world: World, agent: FakeAgent) -> None:
    task = replace(await running(world, agent), mode="individual")
    for answer in (await task.query(), await task.stop()):
        assert (answer.status_code, answer.json()["code"]) == (400, 2)


async def test_the_control_window(world: World, agent: FakeAgent) -> None:
    resource = await world.caller.resource(resourceExpiredHour=1)
    task = Task(world.caller, resource, (await world.caller.start(resource)).json()["sid"])
    await eventually(lambda: task.sid in agent.claimed)
    world.clock.ahead_ms = HOUR_MS - MINUTE_MS
    assert (await task.query()).status_code == 200
    world.clock.ahead_ms = HOUR_MS + MINUTE_MS
    for answer in (await task.query(), await task.post("updateLayout", {}), await task.stop()):
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert agent.commands(task.sid) == []  # it goes on


async def test_what_has_expired_stays_so_when_the_clock_is_set_back(world: World, agent: FakeAgent) -> None:
    """T4."""
    running_out, resource = await running(world, agent), await world.caller.resource()
    world.clock.ahead_ms = 72 * HOUR_MS + MINUTE_MS
    assert (await running_out.query()).status_code == 404
    assert (await world.caller.start(resource)).json()["code"] == 433
    for hours in (0, -72):
        world.clock.ahead_ms = hours * HOUR_MS
        assert (await running_out.query()).status_code == 404
        assert (await world.caller.start(resource)).json()["code"] == 433
    other = replace(world.caller, cname="room2")
    assert (await other.started()).sid  # what is new has its whole time


async def test_expiry_outlives_a_restart_with_another_clock(tmp_path: Path) -> None:
    """T4 and T5: what was left of each time is left after the restart, and nothing comes back."""
    settings, clock = a_deployment(tmp_path / "data"), Clock()
    async with open_world(settings, clock) as world, world.agent() as agent:
        short, long = [
            Task(caller, resource, (await caller.start(resource)).json()["sid"])
            for caller, hours in ((world.caller, 1), (replace(world.caller, uid="7"), 3))
            for resource in [await caller.resource(resourceExpiredHour=hours)]
        ]
        await eventually(lambda: {short.sid, long.sid} <= agent.claimed.keys())
        clock.ahead_ms = 2 * HOUR_MS
        await world.plane.recovery.look()
        late = await world.caller.resource()
    for hours, answers in ((0, (404, 200)), (2.9, (404, 200)), (3.1, (404, 404))):
        clock.ahead_ms = int(hours * HOUR_MS)
        async with open_world(settings, clock) as world, world.agent(live=(short.sid, long.sid)):
            found = [replace(task, caller=replace(task.caller, http=world.caller.http)) for task in (short, long)]
            assert tuple([(await task.query()).status_code for task in found]) == answers
            assert (await replace(world.caller, uid="9").start(late)).status_code == 400
            assert (await world.caller.start(late)).json()["code"] == 433  # of two hours later, or longer ago than five minutes


async def test_the_rate_is_limited_per_app(tmp_path: Path) -> None:
    async with open_world(a_deployment(tmp_path / "data", requests_per_second=10)) as world:
        answers = await asyncio.gather(*(world.caller.acquire() for _ in range(30)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 10 <= len(answers) - len(refused) < 30
        assert refused[0].json() == {"message": "API rate limit exceeded"}
        assert "retry-after" in refused[0].headers
        assert (await (await world.another_customer()).acquire()).status_code == 200


# ---- stop --------------------------------------------------------------------------------------------------------


async def test_stop_before_anything_was_recorded(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid, Finished(outcome="complete", reason="nothing_recorded", uploading="unknown"))
    answer = stopping.result()
    assert answer.status_code == 206
    assert answer.json() == task.identity | {"code": 435, "reason": "no recorded data"}


async def test_stop_before_the_agent_claimed(world: World) -> None:
    async with world.agent(claims=False) as agent:
        task = await world.caller.started()
        answer = await task.stop()
        assert (answer.status_code, answer.json()["code"]) == (206, 435)
        assert (await agent.claim(task.sid)).type == "refused"
        assert (await task.query()).status_code == 404


async def test_stop_that_takes_too_long(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    await agent.record(task.sid, "1.ts")
    answer = await task.stop()
    assert answer.status_code == 206
    assert answer.json()["code"] == 50
    assert task.identity.items() <= answer.json().items()
    again = await task.stop()
    assert (again.status_code, again.json()["code"], again.json()["reason"]) == (400, 49, "invalid operation")
    await agent.finish(task.sid)
    gone = await task.stop()
    assert (gone.status_code, gone.json()["code"]) == (404, 404)


async def test_stop_of_what_its_node_has_not_got_any_more(world: World) -> None:
    async with world.agent(script=refusing(Stop, "not_yours")) as agent:
        task = await running(world, agent)
        answer = await task.stop()
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
        assert (await task.query()).status_code == 404
        await running(world, agent)  # its channel and uid are free again


@pytest.mark.parametrize(("outcome", "reason"), [("failed", "storage"), ("interrupted", "stopped")])
async def test_stop_is_no_success_when_files_did_not_reach_the_bucket(world: World, agent: FakeAgent, outcome: str, reason: str) -> None:
    task = await running(world, agent)
    await agent.record(task.sid, "1.ts")
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        finished = {"outcome": outcome, "reason": reason, "uploading": "unknown"}
        await agent.finish(task.sid, Finished.model_validate(finished))
    answer = stopping.result()
    assert (answer.status_code, answer.json()) == (206, task.identity | {"code": 50, "reason": "upload not finished"})


async def test_stop_lists_only_what_is_in_the_bucket(world: World, agent: FakeAgent) -> None:
    """A worker that is killed has announced files that nobody will write any more."""
    task = await world.caller.started(recordingFileConfig={"avFileType": ["hls", "mp4"]})
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, *(a_file(name) for name in ("list.m3u8", "0.mp4", "1.mp4", "empty.m3u8")))
    await agent.record(task.sid, "1.ts", "1.mp4")
    assert len((await task.query()).json()["serverResponse"]["fileList"]) == 4
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid)
    state = stopping.result().json()["serverResponse"]
    assert state["uploadingStatus"] == "uploaded"
    assert [file["fileName"] for file in state["fileList"]] == ["1.mp4", "list.m3u8"]


async def test_fifty_parallel_stops_have_one_effect(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    answers = await asyncio.gather(*(task.stop(async_stop=True) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 49
    assert len(agent.commands(task.sid)) == 1


@pytest.mark.parametrize("body", [PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="idle")])
async def test_stop_of_what_ends_by_itself(world: World, agent: FakeAgent, body: PhaseChanged | Ended) -> None:
    task = await running(world, agent)
    await agent.emit(task.sid, body)
    answer = await task.stop()
    assert (answer.status_code, answer.json()["code"]) == (400, 49)
    assert agent.commands(task.sid) == []


@pytest.mark.parametrize("outcome", ["complete", "failed", "aborted", "limit_reached", "interrupted"])
async def test_nothing_is_found_after_the_end(world: World, agent: FakeAgent, outcome: str) -> None:
    task = await running(world, agent)
    await agent.record(task.sid, "1.ts")
    await agent.finish(task.sid, Finished.model_validate({"outcome": outcome, "reason": "token", "uploading": "uploaded"}))
    for answer in (await task.query(), await task.post("updateLayout", {}), await task.stop()):
        assert (answer.status_code, answer.json()["code"]) == (404, 404)


async def test_update_while_it_ends(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    await task.stop(async_stop=True)
    answer = await task.post("updateLayout", {})
    assert (answer.status_code, answer.json()["code"]) == (404, 404)


async def test_commands_to_an_agent_that_is_silent_or_gone(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        agent.silent.set()
        for answer in (await task.post("updateLayout", {}), await task.stop()):
            assert (answer.status_code, answer.json()["code"]) == (206, 65)
    await eventually(lambda: world.plane.bus.connected == 0)
    assert (await task.post("updateLayout", {})).status_code == 404  # it is to be stopped
    answer = await task.stop()
    assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (504, 62, "request timeout")
    # The wish was kept: the agent gets it when it is back.
    async with world.agent(live=(task.sid,)) as agent:
        await world.plane.recovery.look()
        assert agent.commands(task.sid) == [Stop(sid=task.sid)]
        await world.plane.recovery.look()
        assert len(agent.commands(task.sid)) == 1


async def test_a_command_that_the_worker_refuses(world: World) -> None:
    def script(message: Message) -> Message | None:
        return refusing(SetLayout, "exiting")(message)

    async with world.agent(script=script) as agent:
        task = await running(world, agent)
        answer = await task.post("updateLayout", {})
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
