"""From RTP payloads to access units, one codec a file: pure, no sockets, no clock.

Each file offers `create() -> Depacketiser`. Packets arrive in order and without gaps inside an access unit; `reset()` is
called where packets are missing.
"""

import importlib
from dataclasses import dataclass
from typing import Protocol

from recorder.frames import Codec

CODECS: frozenset[str] = frozenset({"h264", "vp8", "opus"})  # those with a file here


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One complete picture, or one packet of sound."""

    timestamp: int  # RTP, 32 bits
    payload: bytes
    keyframe: bool
    width: int = 0  # of the coded picture; 0 when this unit does not tell
    height: int = 0


class Depacketiser(Protocol):
    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        """Take the next payload; return the access unit it completes.

        Raises:
            ValueError: the payload is malformed; what was gathered is dropped.
        """

    def reset(self) -> None:
        """Packets are missing: drop what was gathered and wait for the start of the next access unit."""


def create(codec: Codec) -> Depacketiser:
    module = importlib.import_module(f"recorder.rtp.depacketisers.{codec}")
    depacketiser: Depacketiser = module.create()
    return depacketiser
