"""VP9 (RFC 9628), flexible and non-flexible mode: descriptors off, the spatial layers of a picture joined to one access unit.

Several layers become a superframe (VP9 bitstream specification, annex B), which decoders and files know: they show the
highest. All layers that come are kept; temporal layers are pictures like all others.
"""

from collections import deque

from recorder.rtp.depacketisers import MAX_UNIT_BYTES, AccessUnit
from recorder.rtp.depacketisers.vp9_header import FrameHeaders

_LAYERS_LIMIT = 8  # frames of a superframe
_I, _P, _L, _F, _B, _E, _V = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
_SIMPLE = _P | _B | _E | 0x01  # flags that add nothing to the descriptor


class _Vp9:
    def __init__(self) -> None:
        self._headers = FrameHeaders()
        self._unit = bytearray()
        self._starts: list[int] = []  # of the layers' frames in it
        self._open = False  # the last of them goes on
        self._base_is_intra = False
        self._timestamp = 0
        self._waiting = True  # for the start of a picture, because of a loss or an error that was told
        self._ended_early = False  # the picture before, untold
        self._done: deque[AccessUnit] = deque()  # two at most

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
                raise ValueError("VP9 picture without its end")
        if unit:
            self._done.append(unit)
        return self._done.popleft() if self._done else None

    def reset(self) -> None:
        self._clear()
        self._done.clear()
        self._waiting = True
        self._ended_early = False

    def _clear(self) -> None:
        self._unit = bytearray()
        self._starts = []
        self._open = False

    def _take(self, payload: bytes, timestamp: int, marker: bool) -> AccessUnit | None:
        flags = payload[0]
        size, needs_lower_layer = _descriptor(payload)
        if self._starts and timestamp != self._timestamp:
            if self._open:
                self._ended_early = True
                self._clear()
            else:  # the sender left its upper layers out when it had sent the lower ones, and so never marked the end
                self._done.append(self._finish(self._timestamp))
        if flags & _B:
            if self._open:
                raise ValueError("VP9 frame without its end")
            if not self._starts:
                if needs_lower_layer:  # of the same picture: it is missing
                    if self._waiting:
                        return None
                    raise ValueError("VP9 picture without its start")
                self._timestamp, self._waiting = timestamp, False
                self._base_is_intra = not flags & _P
            if len(self._starts) == _LAYERS_LIMIT:
                raise ValueError("VP9 picture of too many layers")
            self._starts.append(len(self._unit))
        elif not self._open:
            if self._waiting:
                return None
            raise ValueError("VP9 frame without its start")
        self._open = not flags & _E
        self._unit += payload[size:]
        if len(self._unit) > MAX_UNIT_BYTES:
            raise ValueError("VP9 picture without an end")
        return self._finish(timestamp) if marker else None

    def _finish(self, timestamp: int) -> AccessUnit:
        if self._open:
            raise ValueError("VP9 frame without its end")
        unit, starts, intra = self._unit, self._starts, self._base_is_intra
        self._clear()
        ends = [*starts[1:], len(unit)]
        told = [self._headers.read(unit[start:end]) for start, end in zip(starts, ends, strict=True)]
        keyframe = intra and told[0][0]
        width, height = told[-1][1]
        if len(starts) > 1:
            unit += _superframe_index([end - start for start, end in zip(starts, ends, strict=True)])
        return AccessUnit(timestamp, bytes(unit), keyframe, width, height)


def _descriptor(payload: bytes) -> tuple[int, bool]:
    """Length of the payload descriptor (RFC 9628 section 4.2), and whether the frame is predicted from a lower layer of its picture.

    Raises:
        ValueError: it does not fit, or nothing follows it.
    """
    flags = payload[0]
    size, inter_layer = 1, False
    if flags & ~_SIMPLE:
        try:
            if flags & _I:
                size += 2 if payload[size] & 0x80 else 1
            if flags & _L:
                inter_layer = bool(payload[size] & 0x01)
                size += 1 if flags & _F else 2  # TL0PICIDX
            if flags & _F and flags & _P:
                for _ in range(3):
                    size += 1
                    if not payload[size - 1] & 0x01:
                        break
                else:
                    raise ValueError("VP9 frame with more than three references")
            if flags & _V:
                size = _after_structure(payload, size)
        except IndexError:
            raise ValueError("VP9 payload descriptor longer than its packet") from None
    if len(payload) <= size:
        raise ValueError("VP9 payload descriptor without a payload")
    return size, inter_layer


def _after_structure(payload: bytes, position: int) -> int:
    """Where the scalability structure ends, section 4.2.1. Its sizes are not needed: the frames tell theirs themselves."""
    head = payload[position]
    position += 1
    if head & 0x10:  # Y: a size for each layer
        position += 4 * ((head >> 5) + 1)
    if head & 0x08:  # G
        count = payload[position]
        position += 1
        for _ in range(count):
            position += 1 + (payload[position] >> 2 & 3)
    return position


def _superframe_index(sizes: list[int]) -> bytes:
    octets = (max(sizes).bit_length() + 7) // 8
    marker = bytes([0b110 << 5 | octets - 1 << 3 | len(sizes) - 1])
    return marker + b"".join(size.to_bytes(octets, "little") for size in sizes) + marker


def create() -> _Vp9:
    return _Vp9()
