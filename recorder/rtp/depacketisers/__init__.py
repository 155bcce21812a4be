"""From RTP payloads to access units, one codec a file: pure, no sockets, no clock.

Each file named after a codec offers `create() -> Depacketiser`. Packets arrive in order and without gaps inside an access
unit; `reset()` is called where packets are missing. What is kept between two calls is at most one access unit.
"""

import importlib
from typing import NamedTuple, Protocol, get_args

from recorder.frames import Codec

CODECS: frozenset[str] = frozenset(get_args(Codec))  # those with a file here

MAX_UNIT_BYTES = 4 << 20  # of one access unit: ten times a keyframe of 4K; what grows beyond it is no picture


class AccessUnit(NamedTuple):
    """One complete picture with all its layers, or one packet of sound."""

    timestamp: int  # RTP, 32 bits
    payload: bytes
    keyframe: bool
    width: int = 0  # of the coded picture; 0 when this unit does not tell
    height: int = 0


class Depacketiser(Protocol):
    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        """Take the next payload; return the access unit it completes, or one before whose end it shows.

        Empty payloads only probe the path: they are ignored.

        Raises:
            ValueError: the payload is malformed, or a picture before it ended early; what was gathered of that picture is
                dropped, and what refers to it can't be decoded.
        """

    def reset(self) -> None:
        """Packets are missing: drop what was gathered and wait for the start of the next access unit."""


def create(codec: Codec) -> Depacketiser:
    module = importlib.import_module(f"recorder.rtp.depacketisers.{codec}")
    depacketiser: Depacketiser = module.create()
    return depacketiser
