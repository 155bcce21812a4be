"""What agents tell over the control socket, and what the database then says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from api.plane import open_plane
from api.tables import Recording, SeenEvent, Slice
from recorder import metrics
from recorder.peer import Peer
from recorder.protocol import (
    BackupDone,
    Claim,
    Claimed,
    Done,
    Ended,
    Event,
    EventBody,
    Finished,
    PhaseChanged,
    Refused,
    SliceCommitted,
    SliceStored,
    WorkerFenced,
    WorkerLost,
)
from tests.contract.conftest import Task, World, a_deployment, counted, eventually, open_world
from tests.contract.fake_agent import FakeAgent, a_slice


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path / "data")) as world:
        yield world


async def running(world: World, agent: FakeAgent) -> Task:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    return task


async def row(world: World, sid: str) -> Recording:
    async with world.plane.store.read() as session:
        return await session.get_one(Recording, sid)


async def slices(world: World, sid: str) -> list[tuple[str, str | None]]:
    async with world.plane.store.read() as session:
        rows = await session.scalars(select(Slice).where(Slice.sid == sid).order_by(Slice.epoch, Slice.sequence))
        return [(slice_.name, slice_.stored) for slice_ in rows]


async def test_epochs_only_rise_and_have_one_owner(world: World) -> None:
    async with world.agent("one") as one, world.agent("two") as two:
        task = await running(world, one)
        assert one.claimed[task.sid].epoch == 1
        assert await two.claim(task.sid) == Refused(reason="not_yours")
        assert await two.claim(task.sid, resume=1) == Refused(reason="not_yours")
        again = await one.claim(task.sid)
        assert isinstance(again, Claimed)
        assert again.epoch == 2
        resumed = await one.claim(task.sid, resume=2)
        assert isinstance(resumed, Claimed)
        assert resumed == again
        assert await one.claim(task.sid, resume=1) == Refused(reason="stale")
        assert await one.claim("0" * 32) == Refused(reason="unknown")
        assert await one.peer.request(Claim(sid=task.sid, node="two")) == Refused(reason="not_yours")
        stored = await row(world, task.sid)
        assert (stored.node, stored.epoch) == ("one", 2)


async def test_a_stopping_recording_gets_no_new_worker_but_its_agent_may_resume(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        await task.stop(async_stop=True)
        assert await agent.claim(task.sid) == Refused(reason="exiting")
        assert isinstance(await agent.claim(task.sid, resume=1), Claimed)


async def test_events_are_applied_once(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        ready = PhaseChanged(phase="ready")
        assert await agent.emit(task.sid, ready, sequence=0) == Done()
        assert await agent.emit(task.sid, PhaseChanged(phase="recording"), sequence=1) == Done()
        assert await agent.emit(task.sid, ready, sequence=0) == Done()
        assert (await row(world, task.sid)).status == 5
        for _ in range(3):
            assert await agent.emit(task.sid, WorkerLost(), sequence=2) == Done()
        assert (await row(world, task.sid)).workers_lost == 1


async def test_an_older_epoch_changes_nothing(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.emit(task.sid, PhaseChanged(phase="recording"), WorkerLost())
        await agent.claim(task.sid)
        late = SliceCommitted(slice=a_slice("late.ts", 9))
        assert await agent.emit(task.sid, late, epoch=1) == Done()
        assert await agent.emit(task.sid, Finished(outcome="failed", reason="crashed", uploading="unknown"), epoch=1) == Done()
        assert await slices(world, task.sid) == []
        assert (await task.query()).json()["serverResponse"]["status"] == 5
        # What the former worker left in the spool is reported under the new epoch.
        assert await agent.emit(task.sid, late) == Done()
        assert await slices(world, task.sid) == [("late.ts", None)]


async def test_events_of_nothing_known_are_refused(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        ready = PhaseChanged(phase="ready")
        assert await agent.emit("0" * 32, ready, epoch=1) == Refused(reason="unknown")
        answer = await agent.emit(task.sid, ready, epoch=2)
        assert isinstance(answer, Refused)
        assert answer.reason == "bad_request"


async def test_slices_are_kept_and_marked_when_verified(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        await agent.emit(task.sid, *(SliceCommitted(slice=a_slice(f"{n}.ts", n)) for n in range(3)))
        await agent.emit(task.sid, SliceStored(name="0.ts"), SliceStored(name="1.ts", backup=True), SliceStored(name="list.m3u8"))
        assert await slices(world, task.sid) == [("0.ts", "customer"), ("1.ts", "backup"), ("2.ts", None)]
        assert (await row(world, task.sid)).first_media_ms == a_slice("0.ts", 0).start_ms


async def test_metrics_show_what_nodes_do(world: World) -> None:
    def value(name: str) -> float:
        return metrics.REGISTRY.get_sample_value(name) or 0

    names = (
        "recorder_upload_seconds_count",
        "recorder_upload_seconds_sum",
        "recorder_upload_retries_total",
        "recorder_upload_mismatches_total",
    )
    async with world.agent() as agent:
        task = await running(world, agent)
        before = [value(name) for name in names]
        await agent.emit(task.sid, SliceStored(name="0.ts", seconds=0.5, retries=2, mismatches=1), SliceStored(name="1.ts"))
        assert [value(name) - was for name, was in zip(names, before, strict=True)] == [1, 0.5, 2, 1]


async def test_losers_are_counted(world: World) -> None:
    """Once each, by what they lost: what is told twice, and what ends otherwise, is no loser."""

    def fenced() -> dict[str, float]:
        return {what: counted("recorder_fenced", what=what) for what in ("uid", "worker", "event", "claim")}

    async with world.agent() as agent:
        task = await running(world, agent)
        before = fenced()
        bodies: tuple[EventBody, ...] = (PhaseChanged(phase="recording"), WorkerLost())
        await agent.emit(task.sid, *bodies)
        await agent.claim(task.sid)
        await agent.emit(task.sid, WorkerLost(), epoch=1, sequence=1)  # the answer was lost
        assert fenced() == before
        await agent.emit(task.sid, PhaseChanged(phase="stopping"), epoch=1)
        assert fenced() == before | {"event": before["event"] + 1}
        assert await agent.claim(task.sid, resume=1) == Refused(reason="stale")
        await agent.emit(task.sid, WorkerFenced(epoch=1))
        kicked = Ended(outcome="aborted", reason="kicked")
        for _ in range(2):
            await agent.emit(task.sid, kicked, sequence=90)
        await agent.emit(task.sid, Finished(outcome="aborted", reason="kicked", uploading="uploaded"))
        other = await running(world, agent)
        await agent.finish(other.sid)
        assert fenced() == {what: count + 1 for what, count in before.items()}


async def test_a_commit_repeats_with_the_same_hash_only(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        assert await agent.emit(task.sid, SliceCommitted(slice=a_slice("0.ts", 0))) == Done()
        assert await agent.emit(task.sid, SliceCommitted(slice=a_slice("0.ts", 0))) == Done()
        other = SliceCommitted(slice=a_slice("other.ts", 0, sha256="f" * 64))
        for _ in range(2):  # refused again: the refused event left nothing behind
            answer = await agent.emit(task.sid, other, sequence=50)
            assert isinstance(answer, Refused)
        assert await slices(world, task.sid) == [("0.ts", None)]


async def test_secrets_and_inbox_are_gone_when_finished(world: World) -> None:
    async with world.agent() as agent:
        task = await world.caller.started(token="canary-token-81")
        await eventually(lambda: task.sid in agent.claimed)
        await agent.record(task.sid, "1.ts")
        before = await row(world, task.sid)
        assert before.sealed_spec
        assert b"canary" not in before.sealed_spec
        await agent.finish(task.sid)
        finished = await row(world, task.sid)
        assert (finished.sealed_spec, finished.status, finished.live, finished.uploading) == (None, 8, False, "uploaded")
        async with world.plane.store.read() as session:
            assert await session.scalar(select(SeenEvent).limit(1)) is None
        assert await agent.emit(task.sid, PhaseChanged(phase="recording")) == Done()
        assert (await row(world, task.sid)).status == 8
        assert await agent.claim(task.sid, resume=1) == Refused(reason="exiting")
    assert b"canary-token-81" not in b"".join(path.read_bytes() for path in world.settings.data_dir.glob("recorder.db*"))


async def test_what_runs_has_left_nothing_behind(world: World) -> None:
    """Its secrets are not wiped by a node that says so."""
    async with world.agent() as agent:
        task = await running(world, agent)
        answer = await agent.emit(task.sid, BackupDone(uploading="uploaded"))
        assert isinstance(answer, Refused)
        assert answer.reason == "bad_request"
        assert isinstance(await agent.claim(task.sid), Claimed)


async def test_events_keep_the_order_in_which_they_were_sent(world: World) -> None:
    async with world.agent() as agent:
        task = await running(world, agent)
        phases = [PhaseChanged(phase="ready" if n % 2 else "recording") for n in range(40)]
        events = [Event(sid=task.sid, epoch=1, sequence=n, at_ms=0, body=phase) for n, phase in enumerate(phases)]
        answers = await asyncio.gather(*(agent.peer.request(event) for event in events))
        assert answers == [Done()] * 40
        assert (await row(world, task.sid)).status == 4


async def test_hello_ends_what_the_node_has_lost(world: World) -> None:
    async with world.agent("one") as one, world.agent("two") as two:
        lost = await running(world, one)
        await one.record(lost.sid, "1.ts")
        world.caller.cname = "room2"
        kept = await running(world, one)
        world.caller.cname = "room1"
        assert two.claimed == {}
    async with world.agent("two"):
        assert (await lost.query()).status_code == 200  # somebody else's hello says nothing of it
    async with world.agent("one", live=(kept.sid,)):
        assert (await lost.query()).status_code == 404
        ended = await row(world, lost.sid)
        assert (ended.status, ended.outcome, ended.sealed_spec) == (20, "interrupted", None)
        async with world.plane.store.read() as session:
            assert await session.scalar(select(SeenEvent).where(SeenEvent.sid == lost.sid).limit(1)) is None
        world.caller.cname = "room2"
        assert (await kept.query()).status_code == 200


async def test_messages_before_hello_and_garbage_are_refused(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_message: object) -> Done:
        return Done()

    reader, writer = await asyncio.open_unix_connection(world.settings.control_socket)
    peer = Peer(reader, writer, answer)
    async with asyncio.TaskGroup() as group:
        group.create_task(peer.run())
        refused = await peer.request(Claim(sid="0" * 32, node="x"))
        peer.close()
    assert isinstance(refused, Refused)
    reader, writer = await asyncio.open_unix_connection(world.settings.control_socket)
    writer.write(b'{"canary": 1}\n')
    assert await reader.read() == b""
    writer.close()
    assert "canary" not in caplog.text
    async with world.agent():  # still served
        assert world.plane.bus.connected == 1


async def test_the_latest_connection_of_a_node_counts(world: World) -> None:
    async with world.agent() as old, world.agent() as new:
        assert world.plane.bus.connected == 1
        task = await running(world, new)
        assert old.received == []
        assert (await task.query()).status_code == 200


async def test_live_recordings_survive_a_restart_of_the_control_plane(tmp_path: Path) -> None:
    settings = a_deployment(tmp_path / "data")
    async with open_world(settings) as world, world.agent() as agent:
        task = await running(world, agent)
        await agent.record(task.sid, "0.ts")
    async with open_world(settings) as world:
        task.caller = world.caller
        assert (await task.query()).json()["serverResponse"]["status"] == 5
        async with world.agent(live=(task.sid,)) as agent:
            resumed = await agent.claim(task.sid, resume=1)
            assert isinstance(resumed, Claimed)
            # Both what was applied before and what was not is sent again.
            assert await agent.emit(task.sid, PhaseChanged(phase="starting"), sequence=0) == Done()
            assert (await row(world, task.sid)).status == 5
            assert await agent.emit(task.sid, SliceCommitted(slice=a_slice("1.ts", 1)), sequence=5) == Done()
            assert (await world.caller.start(task.resource)).status_code == 201
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(task.stop())
                await eventually(lambda: bool(agent.commands(task.sid)))
                finished = Finished(outcome="complete", reason="stopped", uploading="uploaded")
                assert await agent.emit(task.sid, finished, sequence=6) == Done()
            assert stopping.result().json()["serverResponse"]["uploadingStatus"] == "uploaded"


async def test_a_stop_that_was_interrupted_by_a_restart_is_delivered(tmp_path: Path) -> None:
    settings = a_deployment(tmp_path / "data")
    async with open_world(settings) as world, world.agent() as agent:
        task = await running(world, agent)
        async with world.plane.store.write() as session:
            (await session.get_one(Recording, task.sid)).stop = "sending"
    async with open_world(settings) as world, world.agent(live=(task.sid,)) as agent:
        await world.plane.recovery.look()
        assert len(agent.commands(task.sid)) == 1


async def test_what_nobody_claimed_is_offered_once_more_and_then_fails(world: World) -> None:
    async with world.agent(claims=False) as agent:
        task = await world.caller.started()
        await world.plane.recovery.look()
        assert len(agent.received) == 1
        world.clock.ahead_ms = 6_000
        await world.plane.recovery.look()
        await world.plane.recovery.look()
        assert len(agent.received) == 2
        world.clock.ahead_ms = 61_000
        await world.plane.recovery.look()
        assert len(agent.received) == 2
        assert (await task.query()).status_code == 404
        failed = await row(world, task.sid)
        assert (failed.status, failed.sealed_spec) == (20, None)
        assert await agent.claim(task.sid) == Refused(reason="exiting")


async def test_two_control_planes_cannot_read_each_others_ids(tmp_path: Path) -> None:
    async with open_world(a_deployment(tmp_path / "a")) as one, open_plane(a_deployment(tmp_path / "b")):
        first = await one.caller.resource()
    async with open_world(a_deployment(tmp_path / "b")) as two, two.agent():
        assert (await two.caller.start(first)).json()["code"] == 1001
