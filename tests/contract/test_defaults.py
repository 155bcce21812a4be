"""What holds for a deployment that sets nothing, and for requests that leave out what they may."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from recorder.settings import Settings
from tests.contract.conftest import World, eventually, open_world

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[World]:
    """Everything as it is by default."""
    async with open_world(Settings(data_dir=tmp_path / "data"), patience=None) as world:
        yield world


async def test_a_recording_can_be_controlled_for_72_hours(plain: World) -> None:
    async with plain.agent() as agent:
        task = await plain.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        plain.clock.ahead_ms = 72 * HOUR_MS - MINUTE_MS
        assert (await task.query()).status_code == 200
        plain.clock.ahead_ms = 72 * HOUR_MS
        for answer in (await task.query(), await task.post("updateLayout", {}), await task.stop()):
            assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.fixture
def waited(plain: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long callers would have been kept waiting; nobody is."""
    seconds: list[float] = []

    async def until(_sid: str, look: Callable[[], Awaitable[Any]], _ready: object, most: float) -> Any:
        seconds.append(most)
        return await look()

    monkeypatch.setattr(plain.plane.app.state.service._changes, "until", until)
    return seconds


async def test_stop_waits_20_s_for_the_upload(plain: World, waited: list[float]) -> None:
    async with plain.agent() as agent:
        task = await plain.caller.started()
        await eventually(lambda: task.sid in agent.claimed)
        await agent.record(task.sid, "1.ts")
        answer = await task.stop()
    assert (answer.status_code, answer.json()["code"], waited) == (206, 50, [20])


async def test_a_repeated_start_waits_3_s_for_the_first_one(plain: World, waited: list[float]) -> None:
    async with plain.agent() as agent:
        agent.silent.set()
        resource = await plain.caller.resource()
        answers = [await plain.caller.start(resource) for _ in range(2)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(206, 65)] * 2
    assert waited == [3]


async def test_an_app_may_make_10_calls_a_second(plain: World) -> None:
    rates = plain.plane.app.state.rates
    for second in (0.0, 1.0):
        rates._now = lambda now=second: now
        answers = await asyncio.gather(*(plain.caller.acquire() for _ in range(15)))
        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 5


async def test_an_app_may_have_50_recordings(plain: World) -> None:
    plain.plane.app.state.rates._now = count().__next__  # a call a second
    async with plain.agent():
        for uid in range(1, 51):
            await replace(plain.caller, uid=str(uid)).started()
        answer = await replace(plain.caller, uid="51").acquire()
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (400, 406, "vendor_over_load")
