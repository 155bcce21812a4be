"""The body of each call, and what it means to the recorder."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, SecretStr, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from api.schemas.layout import LayoutConfig
from api.schemas.recording import (
    AUDIO_ONLY,
    VIDEO_ONLY,
    FileConfig,
    IndividualFileConfig,
    IndividualRecordingConfig,
    MixRecordingConfig,
    RecordingConfig,
    SnapshotConfig,
)
from api.schemas.storage import StorageConfig
from api.schemas.subscription import AUDIO, VIDEO, StreamSubscribe, given_lists
from api.schemas.wire import ChannelName, Given, Problem, Uid, Wire, spelled_out, unsigned
from recorder.spec import Mode, RecordingSpec, Storage, Subscription

_SCENES: Final[Mapping[object, str]] = {1: "web page recording is not supported", 2: "postponed transcoding is not supported"}


class Envelope(Wire):
    """What every body has."""

    cname: ChannelName = Field(description="name of the channel")
    uid: Uid = Field(description="the recorder's own uid in the channel")


def _hours(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        raise spelled_out("Acquire: invalid resourceExpiredHour value!") from error


class AcquireParameters(Wire):
    scene: Annotated[int, unsigned(2), Field(description="only 0: 1 (web page) and 2 (postponed transcoding) are not supported")] = 0
    resource_expired_hour: Annotated[int, Field(ge=1, le=720), WrapValidator(_hours)] = 72
    exclude_resource_ids: list[str] = Field([], description="accepted, without effect on one node")
    region: Literal["CN", "AP", "EU", "NA"] | None = Field(None, description="accepted, without effect: the recorder runs where you run it")
    region_affinity: int = Field(0, ge=0, le=4, description="as region")
    start_parameter: object = Field(None, description="the clientRequest of the start to come, which must then be equal")

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        scene = given.get("scene")
        if isinstance(scene, int) and scene in _SCENES:
            yield "scene", _SCENES[scene]


class AcquireRequest(Envelope):
    client_request: AcquireParameters


class _StartParameters(Wire):
    token: str | None = Field(None, max_length=4096)
    storage_config: StorageConfig

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        if "extensionServiceConfig" in given:
            yield "extensionServiceConfig", "is for mode web only"
        apps = given.get("appsCollection")
        if isinstance(apps, dict) and apps.get("combinationPolicy") not in (None, "default"):
            yield "appsCollection.combinationPolicy", _SCENES[2]  # dropped silently, the file it asks for would never come
        if given.get("transcodeOptions") is not None:
            yield "transcodeOptions", _SCENES[2]

    def common(self, config: RecordingConfig) -> dict[str, Any]:
        return {
            "token": SecretStr(self.token) if self.token else None,
            "live_broadcast": config.channel_type == 1,
            "audio": config.stream_types != VIDEO_ONLY,
            "video": config.stream_types != AUDIO_ONLY,
            "max_idle_seconds": config.max_idle_time,
            "low_stream": config.video_stream_type == 1,
            "subscription": config.to_subscription(),
            "correct_extinf": config.correct_extinf,
            "storage": self.storage_config.to_spec(),
        }


class MixParameters(_StartParameters):
    recording_config: MixRecordingConfig = Field(default_factory=MixRecordingConfig)
    recording_file_config: FileConfig = Field(default_factory=FileConfig)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from super().rules(given)
        if "snapshotConfig" in given:
            yield "snapshotConfig", "is for mode individual only"


class IndividualParameters(_StartParameters):
    recording_config: IndividualRecordingConfig = Field(default_factory=IndividualRecordingConfig)
    recording_file_config: IndividualFileConfig | None = Field(None, description="without it, and with snapshotConfig: screenshots only")
    snapshot_config: SnapshotConfig | None = None

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from super().rules(given)
        config = given.get("recordingConfig")
        if given.get("snapshotConfig") is None or not isinstance(config, dict):
            return
        if config.get("streamTypes") == AUDIO_ONLY:
            yield "snapshotConfig", "needs video: streamTypes 1 or 2"
        elif given_lists(config, AUDIO) and not given_lists(config, VIDEO):
            yield "snapshotConfig", "needs video: a list of audio uids alone subscribes to no video"


class _StartRequest(Envelope):
    def _spec(self, sid: str, app_id: str, mode: Mode, details: dict[str, Any]) -> RecordingSpec:
        return RecordingSpec(sid=sid, app_id=app_id, channel=self.cname, uid=int(self.uid), mode=mode, **details)


class StartMixRequest(_StartRequest):
    client_request: MixParameters

    def to_spec(self, *, sid: str, app_id: str) -> RecordingSpec:
        wanted = self.client_request
        config = wanted.recording_config
        details = wanted.common(config) | {
            "audio_profile": config.audio_profile,
            "canvas": config.transcoding_config.to_canvas(),
            "layout": config.transcoding_config.to_layout(),
            "mp4": "mp4" in wanted.recording_file_config.av_file_type,
        }
        return self._spec(sid, app_id, "mix", details)


class StartIndividualRequest(_StartRequest):
    client_request: IndividualParameters

    def to_spec(self, *, sid: str, app_id: str) -> RecordingSpec:
        wanted = self.client_request
        config, shots = wanted.recording_config, wanted.snapshot_config
        without_effect = config.stream_mode == "original" and config.stream_types != AUDIO_ONLY
        details = wanted.common(config) | {
            "stream_mode": "default" if without_effect else config.stream_mode,
            "files": wanted.recording_file_config is not None or shots is None,
            "snapshots": shots.to_spec() if shots else None,
        }
        return self._spec(sid, app_id, "individual", details)


class UpdateParameters(Wire):
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["streamSubscribe"]}, {"required": ["storageConfig"]}]})

    stream_subscribe: StreamSubscribe | None = None
    storage_config: StorageConfig | None = Field(None, description="new keys; the place must be that of the start")

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        if given.get("storageConfig") is None and given.get("streamSubscribe") is None:
            yield "streamSubscribe", "or storageConfig is required"


class UpdateRequest(Envelope):
    client_request: UpdateParameters

    @property
    def subscription(self) -> Subscription | None:
        wanted = self.client_request.stream_subscribe
        return wanted.to_spec() if wanted else None

    @property
    def storage(self) -> Storage | None:
        wanted = self.client_request.storage_config
        return wanted.to_spec() if wanted else None

    def problem(self, audio: bool, video: bool, stored_in: Storage) -> str | None:
        """What is wrong for a recording that has these kinds of media, in this place."""
        wanted = self.client_request.stream_subscribe
        path = "clientRequest.streamSubscribe"
        wrong = []
        if wanted and wanted.audio_uid_list and not audio:
            wrong.append(f"{path}.audioUidList: must not be set when streamTypes is {VIDEO_ONLY}")
        if wanted and wanted.video_uid_list and not video:
            wrong.append(f"{path}.videoUidList: must not be set when streamTypes is {AUDIO_ONLY}")
        if self.client_request.storage_config:
            moved = self.client_request.storage_config.moved_from(stored_in)
            wrong += [f"clientRequest.storageConfig.{field}: cannot be changed while recording" for field in moved]
        return "; ".join(wrong) or None


class UpdateLayoutRequest(Envelope):
    client_request: LayoutConfig


class StopParameters(Wire):
    async_stop: bool = Field(False, alias="async_stop", description="answer without waiting for the upload")


class StopRequest(Envelope):
    client_request: StopParameters
