"""VP8 (RFC 7741): payload descriptor off, partitions joined; sizes from the keyframe's header (RFC 6386 section 9.1)."""

from recorder.rtp.depacketisers import AccessUnit

_KEYFRAME_START_CODE = b"\x9d\x01\x2a"


def _descriptor_size(payload: bytes) -> int:
    """Length of the payload descriptor, RFC 7741 section 4.2. Raises ValueError when it does not fit."""
    size = 1
    if payload[0] & 0x80:  # X
        flags = payload[1] if len(payload) > 1 else 0
        size = 2
        if flags & 0x80:  # I: one or two bytes of picture id
            size += 2 if len(payload) > size and payload[size] & 0x80 else 1
        if flags & 0x40:  # L
            size += 1
        if flags & 0x30:  # T or K
            size += 1
    if len(payload) <= size:
        raise ValueError("VP8 payload descriptor without a payload")
    return size


class _Vp8:
    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._timestamp = 0

    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:
            return None
        try:
            size = _descriptor_size(payload)
        except ValueError:
            self.reset()
            raise
        starts = payload[0] & 0x10 and not payload[0] & 0x0F  # S bit of partition 0
        if starts:
            self._parts, self._timestamp = [payload[size:]], timestamp
        elif not self._parts or timestamp != self._timestamp:
            self.reset()  # the start is missing
            return None
        else:
            self._parts.append(payload[size:])
        if not marker:
            return None
        frame = b"".join(self._parts)
        self._parts = []
        if frame[0] & 1:
            return AccessUnit(timestamp, frame, keyframe=False)
        if len(frame) < 10 or frame[3:6] != _KEYFRAME_START_CODE:
            raise ValueError("VP8 keyframe without its start code")
        width = int.from_bytes(frame[6:8], "little") & 0x3FFF
        height = int.from_bytes(frame[8:10], "little") & 0x3FFF
        return AccessUnit(timestamp, frame, keyframe=True, width=width, height=height)

    def reset(self) -> None:
        self._parts = []


def create() -> _Vp8:
    return _Vp8()
