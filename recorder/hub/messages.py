"""What the hub says and hears in JSON: the roster's messages and the body of a mute request."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

# Close codes of the roster's WebSocket.
CLOSE_REPLACED = 4001  # somebody else joined with the same uid
CLOSE_TOKEN_EXPIRED = 4003
CLOSE_TOO_SLOW = 4008  # the client does not read; what it missed is not sent again


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class Participant(_Message):
    """One participant; `audio` and `video` name the codec, None: not published."""

    uid: int
    host: bool = True
    audio: str | None = None
    video: str | None = None
    audio_muted: bool = False  # asked for, or no packets for 3 s
    video_muted: bool = False
    video_low: bool = False  # a low stream of the video is sent too


class Roster(_Message):
    """The first message of every connection."""

    type: Literal["roster"] = "roster"
    participants: tuple[Participant, ...]


class Joined(_Message):
    type: Literal["joined"] = "joined"
    participant: Participant


class Left(_Message):
    type: Literal["left"] = "left"
    participant: Participant


class Changed(_Message):
    type: Literal["changed"] = "changed"
    participant: Participant


Message = Annotated[Roster | Joined | Left | Changed, Field(discriminator="type")]
_adapter: TypeAdapter[Message] = TypeAdapter(Message)


def parse(text: str | bytes) -> Message:
    """Read one message of the roster.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _adapter.validate_json(text)


class Denial(_Message):
    """Body of every answer that is an error."""

    reason: str
    error: Literal["token", "token_expired"] | None = None  # what is wrong with the caller's access token


class Mute(_Message):
    """Body of `PUT {session}/mute`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: bool
    video: bool
