"""RTCP as peers send it."""

import random
import struct

from recorder.hub.feedback import KeyframeRequest, Nack, SenderInfo, parse
from recorder.rtp.packet import nack, picture_loss_indication

INFO = struct.pack("!QIII", 1 << 40, 5, 6, 7)


def test_sender_report_is_read_without_its_report_blocks() -> None:
    packet = struct.pack("!BBHI", 0x81, 200, 12, 99) + INFO + bytes(24)
    sdes = struct.pack("!BBHI", 0x81, 202, 2, 99) + b"\x01\x02ab"
    assert parse(packet + sdes) == [SenderInfo(99, INFO)]


def test_report_under_another_ssrc_keeps_its_content() -> None:
    assert parse(SenderInfo(99, INFO).under(100)) == [SenderInfo(100, INFO)]


def test_feedback_is_read() -> None:
    fir = struct.pack("!BBHIIIIII", 0x84, 206, 6, 1, 0, 50, 0, 51, 0)
    compound = nack(1, 40, [65534, 65535, 3]) + picture_loss_indication(1, 41) + fir
    assert parse(compound) == [Nack(40, (65534, 65535, 3)), KeyframeRequest(41), KeyframeRequest(50), KeyframeRequest(51)]


def test_nack_is_bounded() -> None:
    pairs = b"".join(struct.pack("!HH", start, 0xFFFF) for start in range(0, 17000, 17))
    packet = struct.pack("!BBHII", 0x81, 205, 2 + len(pairs) // 4, 1, 2) + pairs
    (message,) = parse(packet)
    assert isinstance(message, Nack)
    assert len(message.sequences) < 300


def test_garbage_is_harmless() -> None:
    generator = random.Random(5)
    good = nack(1, 40, [5, 9]) + SenderInfo(99, INFO).under(1)
    for _ in range(2000):
        broken = bytearray(good[: generator.randrange(len(good) + 1)])
        for _ in range(generator.randrange(4)):
            if broken:
                broken[generator.randrange(len(broken))] = generator.randrange(256)
        parse(bytes(broken))
    assert parse(good[:-1]) == [Nack(40, (5, 9))]
