"""A capture: what a worker received, kept so that the same recording can be made again from it.

A folder with one rtpdump file for each session of a participant, and `session.json`: what the sessions had negotiated, who came
and went, and what of the recording's specification decides the result. No token, no key, no URL, no name of a channel; but the
media itself is there, decrypted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recorder.frames import Kind
from recorder.rtp import rtpdump
from recorder.rtp.receiver import MAX_SIDE, Route
from recorder.spec import Canvas, Layout, Mode, RecordingSpec, Subscription

DESCRIPTION = "session.json"

# What a replayed recording is called instead of its own names.
REPLAYED_SID, REPLAYED_CHANNEL = "capture", "replay"


class CaptureError(Exception):
    """There is no capture here, or one that cannot be read."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Session(_Part):
    """One session with a participant. Times are on the timeline of the captured recording."""

    uid: int
    file: str
    routes: dict[int, Route]
    retransmissions: dict[int, int] = {}
    orientation_id: int = 0
    ended_ns: int | None = None  # when what it still held was handed over; None: it was open at the end


class Happening(_Part):
    """Somebody came or went, or a track of theirs began or stopped."""

    at_ns: int
    what: Literal["joined", "left", "started", "stopped"]
    uid: int
    host: bool = False  # of "joined"
    kind: Kind | None = None  # of "started" and "stopped"


class Essentials(_Part):
    """Of the recording's specification, what decides the result."""

    mode: Mode = "mix"
    live_broadcast: bool = False
    audio: bool = True
    video: bool = True
    audio_profile: int = 0
    canvas: Canvas = Canvas()
    layout: Layout = Layout()
    subscription: Subscription = Subscription()
    mp4: bool = False

    @field_validator("canvas")
    @classmethod
    def _is_possible(cls, canvas: Canvas) -> Canvas:
        if not (2 <= canvas.width <= MAX_SIDE and 2 <= canvas.height <= MAX_SIDE and 1 <= canvas.fps <= 60):
            raise ValueError("impossible canvas")
        return canvas

    @classmethod
    def of(cls, spec: RecordingSpec) -> "Essentials":
        known = {name: getattr(spec, name) for name in cls.model_fields}
        no_urls = {"background_image": None, "default_user_background_image": None, "user_backgrounds": ()}
        return cls.model_construct(**known | {"layout": spec.layout.model_copy(update=no_urls)})

    def spec(self) -> RecordingSpec:
        known = {name: getattr(self, name) for name in type(self).model_fields}
        return RecordingSpec(sid=REPLAYED_SID, app_id="", channel=REPLAYED_CHANNEL, uid=0, **known)


class Description(_Part):
    """The contents of `session.json`."""

    version: Literal[1] = 1
    zero_utc_ns: int  # Unix time of the timeline's zero
    jitter_ms: int = Field(500, ge=50, le=10_000)
    period_ns: int | None = Field(None, gt=0)  # after it the capture goes on with its own beginning: senders play a loop of this length
    ended_ns: int | None = None  # None: the worker died
    complete: bool = True  # False: the capture ended before the recording (limit, disk)
    recording: Essentials = Essentials()
    sessions: tuple[Session, ...] = ()
    happenings: tuple[Happening, ...] = ()


class Capture:
    """A capture on disk."""

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder = folder
        self.description = description

    def arrivals(self, session: Session) -> Iterator[rtpdump.Arrival]:
        """The packets of one session as they came; none when it never got any.

        Raises:
            CaptureError: the file is broken.
        """
        path = self.folder / session.file
        if not path.is_file():
            return
        try:
            with path.open("rb") as file:
                yield from rtpdump.read(file)
        except (OSError, ValueError) as error:
            raise CaptureError(f"{path}: {error}") from error


def load(folder: Path) -> Capture:
    """Read the description of a capture.

    Raises:
        CaptureError: there is none, or of another version.
    """
    path = folder / DESCRIPTION
    try:
        description = Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise CaptureError(f"{path} describes no capture of a version that is known") from error
    if any(Path(session.file).name != session.file for session in description.sessions):
        raise CaptureError(f"{path} names files outside its folder")
    return Capture(folder, description)
