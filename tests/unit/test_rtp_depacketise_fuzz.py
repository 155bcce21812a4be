"""Whatever comes: nothing but ValueError escapes a depacketiser, what it gives is bounded, and good media heals it."""

import random
from functools import cache

import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.packet import Packet
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.frames import Codec
from recorder.rtp.depacketisers import CODECS, MAX_UNIT_BYTES, Depacketiser, create
from recorder.tools.packetise import Av1Packetiser, Vp9Packetiser
from tests.coded import video_payloads

MUTATED_PACKETS = 4000
SOUND = [bytes([8 << 3]) + bytes(range(40)), bytes([0xFB, 0x83, 1, 2]) + bytes(12), b"\x08", b"\xff" * 160]


@cache
def good(codec: Codec) -> tuple[tuple[bytes, ...], ...]:
    """The payloads of some pictures, or packets of sound."""
    if codec in ("opus", "pcmu", "pcma", "g722"):
        return tuple((packet,) for packet in SOUND)
    pictures = video_payloads(codec, 160, 90, 4, noise=40)
    if codec in ("vp9", "av1"):
        packetiser = Vp9Packetiser() if codec == "vp9" else Av1Packetiser()
        return tuple(tuple(packetiser.payloads(data)) for data in pictures)
    encoder = H264Encoder() if codec == "h264" else Vp8Encoder()
    return tuple(tuple(encoder.pack(_packet(data, number))[0]) for number, data in enumerate(pictures))


def _packet(data: bytes, number: int) -> "Packet":  # type: ignore[type-arg]  # as aiortc wants it
    packet = Packet(data)
    packet.pts, packet.time_base = number, 1  # type: ignore[assignment]  # any rational number
    return packet


def push(depacketiser: Depacketiser, payload: bytes, timestamp: int, marker: bool) -> bool:
    """Whether a unit came; it must be sound."""
    try:
        unit = depacketiser.push(payload, timestamp=timestamp, marker=marker)
    except ValueError:
        return False
    if unit is None:
        return False
    assert 0 < len(unit.payload) <= 2 * MAX_UNIT_BYTES
    # A picture of VP9 may be one before, whose end this packet has shown.
    assert unit.timestamp == timestamp or isinstance(depacketiser, type(create("vp9")))
    assert unit.width >= 0
    assert unit.height >= 0
    return True


def is_healed(depacketiser: Depacketiser, codec: Codec) -> bool:
    """Whether a keyframe comes out as if nothing had been."""
    return [push(depacketiser, payload, 99, payload is good(codec)[0][-1]) for payload in good(codec)[0]][-1]


@pytest.mark.parametrize("codec", sorted(CODECS))
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 3), st.booleans(), st.booleans()), max_size=12))
def test_random_payloads(codec: Codec, packets: list[tuple[bytes, int, bool, bool]]) -> None:
    depacketiser = create(codec)
    for payload, timestamp, marker, lost in packets:
        if lost:
            depacketiser.reset()
        push(depacketiser, payload, timestamp, marker)
    push(depacketiser, b"", 98, True)
    depacketiser.reset()
    assert is_healed(depacketiser, codec)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_mutated_payloads(codec: Codec) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    depacketiser = create(codec)
    packets = units = 0
    while packets < MUTATED_PACKETS:
        picture = chance.choice(good(codec))
        timestamp = chance.randrange(8)
        for index, payload in enumerate(picture):
            packets += 1
            fate = chance.random()
            if fate < 0.05:
                depacketiser.reset()
                continue
            data = bytearray(payload)
            if fate < 0.4:
                data[chance.randrange(min(len(data), 12))] ^= 1 << chance.randrange(8)  # headers are at the front
            elif fate < 0.5:
                del data[chance.randrange(len(data)) :]
            elif fate < 0.6:
                data[chance.randrange(len(data)) :] = chance.randbytes(chance.randrange(30))
            units += push(depacketiser, bytes(data), timestamp, (index == len(picture) - 1) ^ (chance.random() < 0.05))
    assert units > 0
    depacketiser.reset()
    assert is_healed(depacketiser, codec)
