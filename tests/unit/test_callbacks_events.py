"""Every event: which notices it makes, to the last member."""

from collections.abc import Mapping

import pytest

from api import events
from api.lifecycle import Status
from api.tables import File, Recording
from recorder.protocol import (
    EventBody,
    Faulted,
    ImageFailed,
    Outcome,
    PhaseChanged,
    PlaylistPublished,
    Progress,
    Reason,
    SliceStored,
    StreamChanged,
    TrackBegan,
    UploaderStarted,
    Warned,
)
from tests.strict_events import EVENTS, check_payload

SID = "d12fdce9024d37862a8f3a88e387c817"
AT_MS = 1_700_000_000_123


def a_row(**changes: object) -> Recording:
    known = {"sid": SID, "app_id": "app", "channel": "room", "uid": 901, "mode": "mix", "prefix": "a/b/", "files": True, "status": 4}
    return Recording(**{**known, **changes})


def a_file(name: str, *, start_ms: int = AT_MS, uid: int = 0, mixed: bool = True, track: str = "audio_and_video") -> File:
    return File(sid=SID, name=name, track=track, uid=uid, mixed=mixed, playable=True, start_ms=start_ms)


def shown(told: list[events.Told], row: Recording) -> list[tuple[int, Mapping[str, object]]]:
    """Type and details of each, when a strict receiver takes it."""
    for one in told:
        check_payload(one.event_type, {**events.payload(row, one, at_ms=AT_MS), "sequence": 0})
    return [(one.event_type, one.details) for one in told]


def began(**changes: object) -> TrackBegan:
    known = {"epoch": 1, "playlist": "l.m3u8", "track": "audio_and_video", "uid": 0, "mixed": True, "start_ms": AT_MS}
    return TrackBegan.model_validate({**known, **changes})


def stream(kind: str, receiving: bool) -> StreamChanged:
    return StreamChanged.model_validate({"epoch": 1, "uid": 4294967295, "kind": kind, "receiving": receiving, "at_ms": AT_MS})


OF_BODIES: list[tuple[EventBody, int, dict[str, object]]] = [
    (UploaderStarted(), 30, {"msgName": "uploader_started", "status": 0}),
    (PhaseChanged(phase="ready"), 40, {"msgName": "recorder_started", "status": 0}),
    (
        stream("audio", True),
        43,
        {"msgName": "recorder_audio_stream_state_changed", "streamUid": "4294967295", "state": 0, "UtcMs": AT_MS, "utcMs": AT_MS},
    ),
    (
        stream("video", False),
        44,
        {"msgName": "recorder_video_stream_state_changed", "streamUid": "4294967295", "state": 1, "UtcMs": AT_MS, "utcMs": AT_MS},
    ),
    (
        began(),
        42,
        {
            "msgName": "recorder_slice_start",
            "startUtcMs": AT_MS,
            "discontinueUtcMs": AT_MS,
            "mixedAllUser": True,
            "streamUid": "0",
            "trackType": "audio_and_video",
        },
    ),
    (PlaylistPublished(name="l.m3u8"), 4, {"msgName": "cloud_recording_file_infos", "fileList": "a/b/l.m3u8"}),
    (SliceStored(name="s.jpg", content="snapshot"), 45, {"msgName": "recorder_snapshot_file", "fileName": "a/b/s.jpg"}),
    (Progress(stored=1, committed=3), 33, {"msgName": "uploading_progress", "progress": 3333}),
    (Progress(stored=3, committed=3), 33, {"msgName": "uploading_progress", "progress": 9999}),
    (Progress(stored=0, committed=0), 33, {"msgName": "uploading_progress", "progress": 0}),
    (Warned(module=1, code=31, detail="x"), 2, {"msgName": "cloud_recording_warning", "module": 1, "warnCode": 31}),
    (Warned(module=1, code=10005), 2, {"msgName": "cloud_recording_warning", "module": 1, "warnCode": 10005}),
    (Warned(module=0, code=10001, uid=7), 2, {"msgName": "cloud_recording_warning", "module": 0, "warnCode": 10001, "streamUid": "7"}),
    (ImageFailed(why="time"), 2, {"msgName": "cloud_recording_warning", "module": 0, "warnCode": 10091}),
    (
        Faulted(module=0, code=111, detail="away"),
        1,
        {"msgName": "cloud_recording_error", "module": 0, "errorLevel": 4, "errorCode": 111, "stat": 1, "errorMsg": "away"},
    ),
    (
        Faulted(module=1, code=32, level=5, detail="no such bucket"),
        1,
        {"msgName": "cloud_recording_error", "module": 1, "errorLevel": 5, "errorCode": 32, "stat": 1, "errorMsg": "no such bucket"},
    ),
    (
        Warned(module=1, code=0, detail="lost: l.ts"),
        1,
        {"msgName": "cloud_recording_error", "module": 1, "errorLevel": 4, "errorCode": 51, "stat": 1, "errorMsg": "lost: l.ts"},
    ),
]


@pytest.mark.parametrize(("body", "event_type", "details"), OF_BODIES, ids=lambda value: getattr(value, "type", None))
def test_what_a_node_tells_is_told_the_customer(body: EventBody, event_type: int, details: dict[str, object]) -> None:
    row = a_row()
    assert shown(events.of_body(row, body, before=Status.STARTING), row) == [(event_type, details)]


@pytest.mark.parametrize(
    "body",
    [
        PhaseChanged(phase="starting"),
        PhaseChanged(phase="recording"),
        SliceStored(name="s.ts"),
        SliceStored(name="s.jpg", content="snapshot", backup=True),
        Warned(module=0, code=0),
    ],
)
def test_the_rest_is_not(body: EventBody) -> None:
    assert events.of_body(a_row(), body, before=Status.STARTING) == []


def test_a_repeated_word_of_the_worker_starts_nothing_again() -> None:
    assert events.of_body(a_row(), PhaseChanged(phase="ready"), before=Status.READY) == []


@pytest.mark.parametrize("code", range(10001, 10007))
def test_alarms_are_selected_by_their_code(code: int) -> None:
    (alarm,) = events.of_body(a_row(), Warned(module=0, code=code), before=Status.RECORDING)
    assert (alarm.event_type, alarm.alarm) == (2, code)
    (other,) = events.of_body(a_row(), Warned(module=1, code=31), before=Status.RECORDING)
    assert other.alarm is None


def test_the_payload_around_the_details() -> None:
    row = a_row()
    told = events.failover(77)
    assert events.payload(row, told, at_ms=AT_MS) == {
        "cname": "room",
        "uid": "901",
        "sid": SID,
        "sendts": AT_MS,
        "serviceType": 0,
        "serviceScene": "rtc_record",
        "details": {"msgName": "session_failover", "newUid": 77},
    }
    row.worker_uid, row.files = 77, False
    assert (events.payload(row, told, at_ms=AT_MS)["uid"], events.payload(row, told, at_ms=AT_MS)["serviceScene"]) == ("77", "rtc_snapshot")


def test_every_module_tells_its_own_events() -> None:
    assert {event_type: events.Told(event_type, {}).service_type for event_type in EVENTS} == {
        event_type: service_type for event_type, (service_type, _) in EVENTS.items()
    }


def test_an_interrupted_track_tells_where_the_good_media_ended() -> None:
    row = a_row(mode="individual")
    (told,) = events.of_body(row, began(uid=5, mixed=False, track="video"), before=Status.RECORDING, discontinued_ms=AT_MS - 4000)
    assert shown([told], row) == [
        (
            42,
            {
                "msgName": "recorder_slice_start",
                "startUtcMs": AT_MS,
                "discontinueUtcMs": AT_MS - 4000,
                "mixedAllUser": False,
                "streamUid": "5",
                "trackType": "video",
            },
        )
    ]


def test_screenshots_alone_tell_nothing_of_files_or_sound() -> None:
    row = a_row(files=False)
    told = [events.of_body(row, body, before=Status.STARTING)[0] for body, _, _ in OF_BODIES]
    assert {one.event_type for one in told if events.is_wanted(row, one)} == {1, 2, 30, 40, 44, 45}


@pytest.mark.parametrize(
    ("outcome", "reason", "before", "code", "error"),
    [
        ("complete", "stopped", Status.STOPPING, 24, None),
        ("complete", "idle", Status.READY, 4, None),
        ("complete", "shutdown", Status.RECORDING, 2, None),
        ("limit_reached", "spool_full", Status.RECORDING, 16, None),
        ("failed", "token", Status.STARTING, 0, (0, 110)),
        ("failed", "token_expired", Status.STARTING, 0, (0, 109)),
        ("failed", "channel", Status.STARTING, 0, (0, 112)),
        ("aborted", "channel", Status.RECORDING, 16, (0, 112)),
        ("aborted", "kicked", Status.RECORDING, 16, (0, 123)),
        ("interrupted", "crashed", Status.RECORDING, 2, (0, 500)),
        ("failed", "spool_full", Status.RECORDING, 16, (1, 51)),
        ("failed", "storage", Status.RECORDING, 16, None),  # the uploader has told it
    ],
)
def test_the_recorder_leaves(outcome: Outcome, reason: Reason, before: Status, code: int, error: tuple[int, int] | None) -> None:
    row = a_row()
    *errors, (event_type, left) = shown(events.leaving(outcome, reason, "why", before=before), row)
    assert (event_type, left) == (41, {"msgName": "recorder_leave", "leaveCode": code})
    told = [(details["module"], details["errorCode"], details["errorLevel"], details["errorMsg"]) for _, details in errors]
    assert told == ([(*error, 5, "why")] if error else [])


def test_all_is_stored() -> None:
    row = a_row()
    files = [a_file("l.m3u8"), a_file("l_0.mp4"), a_file("l_1.mp4", start_ms=AT_MS + 1)]
    whole, (event_type, uploaded) = shown(events.stored(row, "uploaded", files), row)
    assert whole == (33, {"msgName": "uploading_progress", "progress": 10_000})
    assert event_type == 31
    listed = uploaded["fileList"]
    assert isinstance(listed, list)
    assert [one["fileName"] for one in listed] == ["a/b/l_0.mp4", "a/b/l_1.mp4", "a/b/l.m3u8"]
    assert listed[0] == {
        "fileName": "a/b/l_0.mp4",
        "trackType": "audio_and_video",
        "uid": "0",
        "mixedAllUser": True,
        "isPlayable": True,
        "sliceStartTime": AT_MS,
    }
    assert {**uploaded, "fileList": []} == {"msgName": "uploaded", "status": 0, "fileList": []}
    _, (event_type, backuped) = shown(events.stored(row, "backuped", files), row)
    assert (event_type, backuped["msgName"], backuped["status"]) == (32, "backuped", 0)
    assert events.stored(row, "unknown", files) == []
    assert shown([events.late(row, files)], row) == [(31, uploaded)]


@pytest.mark.parametrize(("outcome", "status"), [("complete", 0), ("limit_reached", 0), ("aborted", 1), ("failed", 1), ("interrupted", 1)])
def test_the_last_of_a_session(outcome: Outcome, status: int) -> None:
    assert shown([events.session_exit(outcome)], a_row()) == [(11, {"msgName": "session_exit", "exitStatus": status})]


def test_a_refused_call() -> None:
    mix, alone = a_row(status=5), a_row(status=6, mode="individual")
    told = {"msgName": "cloud_recording_status_update", "status": 5, "recordingMode": 1, "fileList": f"a/b/{SID}_room.m3u8"}
    assert shown([events.refused(mix)], mix) == [(3, told)]
    told |= {"status": 6, "recordingMode": 0}
    assert shown([events.refused(alone, [a_file("l_0.mpd"), a_file("one.m3u8"), a_file("two.m3u8")])], alone) == [
        (3, told | {"fileList": "a/b/one.m3u8"})
    ]
    assert shown([events.refused(alone)], alone) == [(3, told | {"fileList": ""})]


def test_long_messages_are_cut() -> None:
    row = a_row()
    ((_, details),) = shown([events.error(0, 500, 5, "x" * 9000)], row)
    assert len(str(details["errorMsg"])) == 500
