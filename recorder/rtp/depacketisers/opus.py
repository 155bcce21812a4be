"""Opus (RFC 7587): each packet is one access unit."""

from recorder.rtp.depacketisers import AccessUnit


class _Opus:
    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        # An empty payload silences FFmpeg's decoder for good; it carries no sound anyway.
        return AccessUnit(timestamp, payload, keyframe=True) if payload else None

    def reset(self) -> None:
        pass


def create() -> _Opus:
    return _Opus()
