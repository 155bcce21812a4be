"""Every call's answer when all goes well: rest-api.md sections 3 to 9."""

import asyncio
from dataclasses import replace

import pytest

from recorder.protocol import Finished, Offer, PhaseChanged, SetLayout, Stop, Subscribe
from tests.contract.conftest import STORAGE, World, eventually
from tests.contract.fake_agent import START_MS, FakeAgent, a_file


async def test_acquire_echoes_and_gives_a_url_safe_resource_id(world: World) -> None:
    answer = await world.caller.acquire()
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"cname", "uid", "resourceId"}
    assert (body["cname"], body["uid"]) == ("room1", "527841")
    assert 100 < len(body["resourceId"]) <= 400
    assert set(body["resourceId"]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert await world.caller.resource() != body["resourceId"]


@pytest.mark.parametrize("mode", ["mix", "individual"])
@pytest.mark.parametrize(("cname", "uid"), [("room 7: a+b!", "1"), ("0", "4294967295")])
async def test_start_answers_with_what_it_was_asked_for(world: World, agent: FakeAgent, mode: str, cname: str, uid: str) -> None:
    caller = replace(world.caller, cname=cname, uid=uid)
    resource = await caller.resource()
    answer = await caller.start(resource, mode)
    assert answer.status_code == 200
    (sid,) = [message.sid for message in agent.received if isinstance(message, Offer)]
    assert answer.json() == {"cname": cname, "uid": uid, "resourceId": resource, "sid": sid}


async def test_start_answers_strings_and_hands_the_spec_to_the_agent(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(token="secret-token")
    await eventually(lambda: task.sid in agent.claimed)
    assert len(task.sid) == 32
    assert set(task.sid) <= set("0123456789abcdef")
    claimed = agent.claimed[task.sid]
    assert claimed.epoch == 1
    assert claimed.spec["token"] == "secret-token"
    assert claimed.spec["storage"]["secret_key"] == STORAGE["secretKey"]
    assert (claimed.spec["channel"], claimed.spec["uid"], claimed.spec["mode"]) == ("room1", 527841, "mix")


@pytest.mark.parametrize(("prefix", "path"), [([], ""), (["d1", "d2"], "d1/d2/")])
async def test_query_of_a_mix_names_its_playlist_at_once(world: World, agent: FakeAgent, prefix: list[str], path: str) -> None:
    task = await world.caller.started(storageConfig=STORAGE | {"fileNamePrefix": prefix})
    answer = await task.query()
    assert answer.status_code == 200
    body = answer.json()
    state = body.pop("serverResponse")
    assert body == task.identity
    assert state.pop("status") in (1, 2)
    assert state == {"fileListMode": "string", "fileList": f"{path}{task.sid}_room1.m3u8", "sliceStartTime": 0}


@pytest.mark.parametrize(("phase", "status"), [("starting", 2), ("ready", 4), ("recording", 5), ("stopping", 6)])
async def test_query_counts_states_as_documented(world: World, agent: FakeAgent, phase: str, status: int) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, PhaseChanged.model_validate({"phase": phase}))
    assert (await task.query()).json()["serverResponse"]["status"] == status


async def test_query_of_a_mix_with_mp4_lists_objects(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(recordingFileConfig={"avFileType": ["hls", "mp4"]})
    await eventually(lambda: task.sid in agent.claimed)
    state = (await task.query()).json()["serverResponse"]
    assert (state["fileListMode"], state["fileList"]) == ("json", [])
    await agent.emit(task.sid, a_file(f"{task.sid}_room1_0.mp4"))
    state = (await task.query()).json()["serverResponse"]
    assert state["fileList"] == [
        {
            "fileName": f"{task.sid}_room1_0.mp4",
            "trackType": "audio_and_video",
            "uid": "0",
            "mixedAllUser": True,
            "isPlayable": True,
            "sliceStartTime": START_MS,
        }
    ]
    assert state["sliceStartTime"] == START_MS


async def test_query_of_an_individual_recording_lists_every_index_once(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started("individual", storageConfig=STORAGE | {"fileNamePrefix": ["d1"]})
    await eventually(lambda: task.sid in agent.claimed)
    audio = a_file("a.m3u8", track="audio", uid=7, mixed=False)
    await agent.emit(task.sid, audio, a_file("v.m3u8", track="video", uid=7, mixed=False, start_ms=START_MS + 1), audio)
    state = (await task.query()).json()["serverResponse"]
    assert [(f["fileName"], f["trackType"], f["uid"], f["mixedAllUser"]) for f in state["fileList"]] == [
        ("d1/a.m3u8", "audio", "7", False),
        ("d1/v.m3u8", "video", "7", False),
    ]
    assert state["sliceStartTime"] == START_MS


async def test_update_replaces_the_subscription(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    wanted = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["#allstream#"]}, "videoUidList": {"unsubscribeVideoUids": ["5"]}}}
    answer = await task.post("update", wanted)
    assert (answer.status_code, answer.json()) == (200, task.identity)
    (command,) = agent.commands(task.sid)
    assert isinstance(command, Subscribe)
    assert command.subscription.audio.kind == "all"
    assert (command.subscription.video.kind, command.subscription.video.uids) == ("except", frozenset({5}))


async def test_update_layout_replaces_the_whole_layout(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    region = {"uid": "7", "x_axis": 0, "y_axis": 0.5, "width": 1, "height": 0.5}
    answer = await task.post("updateLayout", {"mixedVideoLayout": 3, "layoutConfig": [region]})
    assert (answer.status_code, answer.json()) == (200, task.identity)
    await task.post("updateLayout", {})
    first, second = agent.commands(task.sid)
    assert isinstance(first, SetLayout)
    assert isinstance(second, SetLayout)
    assert (first.layout.number, first.layout.regions[0].uid, first.layout.regions[0].y) == (3, 7, 0.5)
    assert (second.layout.number, second.layout.regions, second.layout.background_color) == (0, (), "#000000")


async def test_what_was_updated_is_in_the_next_claim(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await task.post("updateLayout", {"mixedVideoLayout": 1})
    await agent.claim(task.sid)
    assert agent.claimed[task.sid].epoch == 2
    assert agent.claimed[task.sid].spec["layout"]["number"] == 1


@pytest.mark.parametrize("uploading", ["uploaded", "backuped"])
async def test_synchronous_stop_answers_when_everything_is_stored(world: World, agent: FakeAgent, uploading: str) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await agent.record(task.sid, "1.ts")
    finished = Finished.model_validate({"outcome": "complete", "reason": "stopped", "uploading": uploading})
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid, finished)
    answer = stopping.result()
    assert isinstance(agent.commands(task.sid)[0], Stop)
    assert answer.status_code == 200
    assert answer.json() == task.identity | {
        "serverResponse": {"fileListMode": "string", "fileList": f"{task.sid}_room1.m3u8", "uploadingStatus": uploading}
    }


async def test_asynchronous_stop_answers_at_once(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started("individual")
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, a_file("a.m3u8", track="audio", uid=7, mixed=False))
    answer = await task.stop(async_stop=True)
    assert answer.status_code == 200
    state = answer.json()["serverResponse"]
    assert (state["fileListMode"], state["uploadingStatus"], len(state["fileList"])) == ("json", "unknown", 1)
    assert (await task.query()).json()["serverResponse"]["status"] == 6


@pytest.mark.parametrize("path", ["/v1/ncs/ip", "/v2/ncs/ip"])
async def test_notification_addresses(world: World, path: str) -> None:
    answer = await world.caller.http.get(path)
    assert answer.status_code == 200
    assert [*answer.json()["data"]["service"]["hosts"][0]] == ["primaryIP"]


@pytest.mark.parametrize("area", ["na", "eu", "ap", "cn"])
async def test_path_prefixes_lead_to_the_same_calls(world: World, area: str) -> None:
    answer = await world.caller.http.post(f"/{area}{world.caller.base}/acquire", json=world.caller.envelope({}))
    assert answer.status_code == 200
