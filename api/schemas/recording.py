"""`recordingConfig` and its neighbours: what is recorded, and into which files."""

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AliasChoices, Field

from api.schemas.layout import LayoutConfig
from api.schemas.subscription import AUDIO, VIDEO, Allowed, Blocked, given_lists, subscription, uid_rule
from api.schemas.wire import Given, Problem, Wire, unsigned
from recorder.spec import Canvas, Snapshots, Subscription

AUDIO_ONLY, VIDEO_ONLY = 0, 1  # of streamTypes

_LARGEST_SIDE: Final = 1920
_LARGEST_AREA: Final = 1920 * 1080
_SMALLEST_SIDE: Final = 16  # a macroblock; encoders take no less
_FRAME_RATES: Final = (1, 7, 10, 15, 24, 30, 60)
_DEFAULT_FRAME_RATE: Final = 15
_SALT_BYTES: Final = 32
_ENCRYPTED: Final = range(1, 9)  # of decryptionMode
_SALTED: Final = (7, 8)


class RecordingConfig(Wire):
    """What both modes know."""

    channel_type: Annotated[int, unsigned(1)] = 0
    stream_types: Annotated[int, unsigned(2)] = 2
    decryption_mode: int = Field(0, ge=0, le=8, description="encrypted channels are not supported: only 0 is accepted")
    secret: str = ""
    salt: str = ""
    video_stream_type: Annotated[int, unsigned(1)] = 0
    max_idle_time: int = Field(30, ge=5, le=2_592_000, description="seconds")
    subscribe_audio_uids: Allowed = Field([])
    un_subscribe_audio_uids: Blocked = Field([], validation_alias=AliasChoices(*AUDIO[1:]))
    subscribe_video_uids: Allowed = Field([])
    un_subscribe_video_uids: Blocked = Field([], validation_alias=AliasChoices(*VIDEO[1:]))
    private_params: str = ""

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        for names, useless_in in ((AUDIO, VIDEO_ONLY), (VIDEO, AUDIO_ONLY)):
            lists = given_lists(given, names)
            if len(lists) > 1:
                yield lists[1], f"must not stand beside {lists[0]}"
            if lists and given.get("streamTypes") == useless_in:
                yield lists[0], f"must not be set when streamTypes is {useless_in}"
        yield from _encryption(given)

    def to_subscription(self) -> Subscription:
        return subscription(
            uid_rule(self.subscribe_audio_uids, self.un_subscribe_audio_uids),
            uid_rule(self.subscribe_video_uids, self.un_subscribe_video_uids),
        )

    @property
    def correct_extinf(self) -> bool:
        """A wish inside a JSON document inside a string; whatever else is in there is ignored."""
        try:
            wishes = json.loads(self.private_params or "{}")
        except (ValueError, RecursionError):
            return False
        return isinstance(wishes, dict) and wishes.get("correctEXTINF") is True


class IndividualRecordingConfig(RecordingConfig):
    stream_mode: Literal["default", "standard", "original"] = "default"
    subscribe_uid_group: int = Field(0, ge=0, le=5, description="a hint; drops nobody")

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from super().rules(given)
        yield from ((key, "is for mode mix only") for key in ("transcodingConfig", "audioProfile") if key in given)


class TranscodingConfig(LayoutConfig):
    width: int = Field(360, ge=_SMALLEST_SIDE, le=_LARGEST_SIDE)
    height: int = Field(640, ge=_SMALLEST_SIDE, le=_LARGEST_SIDE)
    fps: int = Field(_DEFAULT_FRAME_RATE, description=f"one of {_FRAME_RATES}; anything else counts as {_DEFAULT_FRAME_RATE}")
    bitrate: int = Field(500, ge=1, le=6500, description="kbit/s")

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from super().rules(given)
        width, height = given.get("width", 360), given.get("height", 640)
        if isinstance(width, int) and isinstance(height, int) and max(width, height) <= _LARGEST_SIDE and width * height > _LARGEST_AREA:
            yield "width", "times height must not be more than 1920 x 1080"

    def to_canvas(self) -> Canvas:
        return Canvas(
            width=self.width - self.width % 2,  # 4:2:0 has no odd sizes
            height=self.height - self.height % 2,
            fps=self.fps if self.fps in _FRAME_RATES else _DEFAULT_FRAME_RATE,
            bitrate_kbps=self.bitrate,
        )


class MixRecordingConfig(RecordingConfig):
    """Clients send `streamMode` and `subscribeUidGroup` too; here they mean nothing and are ignored."""

    audio_profile: Annotated[int, unsigned(2)] = 0
    transcoding_config: TranscodingConfig = Field(default_factory=TranscodingConfig)


class FileConfig(Wire):
    av_file_type: list[Literal["hls", "mp4"]] = Field(["hls"], max_length=2)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        types = given.get("avFileType")
        if isinstance(types, list) and "hls" not in types:
            yield "avFileType", 'must hold "hls"'


class IndividualFileConfig(FileConfig):
    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from super().rules(given)
        types = given.get("avFileType")
        if isinstance(types, list) and "mp4" in types:
            yield "avFileType", 'must not hold "mp4" in mode individual'


class SnapshotConfig(Wire):
    capture_interval: int = Field(10, ge=1, le=3600, description="seconds")
    file_type: list[Literal["jpg"]] = Field(min_length=1, max_length=1)

    def to_spec(self) -> Snapshots:
        return Snapshots(interval_seconds=self.capture_interval)


def _encryption(given: Given) -> Iterator[Problem]:
    mode = given.get("decryptionMode")
    if not isinstance(mode, int) or mode not in _ENCRYPTED:
        return
    if not given.get("secret"):
        yield "secret", f"is required by decryptionMode {mode}"
    if mode in _SALTED and not _is_salt(given.get("salt")):
        yield "salt", f"must be the base64 form of {_SALT_BYTES} bytes for decryptionMode {mode}"
    yield "decryptionMode", "recording of encrypted channels is not supported"


def _is_salt(salt: object) -> bool:
    try:
        return isinstance(salt, str) and len(base64.b64decode(salt, validate=True)) == _SALT_BYTES
    except binascii.Error:
        return False
