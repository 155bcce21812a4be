"""H.264 (RFC 6184, packetization modes 0 and 1): single NAL units, STAP-A and FU-A into Annex B access units.

Parameter sets are kept and put in front of a keyframe that comes without them, so that every keyframe can start a file.
"""

from recorder.rtp.depacketisers import MAX_UNIT_BYTES, AccessUnit
from recorder.rtp.depacketisers.bits import Bits
from recorder.rtp.depacketisers.h264_sps import picture_size

START_CODE = b"\x00\x00\x00\x01"
_IDR, _SPS, _PPS, _AUD, _STAP_A, _FU_A = 5, 7, 8, 9, 24, 28
_SLICES = 0b111110  # NAL types 1 to 5 as a set of bits
_SETS = 1 << _SPS | 1 << _PPS
_SETS_LIMIT = 32  # of each kind; a stream may use more, but nobody does
_SET_BYTES_LIMIT = 4096
_HEAD_BYTES = 16  # of a slice or parameter set: as much as the ids in front need


class _ParameterSets:
    """The newest sequence and picture parameter sets of each id, and which picture size they mean."""

    def __init__(self) -> None:
        self._sequence: dict[int, tuple[bytes, tuple[int, int]]] = {}
        self._picture: dict[int, tuple[bytes, int]] = {}  # with the id of its sequence parameter set

    def keep(self, nal: bytes) -> None:
        """Raises ValueError when it can't be one."""
        if len(nal) > _SET_BYTES_LIMIT:
            raise ValueError("H.264 parameter set of impossible size")
        if nal[0] & 0x1F == _SPS:
            number = Bits(nal[4 : 4 + _HEAD_BYTES]).ue()  # after profile and level
            if number in self._sequence or len(self._sequence) < _SETS_LIMIT:
                self._sequence[number] = nal, picture_size(nal)
        else:
            bits = Bits(nal[1 : 1 + _HEAD_BYTES])
            number, sequence = bits.ue(), bits.ue()
            if number in self._picture or len(self._picture) < _SETS_LIMIT:
                self._picture[number] = nal, sequence

    def size(self, nal_slice: bytes) -> tuple[int, int]:
        """Width and height of the picture that this slice is of; zeros when its parameter sets never came."""
        bits = Bits(nal_slice[1 : 1 + _HEAD_BYTES])
        bits.ue()  # first_mb_in_slice
        bits.ue()  # slice_type
        _, sequence = self._picture.get(bits.ue(), (b"", -1))
        return self._sequence.get(sequence, (b"", (0, 0)))[1]

    def in_front(self) -> bytes:
        """All of them as Annex B: a picture parameter set comes after the sequence parameter set that it refers to."""
        sets = [nal for kept in (self._sequence, self._picture) for _, (nal, _) in sorted(kept.items())]
        return b"".join(START_CODE + nal for nal in sets)


class _H264:
    def __init__(self) -> None:
        self._sets = _ParameterSets()
        self._unit = bytearray()  # Annex B
        self._kinds = 0  # NAL types in it, as a set of bits
        self._slice_at = 0  # where the first slice begins, start code included
        self._after_delimiter = 0
        self._fragment_at: int | None = None  # where the open FU-A begins
        self._timestamp: int | None = None  # of what is gathered; None: nothing is
        self._waiting = True  # for the start of an access unit, because of a loss or an error that was told

    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:
            return None
        ended_early = False
        if timestamp != self._timestamp:  # the marker bit of the one before was missing: it can't be trusted to be whole
            ended_early = self._timestamp is not None and bool(self._kinds & _SLICES or self._fragment_at is not None)
            self._clear()
            self._timestamp = timestamp
        try:
            self._take(payload)
            unit = self._finish(timestamp) if marker else None
        except ValueError as error:
            self.reset()
            raise ValueError(f"H.264 payload: {error}") from error
        if ended_early and not (unit and unit.keyframe):  # which refers to nothing
            raise ValueError("H.264 picture without its end")
        return unit

    def reset(self) -> None:
        self._clear()
        self._waiting = True

    def _clear(self) -> None:
        self._unit = bytearray()
        self._kinds = self._slice_at = self._after_delimiter = 0
        self._fragment_at = self._timestamp = None

    def _take(self, payload: bytes) -> None:
        kind = payload[0] & 0x1F
        if kind == _FU_A:
            self._take_fragment(payload)
        elif self._fragment_at is not None:
            raise ValueError("FU-A without its end")
        elif kind == _STAP_A:
            position = 1
            while position < len(payload):
                size = int.from_bytes(payload[position : position + 2], "big")
                nal = payload[position + 2 : position + 2 + size]
                if not size or len(nal) != size:
                    raise ValueError("STAP-A longer than its packet")
                self._add(nal)
                position += 2 + size
        elif 1 <= kind <= 23:
            self._add(payload)
        else:
            raise ValueError(f"packet type {kind} is not negotiated")
        if len(self._unit) > MAX_UNIT_BYTES:
            raise ValueError("picture without an end")

    def _take_fragment(self, payload: bytes) -> None:
        if len(payload) < 3:
            raise ValueError("FU-A without a payload")
        header = payload[1]
        if header & 0x80:
            if self._fragment_at is not None:
                raise ValueError("FU-A without its end")
            self._fragment_at = len(self._unit)
            self._begin(header & 0x1F)
            self._unit.append(payload[0] & 0xE0 | header & 0x1F)
        elif self._fragment_at is None:
            if self._waiting:
                return
            raise ValueError("FU-A without its start")
        self._unit += payload[2:]
        if header & 0x40:
            at, self._fragment_at = self._fragment_at, None
            if header & 0x1F in (_SPS, _PPS):
                self._sets.keep(bytes(self._unit[at + len(START_CODE) :]))

    def _add(self, nal: bytes) -> None:
        kind = nal[0] & 0x1F
        if kind in (_SPS, _PPS):
            self._sets.keep(nal)
        self._begin(kind)
        self._unit += nal
        if kind == _AUD:
            self._after_delimiter = len(self._unit)

    def _begin(self, kind: int) -> None:
        if 1 << kind & _SLICES and not self._kinds & _SLICES:
            self._slice_at = len(self._unit)
        self._kinds |= 1 << kind
        self._unit += START_CODE

    def _finish(self, timestamp: int) -> AccessUnit | None:
        if self._fragment_at is not None:
            raise ValueError("FU-A without its end")
        unit, kinds, slice_at, after_delimiter = self._unit, self._kinds, self._slice_at, self._after_delimiter
        waiting = self._waiting
        self._clear()
        if not kinds & _SLICES:
            return None  # parameter sets alone: kept for the next keyframe
        slice_at += len(START_CODE)
        first = bytes(unit[slice_at : slice_at + 1 + _HEAD_BYTES])
        if waiting and not (len(first) > 1 and first[1] & 0x80):  # not macroblock 0: slices before it are missing
            return None
        self._waiting = False
        if not kinds & 1 << _IDR:
            return AccessUnit(timestamp, bytes(unit), keyframe=False)
        width, height = self._sets.size(first)
        if not width:  # its parameter sets were lost: nothing can be decoded from here on
            return AccessUnit(timestamp, bytes(unit), keyframe=False)
        if kinds & _SETS != _SETS:
            unit[after_delimiter:after_delimiter] = self._sets.in_front()
        return AccessUnit(timestamp, bytes(unit), keyframe=True, width=width, height=height)


def create() -> _H264:
    return _H264()
