"""RTP payloads of VP9 (RFC 9628, non-flexible mode) and AV1 for aiortc's sender, which brings none of its own.

Encoded pictures in, payloads out: each object serves one stream, and is what aiortc calls an encoder.
"""

from collections.abc import Sequence
from fractions import Fraction

from aiortc.codecs.base import Encoder
from av.frame import Frame
from av.packet import Packet
from av.stream import Stream

from recorder.rtp.depacketisers import av1_obu as obu
from recorder.rtp.depacketisers.vp9_header import FrameHeaders

PAYLOAD_BYTES = 1200
_CLOCK_HZ = 90_000


class Vp9Packetiser(Encoder):
    """Pictures of one layer. Each payload carries the picture's number; a keyframe's first one its size too."""

    def __init__(self) -> None:
        self._headers = FrameHeaders()
        self._picture = 0  # 15 bits

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        raise NotImplementedError("only encoded pictures are sent")

    def pack(self, packet: "Packet[Stream]") -> tuple[list[bytes], int]:
        return self.payloads(bytes(packet)), _timestamp(packet)

    def payloads(self, data: bytes) -> list[bytes]:
        keyframe, (width, height) = self._headers.read(data)
        number = (0x8000 | self._picture).to_bytes(2, "big")
        self._picture = (self._picture + 1) & 0x7FFF
        parts = [data[start : start + PAYLOAD_BYTES] for start in range(0, len(data), PAYLOAD_BYTES)]
        payloads = []
        for index, part in enumerate(parts):
            flags = 0x80 | (0 if keyframe else 0x40) | (0x08 if index == 0 else 0) | (0x04 if part is parts[-1] else 0)
            structure = b""
            if keyframe and index == 0:
                flags |= 0x02
                structure = b"\x10" + width.to_bytes(2, "big") + height.to_bytes(2, "big")
            payloads.append(bytes([flags]) + number + structure + part)
        return payloads


class Av1Packetiser(Encoder):
    """Temporal units of the low-overhead format, without their temporal delimiters."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        raise NotImplementedError("only encoded pictures are sent")

    def pack(self, packet: "Packet[Stream]") -> tuple[list[bytes], int]:
        return self.payloads(bytes(packet)), _timestamp(packet)

    def payloads(self, data: bytes) -> list[bytes]:
        units = _units(data)
        starts_sequence = 0x08 if obu.kind_of(units[0][0]) == obu.SEQUENCE_HEADER else 0
        payloads: list[bytes] = []
        elements: list[bytes] = []
        room, began_before = PAYLOAD_BYTES - 1, 0
        for unit in units:
            rest = unit
            while len(rest) + 2 > room:  # 2: its size
                elements.append(rest[: room - 2])
                rest = rest[room - 2 :]
                payloads.append(_aggregate(elements, began_before | 0x40))
                elements, room, began_before = [], PAYLOAD_BYTES - 1, 0x80
            elements.append(rest)
            room -= len(rest) + 2
            if room < 16 or unit is units[-1]:  # a fragment of a few bytes is not worth it
                payloads.append(_aggregate(elements, began_before))
                elements, room, began_before = [], PAYLOAD_BYTES - 1, 0
        payloads[0] = bytes([payloads[0][0] | starts_sequence]) + payloads[0][1:]
        return payloads


def _units(data: bytes) -> list[bytes]:
    """The OBUs of a temporal unit without their sizes."""
    units, position = [], 0
    while position < len(data):
        start = position + (2 if data[position] & obu.HAS_EXTENSION else 1)
        size, body = obu.read_leb128(data, start)
        if obu.kind_of(data[position]) != obu.TEMPORAL_DELIMITER:
            units.append(bytes([data[position] & ~obu.HAS_SIZE]) + data[position + 1 : start] + data[body : body + size])
        position = body + size
    return units


def _aggregate(elements: Sequence[bytes], flags: int) -> bytes:
    """Up to three elements are counted, and the last needs no size; more all have one."""
    count = len(elements) if len(elements) <= 3 else 0
    sized = elements[:-1] if count else elements
    last = elements[-1] if count else b""
    return bytes([flags | count << 4]) + b"".join(obu.leb128(len(element)) + element for element in sized) + last


def _timestamp(packet: "Packet[Stream]") -> int:
    assert packet.pts is not None
    assert packet.time_base is not None
    return int(packet.pts * packet.time_base * Fraction(_CLOCK_HZ))
