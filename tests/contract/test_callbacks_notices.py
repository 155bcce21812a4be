"""What the control plane writes into the outbox: with each change of a recording, once, and nothing after its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.tables import Notice, Recording
from recorder.protocol import (
    BackupDone,
    Ended,
    Faulted,
    Finished,
    PhaseChanged,
    PlaylistPublished,
    Progress,
    SliceCommitted,
    SliceStored,
    StreamChanged,
    TrackBegan,
    UploaderStarted,
    Warned,
    WorkerLost,
)
from recorder.settings import Callbacks
from tests.contract.conftest import Clock, Task, World, a_deployment, open_world
from tests.contract.fake_agent import START_MS, a_slice
from tests.notices import LOOPBACK
from tests.strict_events import check_payload

NOWHERE = "http://127.0.0.1:8009/callbacks"
EVERYTHING = [1, 2, 3, 4, 11, 12, 30, 31, 32, 33, 40, 41, 42, 43, 44, 45, *range(10001, 10007)]


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    callbacks = Callbacks(allow_http=True, allowed_networks=LOOPBACK, late_uploads=getattr(request, "param", False))
    async with open_world(a_deployment(tmp_path / "data").model_copy(update={"callbacks": callbacks}), Clock()) as world:
        await world.plane.endpoints.set(world.caller.app_id, url=NOWHERE, events=EVERYTHING)
        yield world


async def told(world: World, sid: str) -> list[tuple[int, dict[str, Any]]]:
    """Type and details of all notices of a recording, in order; a strict receiver takes each."""
    async with world.plane.store.read() as session:
        notices = (await session.scalars(select(Notice).where(Notice.sid == sid).order_by(Notice.sequence))).all()
    payloads = [json.loads(notice.payload) for notice in notices]
    assert [payload["sequence"] for payload in payloads] == list(range(len(payloads)))
    for notice, payload in zip(notices, payloads, strict=True):
        check_payload(notice.event_type, payload)
    return [(notice.event_type, payload["details"]) for notice, payload in zip(notices, payloads, strict=True)]


async def kinds(world: World, sid: str) -> list[int]:
    return [kind for kind, _ in await told(world, sid)]


async def claimed(world: World, task: Task) -> None:
    async with asyncio.timeout(5):
        while True:
            async with world.plane.store.read() as session:
                row = await session.get(Recording, task.sid)
            if row and row.epoch:
                return
            await asyncio.sleep(0.01)


def began(epoch: int, start_ms: int) -> TrackBegan:
    return TrackBegan(epoch=epoch, playlist="l.m3u8", track="audio_and_video", uid=0, mixed=True, start_ms=start_ms)


async def test_a_recording_whose_worker_is_lost(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started()
        await claimed(world, task)
        stream = StreamChanged(epoch=1, uid=5, kind="audio", receiving=True, at_ms=START_MS)
        await agent.emit(task.sid, UploaderStarted(), PhaseChanged(phase="starting"), PhaseChanged(phase="ready"), stream)
        await agent.emit(task.sid, began(1, START_MS), PhaseChanged(phase="ready"))  # the worker repeats itself
        last = a_slice("s0.ts", 0).model_copy(update={"playlist": "l.m3u8", "start_ms": START_MS, "duration_ns": 2_500_400_000})
        await agent.emit(task.sid, SliceCommitted(slice=last), SliceStored(name="s0.ts"), PlaylistPublished(name="l.m3u8"))
        await agent.emit(task.sid, PlaylistPublished(name="l.m3u8"), sequence=8)  # delivered again
        await agent.emit(task.sid, stream.model_copy(update={"receiving": False}), WorkerLost(detail="killed"))
        await agent.claim(task.sid)
        uid = agent.claimed[task.sid].spec["uid"]
        await agent.emit(task.sid, PhaseChanged(phase="starting"), PhaseChanged(phase="ready"), began(2, START_MS + 6000))
        await agent.emit(task.sid, Progress(stored=1, committed=2), Warned(module=0, code=10001, uid=5))
        assert (await agent.claim(task.sid, resume=2)).spec["uid"] == uid  # type: ignore[union-attr]  # it is claimed
        await agent.finish(task.sid)
        await agent.emit(task.sid, SliceStored(name="x.jpg", content="snapshot"), Warned(module=1, code=31))
    notices = await told(world, task.sid)
    assert [kind for kind, _ in notices] == [30, 40, 43, 42, 4, 43, 12, 40, 42, 33, 2, 41, 33, 31, 11]
    assert notices[6][1]["newUid"] == uid != int(task.caller.uid)
    assert notices[8][1]["discontinueUtcMs"] == START_MS + 2500
    async with world.plane.store.read() as session:
        payloads = await session.scalars(select(Notice.payload).where(Notice.sid == task.sid).order_by(Notice.sequence))
        uids = [json.loads(payload)["uid"] for payload in payloads]
    assert uids == [task.caller.uid] * 6 + [str(uid)] * 9


async def test_a_token_lets_in_nobody_but_its_uid(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started(token="a" * 40)
        await claimed(world, task)
        await agent.claim(task.sid)
        assert agent.claimed[task.sid].spec["uid"] == int(task.caller.uid)
    assert await told(world, task.sid) == [(12, {"msgName": "session_failover", "newUid": int(task.caller.uid)})]


async def test_calls_that_do_not_fit_the_state(world: World) -> None:
    async with world.agent():
        task = await world.caller.started()
        assert (await world.caller.start(task.resource)).status_code == 201
        assert (await world.caller.start(await world.caller.resource())).json()["code"] == 53
        await task.stop(async_stop=True)
        assert (await task.stop(async_stop=True)).json()["code"] == 49
        await task.post("updateLayout", {"mixedVideoLayout": 1})
    notices = await told(world, task.sid)
    assert [(kind, details["status"], details["recordingMode"]) for kind, details in notices] == [
        (3, 1, 1),
        (3, 1, 1),
        (3, 6, 1),
        (3, 6, 1),
    ]


async def test_an_app_that_selects_nothing_is_told_nothing(world: World) -> None:
    await world.plane.endpoints.set(world.caller.app_id, url=NOWHERE, events=[31])
    async with world.agent() as agent:
        task = await world.caller.started()
        await world.caller.start(task.resource)
        await claimed(world, task)
        await agent.record(task.sid, "s0.ts")
        await agent.emit(task.sid, Warned(module=0, code=10002, uid=1))
        await agent.finish(task.sid)
    assert await kinds(world, task.sid) == [31]


async def test_nobody_takes_it(world: World) -> None:
    async with world.agent(claims=False):
        task = await world.caller.started()
        other = await world.caller.__class__(world.caller.http, world.caller.app_id, "room2").started()
        await other.stop()
        world.clock.ahead_ms += 61_000
        await world.plane.recovery.look()
    assert [(kind, details.get("errorCode"), details.get("module")) for kind, details in await told(world, task.sid)] == [
        (1, 52, 2),
        (11, None, None),
    ]
    assert await kinds(world, other.sid) == [11]


async def test_its_node_has_lost_it(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started()
        await claimed(world, task)
        await agent.record(task.sid, "s0.ts")
    async with world.agent():
        pass
    assert await kinds(world, task.sid) == [40, 1, 41, 11]


async def test_a_node_that_cannot_write_its_end(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started()
        await claimed(world, task)
        await agent.record(task.sid, "s0.ts")
        await agent.emit(task.sid, Finished(outcome="failed", reason="spool_full", uploading="unknown"))
    assert [(kind, details.get("errorCode")) for kind, details in await told(world, task.sid)] == [
        (40, None),
        (1, 51),
        (41, None),
        (11, None),
    ]


@pytest.mark.parametrize(("world", "late"), [(False, []), (True, [31])], indirect=["world"])
async def test_what_comes_from_the_backup_store_later(world: World, late: list[int]) -> None:
    async with world.agent() as agent:
        task = await world.caller.started()
        await claimed(world, task)
        await agent.record(task.sid, "s0.ts")
        await agent.emit(task.sid, Ended(outcome="complete", reason="stopped"))
        await agent.emit(task.sid, Finished(outcome="complete", reason="stopped", uploading="backuped", leaves_behind=True))
        await agent.emit(task.sid, SliceStored(name="s0.ts"), BackupDone(uploading="uploaded"))
    assert await kinds(world, task.sid) == [40, 41, 33, 32, 11, *late]


async def test_a_store_that_refuses_us(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started()
        await claimed(world, task)
        await agent.emit(task.sid, UploaderStarted(), Faulted(module=1, code=32, level=5, detail="no such bucket"))
        await agent.emit(task.sid, Ended(outcome="failed", reason="storage"))
        await agent.emit(task.sid, Finished(outcome="failed", reason="storage", uploading="unknown", leaves_behind=True))
    assert [(kind, details.get("leaveCode"), details.get("exitStatus")) for kind, details in await told(world, task.sid)] == [
        (30, None, None),
        (1, None, None),
        (41, 0, None),
        (11, None, 1),
    ]
