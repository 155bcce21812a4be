"""RTP packets (RFC 3550 section 5.1) and the few RTCP packets a receiver sends, as bytes in and values out."""

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("!BBHII")
_U16 = struct.Struct("!H")
_EXTENSION = struct.Struct("!HH")

FIXED_HEADER_BYTES = 12
ONE_BYTE_EXTENSIONS = 0xBEDE  # RFC 8285 section 4.2

# RTCP packet types and feedback formats, RFC 3550 section 12.1, RFC 4585 section 6.
SR, RR, SDES, BYE, APP, RTPFB, PSFB = 200, 201, 202, 203, 204, 205, 206
NACK_FORMAT, PLI_FORMAT, FIR_FORMAT = 1, 1, 4

_NTP_EPOCH_SECONDS = 2_208_988_800  # 1900-01-01 to 1970-01-01


@dataclass(slots=True)
class Header:
    """The parsed header of one RTP packet; the payload is `packet[payload_offset:payload_end]`."""

    payload_type: int
    marker: bool
    sequence: int  # 16 bits
    timestamp: int  # 32 bits
    ssrc: int
    payload_offset: int
    payload_end: int  # without padding
    extension_profile: int
    extension_offset: int  # of the extension's data; 0 when there is none
    extension_end: int

    def extension(self, packet: bytes) -> bytes:
        """The whole header extension: profile, length and data; empty when there is none."""
        return packet[self.extension_offset - 4 : self.extension_end] if self.extension_offset else b""


def is_rtcp(packet: bytes) -> bool:
    """Tell RTCP from RTP when both share a port (RFC 5761 section 4)."""
    return len(packet) >= 2 and 64 <= packet[1] & 0x7F < 96


def parse_header(packet: bytes) -> Header | None:
    """Parse the header, or return None when this is no RTP packet or it is broken."""
    size = len(packet)
    if size < 12:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(packet)
    if first >> 6 != 2:
        return None
    offset = 12 + 4 * (first & 0x0F)
    profile = extension_offset = extension_end = 0
    if first & 0x10:
        if offset + 4 > size:
            return None
        profile, words = _EXTENSION.unpack_from(packet, offset)
        extension_offset = offset + 4
        extension_end = offset = extension_offset + 4 * words
    end = size
    if first & 0x20:
        end -= packet[-1]
        if packet[-1] == 0:
            return None
    if offset > end:
        return None
    return Header(second & 0x7F, second >= 0x80, sequence, timestamp, ssrc, offset, end, profile, extension_offset, extension_end)


def extensions(packet: bytes, header: Header) -> dict[int, bytes]:
    """The header extensions by their id (RFC 8285); what is malformed is left out."""
    return extension_values(header.extension(packet)) if header.extension_offset else {}


def extension_values(block: bytes) -> dict[int, bytes]:
    """The same, from the whole header extension: profile, length and data."""
    found: dict[int, bytes] = {}
    position, end = _EXTENSION.size, len(block)
    (profile,) = _U16.unpack_from(block)
    one_byte = profile == ONE_BYTE_EXTENSIONS
    if not one_byte and profile & 0xFFF0 != 0x1000:
        return found
    while position < end:
        if block[position] == 0:  # padding
            position += 1
            continue
        if one_byte:
            number, length = block[position] >> 4, (block[position] & 0x0F) + 1
            position += 1
            if number == 15:
                break
        else:
            if position + 2 > end:
                break
            number, length = block[position], block[position + 1]
            position += 2
        if position + length > end:
            break
        found[number] = block[position : position + length]
        position += length
    return found


def ntp_to_ns(ntp: int) -> int:
    """A 64-bit NTP time as Unix nanoseconds."""
    return ((ntp >> 32) - _NTP_EPOCH_SECONDS) * 1_000_000_000 + ((ntp & 0xFFFFFFFF) * 1_000_000_000 >> 32)


@dataclass(frozen=True, slots=True)
class SenderReport:
    """RFC 3550 section 6.4.1: what the sender's wall clock showed at an RTP time."""

    ssrc: int
    ntp: int  # 64 bits
    rtp: int  # 32 bits


@dataclass(frozen=True, slots=True)
class Bye:
    ssrc: int


def parse_rtcp(packet: bytes) -> list[SenderReport | Bye]:
    """What a receiver needs of a compound RTCP packet; a broken tail is left out."""
    found: list[SenderReport | Bye] = []
    position = 0
    while position + 4 <= len(packet):
        kind = packet[position + 1]
        end = position + 4 + 4 * _U16.unpack_from(packet, position + 2)[0]
        if packet[position] >> 6 != 2 or end > len(packet):
            break
        if kind == SR and end - position >= 28:
            ssrc, ntp, rtp = struct.unpack_from("!IQI", packet, position + 4)
            found.append(SenderReport(ssrc, ntp, rtp))
        elif kind == BYE:
            count = min(packet[position] & 0x1F, (end - position - 4) // 4)
            found += [Bye(ssrc) for ssrc in struct.unpack_from(f"!{count}I", packet, position + 4)]
        position = end
    return found


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """RFC 3550 section 6.4.1, one reception report."""

    ssrc: int
    fraction_lost: int  # 0..255
    cumulative_lost: int
    highest_sequence: int  # extended, 32 bits
    jitter: int  # in RTP time units
    last_sr: int  # middle 32 bits of the last report's NTP time
    delay_since_last_sr: int  # in 1/65536 s


def receiver_report(ssrc: int, *blocks: ReportBlock) -> bytes:
    """A report on up to 31 sources."""
    head = struct.pack("!BBHI", 0x80 | len(blocks), RR, 1 + 6 * len(blocks), ssrc)
    return head + b"".join(_report_block(block) for block in blocks)


def _report_block(block: ReportBlock) -> bytes:
    lost = max(-(1 << 23), min((1 << 23) - 1, block.cumulative_lost)) & 0xFFFFFF
    return struct.pack(
        "!IIIIII",
        block.ssrc,
        block.fraction_lost << 24 | lost,
        block.highest_sequence & 0xFFFFFFFF,
        block.jitter & 0xFFFFFFFF,
        block.last_sr,
        block.delay_since_last_sr & 0xFFFFFFFF,
    )


def picture_loss_indication(ssrc: int, media_ssrc: int) -> bytes:
    return struct.pack("!BBHII", 0x80 | PLI_FORMAT, PSFB, 2, ssrc, media_ssrc)


def nack(ssrc: int, media_ssrc: int, lost: list[int]) -> bytes:
    """Generic NACK (RFC 4585 section 6.2.1) for 16-bit sequence numbers given in ascending (unwrapped) order."""
    pairs: list[tuple[int, int]] = []
    for sequence in lost:
        if pairs:
            first, mask = pairs[-1]
            distance = (sequence - first) & 0xFFFF
            if 1 <= distance <= 16:
                pairs[-1] = (first, mask | 1 << (distance - 1))
                continue
        pairs.append((sequence & 0xFFFF, 0))
    head = struct.pack("!BBHII", 0x80 | NACK_FORMAT, RTPFB, 2 + len(pairs), ssrc, media_ssrc)
    return head + b"".join(struct.pack("!HH", *pair) for pair in pairs)
