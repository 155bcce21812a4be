"""What the wire says in the recorder's words."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from api.schemas.requests import StartIndividualRequest, StartMixRequest, StopRequest, UpdateLayoutRequest, UpdateRequest
from api.schemas.wire import explain
from recorder.spec import Canvas, Layout, RecordingSpec, Snapshots, Storage, Subscription, UidRule, UserBackground

STORAGE: dict[str, Any] = {"vendor": 1, "region": 0, "bucket": "rec", "accessKey": "AK", "secretKey": "SK"}


def envelope(**request: object) -> dict[str, object]:
    return {"cname": "room1", "uid": "527841", "clientRequest": {"storageConfig": STORAGE} | request}


def mix(**request: object) -> RecordingSpec:
    return StartMixRequest.model_validate(envelope(**request)).to_spec(sid="s", app_id="a")


def individual(**request: object) -> RecordingSpec:
    return StartIndividualRequest.model_validate(envelope(**request)).to_spec(sid="s", app_id="a")


def only(*uids: int) -> UidRule:
    return UidRule(kind="only", uids=frozenset(uids))


def excepting(*uids: int) -> UidRule:
    return UidRule(kind="except", uids=frozenset(uids))


EVERYONE, NOBODY = UidRule(), UidRule(kind="none")


def test_defaults_of_a_mix() -> None:
    spec = mix()
    assert (spec.sid, spec.app_id, spec.channel, spec.uid, spec.mode) == ("s", "a", "room1", 527841, "mix")
    assert (spec.token, spec.live_broadcast, spec.audio, spec.video, spec.max_idle_seconds) == (None, False, True, True, 30)
    assert (spec.canvas, spec.layout, spec.audio_profile) == (Canvas(width=360, height=640, fps=15, bitrate_kbps=500), Layout(), 0)
    assert (spec.files, spec.mp4, spec.snapshots, spec.subscription) == (True, False, None, Subscription())


@pytest.mark.parametrize(
    ("config", "audio", "video"),
    [
        ({}, EVERYONE, EVERYONE),
        ({"subscribeAudioUids": ["1", "2"]}, only(1, 2), NOBODY),  # V5
        ({"unSubscribeVideoUids": ["1"]}, NOBODY, excepting(1)),  # V5, the other way round
        ({"subscribeAudioUids": ["#allstream#"], "subscribeVideoUids": ["3"]}, EVERYONE, only(3)),
        ({"unsubscribeAudioUids": ["1"], "unSubscribeVideoUids": ["2"]}, excepting(1), excepting(2)),
        ({"subscribeAudioUids": [], "unSubscribeVideoUids": []}, EVERYONE, EVERYONE),
    ],
)
def test_subscription(config: dict[str, object], audio: UidRule, video: UidRule) -> None:
    for spec in (mix(recordingConfig=config), individual(recordingConfig=config)):
        assert spec.subscription == Subscription(audio=audio, video=video)


@pytest.mark.parametrize(("types", "audio", "video"), [(0, True, False), (1, False, True), (2, True, True)])
def test_stream_types(types: int, audio: bool, video: bool) -> None:
    spec = mix(recordingConfig={"streamTypes": types})
    assert (spec.audio, spec.video) == (audio, video)


@pytest.mark.parametrize(("given", "used"), [(1, 1), (15, 15), (60, 60), (25, 15), (120, 15), (0, 15), (-1, 15)])
def test_frame_rates_that_are_not_offered_become_15(given: int, used: int) -> None:
    assert mix(recordingConfig={"transcodingConfig": {"fps": given}}).canvas.fps == used


def test_odd_sizes_become_even() -> None:
    canvas = mix(recordingConfig={"transcodingConfig": {"width": 641, "height": 359}}).canvas
    assert (canvas.width, canvas.height) == (640, 358)


def test_layout_of_a_mix() -> None:
    config = {
        "mixedVideoLayout": 2,
        "maxResolutionUid": "7",
        "backgroundColor": "#FF0000",
        "backgroundImage": "https://example.com/a.jpg",
        "backgroundConfig": [{"uid": "9", "image_url": "http://example.com/b.bmp", "render_mode": 1}],
        "layoutConfig": [{"x_axis": 0, "y_axis": 0, "width": 1, "height": 1}],
    }
    assert mix(recordingConfig={"transcodingConfig": config}).layout == Layout(
        number=2,
        max_resolution_uid=7,
        background_color="#FF0000",
        background_image="https://example.com/a.jpg",
        user_backgrounds=(UserBackground(uid=9, url="http://example.com/b.bmp", fit=True),),
    )


def test_custom_regions() -> None:
    region = {"uid": "", "x_axis": 0.333333, "y_axis": 0, "width": 0.666667, "height": 1, "alpha": 0.5, "render_mode": 1}
    request = UpdateLayoutRequest.model_validate(envelope(mixedVideoLayout=3, layoutConfig=[region]))
    (placed,) = request.client_request.to_layout().regions
    assert (placed.uid, placed.x, placed.width, placed.alpha, placed.fit) == (None, 0.333333, 0.666667, 0.5, True)


@pytest.mark.parametrize(
    ("request_", "files", "shots"),
    [
        ({}, True, None),
        ({"recordingFileConfig": {"avFileType": ["hls"]}}, True, None),
        ({"snapshotConfig": {"fileType": ["jpg"]}}, False, Snapshots(interval_seconds=10)),
        ({"snapshotConfig": {"fileType": ["jpg"], "captureInterval": 60}, "recordingFileConfig": {}}, True, Snapshots(interval_seconds=60)),
    ],
)
def test_what_an_individual_recording_makes(request_: dict[str, object], files: bool, shots: Snapshots | None) -> None:
    spec = individual(**request_)
    assert (spec.files, spec.snapshots) == (files, shots)


@pytest.mark.parametrize(("types", "mode"), [(0, "original"), (2, "default")])
def test_original_is_for_audio_alone(types: int, mode: str) -> None:
    assert individual(recordingConfig={"streamMode": "original", "streamTypes": types}).stream_mode == mode


@pytest.mark.parametrize(
    ("params", "corrected"),
    [
        ('{"correctEXTINF":true}', True),
        ('{"correctEXTINF":"true"}', False),
        ("[1]", False),
        ("nonsense", False),
        ("[" * 50_000, False),
        ("", False),
    ],
)
def test_private_params(params: str, corrected: bool) -> None:
    assert mix(recordingConfig={"privateParams": params}).correct_extinf is corrected


def test_storage() -> None:
    extension = {"endpoint": "https://minio.example.com:9000", "sse": "aes256", "tag": "A=b"}
    given = STORAGE | {"vendor": 11, "fileNamePrefix": ["d1", "d2"], "stsToken": "sts", "stsExpiration": 5, "extensionParams": extension}
    storage = mix(storageConfig=given, token="t").storage
    assert storage
    assert (storage.vendor, storage.prefix, storage.endpoint) == (11, ("d1", "d2"), "https://minio.example.com:9000")
    assert (storage.sse, storage.tag, storage.sts_expires_at) == ("aes256", "A=b", 5)
    secrets = (storage.access_key, storage.secret_key, storage.sts_token)
    assert [secret.get_secret_value() for secret in secrets if secret] == ["AK", "SK", "sts"]
    assert "SK" not in repr(storage)


def test_update() -> None:
    lists = {"videoUidList": {"unsunscribeVideoUids": ["4"]}}
    request = UpdateRequest.model_validate(envelope(streamSubscribe=lists) | {"clientRequest": {"streamSubscribe": lists}})
    assert request.client_request.stream_subscribe
    assert request.client_request.stream_subscribe.to_spec() == Subscription(audio=NOBODY, video=excepting(4))
    somewhere = Storage(vendor=1, bucket="rec", access_key=SecretStr(""), secret_key=SecretStr(""))
    assert request.problem(True, True, somewhere) is None
    assert request.problem(True, False, somewhere) == "clientRequest.streamSubscribe.videoUidList: must not be set when streamTypes is 0"


def test_stop_waits_unless_told_not_to() -> None:
    assert not StopRequest.model_validate({"cname": "a", "uid": "1", "clientRequest": {}}).client_request.async_stop


def test_one_error_names_fields_of_every_depth_and_rules_beside_them() -> None:
    region = {"x_axis": 0.8, "y_axis": 2, "width": 0.5, "height": "1"}
    config = {
        "maxIdleTime": "x",
        "subscribeAudioUids": ["1"],
        "unSubscribeAudioUids": ["2"],
        "transcodingConfig": {"layoutConfig": [region]},
    }
    with pytest.raises(ValidationError) as caught:
        mix(recordingConfig=config, storageConfig={"vendor": 11, "region": 0, "bucket": "b", "accessKey": "A"})
    reason = explain([{**detail, "loc": ("body", *detail["loc"])} for detail in caught.value.errors()])[1]
    assert reason
    recording = "clientRequest.recordingConfig"
    assert {part.split(":")[0] for part in reason.split("; ")} == {
        "clientRequest.storageConfig.secretKey",
        "clientRequest.storageConfig.extensionParams.endpoint",
        f"{recording}.maxIdleTime",
        f"{recording}.unSubscribeAudioUids",
        f"{recording}.transcodingConfig.layoutConfig[0].y_axis",
        f"{recording}.transcodingConfig.layoutConfig[0].height",
        f"{recording}.transcodingConfig.layoutConfig[0].width",
    }
