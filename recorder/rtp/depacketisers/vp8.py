"""VP8 (RFC 7741): payload descriptor off, partitions joined; sizes from the keyframe's header (RFC 6386 section 9.1)."""

from recorder.rtp.depacketisers import MAX_UNIT_BYTES, AccessUnit

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
        self._frame = bytearray()  # what has come of the picture
        self._timestamp = 0
        self._waiting = True  # for the start of a picture, because of a loss or an error that was told
        self._ended_early = False  # the picture before, untold

    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:
            return None
        try:
            unit = self._take(payload, timestamp, marker)
        except ValueError:
            self.reset()
            raise
        if self._ended_early:
            self._ended_early = False
            if not (unit and unit.keyframe):  # which refers to nothing
                raise ValueError("VP8 picture without its end")
        return unit

    def reset(self) -> None:
        self._frame = bytearray()
        self._waiting = True
        self._ended_early = False

    def _take(self, payload: bytes, timestamp: int, marker: bool) -> AccessUnit | None:
        size = _descriptor_size(payload)
        if payload[0] & 0x17 == 0x10:  # S bit of partition 0
            self._ended_early = bool(self._frame)
            self._frame = bytearray()
            self._timestamp, self._waiting = timestamp, False
        elif self._waiting:
            return None
        elif not self._frame or timestamp != self._timestamp:
            raise ValueError("VP8 picture without its start")
        self._frame += payload[size:]
        if len(self._frame) > MAX_UNIT_BYTES:
            raise ValueError("VP8 picture without an end")
        return self._finish(timestamp) if marker else None

    def _finish(self, timestamp: int) -> AccessUnit:
        frame, self._frame = bytes(self._frame), bytearray()
        if frame[0] & 1:
            return AccessUnit(timestamp, frame, keyframe=False)
        if len(frame) < 10 or frame[3:6] != _KEYFRAME_START_CODE:
            raise ValueError("VP8 keyframe without its start code")
        width = int.from_bytes(frame[6:8], "little") & 0x3FFF
        height = int.from_bytes(frame[8:10], "little") & 0x3FFF
        return AccessUnit(timestamp, frame, keyframe=True, width=width, height=height)


def create() -> _Vp8:
    return _Vp8()
