"""Audio codecs without a payload format of their own (RFC 3551 section 4.5): every packet is one access unit."""

from recorder.rtp.depacketisers import AccessUnit


class Samples:
    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        return AccessUnit(timestamp, payload, keyframe=True) if payload else None

    def reset(self) -> None:
        """A packet refers to no other."""
