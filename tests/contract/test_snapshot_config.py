"""`snapshotConfig`: what is taken, what it combines with, and what `query` and `stop` then answer."""

import asyncio

import pytest

from recorder.protocol import SliceCommitted, SliceStored
from tests.contract.conftest import STORAGE, World, eventually
from tests.contract.fake_agent import START_MS, FakeAgent, a_file, a_slice

JPG = {"snapshotConfig": {"fileType": ["jpg"]}}


@pytest.mark.parametrize(
    ("request_", "files", "interval"),
    [
        (JPG, False, 10),
        ({"snapshotConfig": {"fileType": ["jpg"], "captureInterval": 1}}, False, 1),
        ({"snapshotConfig": {"fileType": ["jpg"], "captureInterval": 3600}, "recordingFileConfig": None}, False, 3600),
        (JPG | {"recordingFileConfig": {}}, True, 10),
        (JPG | {"recordingFileConfig": {"avFileType": ["hls"]}}, True, 10),
        (JPG | {"recordingConfig": {"streamTypes": 1}}, False, 10),
        (JPG | {"recordingConfig": {"streamTypes": 2, "subscribeAudioUids": ["1"], "subscribeVideoUids": ["1"]}}, False, 10),
        (JPG | {"recordingConfig": {"subscribeVideoUids": ["#allstream#"]}}, False, 10),
        ({"snapshotConfig": None}, True, None),
        ({}, True, None),
    ],
)
async def test_screenshots_alone_or_with_the_recording(
    world: World, agent: FakeAgent, request_: dict[str, object], files: bool, interval: int | None
) -> None:
    task = await world.caller.started("individual", **request_)
    await eventually(lambda: task.sid in agent.claimed)
    spec = agent.claimed[task.sid].spec
    assert spec["files"] == files
    assert spec["snapshots"] == (interval and {"interval_seconds": interval})


@pytest.mark.parametrize("with_recording", [False, True])
async def test_query_and_stop_list_no_files(world: World, agent: FakeAgent, with_recording: bool) -> None:
    request = JPG | {"storageConfig": STORAGE | {"fileNamePrefix": ["d1"]}} | ({"recordingFileConfig": {}} if with_recording else {})
    task = await world.caller.started("individual", **request)
    await eventually(lambda: task.sid in agent.claimed)
    assert (await task.query()).json()["serverResponse"].keys() == {"status", "sliceStartTime"}
    if with_recording:
        await agent.emit(task.sid, a_file("v.m3u8", track="video", uid=7, mixed=False))
    await agent.record(task.sid)
    shot = a_slice("7.jpg", 0).model_copy(update={"playlist": None, "content": "snapshot", "duration_ns": 0})
    await agent.emit(task.sid, SliceCommitted(slice=shot), SliceStored(name="7.jpg", content="snapshot"))
    assert (await task.query()).json()["serverResponse"] == {"status": 5, "sliceStartTime": START_MS}
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid)
    assert stopping.result().json() == task.identity | {"serverResponse": {"uploadingStatus": "uploaded"}}


async def test_a_timeline_file_changes_no_answer(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started("individual")
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, a_file("list.m3u8", track="video", uid=7, mixed=False))
    await agent.record(task.sid, "1.ts")
    before = (await task.query()).json()["serverResponse"]
    timeline = a_slice("timeline.json", 1).model_copy(update={"playlist": None, "content": "timeline", "start_ms": START_MS - 5})
    await agent.emit(task.sid, SliceCommitted(slice=timeline), SliceStored(name="timeline.json", content="timeline"))
    assert (await task.query()).json()["serverResponse"] == before
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid)
    state = stopping.result().json()["serverResponse"]
    assert [file["fileName"] for file in state["fileList"]] == ["list.m3u8"]
