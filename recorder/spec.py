"""What one recording is to do. Written by the control plane, read by the agent and the worker.

Wire names of the public API do not appear here: `api/schemas.py` translates.
"""

import secrets
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from storage.sealed import KEY_BYTES, Seal

Mode = Literal["individual", "mix"]

MOST_HEARD: Final = 49  # people of one recording
MOST_SEEN: Final = 32  # of the individual mode; of a composite's 49 the layout draws as many as it has places for


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class UidRule(_Spec):
    """Whose audio, or whose video, is recorded."""

    kind: Literal["all", "none", "only", "except"] = "all"
    uids: frozenset[int] = frozenset()

    def admits(self, uid: int) -> bool:
        if self.kind in ("all", "none"):
            return self.kind == "all"
        return (uid in self.uids) == (self.kind == "only")

    def admits_at_most(self, most: int) -> int:
        """How many people it lets in where `most` are recorded."""
        if self.kind == "none":
            return 0
        return min(len(self.uids), most) if self.kind == "only" else most


class Subscription(_Spec):
    audio: UidRule = UidRule()
    video: UidRule = UidRule()


class Region(_Spec):
    """One region of the custom layout; fractions of the canvas, origin at the top left."""

    uid: int | None = None
    x: float
    y: float
    width: float
    height: float
    alpha: float = 1.0
    fit: bool = False  # False: crop to fill; True: whole picture, bars


class UserBackground(_Spec):
    uid: int
    url: str
    fit: bool = False


class Layout(_Spec):
    number: int = 0  # 0 floating, 1 best fit, 2 vertical, 3 custom
    max_resolution_uid: int | None = None
    regions: tuple[Region, ...] = ()
    background_color: str = "#000000"
    background_image: str | None = None
    default_user_background_image: str | None = None
    user_backgrounds: tuple[UserBackground, ...] = ()

    @property
    def image_urls(self) -> tuple[str, ...]:
        """Each once, the one that covers most first."""
        urls = (self.background_image, self.default_user_background_image, *(user.url for user in self.user_backgrounds))
        return tuple(dict.fromkeys(url for url in urls if url))


class Canvas(_Spec):
    width: int = 360
    height: int = 640
    fps: int = 15
    bitrate_kbps: int = 500


class Snapshots(_Spec):
    interval_seconds: int = 10


class Storage(_Spec):
    """The customer's bucket. Known to the agent, never to the worker."""

    vendor: int
    region: int = 0
    bucket: str
    access_key: SecretStr
    secret_key: SecretStr
    sts_token: SecretStr | None = None
    sts_expires_at: int | None = None  # Unix seconds
    prefix: tuple[str, ...] = ()
    endpoint: str | None = None
    sse: Literal["kms", "aes256"] | None = None
    tag: str | None = None

    @property
    def folder(self) -> str:
        """What the object keys begin with."""
        return "".join(f"{part}/" for part in self.prefix)

    def with_secrets(self) -> dict[str, object]:
        """Its JSON with the keys in clear."""
        plain = self.model_dump(mode="json")
        for key in ("access_key", "secret_key", "sts_token"):
            secret = getattr(self, key)
            plain[key] = secret.get_secret_value() if secret is not None else None
        return plain


class RecordingSpec(_Spec):
    """One recording. `with_secrets()` is the only way its JSON contains the token and keys."""

    sid: str
    app_id: str
    channel: str
    uid: int  # the recorder's own
    mode: Mode
    token: SecretStr | None = None
    live_broadcast: bool = False  # decides what "idle" means
    audio: bool = True
    video: bool = True
    max_idle_seconds: int = 30
    low_stream: bool = False
    stream_mode: Literal["default", "standard", "original"] = "default"
    audio_profile: int = 0  # 0 mono 48 kbit/s, 1 mono 128, 2 stereo 192
    canvas: Canvas = Canvas()
    layout: Layout = Layout()
    subscription: Subscription = Subscription()
    files: bool = True  # False: screenshots only
    mp4: bool = False
    snapshots: Snapshots | None = None
    correct_extinf: bool = False
    storage: Storage | None = None  # None in the worker's copy
    next_storage: Storage | None = None  # another place that the customer wants, until the node has left the first; never sent to it
    media_key: SecretStr | None = None  # hex digits; with it the media lies sealed in the spool and in the backup store

    @property
    def most_seen(self) -> int:
        """Of how many people it records the video."""
        return MOST_SEEN if self.mode == "individual" else MOST_HEARD

    @property
    def most_streams(self) -> int:
        """How many tracks of people it may record at the same time, whoever comes."""
        heard = self.subscription.audio.admits_at_most(MOST_HEARD) if self.audio else 0
        return heard + (self.subscription.video.admits_at_most(self.most_seen) if self.video else 0)

    @property
    def pixels_per_second(self) -> int:
        """That are encoded; 0: video is written as it comes, or not at all."""
        return self.canvas.width * self.canvas.height * self.canvas.fps if self.mode == "mix" and self.video else 0

    def for_worker(self) -> "RecordingSpec":
        """The copy a worker gets: without the bucket's credentials."""
        return self.model_copy(update={"storage": None, "next_storage": None})

    def with_media_key(self) -> "RecordingSpec":
        """The copy whose media is sealed, with a new key."""
        return self.model_copy(update={"media_key": SecretStr(secrets.token_hex(KEY_BYTES))})

    def seal(self) -> Seal | None:
        """What the media is sealed with; None: it lies in clear."""
        return Seal(bytes.fromhex(self.media_key.get_secret_value())) if self.media_key else None

    def with_secrets(self) -> bytes:
        """JSON with the secrets in clear, for a pipe or sealed storage only."""
        plain = self.model_dump(mode="json")
        plain["token"] = self.token.get_secret_value() if self.token is not None else None
        if self.storage:
            plain["storage"] = self.storage.with_secrets()
        # Nodes of the version before do not know these.
        for name, value in (
            ("next_storage", self.next_storage.with_secrets() if self.next_storage else None),
            ("media_key", self.media_key.get_secret_value() if self.media_key else None),
        ):
            if value is None:
                del plain[name]
            else:
                plain[name] = value
        import json

        return json.dumps(plain).encode()
