"""What the notices of individual and composite recording say: for each event of the public API its number and its details. Pure.

A notice's payload is made of these and of what is the same for all notices of a recording: `payload()`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from api.lifecycle import Status
from api.outbox import ALARMS
from api.tables import File, Recording
from recorder import protocol
from recorder.outputs.names import Names
from recorder.protocol import EventBody, Outcome, Reason

ERROR, WARNING, STATUS, FILE_INFOS, EXIT, FAILOVER = 1, 2, 3, 4, 11, 12
UPLOADER_STARTED, UPLOADED, BACKUPED, PROGRESS = 30, 31, 32, 33
STARTED, LEFT, SLICE_START, AUDIO_STATE, VIDEO_STATE, SNAPSHOT = 40, 41, 42, 43, 44, 45

_NAMES: Final = {
    ERROR: "cloud_recording_error",
    WARNING: "cloud_recording_warning",
    STATUS: "cloud_recording_status_update",
    FILE_INFOS: "cloud_recording_file_infos",
    EXIT: "session_exit",
    FAILOVER: "session_failover",
    UPLOADER_STARTED: "uploader_started",
    UPLOADED: "uploaded",
    BACKUPED: "backuped",
    PROGRESS: "uploading_progress",
    STARTED: "recorder_started",
    LEFT: "recorder_leave",
    SLICE_START: "recorder_slice_start",
    AUDIO_STATE: "recorder_audio_stream_state_changed",
    VIDEO_STATE: "recorder_video_stream_state_changed",
    SNAPSHOT: "recorder_snapshot_file",
}
_OF_FILES: Final = frozenset({FILE_INFOS, PROGRESS, SLICE_START, AUDIO_STATE})  # not told by a recording of screenshots alone
_WHOLE: Final = 10_000  # progress when everything is stored

RECORDER, UPLOADER, SERVICE = 0, 1, 2  # `module` of errors and warnings
MAJOR, FATAL = 4, 5  # `errorLevel`
LOCAL_FILES, SLOW_START = 51, 52  # `errorCode`
IMAGE_LEFT_OUT: Final = 10091  # `warnCode`; a number of ours
_LONGEST_MESSAGE: Final = 500
_ENDED_BY: Final[dict[Reason, tuple[int, int]]] = {  # module and errorCode
    "kicked": (RECORDER, 123),
    "token": (RECORDER, 110),
    "token_expired": (RECORDER, 109),
    "channel": (RECORDER, 112),
    "crashed": (RECORDER, 500),
    "spool_full": (UPLOADER, LOCAL_FILES),
}

_SIGNAL, _NO_USERS, _TIMER, _LEAVE = 2, 4, 8, 16  # flags of `leaveCode`
_LEAVE_CODES: Final[dict[Reason, int]] = {"stopped": _TIMER | _LEAVE, "idle": _NO_USERS, "shutdown": _SIGNAL, "crashed": _SIGNAL}
_NORMAL: Final[frozenset[Outcome]] = frozenset({"complete", "limit_reached"})


@dataclass(frozen=True, slots=True)
class Told:
    """One event, for whoever selects its type."""

    event_type: int
    details: Mapping[str, object]
    alarm: int | None = None  # selected by this number instead

    @property
    def service_type(self) -> int:
        """The module of the service that tells it."""
        return 2 if 30 <= self.event_type < 40 else 1 if 40 <= self.event_type < 50 else 0


def payload(row: Recording, told: Told, *, at_ms: int) -> dict[str, object]:
    """All of it but `sequence`. `at_ms`: when it happened."""
    return {
        "cname": row.channel,
        "uid": str(recorder_uid(row)),
        "sid": row.sid,
        "sendts": at_ms,
        "serviceType": told.service_type,
        "serviceScene": "rtc_record" if row.files else "rtc_snapshot",
        "details": dict(told.details),
    }


def recorder_uid(row: Recording) -> int:
    """As whom the worker of the present epoch is in the channel."""
    return row.uid if row.worker_uid is None else row.worker_uid


def is_wanted(row: Recording, told: Told) -> bool:
    """Whether recordings of this kind tell it at all."""
    return row.files or told.event_type not in _OF_FILES


def of_body(row: Recording, body: EventBody, *, before: int, discontinued_ms: int | None = None) -> list[Told]:
    """What an event of a node means, but for the end of a recording.

    `before`: the row's status when it came; `discontinued_ms`: for `TrackBegan`, the end of the track's last good slice, if any.
    """
    told: Told | None = None
    match body:
        case protocol.UploaderStarted():
            told = _told(UPLOADER_STARTED, status=0)
        case protocol.PhaseChanged(phase="ready") if before < Status.READY:
            told = _told(STARTED, status=0)
        case protocol.StreamChanged():
            told = stream(body)
        case protocol.TrackBegan():
            told = slice_start(body, discontinued_ms)
        case protocol.PlaylistPublished(name=name):
            told = _told(FILE_INFOS, fileList=row.prefix + name)
        case protocol.SliceStored(name=name, content="snapshot", backup=False):
            told = _told(SNAPSHOT, fileName=row.prefix + name)
        case protocol.Progress(stored=stored, committed=committed):
            told = progress(stored, committed)
        case protocol.Warned() | protocol.ImageFailed() | protocol.Faulted():
            told = _trouble(body)
    return [told] if told else []


def _trouble(body: protocol.Warned | protocol.ImageFailed | protocol.Faulted) -> Told | None:
    if isinstance(body, protocol.ImageFailed):
        return warning(RECORDER, IMAGE_LEFT_OUT)
    if isinstance(body, protocol.Faulted):
        return error(body.module, body.code, body.level, body.detail)
    if body.code:
        return warning(body.module, body.code, body.uid)
    return error(UPLOADER, LOCAL_FILES, MAJOR, body.detail) if body.module == UPLOADER else None  # a file is gone


def error(module: int, code: int, level: int, message: str) -> Told:
    return _told(ERROR, module=module, errorLevel=level, errorCode=code, stat=1, errorMsg=message[:_LONGEST_MESSAGE])


def warning(module: int, code: int, uid: int | None = None) -> Told:
    """`uid`: of an alarm about media, whose; 0: all together."""
    more = {} if uid is None else {"streamUid": str(uid)}
    told = _told(WARNING, module=module, warnCode=code, **more)
    return Told(told.event_type, told.details, code) if code in ALARMS else told


def refused(row: Recording, files: Iterable[File] = ()) -> Told:
    """A call did not fit the recording's state."""
    mix = row.mode == "mix"
    lists = [file.name for file in files if file.name.endswith(".m3u8")]
    name = Names(row.sid, row.channel).playlist() if mix else next(iter(lists), "")
    return _told(STATUS, status=int(row.status), recordingMode=int(mix), fileList=row.prefix + name if name else "")


def failover(uid: int) -> Told:
    return _told(FAILOVER, newUid=uid)


def stream(body: protocol.StreamChanged) -> Told:
    """The time has the documented spelling and the one that receivers were seen to read."""
    event_type = AUDIO_STATE if body.kind == "audio" else VIDEO_STATE
    state = 0 if body.receiving else 1
    return _told(event_type, streamUid=str(body.uid), state=state, UtcMs=body.at_ms, utcMs=body.at_ms)


def slice_start(body: protocol.TrackBegan, discontinued_ms: int | None) -> Told:
    return _told(
        SLICE_START,
        startUtcMs=body.start_ms,
        discontinueUtcMs=body.start_ms if discontinued_ms is None else discontinued_ms,
        mixedAllUser=body.mixed,
        streamUid=str(body.uid),
        trackType=body.track,
    )


def progress(stored: int, committed: int) -> Told:
    """Before the end: never all."""
    return _told(PROGRESS, progress=min(_WHOLE * stored // committed, _WHOLE - 1) if committed else 0)


def leaving(outcome: Outcome, reason: Reason, detail: str, *, before: int) -> list[Told]:
    """The recorder has left; why, when that was no wish. `before`: the row's status by then."""
    told = []
    if outcome not in _NORMAL and reason in _ENDED_BY:
        told.append(error(*_ENDED_BY[reason], FATAL, detail or reason))
    joined = before >= Status.READY
    code = _LEAVE_CODES.get(reason, _LEAVE) if joined or outcome in _NORMAL else 0
    return [*told, _told(LEFT, leaveCode=code)]


def stored(row: Recording, uploading: protocol.Uploading, files: Iterable[File]) -> list[Told]:
    """Everything is in a store."""
    if uploading == "unknown":
        return []
    whole = _told(PROGRESS, progress=_WHOLE)
    return [whole, _told(UPLOADED if uploading == "uploaded" else BACKUPED, status=0, fileList=listing(row, files))]


def late(row: Recording, files: Iterable[File]) -> Told:
    """What was in the backup store is in the customer's now."""
    return _told(UPLOADED, status=0, fileList=listing(row, files))


def listing(row: Recording, files: Iterable[File]) -> list[Mapping[str, object]]:
    """MP4 files first."""
    ordered = sorted(files, key=lambda file: (PurePosixPath(file.name).suffix != ".mp4", file.start_ms, file.name))
    return [
        {
            "fileName": row.prefix + file.name,
            "trackType": file.track,
            "uid": str(file.uid),
            "mixedAllUser": file.mixed,
            "isPlayable": file.playable,
            "sliceStartTime": file.start_ms,
        }
        for file in ordered
    ]


def session_exit(outcome: Outcome) -> Told:
    """Last of a recording."""
    return _told(EXIT, exitStatus=0 if outcome in _NORMAL else 1)


def _told(event_type: int, **details: object) -> Told:
    return Told(event_type, {"msgName": _NAMES[event_type], **details})
