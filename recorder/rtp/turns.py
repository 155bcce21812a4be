"""The packets of a captured session when it is played again and again: rewritten so that the stream goes on. Pure."""

import struct

from recorder.rtp import packet as rtp
from recorder.rtp.capture import Session

_NUMBERS = struct.Struct("!HII")  # sequence number, timestamp, SSRC
_REPORT = struct.Struct("!IQI")  # SSRC, NTP, RTP time
_ANOTHER_SSRC = 0x9E3779B1  # odd: every turn has other ones, for four billion turns
_SECOND = 1_000_000_000


class Turns:
    """One session. `learn` sees every packet of the first turn, `later` gives those of the others."""

    def __init__(self, session: Session, period_ns: int | None) -> None:
        """`period_ns`: as in the capture's description; None: each turn is a new start of every sender."""
        self._seamless = period_ns is not None
        self._repeats = session.retransmissions
        rates = {payload_type: route.clock_rate for payload_type, route in session.routes.items()}
        rates |= {repeat: rates[repeated] for repeat, repeated in session.retransmissions.items() if repeated in rates}
        self._ticks = {payload_type: round((period_ns or 0) * rate / _SECOND) for payload_type, rate in rates.items()}
        self._lowest: dict[int, int] = {}  # extended sequence numbers, by SSRC
        self._highest: dict[int, int] = {}
        self._payload_types: dict[int, int] = {}  # by SSRC
        self._sources: dict[int, int] = {}  # the SSRC that used a payload type last

    def learn(self, data: bytes, *, rtcp: bool) -> None:
        if rtcp or len(data) < 12:
            return
        sequence, _, ssrc = _NUMBERS.unpack_from(data, 2)
        payload_type = data[1] & 0x7F
        self._count(ssrc, sequence)
        self._payload_types[ssrc] = payload_type
        self._sources[payload_type] = ssrc
        place = self._repeated(data, payload_type)
        if place:  # the last packet of a turn may have come in no other way
            self._count(place[0], int.from_bytes(data[place[1] : place[1] + 2], "big"))

    def later(self, data: bytes, turn: int, moved_ns: int, *, rtcp: bool) -> bytes:
        """A packet in turn 1, 2, …, which comes `moved_ns` later than in turn 0."""
        if rtcp:
            return self._report(data, turn, moved_ns)
        if len(data) < 12:
            return data
        sequence, timestamp, ssrc = _NUMBERS.unpack_from(data, 2)
        if not self._seamless:
            return data[:8] + struct.pack("!I", _another(ssrc, turn)) + data[12:]
        payload_type = data[1] & 0x7F
        sequence = (sequence + turn * self._length(ssrc)) & 0xFFFF
        timestamp = (timestamp + turn * self._ticks.get(payload_type, 0)) & 0xFFFFFFFF
        moved = data[:2] + _NUMBERS.pack(sequence, timestamp, ssrc) + data[12:]
        place = self._repeated(moved, payload_type)
        if not place:
            return moved
        source, start = place
        original = int.from_bytes(moved[start : start + 2], "big") + turn * self._length(source)
        return moved[:start] + (original & 0xFFFF).to_bytes(2, "big") + moved[start + 2 :]

    def _repeated(self, data: bytes, payload_type: int) -> tuple[int, int] | None:
        """Of a retransmission, the SSRC it repeats a packet of, and where the number of that packet stands (RFC 4588 section 4)."""
        if payload_type not in self._repeats:
            return None
        header = rtp.parse_header(data)
        source = self._sources.get(self._repeats[payload_type])
        if header is None or source is None or header.payload_end - header.payload_offset < 2:  # padding
            return None
        return source, header.payload_offset

    def _count(self, ssrc: int, sequence: int) -> None:
        highest = self._highest.get(ssrc, sequence)
        extended = highest + ((sequence - highest + 0x8000) & 0xFFFF) - 0x8000
        self._lowest[ssrc] = min(self._lowest.get(ssrc, extended), extended)
        self._highest[ssrc] = max(highest, extended)

    def _report(self, data: bytes, turn: int, moved_ns: int) -> bytes:
        """A compound packet with the sender report it begins with (RFC 3550 section 6.1) moved."""
        if len(data) < 28 or data[1] != rtp.SR:
            return data
        ssrc, ntp, timestamp = _REPORT.unpack_from(data, 4)
        ntp = (ntp + (moved_ns << 32) // _SECOND) & 0xFFFFFFFFFFFFFFFF
        if self._seamless:
            timestamp = (timestamp + turn * self._ticks.get(self._payload_types.get(ssrc, -1), 0)) & 0xFFFFFFFF
        else:
            ssrc = _another(ssrc, turn)
        return data[:4] + _REPORT.pack(ssrc, ntp, timestamp) + data[20:]

    def _length(self, ssrc: int) -> int:
        """Of one turn in sequence numbers."""
        return self._highest[ssrc] - self._lowest[ssrc] + 1 if ssrc in self._highest else 0


def _another(ssrc: int, turn: int) -> int:
    return (ssrc + turn * _ANOTHER_SSRC) & 0xFFFFFFFF
