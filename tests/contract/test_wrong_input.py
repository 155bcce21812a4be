"""What is wrong with a call is answered with the documented status, code and text: rest-api.md sections 1, 4, 7 to 9 and 11."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.conftest import STORAGE, Caller, Task, World, a_deployment, counted, eventually, open_world
from tests.contract.fake_agent import FakeAgent

NO_ROUTE = {"message": "no Route matched with those values"}
BAD_APP = {"message": "appid is invalid"}
BAD_CREDENTIALS = {"message": "Invalid authentication credentials"}


# Nothing here changes the deployment, so that all tests share one.
pytestmark = pytest.mark.asyncio(loop_scope="module")
_channels = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path_factory.mktemp("data"))) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def agent(world: World) -> AsyncIterator[FakeAgent]:
    async with world.agent() as agent:
        yield agent


@pytest.fixture
def caller(world: World) -> Caller:
    return replace(world.caller, cname=f"room {next(_channels)}")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


# ---- gateway -----------------------------------------------------------------------------------------------------


async def test_credentials_are_required(caller: Caller) -> None:
    answer = await caller.http.post(f"{caller.base}/acquire", json={}, auth=lambda request: request)
    assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})
    assert answer.headers["www-authenticate"] == "Basic"


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer abc", basic("nocolon"), basic("who:what"), "Basic /w=="])
async def test_wrong_credentials(caller: Caller, header: str) -> None:
    request = {"headers": {"Authorization": header}, "auth": lambda request: request}
    before = counted("recorder_authz_denied", what="login")
    answer = await caller.http.post(f"{caller.base}/acquire", json={}, **request)  # type: ignore[arg-type]  # typed too narrowly
    assert (answer.status_code, answer.json()) == (401, BAD_CREDENTIALS)
    assert counted("recorder_authz_denied", what="login") == before + 1


async def test_credentials_are_checked_before_the_body(caller: Caller) -> None:
    answer = await caller.http.post(f"{caller.base}/acquire", content=b"{", auth=("a", "b"))
    assert answer.status_code == 401


async def test_guessing_is_slowed_down(caller: Caller) -> None:
    name = "0" * 32
    before = [counted("recorder_authz_denied", what=what) for what in ("login", "locked")]
    answers = [await caller.http.get("/v1/ncs/ip", auth=(name, str(guess))) for guess in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    denied = [counted("recorder_authz_denied", what=what) for what in ("login", "locked")]
    assert denied == [before[0] + 10, before[1] + 1]


async def test_strangers_cannot_fill_the_memory(world: World, caller: Caller) -> None:
    for number in range(3):
        answer = await caller.http.get("/v1/ncs/ip", auth=(f"{number}" * 20_000, "x"))
        assert answer.status_code == 401
    lockout = world.plane.app.state.gatekeeper._lockout
    remembered = [key for records in (lockout._pairs, lockout._addresses, lockout._names) for key in records]
    assert max(map(len, remembered)) < 200


@pytest.mark.parametrize("app_id", ["unknown", "a%00b", "x" * 300])
async def test_unknown_app(caller: Caller, app_id: str) -> None:
    answer = await caller.http.post(f"/v1/apps/{app_id}/cloud_recording/acquire", json={})
    assert (answer.status_code, answer.json()) == (400, BAD_APP)


async def test_a_foreign_app_looks_unknown(world: World, caller: Caller) -> None:
    other = await world.another_customer()
    other.app_id = caller.app_id
    answer = await other.acquire()
    assert (answer.status_code, answer.json()) == (400, BAD_APP)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/docs"),
        ("POST", "/v1/apps/x/cloud_recording"),
        ("POST", "/v1/apps/x/cloud_recording/Acquire"),
        ("POST", "/v1/apps/x/cloud_recording/acquire/"),
        ("GET", "/v1/apps/x/cloud_recording/acquire"),
        ("DELETE", "/v1/apps/x/cloud_recording/acquire"),
        ("POST", "/v1/apps/x/cloud_recording/resourceid/r/sid/s/mode/mix/query"),
        ("POST", "/v1/apps/x/cloud_recording/resourceid/r/sid/s/mode/mix/updatelayout"),
        ("POST", "/xx/v1/apps/x/cloud_recording/acquire"),
    ],
)
async def test_unknown_routes_and_wrong_methods(caller: Caller, method: str, path: str) -> None:
    answer = await caller.http.request(method, path)
    assert (answer.status_code, answer.json()) == (404, NO_ROUTE)


async def test_large_bodies_are_refused(caller: Caller) -> None:
    body = json.dumps(caller.envelope({"x": "y" * 65_536}))

    async def chunks() -> Any:
        yield body[:40_000].encode()
        yield body[40_000:].encode()

    for content in (body.encode(), chunks()):  # with and without Content-Length
        answer = await caller.http.post(f"{caller.base}/acquire", content=content)
        assert answer.status_code == 413
        assert answer.json().keys() == {"message"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"cname=room1", b"[" * 60_000, b'{"cname":' + b"9" * 5000 + b"}"])
async def test_bodies_that_are_no_json(caller: Caller, content: bytes) -> None:
    answer = await caller.http.post(f"{caller.base}/acquire", content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, 8)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [(None, 200), ("application/json", 200), ("application/json;charset=utf-8", 200), ("text/plain", 400), ("application/xml", 400)],
)
async def test_content_type_is_optional_but_must_not_be_another(caller: Caller, content_type: str | None, status: int) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = json.dumps(caller.envelope({})).encode()
    answer = await caller.http.post(f"{caller.base}/acquire", content=body, headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == 8


# ---- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], ["body"]),
        ({}, ["cname", "uid", "clientRequest"]),
        ({"cname": 7, "uid": 7, "clientRequest": 7}, ["cname", "uid", "clientRequest"]),
        ({"cname": "", "uid": "1", "clientRequest": {}}, ["cname"]),
        ({"cname": "x" * 64, "uid": "1", "clientRequest": {}}, ["cname"]),
        ({"cname": "a", "uid": "0", "clientRequest": {}}, ["uid"]),
        ({"cname": "a", "uid": "01", "clientRequest": {}}, ["uid"]),
        ({"cname": "a", "uid": "4294967296", "clientRequest": {}}, ["uid"]),
        ({"cname": "a", "uid": "-1", "clientRequest": {}}, ["uid"]),
        ({"cname": "a", "uid": "\u0661", "clientRequest": {}}, ["uid"]),
        ({"cname": "a", "uid": "1", "clientRequest": {"scene": 1}}, ["clientRequest.scene"]),
        ({"cname": "a", "uid": "1", "clientRequest": {"scene": "0"}}, ["clientRequest.scene"]),
        ({"cname": "a", "uid": "1", "clientRequest": {"scene": True, "region": "US"}}, ["clientRequest.scene", "clientRequest.region"]),
        ({"cname": "a", "uid": "1", "clientRequest": {"regionAffinity": 5}}, ["clientRequest.regionAffinity"]),
        ({"cname": "a", "uid": "1", "clientRequest": {"excludeResourceIds": "r"}}, ["clientRequest.excludeResourceIds"]),
        ({"cname": "a/b", "uid": "0", "clientRequest": {}}, ["cname", "uid"]),
    ],
)
async def test_acquire_names_every_wrong_field(caller: Caller, body: object, named: list[str]) -> None:
    answer = await caller.http.post(f"{caller.base}/acquire", json=body)
    assert_invalid(answer, named)


@pytest.mark.parametrize("hours", [0, 721, -1, "72", 1.5, True, None])
async def test_resource_expired_hour_has_its_documented_text(caller: Caller, hours: object) -> None:
    answer = await caller.acquire(resourceExpiredHour=hours)
    assert answer.status_code == 400
    assert answer.json() == {"cname": caller.cname, "uid": caller.uid, "code": 2, "reason": "Acquire: invalid resourceExpiredHour value!"}


@pytest.mark.parametrize("cname", ["a/b", "ä", "a\x00b", 'a"b', "a'b"])
async def test_illegal_channel_names(caller: Caller, cname: str) -> None:
    caller.cname = cname
    answer = await caller.acquire()
    assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (400, 401, "invalid_channel_name")


async def test_every_legal_character_of_channel_names(caller: Caller) -> None:
    for cname in ("abc XYZ 0189 !#$%&()+-:;<=.>?@[]^_{}|~,", "x" * 63):
        caller.cname = cname
        assert (await caller.acquire()).status_code == 200


C = "clientRequest"
R = f"{C}.recordingConfig"
T = f"{R}.transcodingConfig"
S = f"{C}.storageConfig"
WHOLE = {"x_axis": 0, "y_axis": 0, "width": 1, "height": 1}


def transcoding(**given: object) -> dict[str, object]:
    return {"recordingConfig": {"transcodingConfig": given}}


def storage(**given: object) -> dict[str, object]:
    return {"storageConfig": STORAGE | given}


def recording(**given: object) -> dict[str, object]:
    return {"recordingConfig": given}


WRONG_IN_BOTH = [
    ({"storageConfig": None}, [S]),
    ({"storageConfig": {}}, [f"{S}.{key}" for key in ("vendor", "region", "bucket", "accessKey", "secretKey")]),
    ({"token": 7}, [f"{C}.token"]),
    (storage(vendor=9), [f"{S}.vendor"]),
    (storage(vendor="1"), [f"{S}.vendor"]),
    (storage(vendor=1, region=26), [f"{S}.region"]),
    *((storage(vendor=vendor, region=region), [f"{S}.region"]) for vendor, region in ((0, 5), (2, 28), (3, 20), (4, 10))),
    *((storage(vendor=vendor), [f"{S}.vendor"]) for vendor in (5, 6, 7, 8)),  # of the original, without a driver here
    *((storage(vendor=vendor, stsToken="t"), [f"{S}.stsToken"]) for vendor in (0, 4)),
    *((storage(vendor=vendor, extensionParams={"sse": "kms"}), [f"{S}.extensionParams.sse"]) for vendor in (0, 2, 3, 4)),
    *((storage(vendor=vendor, extensionParams={"tag": "A=b"}), [f"{S}.extensionParams.tag"]) for vendor in (0, 3, 4)),
    (storage(region="0"), [f"{S}.region"]),
    (storage(bucket=""), [f"{S}.bucket"]),
    (storage(bucket="../etc"), [f"{S}.bucket"]),
    (storage(accessKey=""), [f"{S}.accessKey"]),
    (storage(secretKey="a\nb"), [f"{S}.secretKey"]),
    (storage(fileNamePrefix="d1"), [f"{S}.fileNamePrefix"]),
    (storage(fileNamePrefix=["d1", "d_2", "../d3"]), [f"{S}.fileNamePrefix[1]", f"{S}.fileNamePrefix[2]"]),
    (storage(fileNamePrefix=["d" * 64, "e" * 63]), [f"{S}.fileNamePrefix"]),
    (storage(extensionParams={}), [f"{S}.extensionParams.endpoint"]),
    (storage(extensionParams={"endpoint": "http://user@host/path"}), [f"{S}.extensionParams.endpoint"]),
    (storage(vendor=1, extensionParams={"sse": "none"}), [f"{S}.extensionParams.sse"]),
    (storage(vendor=100, extensionParams={"sse": "kms"}), [f"{S}.extensionParams.sse"]),
    (storage(vendor=100, stsToken="t"), [f"{S}.stsToken"]),
    *((storage(stsExpiration=value), [f"{S}.stsExpiration"]) for value in ("soon", -1, 2**63)),
    (storage(vendor=1, stsToken="t" * 16_385), [f"{S}.stsToken"]),
    (recording(channelType=2), [f"{R}.channelType"]),
    (recording(channelType=True), [f"{R}.channelType"]),
    (recording(streamTypes=3), [f"{R}.streamTypes"]),
    (recording(streamTypes=1.0), [f"{R}.streamTypes"]),
    (recording(videoStreamType=2), [f"{R}.videoStreamType"]),
    (recording(maxIdleTime=4), [f"{R}.maxIdleTime"]),
    (recording(maxIdleTime=2_592_001), [f"{R}.maxIdleTime"]),
    (recording(maxIdleTime="30"), [f"{R}.maxIdleTime"]),
    (recording(subscribeAudioUids=["0"]), [f"{R}.subscribeAudioUids"]),
    (recording(subscribeAudioUids=[1]), [f"{R}.subscribeAudioUids[0]"]),
    (recording(subscribeAudioUids=["#allstream#", "1"]), [f"{R}.subscribeAudioUids"]),
    (recording(unSubscribeVideoUids=["#allstream#"]), [f"{R}.unSubscribeVideoUids"]),
    (recording(subscribeVideoUids=[str(n) for n in range(1, 34)]), [f"{R}.subscribeVideoUids"]),
    (recording(subscribeAudioUids=["1"], unSubscribeAudioUids=["2"]), [f"{R}.unSubscribeAudioUids"]),  # V2
    (recording(subscribeVideoUids=["1"], unsubscribeVideoUids=["2"]), [f"{R}.unsubscribeVideoUids"]),  # V2
    (recording(streamTypes=0, subscribeVideoUids=["1"]), [f"{R}.subscribeVideoUids"]),  # V4
    (recording(streamTypes=1, unsubscribeAudioUids=["1"]), [f"{R}.unsubscribeAudioUids"]),  # V4
    (recording(decryptionMode=9), [f"{R}.decryptionMode"]),
    (recording(decryptionMode=1), [f"{R}.secret", f"{R}.decryptionMode"]),  # V11
    (recording(decryptionMode=7, secret="s", salt="c2FsdA=="), [f"{R}.salt", f"{R}.decryptionMode"]),  # V11
    (recording(privateParams={}), [f"{R}.privateParams"]),
    ({"recordingFileConfig": {"avFileType": ["mp4"]}}, [f"{C}.recordingFileConfig.avFileType"]),  # V13
    ({"recordingFileConfig": {"avFileType": []}}, [f"{C}.recordingFileConfig.avFileType"]),
    ({"recordingFileConfig": {"avFileType": "hls"}}, [f"{C}.recordingFileConfig.avFileType"]),
    ({"extensionServiceConfig": {}}, [f"{C}.extensionServiceConfig"]),  # V17
]
WRONG_IN_MIX = [
    (recording(audioProfile=3), [f"{R}.audioProfile"]),
    (transcoding(width=1921), [f"{T}.width"]),
    (transcoding(width=0, height="640"), [f"{T}.width", f"{T}.height"]),
    (transcoding(width=1920, height=1920), [f"{T}.width"]),
    (transcoding(fps=1.5), [f"{T}.fps"]),
    (transcoding(bitrate=6501), [f"{T}.bitrate"]),
    (transcoding(mixedVideoLayout=4), [f"{T}.mixedVideoLayout"]),
    (transcoding(mixedVideoLayout=3), [f"{T}.layoutConfig"]),  # V10
    (transcoding(mixedVideoLayout=3, layoutConfig=[WHOLE] * 18), [f"{T}.layoutConfig"]),
    (transcoding(layoutConfig=[WHOLE, WHOLE | {"x_axis": 0.1}]), [f"{T}.layoutConfig[1].width"]),
    (
        transcoding(layoutConfig=[{"x_axis": "0", "uid": 7, "alpha": 2}]),
        [f"{T}.layoutConfig[0].{k}" for k in ("x_axis", "y_axis", "width", "height", "uid", "alpha")],
    ),
    (transcoding(backgroundColor="red"), [f"{T}.backgroundColor"]),
    (transcoding(backgroundImage="ftp://x/y.jpg"), [f"{T}.backgroundImage"]),
    (transcoding(backgroundConfig=[{"uid": "7"}]), [f"{T}.backgroundConfig[0].image_url"]),
    (transcoding(maxResolutionUid=7), [f"{T}.maxResolutionUid"]),
    ({"snapshotConfig": {"fileType": ["jpg"]}}, [f"{C}.snapshotConfig"]),  # V12
    (
        {"token": 7} | recording(maxIdleTime=1, streamTypes=9, transcodingConfig={"fps": "x"}),
        [f"{C}.token", f"{R}.maxIdleTime", f"{R}.streamTypes", f"{T}.fps"],
    ),
]
WRONG_IN_INDIVIDUAL = [
    (recording(streamMode="raw"), [f"{R}.streamMode"]),
    (recording(subscribeUidGroup=6), [f"{R}.subscribeUidGroup"]),
    (recording(transcodingConfig={}, audioProfile=0), [f"{R}.transcodingConfig", f"{R}.audioProfile"]),  # V9, D5
    ({"recordingFileConfig": {"avFileType": ["hls", "mp4"]}}, [f"{C}.recordingFileConfig.avFileType"]),  # V13
    ({"snapshotConfig": {}}, [f"{C}.snapshotConfig.fileType"]),
    (
        {"snapshotConfig": {"fileType": ["png"], "captureInterval": 0}},
        [f"{C}.snapshotConfig.fileType[0]", f"{C}.snapshotConfig.captureInterval"],
    ),
    (
        {"snapshotConfig": {"fileType": "jpg", "captureInterval": "10"}},
        [f"{C}.snapshotConfig.{k}" for k in ("fileType", "captureInterval")],
    ),
    ({"snapshotConfig": {"fileType": [], "captureInterval": 3601}}, [f"{C}.snapshotConfig.{k}" for k in ("fileType", "captureInterval")]),
    ({"snapshotConfig": {"fileType": ["jpg", "jpg"]}}, [f"{C}.snapshotConfig.fileType"]),
    (
        {"snapshotConfig": {"fileType": ["jpg"]}, "recordingFileConfig": {"avFileType": ["mp4"]}} | recording(streamTypes=0),
        [f"{C}.recordingFileConfig.avFileType", f"{C}.snapshotConfig"],
    ),
    ({"snapshotConfig": {"fileType": ["jpg"]}} | recording(streamTypes=0), [f"{C}.snapshotConfig"]),  # V12
    ({"snapshotConfig": {"fileType": ["jpg"]}} | recording(subscribeAudioUids=["1"]), [f"{C}.snapshotConfig"]),  # V12
]


@pytest.mark.parametrize(
    ("mode", "request_", "named"),
    [("mix", *row) for row in WRONG_IN_BOTH + WRONG_IN_MIX] + [("individual", *row) for row in WRONG_IN_BOTH + WRONG_IN_INDIVIDUAL],
)
async def test_start_names_every_wrong_field(
    caller: Caller, agent: FakeAgent, mode: str, request_: dict[str, object], named: list[str]
) -> None:
    assert_invalid(await caller.start(await caller.resource(), mode, **request_), named)
    assert agent.received == []


ACCEPTED = [
    {},
    {"token": None},
    {"token": "", "unknown": {"deep": [1]}},
    storage(vendor=100, bucket="local", accessKey="", secretKey=""),
    storage(vendor=1, region=28, stsToken="t", stsExpiration=1_900_000_000, extensionParams={"sse": "kms", "tag": "A=b"}),
    storage(extensionParams={"endpoint": "http://127.0.0.1:9000"}),
    *(storage(vendor=vendor, region=region) for vendor, region in ((0, 4), (1, 28), (2, 27), (3, 19), (4, 9))),
    *(storage(vendor=vendor, region=0, extensionParams={"endpoint": "store.example.com"}) for vendor in (0, 1, 2, 3, 4)),
    *(storage(vendor=vendor, stsToken="t", extensionParams={}) for vendor in (2, 3)),
    storage(vendor=2, extensionParams={"tag": "A=b"}),
    storage(vendor=1, stsToken="t" * 16_384, stsExpiration=2**63 - 1),
    recording(subscribeAudioUids=["#allstream#"], subscribeVideoUids=["1", "4294967295"]),
    recording(subscribeAudioUids=[], unSubscribeAudioUids=[]),
    recording(streamTypes=0, maxIdleTime=2_592_000, channelType=1, videoStreamType=1),
    recording(privateParams='{"correctEXTINF":true}'),
    recording(privateParams="not json"),
]


@pytest.mark.parametrize(
    ("mode", "request_"),
    [(mode, row) for mode in ("mix", "individual") for row in ACCEPTED]
    + [
        ("mix", recording(streamMode=7, subscribeUidGroup="many")),
        ("mix", transcoding(width=1920, height=1080, fps=25, bitrate=6500, backgroudColor="#12aBcD")),
        (
            "mix",
            transcoding(mixedVideoLayout=3, layoutConfig=[WHOLE | {"uid": ""}, {"x_axis": 0.9, "y_axis": 0, "width": 0.1, "height": 1}]),
        ),
        ("mix", transcoding(mixedVideoLayout=2, maxResolutionUid="", layoutConfig=[WHOLE])),
        ("mix", {"recordingFileConfig": {"avFileType": ["mp4", "hls"]}}),
        ("individual", recording(streamMode="original")),
    ],
)
async def test_start_accepts_what_clients_send(caller: Caller, agent: FakeAgent, mode: str, request_: dict[str, object]) -> None:
    answer = await caller.start(await caller.resource(), mode, **request_)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("call", "mode", "word"),
    [
        ("start", "web", "not supported"),
        ("start", "raw", "must be"),
        ("query", "web", "not supported"),
        ("query", "Mix", "must be"),
        ("update", "web", "not supported"),
        ("updateLayout", "web", "not supported"),
        ("updateLayout", "individual", "only mix"),
        ("stop", "web", "not supported"),
        ("stop", "nonsense", "must be"),
    ],
)
async def test_unknown_modes(caller: Caller, call: str, mode: str, word: str) -> None:
    task = Task(caller, "r", "s", mode)
    if call == "start":
        answer = await caller.start("r", mode)
    else:
        answer = await (task.query() if call == "query" else task.post(call, {}))
    assert_invalid(answer, ["mode"])
    assert word in answer.json()["reason"]


@pytest.mark.parametrize(
    ("call", "request_", "named"),
    [
        ("update", None, [C]),
        ("update", {}, [f"{C}.streamSubscribe"]),
        ("update", {"streamSubscribe": {}}, [f"{C}.streamSubscribe.audioUidList"]),
        ("update", {"streamSubscribe": {"audioUidList": {}}}, [f"{C}.streamSubscribe.audioUidList.subscribeAudioUids"]),
        (
            "update",
            {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": []}}},
            [f"{C}.streamSubscribe.audioUidList.subscribeAudioUids"],
        ),
        (
            "update",
            {"streamSubscribe": {"videoUidList": {"subscribeVideoUids": ["1"], "unsunscribeVideoUids": ["2"]}}},
            [f"{C}.streamSubscribe.videoUidList.unsunscribeVideoUids"],
        ),
        (
            "update",
            {"streamSubscribe": {"videoUidList": {"subscribeVideoUids": [1]}}},
            [f"{C}.streamSubscribe.videoUidList.subscribeVideoUids[0]"],
        ),
        ("update", {"storageConfig": {}}, [f"{S}.{key}" for key in ("vendor", "region", "bucket", "accessKey", "secretKey")]),
        ("update", {"storageConfig": STORAGE | {"bucket": "elsewhere", "fileNamePrefix": ["d1"]}}, [f"{S}.bucket", f"{S}.fileNamePrefix"]),
        ("updateLayout", {"mixedVideoLayout": "1"}, [f"{C}.mixedVideoLayout"]),
        ("updateLayout", {"mixedVideoLayout": 3}, [f"{C}.layoutConfig"]),
        ("updateLayout", {"backgroundColor": "#12345"}, [f"{C}.backgroundColor"]),
        ("updateLayout", [], [C]),
        ("stop", {"async_stop": "true"}, [f"{C}.async_stop"]),
        ("stop", {"async_stop": 1}, [f"{C}.async_stop"]),
        ("stop", None, [C]),
    ],
)
async def test_wrong_bodies_of_calls_to_a_recording(
    caller: Caller, agent: FakeAgent, call: str, request_: object, named: list[str]
) -> None:
    task = await caller.started()
    assert_invalid(await task.post(call, request_), named)
    assert agent.commands(task.sid) == []


@pytest.mark.parametrize(("stream_types", "kind"), [(0, "video"), (1, "audio")])
async def test_update_of_what_is_not_recorded(caller: Caller, agent: FakeAgent, stream_types: int, kind: str) -> None:
    task = await caller.started(recordingConfig={"streamTypes": stream_types})
    lists = {f"{kind}UidList": {f"subscribe{kind.title()}Uids": ["1"]}}
    assert_invalid(await task.post("update", {"streamSubscribe": lists}), [f"{C}.streamSubscribe.{kind}UidList"])


async def test_stop_ignores_keys_it_does_not_know(caller: Caller, agent: FakeAgent) -> None:
    task = await caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    assert (await task.stop(async_stop=True, scene=0, resourceExpiredHour=24)).status_code == 200


async def test_reasons_quote_no_secret(caller: Caller, agent: FakeAgent) -> None:
    secret = "canary-5f2b"
    given: dict[str, Any] = (
        storage(secretKey=secret + "\n", accessKey=[secret], stsToken=7) | {"token": [secret]} | recording(secret=[secret])
    )
    answer = await caller.start(await caller.resource(), **given)
    assert answer.status_code == 400
    assert secret not in answer.text


def assert_invalid(answer: httpx.Response, named: list[str]) -> None:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["code"] == 2, body
    assert sorted(part.split(":")[0] for part in body["reason"].split("; ")) == sorted(named), body["reason"]
