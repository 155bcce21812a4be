"""`/v1/ext/recordings/{sid}`: how a recording is doing, and for seven days why it ended and when."""

import pytest

from recorder.protocol import Ended, Finished, PhaseChanged, Stop
from tests.contract.conftest import Caller, Task, World, eventually
from tests.contract.fake_agent import START_MS, FakeAgent, refusing

DAY_MS = 24 * 3_600_000
UNKNOWN = {"code": 404, "reason": "failed to find worker"}


async def told(caller: Caller, sid: str) -> tuple[int, dict[str, object]]:
    answer = await caller.http.get(f"/v1/ext/recordings/{sid}")
    return answer.status_code, answer.json()


async def running(world: World, agent: FakeAgent, mode: str = "mix") -> Task:
    task = await world.caller.started(mode)
    await eventually(lambda: task.sid in agent.claimed)
    return task


async def test_what_is_told_from_start_to_end(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    status, body = await told(world.caller, task.sid)
    started = body.pop("startTime")
    assert abs(int(str(started)) - world.clock()) < 60_000
    known: dict[str, object] = {"sid": task.sid, "appId": world.caller.app_id, "cname": "room1", "uid": "527841", "mode": "mix"}
    files = {"fileListMode": "string", "fileList": f"{task.sid}_room1.m3u8"}
    assert (status, body) == (200, known | files | {"status": 1})
    await agent.record(task.sid, "1.ts")
    await agent.emit(task.sid, PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="idle"))
    known |= files | {"startTime": started, "sliceStartTime": START_MS, "endTime": START_MS, "outcome": "complete", "reason": "idle"}
    assert await told(world.caller, task.sid) == (200, known | {"status": 7})
    await agent.emit(task.sid, Finished(outcome="complete", reason="idle", uploading="backuped"))
    assert await told(world.caller, task.sid) == (200, known | {"status": 8, "uploadingStatus": "backuped"})


@pytest.mark.parametrize(
    ("outcome", "reason", "status"),
    [
        ("complete", "stopped", 8),
        ("complete", "nothing_recorded", 8),
        ("limit_reached", "shutdown", 8),
        ("aborted", "stopped", 8),
        ("failed", "token", 20),
        ("failed", "channel", 20),
        ("failed", "storage", 20),
        ("failed", "spool_full", 20),
        ("interrupted", "kicked", 20),
        ("interrupted", "crashed", 20),
    ],
)
async def test_why_it_ended(world: World, agent: FakeAgent, outcome: str, reason: str, status: int) -> None:
    task = await running(world, agent, "individual")
    await agent.finish(task.sid, Finished.model_validate({"outcome": outcome, "reason": reason, "uploading": "unknown"}))
    assert (await task.query()).status_code == 404
    _, body = await told(world.caller, task.sid)
    assert (body["outcome"], body["reason"], body["status"], body["uploadingStatus"]) == (outcome, reason, status, "unknown")
    assert (body["fileListMode"], body["fileList"]) == ("json", [])


async def test_it_is_told_for_seven_days(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    world.clock.ahead_ms = 30 * DAY_MS  # longer than any window of control
    assert (await task.query()).status_code == 404
    assert (await told(world.caller, task.sid))[0] == 200
    await agent.finish(task.sid)
    world.clock.ahead_ms = 37 * DAY_MS - 60_000
    assert (await told(world.caller, task.sid))[0] == 200
    world.clock.ahead_ms = 37 * DAY_MS + 60_000
    assert await told(world.caller, task.sid) == (404, UNKNOWN | {"sid": task.sid})


async def test_the_end_that_no_agent_told(world: World) -> None:
    async with world.agent(script=refusing(Stop, "not_yours")) as agent:
        task = await running(world, agent)
        world.clock.ahead_ms = 60_000
        await task.stop()
    _, body = await told(world.caller, task.sid)
    assert (body["outcome"], body["reason"], body["status"]) == ("interrupted", "crashed", 20)
    assert abs(int(str(body["endTime"])) - world.clock()) < 30_000


async def test_foreign_and_unknown_recordings_look_the_same(world: World, agent: FakeAgent) -> None:
    task = await running(world, agent)
    other = await world.another_customer()
    for caller, sid in ((other, task.sid), (world.caller, "0" * 32), (world.caller, task.sid.upper()), (world.caller, "x")):
        assert await told(caller, sid) == (404, UNKNOWN | {"sid": sid})
    answer = await world.caller.http.get(f"/v1/ext/recordings/{task.sid}", auth=lambda request: request)
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
