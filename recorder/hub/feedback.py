"""RTCP as the hub needs it: what is told apart in a compound packet, and a sender report under another SSRC."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from recorder.rtp.packet import FIR_FORMAT, NACK_FORMAT, PLI_FORMAT, PSFB, RTPFB, SR

_NACKS_PER_PACKET = 256  # more is no repair


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """A sender report (RFC 3550 section 6.4.1); `info` is NTP time, RTP time and counts as they came."""

    ssrc: int
    info: bytes

    @property
    def middle_ntp(self) -> int:
        """What the receiver echoes as `last SR`."""
        return int.from_bytes(self.info[2:6], "big")

    def under(self, ssrc: int) -> bytes:
        """The same report as a packet of another SSRC, without report blocks."""
        return struct.pack("!BBHI", 0x80, SR, 6, ssrc) + self.info


@dataclass(frozen=True, slots=True)
class Nack:
    ssrc: int  # of the media
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyframeRequest:
    """PLI (RFC 4585 section 6.3.1) or FIR (RFC 5104 section 4.3.1)."""

    ssrc: int


def parse(packet: bytes) -> list[SenderInfo | Nack | KeyframeRequest]:
    """What matters of a compound packet, in order; a broken tail is left out."""
    found: list[SenderInfo | Nack | KeyframeRequest] = []
    for kind, form, body in _parts(packet):
        if kind == SR and len(body) >= 24:
            found.append(SenderInfo(int.from_bytes(body[:4], "big"), body[4:24]))
        elif kind == RTPFB and form == NACK_FORMAT and len(body) >= 12:
            found.append(Nack(int.from_bytes(body[4:8], "big"), _sequences(body[8:])))
        elif kind == PSFB and form == PLI_FORMAT and len(body) >= 8:
            found.append(KeyframeRequest(int.from_bytes(body[4:8], "big")))
        elif kind == PSFB and form == FIR_FORMAT:
            found += [KeyframeRequest(ssrc) for ssrc, _ in struct.iter_unpack("!II", body[8 : len(body) // 8 * 8])]
    return found


def _parts(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position + 4 <= len(packet):
        first, kind, words = struct.unpack_from("!BBH", packet, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2 or end > len(packet):
            return
        yield kind, first & 0x1F, packet[position + 4 : end]
        position = end


def _sequences(pairs: bytes) -> tuple[int, ...]:
    found: list[int] = []
    for first, mask in struct.iter_unpack("!HH", pairs):
        found.append(first)
        found += [(first + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1]
        if len(found) >= _NACKS_PER_PACKET:
            break
    return tuple(found)
