"""What real clients do and must get away with: the tolerance list T1 to T14 of the contract.

T11, clients that wait ten seconds and no longer, is what the waiting in `api.changes` is for, and tested there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from recorder.spec import Subscription, UidRule
from tests.contract.conftest import STORAGE, Caller, Listener, Task, eventually
from tests.contract.fake_agent import FakeAgent

pytestmark = pytest.mark.asyncio(loop_scope="module")

_uids = count(1)
REGION = {"x_axis": 0, "y_axis": 0, "width": 1, "height": 1}
SEVEN = frozenset({7})


async def running(caller: Caller, agent: FakeAgent, mode: str = "mix", **request: object) -> Task:
    task = await replace(caller, uid=str(next(_uids))).started(mode, **request)
    await eventually(lambda: task.sid in agent.claimed)
    return task


@pytest.mark.parametrize("content_type", [None, "application/json", "application/json;charset=utf-8", "Application/JSON; charset=UTF-8"])
async def test_t1_content_types(somebody: Caller, shared_agent: FakeAgent, content_type: str | None) -> None:
    task = await running(somebody, shared_agent)
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await somebody.http.get(f"{task.path}/query", headers=headers)).status_code == 200
    body = json.dumps(task.caller.envelope({"async_stop": True}))
    assert (await somebody.http.post(f"{task.path}/stop", headers=headers, content=body)).status_code == 200


async def test_t2_keys_in_any_order_and_unknown_ones_anywhere(somebody: Caller, shared_agent: FakeAgent) -> None:
    more = {"unknown": None, "scene": 0, "resourceExpiredHour": 24, "deep": [{"x": 1e300}]}
    caller = replace(somebody, uid=str(next(_uids)))

    def body(request: Mapping[str, object]) -> dict[str, object]:
        return dict(reversed((caller.envelope({**request, **more}) | {"extra": [more]}).items()))

    answer = await caller.http.post(f"{caller.base}/acquire", json=body({}))
    resource = answer.json()["resourceId"]
    start = body({"recordingConfig": {"x": more, "transcodingConfig": more}, "storageConfig": STORAGE | more, "recordingFileConfig": more})
    answer = await caller.http.post(f"{caller.base}/resourceid/{resource}/mode/mix/start", json=start)
    assert answer.status_code == 200, answer.text
    task = Task(caller, resource, answer.json()["sid"])
    await eventually(lambda: task.sid in shared_agent.claimed)
    subscribe = {"audioUidList": {"subscribeAudioUids": ["1"], "x": 1}, "x": 1}
    for call, request in (("update", {"streamSubscribe": subscribe}), ("updateLayout", {"width": 1}), ("stop", {"async_stop": True})):
        answer = await caller.http.post(f"{task.path}/{call}", json=body(request))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("mode", ["individual", "mix"])
@pytest.mark.parametrize(
    ("key", "audio", "video"),
    [
        ("unSubscribeAudioUids", "except", "none"),
        ("unsubscribeAudioUids", "except", "none"),
        ("unSubscribeVideoUids", "none", "except"),
        ("unsubscribeVideoUids", "none", "except"),
        ("unsunscribeVideoUids", "none", "except"),
    ],
)
async def test_t3_spellings(somebody: Caller, listener: Listener, mode: str, key: str, audio: str, video: str) -> None:
    def rule(kind: str) -> UidRule:
        return UidRule.model_validate({"kind": kind, "uids": SEVEN if kind == "except" else frozenset()})

    assert (await somebody.start("r", mode, recordingConfig={key: ["7"]})).status_code == 200
    assert listener.spec
    assert listener.spec.subscription == Subscription(audio=rule(audio), video=rule(video))


@pytest.mark.parametrize("key", ["unSubscribeVideoUids", "unsubscribeVideoUids", "unsunscribeVideoUids"])
async def test_t3_spellings_in_update(somebody: Caller, shared_agent: FakeAgent, key: str) -> None:
    task = await running(somebody, shared_agent)
    assert (await task.post("update", {"streamSubscribe": {"videoUidList": {key: ["7"]}}})).status_code == 200
    (command,) = shared_agent.commands(task.sid)
    assert command.type == "subscribe"
    assert command.subscription == Subscription(audio=UidRule(kind="none"), video=UidRule(kind="except", uids=SEVEN))


@pytest.mark.parametrize(
    ("mode", "request_"),
    [
        ("mix", {"recordingConfig": {"streamMode": "standard", "subscribeUidGroup": 0}}),
        ("mix", {"recordingConfig": {"streamMode": "", "subscribeUidGroup": 9}}),
        ("individual", {"recordingConfig": {}}),  # subscribeUidGroup 0, channelType 0, streamTypes 0 and all that, left out
        ("mix", {"recordingConfig": {"transcodingConfig": {"width": 640}}}),
        ("mix", {"storageConfig": {key: value for key, value in STORAGE.items() if key != "region"}}),  # vendors without regions
    ],
)
async def test_t4_fields_of_the_other_mode_and_zeros_left_out(
    somebody: Caller, listener: Listener, mode: str, request_: dict[str, Any]
) -> None:
    answer = await somebody.start("r", mode, **request_)
    assert answer.status_code == 200, answer.text
    assert listener.spec
    assert (listener.spec.stream_mode, listener.spec.audio_profile) == ("default", 0)


@pytest.mark.parametrize("token", [{}, {"token": None}, {"token": ""}], ids=["absent", "null", "empty"])
async def test_t5_no_token(somebody: Caller, listener: Listener, token: dict[str, Any]) -> None:
    assert (await somebody.start("r", **token)).status_code == 200
    assert listener.spec
    assert listener.spec.token is None


async def test_t6_fields_of_web_are_unknown_here(somebody: Caller, listener: Listener) -> None:
    assert (await somebody.start("r", recordingConfig={"VideoBitrate": "x", "videoBitrate": -1})).status_code == 200


@pytest.mark.parametrize(
    "region", [REGION, REGION | {"uid": ""}, REGION | {"alpha": 1}, {key: float(value) for key, value in REGION.items()}], ids=repr
)
async def test_t7_regions_without_uid_and_whole_numbers(somebody: Caller, listener: Listener, region: dict[str, object]) -> None:
    config = {"transcodingConfig": {"mixedVideoLayout": 3, "layoutConfig": [region]}}
    assert (await somebody.start("r", recordingConfig=config)).status_code == 200
    assert listener.spec
    (placed,) = listener.spec.layout.regions
    assert (placed.uid, placed.x, placed.width, placed.alpha) == (None, 0, 1, 1)


async def test_t8_resource_ids_need_no_escaping(somebody: Caller) -> None:
    for cname in ("a", "x" * 63, "#?%&+ ;:<>"):
        caller = replace(somebody, cname=cname)
        for _ in range(20):
            assert re.fullmatch(r"[A-Za-z0-9_-]{100,400}", await caller.resource())


async def test_t9_errors_of_the_service_have_a_code_those_of_the_gateway_have_none(somebody: Caller) -> None:
    assert (await somebody.start("r", "web")).json().keys() >= {"code", "reason"}
    assert (await somebody.http.get("/v1/nothing")).json().keys() == {"message"}


async def test_t10_a_repeated_start_names_what_runs(somebody: Caller, shared_agent: FakeAgent) -> None:
    task = await running(somebody, shared_agent)
    answer = await task.caller.start(task.resource)
    assert answer.status_code == 201
    assert answer.json().items() >= task.identity.items()


@pytest.mark.parametrize("area", ["na", "eu", "ap", "cn"])
async def test_t12_path_prefixes(somebody: Caller, shared_agent: FakeAgent, area: str) -> None:
    def prefixed(path: str) -> str:
        return f"/{area}{path}"

    caller = replace(somebody, uid=str(next(_uids)))
    answer = await caller.http.post(prefixed(f"{caller.base}/acquire"), json=caller.envelope({}))
    resource = answer.json()["resourceId"]
    start = prefixed(f"{caller.base}/resourceid/{resource}/mode/mix/start")
    answer = await caller.http.post(start, json=caller.envelope({"storageConfig": STORAGE}))
    task = Task(caller, resource, answer.json()["sid"])
    await eventually(lambda: task.sid in shared_agent.claimed)
    assert (await caller.http.get(prefixed(f"{task.path}/query"))).json().items() >= task.identity.items()
    for call in ("updateLayout", "stop"):
        answer = await caller.http.post(prefixed(f"{task.path}/{call}"), json=caller.envelope({"async_stop": True}))
        assert answer.status_code == 200


async def test_t13_successes_are_strings_at_the_top(somebody: Caller, shared_agent: FakeAgent) -> None:
    task = await running(somebody, shared_agent)
    subscribe = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}}
    answers = [
        await task.caller.acquire(),
        await task.query(),
        await task.post("update", subscribe),
        await task.post("updateLayout", {}),
        await task.stop(async_stop=True),
    ]
    for answer in answers:
        assert answer.status_code == 200
        body = answer.json()
        body.pop("serverResponse", None)
        assert set(map(type, body.values())) == {str}


@pytest.mark.parametrize(
    ("mode", "request_", "listing"),
    [
        ("individual", {}, "json"),
        ("individual", {"snapshotConfig": {"fileType": ["jpg"]}}, None),
        ("individual", {"snapshotConfig": {"fileType": ["jpg"]}, "recordingFileConfig": {}}, None),
        ("mix", {}, "string"),
        ("mix", {"recordingFileConfig": {"avFileType": ["hls", "mp4"]}}, "json"),
    ],
)
async def test_t14_the_mode_of_the_list(
    somebody: Caller, shared_agent: FakeAgent, mode: str, request_: dict[str, object], listing: str | None
) -> None:
    task = await running(somebody, shared_agent, mode, **request_)
    for answer in (await task.query(), await task.stop(async_stop=True)):
        state = answer.json()["serverResponse"]
        assert state.get("fileListMode") == listing
        assert type(state.get("fileList")) is {"json": list, "string": str, None: type(None)}[listing]
