"""What the first byte of an Opus packet says, and packets in a row as one (RFC 6716 section 3). Pure."""

from collections.abc import Sequence

MAX_FRAME_BYTES = 1275  # section 3.2.1, R2
MAX_PACKET_STEPS = 48  # of 2.5 ms: 120 ms, section 3.2.5, R5
FRAME_STEPS = (
    *(4, 8, 16, 24) * 3,  # duration of a frame by configuration, section 3.1, table 2: SILK
    *(4, 8) * 2,  # hybrid
    *(1, 2, 4, 8) * 4,  # CELT
)
_FIRST_HYBRID = 12  # configuration; those below are SILK alone
_FIRST_CELT = 16
_STEREO = 0x04  # section 3.1
_VARIABLE = 0x80  # frames of different sizes (section 3.2.5)
_SHORT = 252  # sizes below it take one byte


def duration_ns(packet: bytes) -> int:
    """How long a well-formed packet lasts (sections 3.1 and 3.2)."""
    code = packet[0] & 3
    frames = packet[1] & 0x3F if code == 3 else min(code + 1, 2)
    return frames * FRAME_STEPS[packet[0] >> 3] * 2_500_000


def is_stereo_speech(packet: bytes) -> bool:
    """Whether a packet holds two channels, at least the lower half of them in SILK's way (section 3.1, table 2)."""
    return packet[0] >> 3 < _FIRST_CELT and bool(packet[0] & _STEREO)


def joinable(packets: Sequence[bytes]) -> int:
    """How many of these well-formed packets, from the first on, `join` takes: at least 1.

    All hold one frame of the same kind. None is of discontinuous transmission: what follows a frame that was not sent is decoded
    in another way. None is of SILK alone: its encoders leave out zeros at the end, where FFmpeg would read the next frame.
    """
    kind = packets[0][0] if packets[0] else 0
    if kind >> 3 < _FIRST_HYBRID or kind & 3 or len(packets[0]) <= 2:
        return 1
    limit = min(len(packets), MAX_PACKET_STEPS // FRAME_STEPS[kind >> 3])
    for count in range(1, limit):
        packet = packets[count]
        if len(packet) <= 2 or packet[0] != kind:
            return count
    return limit


def join(packets: Sequence[bytes]) -> bytes:
    """One packet with the frames of all of them."""
    joined = bytearray((packets[0][0] | 3, _VARIABLE | len(packets)))
    for packet in packets[:-1]:  # the last takes the rest
        size = len(packet) - 1
        if size < _SHORT:
            joined.append(size)
        else:
            joined += bytes((_SHORT + (size & 3), (size - _SHORT) >> 2))
    for packet in packets:
        joined += packet[1:]
    return bytes(joined)
