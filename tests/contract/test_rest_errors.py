"""Every answer that is no plain success: its HTTP status, its code and its reason, each made to happen once.

The gateway answers with `message` alone; the recording service with `code`, `reason` and what the call says of itself.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from api.accounts import AppChange
from api.errors import Fault, Gate
from recorder.protocol import Ended, Finished, Offer, PhaseChanged
from tests.contract.conftest import Task, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, refusing

Scenario = Callable[[World], Awaitable[httpx.Response]]
Condition = Callable[[World], contextlib.AbstractAsyncContextManager[Task]]
WANTED = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}}
CALLS = ("query", "update", "updateLayout", "stop")


async def running(world: World, agent: FakeAgent, **request: object) -> Task:
    task = await world.caller.started(**request)  # type: ignore[arg-type]  # the mode is not among them
    await eventually(lambda: task.sid in agent.claimed)
    return task


async def call(task: Task, name: str) -> httpx.Response:
    match name:
        case "query":
            return await task.query()
        case "update":
            return await task.post("update", WANTED)
        case _:
            return await task.post(name, {})


# ---- the gateway -------------------------------------------------------------------------------------------------


async def no_credentials(world: World) -> httpx.Response:
    return await world.caller.http.post(f"{world.caller.base}/acquire", json={}, auth=lambda request: request)


async def wrong_credentials(world: World) -> httpx.Response:
    return await world.caller.http.post(f"{world.caller.base}/acquire", json={}, auth=("a", "b"))


async def credentials_of_another_app(world: World) -> httpx.Response:
    return await replace(await world.another_customer(), app_id=world.caller.app_id).acquire()


async def no_such_app(world: World) -> httpx.Response:
    return await replace(world.caller, app_id="x").acquire()


async def no_such_path(world: World) -> httpx.Response:
    return await world.caller.http.post(f"{world.caller.base}/Acquire", json={})


async def wrong_method(world: World) -> httpx.Response:
    return await world.caller.http.get(f"{world.caller.base}/acquire")


async def too_large(world: World) -> httpx.Response:
    return await world.caller.acquire(x="y" * 65_536)


async def database_down(world: World) -> httpx.Response:
    class Down:
        async def query(self, _target: object) -> None:
            raise ConnectionRefusedError

    world.plane.app.state.service = Down()
    return await Task(world.caller, "r", "0" * 32).query()


async def too_many(world: World) -> httpx.Response:
    world.plane.app.state.rates = type(world.plane.app.state.rates)(per_second=0.001, burst=1)
    await world.caller.acquire()
    return await world.caller.acquire()


GATEWAY: list[tuple[Gate, int, str, Scenario]] = [
    (Gate.NO_CREDENTIALS, 401, "Unauthorized", no_credentials),
    (Gate.BAD_CREDENTIALS, 401, "Invalid authentication credentials", wrong_credentials),
    (Gate.BAD_APP, 400, "appid is invalid", no_such_app),
    (Gate.BAD_APP, 400, "appid is invalid", credentials_of_another_app),
    (Gate.NO_ROUTE, 404, "no Route matched with those values", no_such_path),
    (Gate.NO_ROUTE, 404, "no Route matched with those values", wrong_method),
    (Gate.TOO_LARGE, 413, "Request size limit exceeded", too_large),
    (Gate.TOO_MANY, 429, "API rate limit exceeded", too_many),
    (Gate.UNAVAILABLE, 503, "The service is temporarily unavailable", database_down),
]


@pytest.mark.parametrize(("gate", "status", "message", "scenario"), GATEWAY, ids=[row[3].__name__ for row in GATEWAY])
async def test_the_gateway(world: World, gate: Gate, status: int, message: str, scenario: Scenario) -> None:
    answer = await scenario(world)
    assert (answer.status_code, answer.json()) == (status, {"message": message})
    assert (gate.value.status, gate.value.message) == (status, message)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert ("www-authenticate" in answer.headers) == (status == 401)


# ---- acquire and start -------------------------------------------------------------------------------------------


async def acquire_of_nothing(world: World) -> httpx.Response:
    return await world.caller.acquire(scene="0")


async def acquire_of_an_illegal_channel(world: World) -> httpx.Response:
    return await replace(world.caller, cname="a/b").acquire()


async def broken_json(world: World) -> httpx.Response:
    return await world.caller.http.post(f"{world.caller.base}/acquire", content=b"{")


async def other_content_type(world: World) -> httpx.Response:
    return await world.caller.http.post(f"{world.caller.base}/acquire", content=b"{}", headers={"Content-Type": "text/plain"})


async def acquire_for_an_app_removed_meanwhile(world: World) -> httpx.Response:
    keeper = world.plane.app.state.gatekeeper

    class Late:
        async def customer(self, authorization: str, address: str, app_id: str) -> str:
            customer_id: str = await keeper.customer(authorization, address, app_id)
            await world.accounts.remove_app(app_id)
            return customer_id

    world.plane.app.state.gatekeeper = Late()
    return await world.caller.acquire()


async def acquire_over_the_quota(world: World) -> httpx.Response:
    await world.accounts.set_app(world.caller.app_id, AppChange(max_recordings=0))
    return await world.caller.acquire()


async def start_over_the_quota(world: World) -> httpx.Response:
    resource = await world.caller.resource()
    await world.accounts.set_app(world.caller.app_id, AppChange(max_recordings=0))
    return await world.caller.start(resource)


async def web_page_recording(world: World) -> httpx.Response:
    return await world.caller.start("r", "web")


async def acquire_with_a_fault_of_ours(world: World) -> httpx.Response:
    class Broken:
        def acquire(self, *_: object, **__: object) -> None:
            raise RuntimeError

    world.plane.app.state.service = Broken()
    return await world.caller.acquire()


async def repeated_start(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        return await world.caller.start(task.resource)


async def start_without_an_answer(world: World) -> httpx.Response:
    async with world.agent() as agent:
        agent.silent.set()
        return await world.caller.start(await world.caller.resource())


async def wrong_start(world: World) -> httpx.Response:
    return await world.caller.start(await world.caller.resource(), token=7)


async def start_beside_another(world: World) -> httpx.Response:
    async with world.agent() as agent:
        await running(world, agent)
        return await world.caller.start(await world.caller.resource())


async def start_without_a_node(world: World) -> httpx.Response:
    return await world.caller.start(await world.caller.resource())


async def start_on_a_full_node(world: World) -> httpx.Response:
    async with world.agent(script=refusing(Offer, "no_capacity")):
        return await world.caller.start(await world.caller.resource())


async def start_of_an_unreadable_resource(world: World) -> httpx.Response:
    return await world.caller.start("abc")


async def start_after_five_minutes(world: World) -> httpx.Response:
    resource = await world.caller.resource()
    world.clock.ahead_ms = 5 * 60_000 + 1000
    return await world.caller.start(resource)


async def start_of_a_used_resource(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.finish(task.sid)
        return await world.caller.start(task.resource)


async def start_for_another_uid(world: World) -> httpx.Response:
    resource = await world.caller.resource()
    return await replace(world.caller, uid="7").start(resource)


STARTING: list[tuple[Fault, int, int, str | None, Scenario]] = [
    (Fault.INVALID_PARAMETER, 400, 2, "clientRequest.scene: Input should be a valid integer", acquire_of_nothing),
    (Fault.INVALID_CHANNEL_NAME, 400, 401, "invalid_channel_name", acquire_of_an_illegal_channel),
    (Fault.BAD_FORM, 400, 8, None, broken_json),
    (Fault.BAD_FORM, 400, 8, None, other_content_type),
    (Fault.INVALID_APP, 400, 400, "invalid_appid", acquire_for_an_app_removed_meanwhile),
    (Fault.OVER_QUOTA, 400, 406, "vendor_over_load", acquire_over_the_quota),
    (Fault.OVER_QUOTA, 400, 406, "vendor_over_load", start_over_the_quota),
    (Fault.INTERNAL, 500, 500, "internal_error", acquire_with_a_fault_of_ours),
    (Fault.ALREADY_STARTED, 201, 7, "already started", repeated_start),
    (Fault.NOT_COMPLETED, 206, 65, "request not completed", start_without_an_answer),
    (Fault.INVALID_PARAMETER, 400, 2, "clientRequest.token: Input should be a valid string", wrong_start),
    (Fault.INVALID_PARAMETER, 400, 2, "mode: web page recording is not supported", web_page_recording),
    (Fault.TASK_CONFLICT, 400, 53, "task conflict", start_beside_another),
    (Fault.NO_CAPACITY, 500, 502, "Failed to allocate worker", start_without_a_node),
    (Fault.NO_CAPACITY, 500, 502, "Failed to allocate worker", start_on_a_full_node),
    (Fault.UNREADABLE_RESOURCE, 400, 1001, "resourceId cannot be decoded", start_of_an_unreadable_resource),
    (Fault.RESOURCE_EXPIRED, 400, 433, "resourceId expired", start_after_five_minutes),
    (Fault.RESOURCE_EXPIRED, 400, 433, "resourceId was used for a recording that has ended", start_of_a_used_resource),
    (Fault.WRONG_IDENTITY, 400, 432, "appid, cname or uid do not belong to the resourceId", start_for_another_uid),
]


@pytest.mark.parametrize(("fault", "status", "code", "reason", "scenario"), STARTING, ids=[row[4].__name__ for row in STARTING])
async def test_acquire_and_start(world: World, fault: Fault, status: int, code: int, reason: str | None, scenario: Scenario) -> None:
    check(await scenario(world), fault, status, code, reason)


# ---- query, update, updateLayout, stop ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def never_started(world: World) -> AsyncIterator[Task]:
    yield Task(world.caller, await world.caller.resource(), "0" * 32)


@contextlib.asynccontextmanager
async def unreadable_resource(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        yield replace(await running(world, agent), resource="abc")


@contextlib.asynccontextmanager
async def ended(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.finish(task.sid)
        yield task


@contextlib.asynccontextmanager
async def failed(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.finish(task.sid, Finished(outcome="failed", reason="storage", uploading="unknown"))
        yield task


@contextlib.asynccontextmanager
async def after_the_window_of_control(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
        world.clock.ahead_ms = 72 * 3_600_000 + 1000
        yield task


@contextlib.asynccontextmanager
async def no_answer(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
        agent.silent.set()
        yield task


@contextlib.asynccontextmanager
async def not_connected(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
    await eventually(lambda: world.plane.bus.connected == 0)
    yield task


@contextlib.asynccontextmanager
async def another_cname(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        task = await running(world, agent)
        yield replace(task, caller=replace(world.caller, cname="room2"))


@contextlib.asynccontextmanager
async def another_mode(world: World) -> AsyncIterator[Task]:
    async with world.agent() as agent:
        yield replace(await running(world, agent), mode="individual")


@contextlib.asynccontextmanager
async def mode_web(world: World) -> AsyncIterator[Task]:
    yield Task(world.caller, "r", "s", "web")


CONTROLLING: list[tuple[Fault, int, int, str, Condition, tuple[str, ...]]] = [
    (Fault.NO_SUCH_TASK, 404, 404, "failed to find worker", never_started, CALLS),
    (Fault.NO_SUCH_TASK, 404, 404, "failed to find worker", unreadable_resource, CALLS),
    (Fault.NO_SUCH_TASK, 404, 404, "failed to find worker", ended, CALLS),
    (Fault.NO_SUCH_TASK, 404, 404, "failed to find worker", failed, CALLS),
    (Fault.NO_SUCH_TASK, 404, 404, "failed to find worker", after_the_window_of_control, CALLS),  # D4
    (Fault.NOT_COMPLETED, 206, 65, "request not completed", no_answer, CALLS[1:]),
    (Fault.UNREACHABLE, 504, 62, "request timeout", not_connected, CALLS[1:]),
    (Fault.WRONG_IDENTITY, 400, 432, "appid, cname or uid do not belong to the resourceId", another_cname, CALLS[1:]),
    (Fault.INVALID_PARAMETER, 400, 2, "mode: the recording was started in mode mix", another_mode, ("query", "update", "stop")),
    (Fault.INVALID_PARAMETER, 400, 2, "mode: only mix has a layout", another_mode, ("updateLayout",)),
    (Fault.INVALID_PARAMETER, 400, 2, "mode: web page recording is not supported", mode_web, CALLS),
]


@pytest.mark.parametrize(
    ("fault", "status", "code", "reason", "condition", "names"),
    CONTROLLING,
    ids=[f"{row[4].__name__}-{len(row[5])}" for row in CONTROLLING],
)
async def test_query_update_update_layout_stop(
    world: World, fault: Fault, status: int, code: int, reason: str, condition: Condition, names: tuple[str, ...]
) -> None:
    async with condition(world) as task:
        for name in names:
            check(await call(task, name), fault, status, code, reason)


async def stop_of_what_has_no_data(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(task.stop())
            await eventually(lambda: bool(agent.commands(task.sid)))
            await agent.finish(task.sid, Finished(outcome="complete", reason="nothing_recorded", uploading="unknown"))
        return stopping.result()


async def second_stop(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        await task.stop(async_stop=True)
        return await task.stop()


async def stop_while_idle_time_is_over(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.emit(task.sid, PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="idle"))
        return await task.stop()


async def stop_while_kicked(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.emit(task.sid, Ended(outcome="failed", reason="kicked"))
        return await task.stop()


async def stop_that_takes_too_long(world: World) -> httpx.Response:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.record(task.sid, "1.ts")
        return await task.stop()


STOPPING: list[tuple[Fault, int, int, str, Scenario]] = [
    (Fault.NO_DATA, 206, 435, "no recorded data", stop_of_what_has_no_data),
    (Fault.EXITING, 400, 49, "invalid operation", second_stop),
    (Fault.EXITING, 400, 49, "invalid operation", stop_while_idle_time_is_over),
    (Fault.EXITING, 400, 49, "invalid operation", stop_while_kicked),
    (Fault.UPLOAD_PENDING, 206, 50, "upload not finished", stop_that_takes_too_long),
]


@pytest.mark.parametrize(("fault", "status", "code", "reason", "scenario"), STOPPING, ids=[row[4].__name__ for row in STOPPING])
async def test_stop(world: World, fault: Fault, status: int, code: int, reason: str, scenario: Scenario) -> None:
    check(await scenario(world), fault, status, code, reason)


def check(answer: httpx.Response, fault: Fault, status: int, code: int, reason: str | None) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"], body["reason"]) == (status, code, reason or body["reason"])
    assert (fault.value.status, fault.value.code) == (status, code)
    assert body.keys() <= {"cname", "uid", "resourceId", "sid", "code", "reason"}
    asked = answer.request.url.path.split("/")
    for name in ("resourceid", "sid"):
        if name in asked:
            assert body["resourceId" if name == "resourceid" else name] == asked[asked.index(name) + 1]


def test_every_answer_is_made_to_happen() -> None:
    faults = {row[0] for row in STARTING} | {row[0] for row in CONTROLLING} | {row[0] for row in STOPPING}
    assert faults == set(Fault)
    assert {row[0] for row in GATEWAY} == set(Gate)


async def test_the_limit_is_per_app_and_set_by_the_operator(tmp_path: Path) -> None:
    """D12."""
    async with open_world(a_deployment(tmp_path / "data", requests_per_second=0.01)) as world:
        other = await world.another_customer()
        for caller in (world.caller, other):
            assert [(await caller.acquire()).status_code for _ in range(2)] == [200, 429]
