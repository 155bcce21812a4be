"""The bodies of query and stop, by what is recorded; the states that query counts; the words for the upload."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from recorder.protocol import Ended, EventBody, Finished, PhaseChanged, SliceCommitted, SliceStored, WorkerLost
from tests.contract.conftest import STORAGE, Task, World, eventually
from tests.contract.fake_agent import START_MS, FakeAgent, a_file, a_slice

MP4 = {"recordingFileConfig": {"avFileType": ["hls", "mp4"]}}
SHOTS = {"snapshotConfig": {"fileType": ["jpg"]}}


@dataclass(frozen=True)
class Kind:
    """One column of the table of answers."""

    mode: str
    request: Mapping[str, Any]
    files: tuple[EventBody, ...]  # that the worker opens
    early: object  # fileList at once; None: there is none
    late: object  # and when there are files. $ stands for the sid


def entry(name: str, track: str, uid: str = "0") -> dict[str, object]:
    return {
        "fileName": name,
        "trackType": track,
        "uid": uid,
        "mixedAllUser": uid == "0",
        "isPlayable": True,
        "sliceStartTime": START_MS,
    }


KINDS = {
    "individual": Kind(
        "individual",
        {},
        (a_file("a.m3u8", track="audio", uid=7, mixed=False), a_file("list.m3u8", track="video", uid=7, mixed=False)),
        [],
        [entry("d1/d2/a.m3u8", "audio", "7"), entry("d1/d2/list.m3u8", "video", "7")],
    ),
    "screenshots": Kind("individual", SHOTS, (), None, None),
    "screenshots beside the recording": Kind("individual", SHOTS | {"recordingFileConfig": {}}, (a_file("list.m3u8"),), None, None),
    "mix of hls": Kind("mix", {}, (a_file("list.m3u8"),), "d1/d2/$_room1.m3u8", "d1/d2/$_room1.m3u8"),
    "mix of hls and mp4": Kind(
        "mix",
        MP4,
        (a_file("list.m3u8"), a_file("0.mp4")),
        [],
        [entry("d1/d2/0.mp4", "audio_and_video"), entry("d1/d2/list.m3u8", "audio_and_video")],
    ),
}


async def running(world: World, agent: FakeAgent, kind: Kind) -> Task:
    task = await world.caller.started(kind.mode, storageConfig=STORAGE | {"fileNamePrefix": ["d1", "d2"]}, **kind.request)
    await eventually(lambda: task.sid in agent.claimed)
    return task


def listing(files: object, task: Task) -> dict[str, object]:
    match files:
        case None:
            return {}
        case str():
            return {"fileListMode": "string", "fileList": files.replace("$", task.sid)}
        case _:
            return {"fileListMode": "json", "fileList": files}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
async def test_query_and_stop(world: World, agent: FakeAgent, kind: Kind) -> None:
    task = await running(world, agent, kind)
    early = {"status": 1, "sliceStartTime": 0} | listing(kind.early, task)
    assert (await task.query()).json() == task.identity | {"serverResponse": early}
    await agent.emit(task.sid, *kind.files)
    await agent.record(task.sid, "1.ts", "0.mp4")
    sound = a_slice("a.ts", 9).model_copy(update={"playlist": "a.m3u8"})
    await agent.emit(task.sid, SliceCommitted(slice=sound), SliceStored(name="a.ts"))
    late = {"status": 5, "sliceStartTime": START_MS} | listing(kind.late, task)
    assert (await task.query()).json() == task.identity | {"serverResponse": late}
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid)
    answer = stopping.result()
    assert (answer.status_code, answer.json()) == (
        200,
        task.identity | {"serverResponse": {"uploadingStatus": "uploaded"} | listing(kind.late, task)},
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
async def test_a_stop_that_does_not_wait(world: World, agent: FakeAgent, kind: Kind) -> None:
    """D13: names known so far, and what is not known yet."""
    task = await running(world, agent, kind)
    await agent.emit(task.sid, *kind.files)
    answer = await task.stop(async_stop=True)
    assert (answer.status_code, answer.json()) == (
        200,
        task.identity | {"serverResponse": {"uploadingStatus": "unknown"} | listing(kind.late, task)},
    )


STATUSES: list[tuple[int, tuple[EventBody, ...]]] = [
    (1, ()),
    (2, (PhaseChanged(phase="starting"),)),
    (4, (PhaseChanged(phase="ready"),)),
    (5, (PhaseChanged(phase="recording"),)),
    (4, (PhaseChanged(phase="recording"), PhaseChanged(phase="ready"))),  # everybody left, nobody is recorded
    (2, (PhaseChanged(phase="recording"), PhaseChanged(phase="starting"))),  # another worker goes on
    (5, (PhaseChanged(phase="recording"), WorkerLost(detail="killed"))),  # it is not told of that
    (6, (PhaseChanged(phase="stopping"),)),
    (6, (PhaseChanged(phase="stopping"), PhaseChanged(phase="recording"))),  # nothing leads back
    (7, (Ended(outcome="complete", reason="idle"),)),
    (7, (Ended(outcome="failed", reason="kicked"), PhaseChanged(phase="recording"))),
]


@pytest.mark.parametrize(("status", "events"), STATUSES)
async def test_what_query_counts(world: World, agent: FakeAgent, status: int, events: tuple[EventBody, ...]) -> None:
    task = await running(world, agent, KINDS["mix of hls"])
    await agent.emit(task.sid, *events)
    assert (await task.query()).json()["serverResponse"]["status"] == status


async def test_status_0_before_a_node_has_taken_it(world: World) -> None:
    async with world.agent(claims=False) as agent:
        agent.silent.set()
        resource = await world.caller.resource()
        assert (await world.caller.start(resource)).status_code == 206
        sid = next(message.sid for message in agent.received if message.type == "offer")
        assert (await Task(world.caller, resource, sid).query()).json()["serverResponse"]["status"] == 0


@pytest.mark.parametrize(
    ("outcome", "uploading", "status", "expected"),
    [
        ("complete", "uploaded", 200, "uploaded"),
        ("complete", "backuped", 200, "backuped"),
        ("limit_reached", "uploaded", 200, "uploaded"),
        ("interrupted", "uploaded", 200, "uploaded"),
        ("failed", "unknown", 206, None),  # D2: something that was recorded is not in the bucket
    ],
)
async def test_where_the_files_are(world: World, agent: FakeAgent, outcome: str, uploading: str, status: int, expected: str | None) -> None:
    task = await running(world, agent, KINDS["mix of hls"])
    await agent.record(task.sid, "1.ts")
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid, Finished.model_validate({"outcome": outcome, "reason": "stopped", "uploading": uploading}))
    answer = stopping.result()
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status
    assert body.items() >= task.identity.items()
    assert body.get("serverResponse", {}).get("uploadingStatus") == expected
