"""H.264 (RFC 6184, packetization modes 0 and 1): single NAL units, STAP-A and FU-A into Annex B access units.

Parameter sets are kept and put in front of a keyframe that comes without them, so that every keyframe can start a file.
"""

from recorder.rtp.depacketisers import AccessUnit
from recorder.rtp.depacketisers.h264_sps import picture_size

START_CODE = b"\x00\x00\x00\x01"
_IDR, _SPS, _PPS, _AUD, _STAP_A, _FU_A = 5, 7, 8, 9, 24, 28
_PARAMETER_SET_LIMIT = 32  # ids a stream may use, so that a hostile one can't fill the memory


class _H264:
    def __init__(self) -> None:
        self._nals: list[bytes] = []
        self._fragments: list[bytes] = []  # of one FU-A
        self._timestamp: int | None = None
        self._parameter_sets: dict[bytes, bytes] = {}  # by NAL type and the first bytes, which hold the id
        self._size = (0, 0)

    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:
            return None
        if timestamp != self._timestamp:  # the marker bit of the one before was missing: it can't be trusted to be whole
            self.reset()
            self._timestamp = timestamp
        try:
            self._take(payload)
        except (ValueError, IndexError) as error:
            self.reset()
            raise ValueError(f"H.264 payload: {error}") from error
        return self._finish(timestamp) if marker else None

    def reset(self) -> None:
        self._nals = []
        self._fragments = []
        self._timestamp = None

    def _take(self, payload: bytes) -> None:
        kind = payload[0] & 0x1F
        if kind == _FU_A:
            self._take_fragment(payload)
        elif kind == _STAP_A:
            position = 1
            while position < len(payload):
                size = int.from_bytes(payload[position : position + 2], "big")
                nal = payload[position + 2 : position + 2 + size]
                if not size or len(nal) != size:
                    raise ValueError("STAP-A longer than its packet")
                self._nals.append(nal)
                position += 2 + size
        elif 1 <= kind <= 23:
            self._nals.append(payload)
        else:
            raise ValueError(f"packet type {kind} is not negotiated")

    def _take_fragment(self, payload: bytes) -> None:
        indicator, header = payload[0], payload[1]
        if header & 0x80:
            self._fragments = [bytes([indicator & 0xE0 | header & 0x1F])]
        elif not self._fragments:
            raise ValueError("FU-A without its start")
        self._fragments.append(payload[2:])
        if header & 0x40:
            self._nals.append(b"".join(self._fragments))
            self._fragments = []

    def _finish(self, timestamp: int) -> AccessUnit | None:
        nals, self._nals, self._fragments, self._timestamp = self._nals, [], [], None
        keyframe = False
        seen: set[int] = set()
        for nal in nals:
            kind = nal[0] & 0x1F
            seen.add(kind)
            if kind in (_SPS, _PPS):
                self._keep(kind, nal)
            keyframe |= kind == _IDR
        if not seen & {1, 2, 3, 4, _IDR}:
            return None  # parameter sets alone: kept for the next keyframe
        if keyframe and not {_SPS, _PPS} <= seen:
            sets = [s for key, s in sorted(self._parameter_sets.items()) if s not in nals]
            nals = [n for n in nals if n[0] & 0x1F == _AUD] + sets + [n for n in nals if n[0] & 0x1F != _AUD]
        width, height = self._size if keyframe else (0, 0)
        return AccessUnit(timestamp, START_CODE + START_CODE.join(nals), keyframe, width, height)

    def _keep(self, kind: int, nal: bytes) -> None:
        # The id of a PPS is its first Exp-Golomb code; that of an SPS comes after three bytes of profile and level.
        key = bytes([kind]) + (nal[1:2] if kind == _PPS else nal[4:5])
        if kind == _SPS:
            self._size = picture_size(nal)
        if key in self._parameter_sets or len(self._parameter_sets) < _PARAMETER_SET_LIMIT:
            self._parameter_sets[key] = nal


def create() -> _H264:
    return _H264()
