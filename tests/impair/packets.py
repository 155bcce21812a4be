"""What a relay can tell of a packet without keys: RTP headers are clear in SRTP; of SRTCP only the first packet type and SSRC are."""

import struct
from dataclasses import dataclass
from typing import Literal

from recorder.rtp.packet import is_rtcp

_LONGEST_TRAILER_BYTES = 20  # of SRTCP: index and tag (RFC 3711 section 3.4, RFC 7714 section 9)

Class = Literal["stun", "dtls", "rtp", "rtcp", "other"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Fields that the class does not have are 0."""

    kind: Class
    payload_type: int = 0  # RTP: the payload type; RTCP: the type of the first packet
    sequence: int = 0
    ssrc: int = 0
    compound: bool = False  # RTCP: more follows the first packet


def sight(data: bytes) -> Sighting:
    """Tell a packet's class by its first bytes (RFC 7983 section 7)."""
    first = data[0] if data else 255
    if first < 4:
        return Sighting("stun")
    if 20 <= first <= 63:
        return Sighting("dtls")
    if 128 <= first <= 191 and len(data) >= 12:
        if is_rtcp(data):
            first_bytes = 4 + 4 * int.from_bytes(data[2:4], "big")
            return Sighting("rtcp", data[1], 0, int.from_bytes(data[4:8], "big"), len(data) > first_bytes + _LONGEST_TRAILER_BYTES)
        marked_type, sequence, _, ssrc = struct.unpack_from("!BHII", data, 1)
        return Sighting("rtp", marked_type & 0x7F, sequence, ssrc)
    return Sighting("other")
