"""The rtpdump format, byte by byte as rtptools' documentation states it."""

import io
import struct

import pytest

from recorder.rtp import rtpdump
from recorder.rtp.rtpdump import Arrival

MS = 1_000_000
_HEAD = b"#!rtpplay1.0 0.0.0.0/0\n" + struct.pack("!IIIHH", 1_700_000_000, 250_000, 0, 0, 0)


def test_a_file_is_a_line_a_header_and_records() -> None:
    assert rtpdump.head(1_700_000_000_250_000_000) == _HEAD
    assert rtpdump.record(Arrival(1234 * MS + 999_999, b"\x80abc", rtcp=False)) == struct.pack("!HHI", 12, 4, 1234) + b"\x80abc"
    assert rtpdump.record(Arrival(5 * MS, b"\x80\xc8", rtcp=True)) == struct.pack("!HHI", 10, 0, 5) + b"\x80\xc8"


def test_what_was_written_is_read_and_a_torn_end_left_out() -> None:
    arrivals = [Arrival(3 * MS, b"\x80one", False), Arrival(3 * MS, b"\x80\xc8two", True), Arrival(4 * MS, b"\x80three", False)]
    data = _HEAD + b"".join(map(rtpdump.record, arrivals))
    assert list(rtpdump.read(io.BytesIO(data))) == arrivals
    for cut in range(1, 14):
        assert list(rtpdump.read(io.BytesIO(data[:-cut]))) == arrivals[:2]


@pytest.mark.parametrize("data", [b"", b"RIFF", _HEAD[:-1], b"#!rtpplay1.0 " + bytes(300), _HEAD + bytes(8)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="rtpdump"):
        list(rtpdump.read(io.BytesIO(data)))
