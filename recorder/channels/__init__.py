"""Channels that can be recorded: the contract of a connector, and the loader.

Every other file in this folder is one connector offering `create(...) -> Connector`. A connector joins as an invisible
subscriber, tells who is there, and hands over encoded frames on the recording's timeline.
"""

import importlib
from dataclasses import dataclass, field
from typing import Final, Protocol

from recorder.frames import EncodedFrame, Track
from recorder.rtp.capture_writer import CaptureWriter
from recorder.rtp.meters import Meters
from recorder.spec import RecordingSpec, Subscription

INTERRUPTED_SECONDS: Final = 4.0


class ChannelError(Exception):
    """The channel cannot be joined or was lost for good."""


class ChannelRefused(ChannelError):
    """The channel refuses this token or this uid; trying again is no use."""


class TokenExpired(ChannelRefused):
    """The token was right, but its time is over."""


class Kicked(ChannelError):
    """Somebody else joined with the recorder's uid."""


class Listener(Protocol):
    """What a connector tells. Called from the event loop; must not block."""

    def participant_joined(self, uid: int, *, host: bool) -> None:
        """`host`: sends or may send media; False: audience only."""

    def participant_left(self, uid: int) -> None: ...

    def track_started(self, track: Track) -> None:
        """The participant publishes (or unmuted) this track."""

    def track_stopped(self, track: Track) -> None:
        """The participant unpublished or muted this track."""

    def frame(self, frame: EncodedFrame) -> None: ...

    def interrupted(self) -> None:
        """The connection to the channel has been away for INTERRUPTED_SECONDS and is sought; told once each time it goes away."""

    def lost(self, error: ChannelError) -> None:
        """The channel is gone for good; no call follows."""


class Connector(Protocol):
    async def join(self) -> None:
        """Join the channel; returns when the roster is known.

        Raises:
            ChannelError: it cannot be joined.
        """

    def subscribe(self, wanted: Subscription) -> None:
        """Replace whose tracks are received; takes effect in the background."""

    def request_keyframe(self, track: Track) -> None:
        """Ask the sender for a keyframe soon; rate-limited, harmless when repeated."""

    async def leave(self) -> None:
        """Hand over what is still buffered, then leave. No listener call follows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a channel is, for the connector."""

    connector: str  # "hub", "replay", …
    url: str
    zero_ns: int  # time.monotonic_ns() at the zero of the recording's timeline
    jitter_ms: int = 500
    capture: CaptureWriter | None = None  # takes what is received
    meters: Meters = field(default_factory=Meters)  # knows every session's receiver
    addresses: tuple[str, ...] = ()  # local addresses offered to ICE; empty: those of every interface but loopback


def create(place: Place, spec: RecordingSpec, listener: Listener) -> Connector:
    """Load the connector that `place` names."""
    module = importlib.import_module(f"recorder.channels.{place.connector}")
    connector: Connector = module.create(place, spec, listener)
    return connector
