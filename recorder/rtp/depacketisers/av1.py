"""AV1 (RTP payload format for AV1, version 1.0): aggregated and fragmented OBUs into temporal units of the low-overhead format.

Every unit gets its size; temporal delimiters go, as files of AV1 want it, and decoders do without. All layers that come are
kept. https://aomediacodec.github.io/av1-rtp-spec/v1.0.0.html
"""

from recorder.rtp.depacketisers import MAX_UNIT_BYTES, AccessUnit
from recorder.rtp.depacketisers import av1_obu as obu

_Z, _Y = 0x80, 0x40  # aggregation header, section 4.4: the first unit began, the last one goes on in another packet
_KEPT = frozenset({obu.SEQUENCE_HEADER, obu.FRAME_HEADER, obu.TILE_GROUP, obu.METADATA, obu.FRAME, obu.REDUNDANT_FRAME_HEADER})
_NO_START = frozenset({obu.TILE_GROUP, obu.REDUNDANT_FRAME_HEADER})  # a frame header comes before them


class _Av1:
    def __init__(self) -> None:
        self._unit = bytearray()
        self._fragment: bytearray | None = None  # what has come of an OBU
        self._sequence: bytes | None = None  # body of the sequence header in the unit
        self._frame: bytes | None = None  # first bytes of the body of its first frame
        self._timestamp: int | None = None  # of what is gathered; None: nothing is
        self._waiting = True  # for the start of a temporal unit, because of a loss or an error that was told

    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:
            return None
        ended_early = False
        if timestamp != self._timestamp:
            ended_early = self._timestamp is not None
            self._clear()
        try:
            unit = self._take(payload, timestamp, marker)
        except ValueError:
            self.reset()
            raise
        if ended_early and not (unit and unit.keyframe):  # which refers to nothing
            raise ValueError("AV1 temporal unit without its end")
        return unit

    def reset(self) -> None:
        self._clear()
        self._waiting = True

    def _clear(self) -> None:
        self._unit = bytearray()
        self._fragment = self._sequence = self._frame = self._timestamp = None

    def _take(self, payload: bytes, timestamp: int, marker: bool) -> AccessUnit | None:
        head = payload[0]
        if not head & _Z:
            if self._fragment is not None:
                raise ValueError("AV1 unit without its end")
        elif self._fragment is None:
            if self._waiting:  # the rest of the packet may follow what is missing
                return None
            raise ValueError("AV1 unit without its start")
        self._timestamp = timestamp
        elements = _elements(payload)
        last = len(elements) - 1
        for index, element in enumerate(elements):
            if index == 0 and self._fragment is not None:
                self._fragment += element
            elif index == last and head & _Y:
                self._fragment = bytearray(element)
            else:
                self._add(element)
                continue
            if index < last or not head & _Y:
                whole, self._fragment = self._fragment, None
                self._add(whole)
        if len(self._unit) + len(self._fragment or b"") > MAX_UNIT_BYTES:
            raise ValueError("AV1 temporal unit without an end")
        return self._finish(timestamp) if marker else None

    def _add(self, unit: bytes | bytearray) -> None:
        body = obu.body_of(unit)
        kind = obu.kind_of(unit[0])
        if kind not in _KEPT:
            return
        if self._waiting and kind in _NO_START:
            return
        self._waiting = False
        if kind == obu.SEQUENCE_HEADER:
            self._sequence = body
        elif kind in (obu.FRAME_HEADER, obu.FRAME) and self._frame is None:
            self._frame = body[:1]
        self._unit.append(unit[0] | obu.HAS_SIZE)
        if unit[0] & obu.HAS_EXTENSION:
            self._unit.append(unit[1])
        self._unit += obu.leb128(len(body))
        self._unit += body

    def _finish(self, timestamp: int) -> AccessUnit | None:
        if self._fragment is not None:
            raise ValueError("AV1 unit without its end")
        unit, sequence, frame = bytes(self._unit), self._sequence, self._frame
        self._clear()
        if frame is None:
            return None
        if sequence is None or not obu.begins_keyframe(frame):
            return AccessUnit(timestamp, unit, keyframe=False)
        width, height = obu.picture_size(sequence)
        return AccessUnit(timestamp, unit, keyframe=True, width=width, height=height)


def _elements(payload: bytes) -> list[bytes]:
    """The OBU elements of a packet. Raises ValueError when they do not fit."""
    count = payload[0] >> 4 & 3
    position = 1
    if count == 1:
        elements = [payload[1:]]
    else:
        elements = []
        while position < len(payload):
            if count and len(elements) == count - 1:
                elements.append(payload[position:])
                break
            size, position = obu.read_leb128(payload, position)
            if size > len(payload) - position:
                raise ValueError("AV1 unit longer than its packet")
            elements.append(payload[position : position + size])
            position += size
    if not elements or (count and len(elements) != count) or not all(elements):
        raise ValueError("AV1 packet without the units that it states")
    return elements


def create() -> _Av1:
    return _Av1()
