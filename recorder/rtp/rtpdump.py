"""Files of received packets in the format of rtptools' `rtpdump` (Wireshark reads it too). Bytes in, values out.

One line of text, a header of 16 bytes, then records: RTP packets as they were sent, and compound RTCP packets, each with the
milliseconds that had passed at its arrival.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_LINE = b"#!rtpplay1.0 0.0.0.0/0\n"
_HEADER = struct.Struct("!IIIHH")  # start in s and µs, address and port of the source, padding
_RECORD = struct.Struct("!HHI")  # length with this head, length of the RTP packet or 0 for RTCP, ms since the start
_LINE_LIMIT = 256
LONGEST_PACKET = 0xFFFF - _RECORD.size
_MILLISECOND = 1_000_000


class Arrival(NamedTuple):
    """One received packet."""

    at_ns: int  # since the start; whole milliseconds
    data: bytes
    rtcp: bool


def head(start_utc_ns: int) -> bytes:
    """The beginning of a file; `start_utc_ns` is the Unix time that its records count from."""
    seconds, rest = divmod(start_utc_ns, 1_000_000_000)
    return _LINE + _HEADER.pack(seconds & 0xFFFFFFFF, rest // 1000, 0, 0, 0)


def record(arrival: Arrival) -> bytes:
    """One packet of at most `LONGEST_PACKET` bytes, less than 49 days after the start."""
    size = len(arrival.data)
    return _RECORD.pack(_RECORD.size + size, 0 if arrival.rtcp else size, max(0, arrival.at_ns) // _MILLISECOND) + arrival.data


def read(file: BinaryIO) -> Iterator[Arrival]:
    """The packets of a file in its order; a torn record at its end is left out.

    Raises:
        ValueError: it is no file of this format.
    """
    if not file.readline(_LINE_LIMIT).startswith(b"#!rtpplay1.0 ") or len(file.read(_HEADER.size)) != _HEADER.size:
        raise ValueError("not an rtpdump file")
    while len(start := file.read(_RECORD.size)) == _RECORD.size:
        length, rtp_length, offset_ms = _RECORD.unpack(start)
        if length < _RECORD.size:
            raise ValueError("an rtpdump record without a length")
        data = file.read(length - _RECORD.size)
        if len(data) != length - _RECORD.size:
            return
        yield Arrival(offset_ms * _MILLISECOND, data, rtcp=rtp_length == 0)
