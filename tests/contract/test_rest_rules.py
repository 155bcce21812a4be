"""The rules over several fields of start, V1 to V17 of the contract: which field is named, or what is recorded then."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from recorder.spec import Subscription, UidRule
from tests.contract.conftest import STORAGE, Caller, Listener
from tests.contract.test_wrong_input import assert_invalid

pytestmark = pytest.mark.asyncio(loop_scope="module")

C, R, S = "clientRequest", "clientRequest.recordingConfig", "clientRequest.storageConfig"
REGION = {"x_axis": 0, "y_axis": 0, "width": 1, "height": 1}
SALT = "A" * 43 + "="
JPG = {"fileType": ["jpg"]}


def recording(**given: object) -> dict[str, object]:
    return {"recordingConfig": given}


def transcoding(**given: object) -> dict[str, object]:
    return recording(transcodingConfig=given)


BOTH, MIX, INDIVIDUAL = ("individual", "mix"), ("mix",), ("individual",)
BROKEN: list[tuple[str, tuple[str, ...], dict[str, object], list[str]]] = [
    ("V1 type", BOTH, recording(maxIdleTime="30"), [f"{R}.maxIdleTime"]),
    ("V1 range", BOTH, recording(maxIdleTime=4), [f"{R}.maxIdleTime"]),
    (
        "V1 misspelled",
        BOTH,
        {"storageConfig": {key: value for key, value in STORAGE.items() if key != "bucket"} | {"Bucket": "rec"}},
        [f"{S}.bucket"],
    ),
    ("V1 missing", BOTH, {"storageConfig": None}, [S]),
    ("V2 audio", BOTH, recording(subscribeAudioUids=["1"], unSubscribeAudioUids=["2"]), [f"{R}.unSubscribeAudioUids"]),
    ("V2 video", BOTH, recording(subscribeVideoUids=["1"], unsubscribeVideoUids=["2"]), [f"{R}.unsubscribeVideoUids"]),
    ("V2 both spellings", BOTH, recording(unSubscribeVideoUids=["1"], unsubscribeVideoUids=["1"]), [f"{R}.unsubscribeVideoUids"]),
    ("V3 too many", BOTH, recording(subscribeAudioUids=[str(n) for n in range(1, 34)]), [f"{R}.subscribeAudioUids"]),
    ("V4 no video", BOTH, recording(streamTypes=0, unSubscribeVideoUids=["1"]), [f"{R}.unSubscribeVideoUids"]),
    ("V4 no audio", BOTH, recording(streamTypes=1, subscribeAudioUids=["1"]), [f"{R}.subscribeAudioUids"]),
    ("V9", INDIVIDUAL, recording(transcodingConfig={}, audioProfile=0), [f"{R}.transcodingConfig", f"{R}.audioProfile"]),
    ("V10", MIX, transcoding(mixedVideoLayout=3), [f"{R}.transcodingConfig.layoutConfig"]),
    ("V10 empty", MIX, transcoding(mixedVideoLayout=3, layoutConfig=[]), [f"{R}.transcodingConfig.layoutConfig"]),
    ("V11 secret", BOTH, recording(decryptionMode=1), [f"{R}.decryptionMode", f"{R}.secret"]),
    ("V11 salt", BOTH, recording(decryptionMode=7, secret="s"), [f"{R}.decryptionMode", f"{R}.salt"]),
    ("V11 short salt", BOTH, recording(decryptionMode=8, secret="s", salt="AAAA"), [f"{R}.decryptionMode", f"{R}.salt"]),
    ("V11 whole", BOTH, recording(decryptionMode=8, secret="s", salt=SALT), [f"{R}.decryptionMode"]),  # not supported yet
    ("V12 mode", MIX, {"snapshotConfig": JPG}, [f"{C}.snapshotConfig"]),
    ("V12 stream types", INDIVIDUAL, {"snapshotConfig": JPG} | recording(streamTypes=0), [f"{C}.snapshotConfig"]),
    ("V12 lists", INDIVIDUAL, {"snapshotConfig": JPG} | recording(unSubscribeAudioUids=["1"]), [f"{C}.snapshotConfig"]),
    ("V13 alone", BOTH, {"recordingFileConfig": {"avFileType": ["mp4"]}}, [f"{C}.recordingFileConfig.avFileType"]),
    ("V13 individual", INDIVIDUAL, {"recordingFileConfig": {"avFileType": ["hls", "mp4"]}}, [f"{C}.recordingFileConfig.avFileType"]),
    ("V14", BOTH, {"storageConfig": STORAGE | {"extensionParams": {}}}, [f"{S}.extensionParams.endpoint"]),
    ("V14 absent", BOTH, {"storageConfig": STORAGE | {"extensionParams": {"sse": "kms"}}}, [f"{S}.extensionParams.endpoint"]),
    ("V17", BOTH, {"extensionServiceConfig": {}}, [f"{C}.extensionServiceConfig"]),
    ("region of the vendor", BOTH, {"storageConfig": STORAGE | {"vendor": 1, "region": 26}}, [f"{S}.region"]),
    ("area", MIX, transcoding(width=1920, height=1082), [f"{R}.transcodingConfig.width"]),
    (
        "outside the canvas",
        MIX,
        transcoding(mixedVideoLayout=3, layoutConfig=[REGION, REGION | {"y_axis": 0.5}]),
        [f"{R}.transcodingConfig.layoutConfig[1].height"],
    ),
    ("postponed", BOTH, {"appsCollection": {"combinationPolicy": "postpone_transcoding"}}, [f"{C}.appsCollection.combinationPolicy"]),
    ("postponed options", BOTH, {"transcodeOptions": {"transConfig": {"transMode": "audioMix"}}}, [f"{C}.transcodeOptions"]),
]


@pytest.mark.parametrize(
    ("mode", "request_", "named"),
    [pytest.param(mode, request, named, id=f"{rule}-{mode}") for rule, modes, request, named in BROKEN for mode in modes],
)
async def test_a_rule_that_is_broken(
    somebody: Caller, listener: Listener, mode: str, request_: dict[str, object], named: list[str]
) -> None:
    assert_invalid(await somebody.start("r", mode, **request_), named)
    assert listener.spec is None


ALL, NOBODY = UidRule(), UidRule(kind="none")
ONE, NOT_ONE = UidRule(kind="only", uids=frozenset({1})), UidRule(kind="except", uids=frozenset({1}))
KEPT: list[tuple[str, tuple[str, ...], dict[str, object], Mapping[str, object]]] = [
    ("V3 empty", BOTH, recording(subscribeAudioUids=[], unSubscribeVideoUids=[]), {"subscription": Subscription()}),
    ("V5 audio", BOTH, recording(subscribeAudioUids=["1"]), {"subscription": Subscription(audio=ONE, video=NOBODY)}),
    ("V5 audio of all", BOTH, recording(subscribeAudioUids=["#allstream#"]), {"subscription": Subscription(audio=ALL, video=NOBODY)}),
    ("V5 video", BOTH, recording(unSubscribeVideoUids=["1"]), {"subscription": Subscription(audio=NOBODY, video=NOT_ONE)}),
    ("V6", BOTH, recording(), {"subscription": Subscription(audio=ALL, video=ALL)}),
    ("V8 effect", INDIVIDUAL, recording(streamMode="original", streamTypes=0), {"stream_mode": "original"}),
    ("V8 none", INDIVIDUAL, recording(streamMode="original", streamTypes=2), {"stream_mode": "default"}),
    (
        "V12 both lists",
        INDIVIDUAL,
        {"snapshotConfig": JPG} | recording(subscribeAudioUids=["1"], subscribeVideoUids=["1"]),
        {"files": False},
    ),
    ("V13", MIX, {"recordingFileConfig": {"avFileType": ["hls", "mp4"]}}, {"mp4": True}),
    ("layout config beside another layout", MIX, transcoding(mixedVideoLayout=1, layoutConfig=[REGION]), {}),
    ("nothing is postponed", BOTH, {"appsCollection": {"combinationPolicy": "default"}}, {}),
]


@pytest.mark.parametrize(
    ("mode", "request_", "meant"),
    [pytest.param(mode, request, meant, id=f"{rule}-{mode}") for rule, modes, request, meant in KEPT for mode in modes],
)
async def test_a_rule_that_is_kept(
    somebody: Caller, listener: Listener, mode: str, request_: dict[str, object], meant: Mapping[str, object]
) -> None:
    answer = await somebody.start("r", mode, **request_)
    assert answer.status_code == 200, answer.text
    assert listener.spec
    assert {name: getattr(listener.spec, name) for name in meant} == meant


@pytest.mark.parametrize("changed", [{"cname": "room of somebody"}, {"uid": "7"}])
async def test_v15_start_is_for_the_channel_and_uid_of_acquire(somebody: Caller, changed: dict[str, str]) -> None:
    other = replace(somebody, **changed)  # type: ignore[arg-type]  # only these two
    answer = await other.start(await somebody.resource())
    assert (answer.status_code, answer.json()["code"]) == (400, 432)
    assert answer.json()["reason"] == "appid, cname or uid do not belong to the resourceId"


@pytest.mark.parametrize(
    ("promised", "given", "equal"),
    [
        ({"recordingConfig": {"maxIdleTime": 60, "streamTypes": 0}}, {"recordingConfig": {"streamTypes": 0, "maxIdleTime": 60}}, True),
        ({"recordingConfig": {"maxIdleTime": 60}}, {"recordingConfig": {"maxIdleTime": 61}}, False),
        ({"recordingConfig": {"maxIdleTime": 60}}, {}, False),
        ({"token": ""}, {}, False),
        ({"unknown": [1, 2]}, {"unknown": [1, 2]}, True),
        ({"unknown": [1, 2]}, {"unknown": [2, 1]}, False),
    ],
)
async def test_v16_start_is_given_what_acquire_was(
    somebody: Caller, promised: dict[str, object], given: dict[str, Any], equal: bool
) -> None:
    resource = await somebody.resource(startParameter={"storageConfig": STORAGE} | promised)
    answer = await somebody.start(resource, **given)
    code, reason = (502, "Failed to allocate worker") if equal else (2, "clientRequest: differs from the startParameter of acquire")
    assert (answer.json()["code"], answer.json()["reason"]) == (code, reason)  # nobody is there to take it


async def test_v16_a_wrong_start_parameter_is_found_at_the_start(somebody: Caller) -> None:
    wrong: dict[str, Any] = {"storageConfig": STORAGE, "recordingConfig": {"maxIdleTime": 4}}
    answer = await somebody.start(await somebody.resource(startParameter=wrong), **wrong)
    assert_invalid(answer, [f"{R}.maxIdleTime"])
