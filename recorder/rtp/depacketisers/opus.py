"""Opus (RFC 7587): each packet is one access unit, when it is well-formed (RFC 6716 sections 3.1, 3.2).

Packets of discontinuous transmission, one or two bytes that stand for their whole duration, pass like all others.
"""

from recorder.media.opus import FRAME_STEPS, MAX_FRAME_BYTES, MAX_PACKET_STEPS
from recorder.rtp.depacketisers import AccessUnit


def check(packet: bytes) -> None:
    """Raises ValueError when the table of contents does not fit the packet (section 3.4)."""
    code, size = packet[0] & 3, len(packet) - 1
    if code == 0:
        if size > MAX_FRAME_BYTES:
            raise ValueError("Opus frame of more than 1275 bytes")
    elif code == 1:
        if size % 2 or size > 2 * MAX_FRAME_BYTES:
            raise ValueError("two Opus frames of unequal or impossible size")
    elif code == 2:
        first, position = _length(packet, 1)
        if not 0 <= len(packet) - position - first <= MAX_FRAME_BYTES:
            raise ValueError("second Opus frame of impossible size")
    else:
        _check_many(packet)


def _check_many(packet: bytes) -> None:
    """Code 3, section 3.2.5."""
    if len(packet) < 2:
        raise ValueError("Opus packet without its frame count")
    count = packet[1] & 0x3F
    if not count or count * FRAME_STEPS[packet[0] >> 3] > MAX_PACKET_STEPS:
        raise ValueError("Opus packet of no or more than 120 ms")
    position, end = 2, len(packet)
    if packet[1] & 0x40:  # padding: 255 stands for 254 bytes and another number
        while True:
            if position >= end:
                raise ValueError("Opus packet without its padding")
            number = packet[position]
            position += 1
            end -= min(number, 254)
            if number != 255:
                break
    if packet[1] & 0x80:
        for _ in range(count - 1):
            size, position = _length(packet, position)
            end -= size
        count = 1  # the last takes the rest
    rest = end - position
    if rest < 0 or rest % count or rest // count > MAX_FRAME_BYTES:
        raise ValueError("Opus frames of impossible size")


def _length(packet: bytes, position: int) -> tuple[int, int]:
    """A frame's size and where its coding ends, section 3.2.1."""
    if position >= len(packet):
        raise ValueError("Opus packet without the size of a frame")
    size = packet[position]
    if size < 252:
        return size, position + 1
    if position + 1 >= len(packet):
        raise ValueError("Opus packet without the size of a frame")
    return size + 4 * packet[position + 1], position + 2


class _Opus:
    def push(self, payload: bytes, *, timestamp: int, marker: bool) -> AccessUnit | None:
        if not payload:  # it would silence FFmpeg's decoder for good, and carries no sound anyway
            return None
        check(payload)
        return AccessUnit(timestamp, payload, keyframe=True)

    def reset(self) -> None:
        """A packet refers to the one before only by what its decoder remembers."""


def create() -> _Opus:
    return _Opus()
