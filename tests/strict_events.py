"""What a careful receiver knows of notices of individual and composite recordings: their members, types and order.

Written from the description of the public API and not from our code; unknown members are errors.
"""

# ruff: noqa: N815  # the names are those of the public API

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

NonNegative = Annotated[int, Field(ge=0)]
UnixMs = Annotated[int, Field(gt=1_600_000_000_000, lt=5_000_000_000_000)]
Uid = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Error(_Strict):
    msgName: Literal["cloud_recording_error"]
    module: Literal[0, 1, 2]
    errorLevel: Annotated[int, Field(ge=1, le=5)]
    errorCode: NonNegative
    stat: NonNegative
    errorMsg: str


class Warning(_Strict):
    msgName: Literal["cloud_recording_warning"]
    module: Literal[0, 1]
    warnCode: Annotated[int, Field(ge=1)]
    streamUid: Uid | None = None


class StatusUpdate(_Strict):
    msgName: Literal["cloud_recording_status_update"]
    status: Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 20]
    recordingMode: Literal[0, 1]
    fileList: str


class FileInfos(_Strict):
    msgName: Literal["cloud_recording_file_infos"]
    fileList: Annotated[str, Field(pattern=r"\.m3u8$")]


class SessionExit(_Strict):
    msgName: Literal["session_exit"]
    exitStatus: Literal[0, 1]


class SessionFailover(_Strict):
    msgName: Literal["session_failover"]
    newUid: Annotated[int, Field(ge=1, lt=2**32)]


class UploaderStarted(_Strict):
    msgName: Literal["uploader_started"]
    status: Literal[0]


class ListedFile(_Strict):
    fileName: Annotated[str, Field(pattern=r"\.(m3u8|mp4|mpd)$")]
    trackType: Literal["audio", "video", "audio_and_video"]
    uid: Uid
    mixedAllUser: bool
    isPlayable: bool
    sliceStartTime: UnixMs


class Uploaded(_Strict):
    msgName: Literal["uploaded"]
    status: Literal[0]
    fileList: list[ListedFile]


class Backuped(_Strict):
    msgName: Literal["backuped"]
    status: Literal[0]
    fileList: list[ListedFile]


class UploadingProgress(_Strict):
    msgName: Literal["uploading_progress"]
    progress: Annotated[int, Field(ge=0, le=10_000)]


class RecorderStarted(_Strict):
    msgName: Literal["recorder_started"]
    status: Literal[0]


class RecorderLeave(_Strict):
    msgName: Literal["recorder_leave"]
    leaveCode: Annotated[int, Field(ge=0, le=30)]


class SliceStart(_Strict):
    msgName: Literal["recorder_slice_start"]
    startUtcMs: UnixMs
    discontinueUtcMs: UnixMs
    mixedAllUser: bool
    streamUid: Uid
    trackType: Literal["audio", "video", "audio_and_video"]


class AudioState(_Strict):
    msgName: Literal["recorder_audio_stream_state_changed"]
    streamUid: Uid
    state: Literal[0, 1]
    UtcMs: UnixMs
    utcMs: UnixMs


class VideoState(_Strict):
    msgName: Literal["recorder_video_stream_state_changed"]
    streamUid: Uid
    state: Literal[0, 1]
    UtcMs: UnixMs
    utcMs: UnixMs


class SnapshotFile(_Strict):
    msgName: Literal["recorder_snapshot_file"]
    fileName: Annotated[str, Field(pattern=r"\.jpg$")]


# eventType: serviceType and details
EVENTS: dict[int, tuple[int, type[_Strict]]] = {
    1: (0, Error),
    2: (0, Warning),
    3: (0, StatusUpdate),
    4: (0, FileInfos),
    11: (0, SessionExit),
    12: (0, SessionFailover),
    30: (2, UploaderStarted),
    31: (2, Uploaded),
    32: (2, Backuped),
    33: (2, UploadingProgress),
    40: (1, RecorderStarted),
    41: (1, RecorderLeave),
    42: (1, SliceStart),
    43: (1, AudioState),
    44: (1, VideoState),
    45: (1, SnapshotFile),
}


class Payload(_Strict):
    cname: Name
    uid: Uid
    sid: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    sequence: NonNegative
    sendts: UnixMs
    serviceType: Literal[0, 1, 2]
    serviceScene: Literal["rtc_record", "rtc_snapshot"]
    details: dict[str, Any]


class Notice(_Strict):
    noticeId: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    productId: Literal[3]
    eventType: int
    notifyMs: UnixMs
    sid: str
    payload: Payload


notice_adapter = TypeAdapter(Notice)


def check_payload(event_type: int, payload: dict[str, Any]) -> _Strict:
    """The details, when all of the payload is as it should be."""
    seen = Payload.model_validate(payload)
    service_type, kind = EVENTS[event_type]
    assert seen.serviceType == service_type
    details = kind.model_validate(seen.details)
    if isinstance(details, AudioState | VideoState):
        assert details.UtcMs == details.utcMs
    if isinstance(details, Warning):  # of alarms about media alone
        assert (details.streamUid is not None) == (10001 <= details.warnCode <= 10004)
    return details


def check_notice(body: bytes) -> Notice:
    """The notice, when all of it is as it should be."""
    notice = notice_adapter.validate_json(body)
    assert notice.sid == notice.payload.sid
    assert notice.notifyMs >= notice.payload.sendts - 1000
    check_payload(notice.eventType, notice.payload.model_dump())
    return notice


def check_order(notices: Sequence[Notice]) -> None:
    """Of one recording from its start to its end, as they arrived."""
    assert [notice.payload.sequence for notice in notices] == list(range(len(notices))), "a hole, or out of order"
    assert len({notice.noticeId for notice in notices}) == len(notices)
    assert len({(notice.sid, notice.payload.cname) for notice in notices}) == 1
    kinds = [notice.eventType for notice in notices if notice.eventType != 3]  # a call may be refused at any time
    assert kinds[:2] == [30, 40] or kinds == [30, 1, 41, 11], "it comes in, or is not let in and says why"
    assert kinds[-1] == 11
    assert kinds.count(30) == kinds.count(41) == kinds.count(11) == 1
    ends = [kind for kind in kinds if kind in (31, 32)]
    assert len(ends) <= 1
    if ends and 4 in kinds:
        assert kinds[-3:] == [33, *ends, 11]
    _check_progress(notices)
    _check_streams(notices)
    _check_uids(notices)


def _check_progress(notices: Sequence[Notice]) -> None:
    whole = [notice.payload.details["progress"] == 10_000 for notice in notices if notice.eventType == 33]
    assert not any(whole[:-1]), "everything was stored before the end"


def _check_streams(notices: Sequence[Notice]) -> None:
    receiving: set[tuple[int, str]] = set()
    begun: set[str] = set()
    for notice in notices:
        details = notice.payload.details
        if notice.eventType in (43, 44):
            stream = notice.eventType, details["streamUid"]
            assert (details["state"] == 0) == (stream not in receiving), "told twice"
            receiving ^= {stream}
        elif notice.eventType == 42:
            assert any(uid == details["streamUid"] for _, uid in receiving), "a track without its stream"
            assert details["discontinueUtcMs"] <= details["startUtcMs"]
            begun.add(details["streamUid"])
        elif notice.eventType == 4:
            assert begun, "a playlist before its track"
        elif notice.eventType == 41:
            assert not receiving, "left, and still receiving"


def _check_uids(notices: Sequence[Notice]) -> None:
    uid = notices[0].payload.uid
    for notice in notices:
        if notice.eventType == 12:
            uid = str(notice.payload.details["newUid"])
        assert notice.payload.uid == uid
