"""The bodies that are answered. Top-level values are strings: some clients read nothing else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.service import Snapshot
from recorder.outputs.names import Names
from recorder.protocol import Outcome, Reason, Uploading
from recorder.spec import Mode


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class Message(_Answer):
    """An answer of the gateway."""

    message: str


class Refused(_Answer):
    """An answer of the recording service that is no plain success; with it stands what the call named."""

    cname: str | None = None
    uid: str | None = None
    resource_id: str | None = None
    sid: str | None = None
    code: int
    reason: str


class Acquired(_Answer):
    cname: str
    uid: str
    resource_id: str


class Started(Acquired):
    sid: str


class ListedFile(_Answer):
    file_name: str
    track_type: Literal["audio", "video", "audio_and_video"]
    uid: str
    mixed_all_user: bool
    is_playable: bool
    slice_start_time: int = Field(description="Unix time in milliseconds")


class _Listing(_Answer):
    """Left out for recordings with screenshots."""

    file_list_mode: Literal["string", "json"] | None = None
    file_list: str | list[ListedFile] | None = None


class QueryState(_Listing):
    status: int
    slice_start_time: int = Field(description="Unix time in milliseconds; 0 before the first slice")


class QueryAnswer(Started):
    server_response: QueryState


class StopState(_Listing):
    uploading_status: Uploading


class StopAnswer(Started):
    server_response: StopState


class Told(_Listing):
    """Ours: what is known of a recording. What is not known yet is left out."""

    sid: str
    app_id: str
    cname: str
    uid: str
    mode: Mode
    status: int = Field(description="as in query; 8 ended, 20 ended by a failure")
    start_time: int = Field(description="Unix time in milliseconds at which start was accepted")
    slice_start_time: int | None = Field(None, description="Unix time in milliseconds of the first slice")
    end_time: int | None = Field(None, description="Unix time in milliseconds of the last moment recorded")
    outcome: Outcome | None = None
    reason: Reason | None = Field(None, description="why it ended")
    uploading_status: Uploading | None = None


class Address(_Answer):
    primary_ip: str = Field(alias="primaryIP")


class Hosts(_Answer):
    hosts: list[Address]


class NotificationService(_Answer):
    service: Hosts


class NotificationHosts(_Answer):
    data: NotificationService


def query_answer(resource_id: str, snapshot: Snapshot) -> QueryAnswer:
    row = snapshot.recording
    mode, files = _listing(snapshot)
    state = QueryState(status=row.status, file_list_mode=mode, file_list=files, slice_start_time=row.first_media_ms or 0)
    return QueryAnswer(cname=row.channel, uid=str(row.uid), resource_id=resource_id, sid=row.sid, server_response=state)


def stop_answer(resource_id: str, snapshot: Snapshot) -> StopAnswer:
    row = snapshot.recording
    mode, files = _listing(snapshot)
    state = StopState.model_validate({"file_list_mode": mode, "file_list": files, "uploading_status": row.uploading or "unknown"})
    return StopAnswer(cname=row.channel, uid=str(row.uid), resource_id=resource_id, sid=row.sid, server_response=state)


def told(snapshot: Snapshot) -> Told:
    row = snapshot.recording
    mode, files = _listing(snapshot)
    state = {
        "sid": row.sid,
        "app_id": row.app_id,
        "cname": row.channel,
        "uid": str(row.uid),
        "mode": row.mode,
        "status": row.status,
        "start_time": row.created_ms,
        "slice_start_time": row.first_media_ms,
        "end_time": row.ended_ms,
        "outcome": row.outcome,
        "reason": row.reason,
        "uploading_status": row.uploading,
        "file_list_mode": mode,
        "file_list": files,
    }
    return Told.model_validate(state)


def _listing(snapshot: Snapshot) -> tuple[Literal["string", "json"] | None, str | list[ListedFile] | None]:
    row = snapshot.recording
    match row.listing:
        case "none":
            return None, None
        case "string":  # known before the first slice
            return "string", row.prefix + Names(row.sid, row.channel).playlist()
        case _:
            return "json", [
                ListedFile.model_validate(
                    {
                        "file_name": row.prefix + file.name,
                        "track_type": file.track,
                        "uid": str(file.uid),
                        "mixed_all_user": file.mixed,
                        "is_playable": file.playable,
                        "slice_start_time": file.start_ms,
                    }
                )
                for file in snapshot.files
            ]
