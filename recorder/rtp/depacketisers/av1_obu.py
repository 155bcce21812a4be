"""Open bitstream units of AV1 (AV1 bitstream specification, sections 4.10.5, 5.3 and 5.5): sizes, headers, sequence headers."""

from recorder.rtp.depacketisers.bits import Bits

SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, TILE_GROUP, METADATA, FRAME, REDUNDANT_FRAME_HEADER = range(1, 8)
HAS_EXTENSION, HAS_SIZE = 0x04, 0x02  # in the first byte

_MAX_LEB128_BYTES = 8
_SEQUENCE_HEADER_BYTES = 400  # 32 operating points and more


def kind_of(first: int) -> int:
    return first >> 3 & 0x0F


def leb128(value: int) -> bytes:
    """Little-endian base 128."""
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def read_leb128(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """A value and where its coding ends.

    Raises:
        ValueError: it does not end.
    """
    value = 0
    for index, octet in enumerate(data[position : position + _MAX_LEB128_BYTES]):
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            return value, position + index + 1
    raise ValueError("AV1 size without an end")


def body_of(unit: bytes | bytearray) -> bytes:
    """What follows the unit's header and its own size field, if there is one.

    Raises:
        ValueError: it is no unit.
    """
    if not unit or unit[0] & 0x80:
        raise ValueError("AV1 unit without a header")
    start = 2 if unit[0] & HAS_EXTENSION else 1
    if len(unit) < start:
        raise ValueError("AV1 unit without its extension header")
    if not unit[0] & HAS_SIZE:
        return bytes(unit[start:])
    size, start = read_leb128(unit, start)
    if size > len(unit) - start:
        raise ValueError("AV1 unit longer than what came of it")
    return bytes(unit[start : start + size])


def begins_keyframe(body: bytes) -> bool:
    """Whether this frame (header) is a keyframe that is shown: section 5.9.2, of a sequence that is no still picture."""
    return bool(body) and body[0] >> 4 == 0b0001  # not shown again, KEY_FRAME, shown


def picture_size(body: bytes) -> tuple[int, int]:
    """The largest width and height of a sequence, from its header (section 5.5.1).

    Raises:
        ValueError: the header is broken.
    """
    bits = Bits(body[:_SEQUENCE_HEADER_BYTES])
    bits.read(4)  # profile, still picture
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: Bits) -> None:
    delay_bits = 0  # of the decoder model; 0: there is none
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):
            bits.ue()
        if bits.read(1):  # decoder_model_info_present_flag
            delay_bits = bits.read(5) + 1
            bits.read(42)
    display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if display_delay and bits.read(1):
            bits.read(4)
