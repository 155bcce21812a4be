"""RTP and RTCP as bytes."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from recorder.rtp import packet as rtp


def test_header_with_csrc_extension_and_padding() -> None:
    head = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 0x80 | 96, 0xFFFE, 0xFFFFFFF0, 0xDEADBEEF)
    extension = struct.pack("!HH", 0xBEDE, 1) + bytes([0x10, 0x33, 0x20, 0x44])
    data = head + bytes(4) + extension + b"payload" + bytes([0, 0, 3])
    header = rtp.parse_header(data)
    assert header is not None
    assert (header.payload_type, header.marker, header.sequence) == (96, True, 0xFFFE)
    assert (header.timestamp, header.ssrc) == (0xFFFFFFF0, 0xDEADBEEF)
    assert data[header.payload_offset : header.payload_end] == b"payload"
    assert rtp.extensions(data, header) == {1: b"\x33", 2: b"\x44"}


def test_two_byte_extensions() -> None:
    body = bytes([5, 3, 1, 2, 3, 0, 7, 0])
    data = struct.pack("!BBHII", 0x90, 96, 1, 2, 3) + struct.pack("!HH", 0x1000, 2) + body
    header = rtp.parse_header(data)
    assert header is not None
    assert rtp.extensions(data, header) == {5: b"\x01\x02\x03", 7: b""}


@given(st.binary(max_size=120))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    header = rtp.parse_header(data)
    if header:
        assert 12 <= header.payload_offset <= header.payload_end <= len(data)
        rtp.extensions(data, header)
    rtp.parse_rtcp(data)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60, unique=True).map(sorted), st.integers(0, 0xFFFF))
def test_nack_names_exactly_the_lost(lost: list[int], start: int) -> None:
    numbers = [(start + n) & 0xFFFF for n in lost]
    data = rtp.nack(1, 2, numbers)
    assert len(data) == 4 * (struct.unpack_from("!H", data, 2)[0] + 1)
    named = []
    for position in range(12, len(data), 4):
        first, mask = struct.unpack_from("!HH", data, position)
        named += [first] + [(first + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1]
    assert named == numbers


def test_sender_report_and_bye_of_a_compound() -> None:
    report = struct.pack("!BBHIQIII", 0x80, 200, 6, 7, 0x0123456789ABCDEF, 90000, 1, 2)
    bye = struct.pack("!BBHI", 0x81, 203, 1, 7)
    assert rtp.parse_rtcp(report + bye) == [rtp.SenderReport(7, 0x0123456789ABCDEF, 90000), rtp.Bye(7)]
    assert rtp.parse_rtcp(report + bye[:6]) == [rtp.SenderReport(7, 0x0123456789ABCDEF, 90000)]


def test_ntp_epoch() -> None:
    assert rtp.ntp_to_ns(2_208_988_800 << 32) == 0
    assert rtp.ntp_to_ns((2_208_988_800 + 5 << 32) + (1 << 31)) == 5_500_000_000
