"""AV1 payloads, byte by byte and through an encoder, our packetiser and a decoder."""

from collections.abc import Callable

import pytest

from recorder.media.decode import VideoDecoder
from recorder.rtp.depacketisers import AccessUnit, Depacketiser, av1_obu, create
from recorder.tools.packetise import PAYLOAD_BYTES, Av1Packetiser
from tests.coded import video_payloads

DELIMITER, SEQUENCE, METADATA, FRAME, TILES, PADDING = b"\x10", b"\x08", b"\x28", b"\x30", b"\x20", b"\x78"
KEY, DELTA = b"\x10", b"\x30"  # first byte of a frame header: shown keyframe, shown inter frame


def bits(*fields: str) -> bytes:
    digits = "".join(fields).replace(" ", "")
    return int(digits.ljust(-len(digits) % 8 + len(digits), "0"), 2).to_bytes((len(digits) + 7) // 8, "big")


PLAIN = bits("000 0 0", "0", "0", "00000", f"{0:012b} 01000 0", "1000 0111", f"{319:09b} {179:08b}")
SEQUENCE_HEADERS = [
    PLAIN,
    bits("000 1 1", "00100", "1001 1000", f"{319:010b} {179:09b}"),  # reduced still picture
    bits(  # timing information, a decoder model, display delays, two operating points
        "000 0 0",
        *("1", f"{1:032b} {30:032b}", "1 00101", "1", f"{9:05b} {1:032b} 00100 00100"),
        "1",
        "00001",
        *(f"{0x103:012b} 00101", "1", "0" * 20 + "0", "1 0011"),
        *(f"{0x101:012b} 01001 1", "0", "0"),
        "1001 1000",
        f"{319:010b} {179:09b}",
    ),
    bits("000 0 0", "1", f"{1:032b} {30:032b}", "0", "0", "0", "00000", f"{0:012b} 00100", "1001 1000", f"{319:010b} {179:09b}"),
]


def push_all(depacketiser: Depacketiser, payloads: list[bytes], timestamp: int) -> list[AccessUnit]:
    units = (depacketiser.push(payload, timestamp=timestamp, marker=index == len(payloads) - 1) for index, payload in enumerate(payloads))
    return [unit for unit in units if unit]


def sized(unit: bytes) -> bytes:
    """The unit of one byte of header as the low-overhead format has it."""
    return bytes([unit[0] | 2]) + av1_obu.leb128(len(unit) - 1) + unit[1:]


def counted(*elements: bytes, flags: int = 0) -> bytes:
    head = bytes([flags | len(elements) << 4])
    return head + b"".join(av1_obu.leb128(len(e)) + e for e in elements[:-1]) + elements[-1]


def listed(*elements: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + b"".join(av1_obu.leb128(len(e)) + e for e in elements)


@pytest.mark.parametrize("body", SEQUENCE_HEADERS)
def test_the_sequence_header_tells_the_size(body: bytes) -> None:
    assert av1_obu.picture_size(body) == (320, 180)
    for end in range(len(body)):
        with pytest.raises(ValueError, match="early"):
            av1_obu.picture_size(body[:end])


@pytest.mark.parametrize("packet", [counted, listed])
def test_units_of_one_packet(packet: Callable[..., bytes]) -> None:
    sequence, frame = SEQUENCE + PLAIN, FRAME + KEY + b"data"
    [unit] = push_all(create("av1"), [packet(sequence, frame, flags=0x08)], 1)
    assert unit == AccessUnit(1, sized(sequence) + sized(frame), keyframe=True, width=320, height=180)


def test_fragments_over_many_packets() -> None:
    sequence, first, second = SEQUENCE + PLAIN, FRAME + KEY + b"one two three", TILES + b"tiles"
    payloads = [
        counted(sequence, first[:5], flags=0x48),
        counted(first[5:9], flags=0xC0),  # neither begins nor ends here
        counted(first[9:], second[:2], flags=0xC0),
        listed(second[2:], METADATA + b"m", flags=0x80),
    ]
    [unit] = push_all(create("av1"), payloads, 1)
    assert unit.payload == sized(sequence) + sized(first) + sized(second) + sized(METADATA + b"m")
    assert unit.keyframe


def test_delimiters_and_padding_go_and_sizes_and_extensions_stay() -> None:
    extended = b"\x36\x28\x05" + DELTA + b"data" + b"behind it"  # has its size already, which ends before the element does
    [unit] = push_all(create("av1"), [listed(DELIMITER, b"\x12\x00", METADATA + b"m", extended, PADDING + bytes(9))], 1)
    assert unit == AccessUnit(1, sized(METADATA + b"m") + b"\x36\x28\x05" + DELTA + b"data", keyframe=False)
    assert push_all(create("av1"), [listed(DELIMITER, PADDING)], 2) == []


@pytest.mark.parametrize("head", [DELTA, b"\x00", b"\x90", b"\x20"])  # inter, hidden keyframe, shown again, intra only
def test_a_keyframe_is_a_shown_one_with_its_sequence_header(head: bytes) -> None:
    [unit] = push_all(create("av1"), [counted(SEQUENCE + PLAIN, FRAME + head, flags=0x08)], 1)
    assert not unit.keyframe
    [unit] = push_all(create("av1"), [counted(FRAME + KEY, flags=0x08)], 1)
    assert not unit.keyframe


@pytest.mark.parametrize(
    "payload",
    [
        b"\x10",
        b"\x00",
        b"\x20\x05ab",
        b"\x30\x01a\x01",
        b"\x00\x05ab",
        b"\x00\x00",
        b"\x10\xb0forbidden bit",
        b"\x10\x34",  # an extension that is not there
        b"\x10\x32",
        b"\x10\x32\x09short",
        b"\x00" + b"\xff" * 9,
        counted(FRAME + DELTA, flags=0x40),  # goes on behind the end of its picture
        counted(SEQUENCE + b"\x00", FRAME + KEY),
    ],
)
def test_what_is_broken_is_an_error_and_the_next_picture_is_fine(payload: bytes) -> None:
    depacketiser = create("av1")
    with pytest.raises(ValueError, match=r"AV1|header"):
        push_all(depacketiser, [payload], 1)
    assert push_all(depacketiser, [counted(FRAME + DELTA)], 2)


def test_incomplete_pictures_are_dropped() -> None:
    depacketiser = create("av1")
    delta = counted(FRAME + DELTA)
    assert push_all(depacketiser, [counted(b"the rest", flags=0x80)], 1) == []  # joined in the middle of a picture
    assert push_all(depacketiser, [counted(b"the rest", TILES + b"t", flags=0xC0), counted(b"more", flags=0x80)], 1) == []
    assert push_all(depacketiser, [counted(TILES + b"t")], 1) == []
    assert push_all(depacketiser, [delta], 2)
    assert depacketiser.push(counted(FRAME + DELTA, flags=0x40), timestamp=3, marker=False) is None
    depacketiser.reset()
    assert push_all(depacketiser, [counted(b"end", flags=0x80)], 3) == []
    # Nothing was lost, yet something is missing: the sender's fault is told.
    assert push_all(depacketiser, [delta], 4)
    for payloads in ([counted(b"the rest", flags=0x80)], [counted(FRAME + DELTA, flags=0x40), delta]):
        with pytest.raises(ValueError, match="AV1"):
            push_all(depacketiser, payloads, 5)
        assert push_all(depacketiser, [delta], 6)


def test_a_picture_that_ends_early_is_told_unless_a_keyframe_heals_it() -> None:
    depacketiser = create("av1")
    assert depacketiser.push(counted(FRAME + DELTA), timestamp=1, marker=False) is None
    with pytest.raises(ValueError, match="end"):
        depacketiser.push(counted(FRAME + DELTA, flags=0x40), timestamp=2, marker=False)
    [unit] = push_all(depacketiser, [counted(b"rest", flags=0x80)], 2)
    assert unit.payload == sized(FRAME + DELTA + b"rest")
    assert depacketiser.push(counted(FRAME + DELTA, flags=0x40), timestamp=3, marker=False) is None
    [unit] = push_all(depacketiser, [counted(SEQUENCE + PLAIN, FRAME + KEY, flags=0x08)], 4)
    assert unit.keyframe


@pytest.mark.parametrize("flags", [0xC0, 0x00])
def test_a_picture_without_an_end_is_given_up(flags: int) -> None:
    depacketiser = create("av1")
    payloads = [counted(FRAME + DELTA + bytes(60_000), flags=flags if number else flags & 0x40) for number in range(100)]
    with pytest.raises(ValueError, match="without an end"):
        push_all(depacketiser, payloads, 1)
    assert push_all(depacketiser, [counted(FRAME + DELTA)], 2)


def test_round_trip_is_bit_equal() -> None:
    packetiser, depacketiser = Av1Packetiser(), create("av1")
    decoder, reference = VideoDecoder("av1"), VideoDecoder("av1")
    packets = 0
    for number, data in enumerate(video_payloads("av1", 322, 178, 6, noise=40)):
        payloads = packetiser.payloads(data)
        packets += len(payloads)
        assert max(map(len, payloads)) <= PAYLOAD_BYTES
        assert (payloads[0][0] & 0x08 != 0) == (number == 0)
        [unit] = push_all(depacketiser, payloads, number)
        assert unit.payload == data.removeprefix(b"\x12\x00")
        assert unit.keyframe == (number == 0)
        assert (unit.width, unit.height) == ((322, 178) if number == 0 else (0, 0))
        [(frame, _)], [(expected, _)] = decoder.decode(unit.payload, 0), reference.decode(data, 0)
        assert (frame.to_ndarray() == expected.to_ndarray()).all()
    assert packets > 20


def test_small_units_share_a_packet() -> None:
    units = [SEQUENCE + PLAIN, *(METADATA + bytes([number]) * 20 for number in range(4)), FRAME + KEY + bytes(2000)]
    data = b"\x12\x00" + b"".join(map(sized, units))
    payloads = Av1Packetiser().payloads(data)
    assert [payload[0] for payload in payloads] == [0x48, 0x90]  # six units with their sizes, the last of them in two packets
    [unit] = push_all(create("av1"), payloads, 1)
    assert unit.payload == data[2:]
