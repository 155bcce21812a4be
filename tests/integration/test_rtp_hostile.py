"""Hostile datagrams at the sockets of a live connection (rows M1 and M4 of the faults): they cost counters, never media."""

import asyncio
import random
import socket
import struct
import time

import pytest

from recorder.rtp import tap
from recorder.rtp.receiver import Route, SessionReceiver
from tests.integration.test_rtp_tap import _packet, _Pair, _until

SEED = 20


def _ports(pair: _Pair) -> list[int]:
    return [source.sock.getsockname()[1] for source in pair.subscriber._sockets.values()]


def _hostile(number: int, dice: random.Random) -> bytes:
    """STUN, DTLS, RTP, RTCP and TURN channel data as nobody who knows the keys would send them (RFC 7983 tells them by the first byte)."""
    body = dice.randbytes(dice.randrange(0, 300))
    length = dice.choice((len(body), 0, 0xFFFF, dice.randrange(0x10000)))
    heads = (
        struct.pack("!HHI", dice.choice((0x0001, 0x0101, 0x0111, dice.randrange(0x4000))), length, 0x2112A442) + dice.randbytes(12),
        struct.pack("!BHHHIH", dice.choice((20, 21, 22, 23, dice.randrange(20, 64))), 0xFEFD, 0, 0, number, length),
        struct.pack("!BBHII", dice.randrange(128, 192), dice.randrange(256), number & 0xFFFF, dice.getrandbits(32), dice.getrandbits(32)),
        struct.pack("!HH", 0x4000 + dice.randrange(0x1000), length),
        b"",
    )
    return heads[number % len(heads)] + body


async def test_hostile_datagrams_do_not_disturb_the_media(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(SEED)
    async with _Pair() as pair:
        ssrc = pair.sender.media()[0].ssrc
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as enemy:
            for number in range(3000):
                for port in _ports(pair):
                    enemy.sendto(_hostile(number, dice), ("127.0.0.1", port))
                if number % 10 == 0:
                    pair.sender.send_rtp(_packet(number // 10, ssrc))
                    await asyncio.sleep(0.001)
        await _until(lambda: len(pair.rtp) == 300)
        assert pair.subscriber.packets_rejected > 500
        assert not pair.subscriber.closed.is_set()
        assert "a packet could not be handled" not in caplog.text
        pair.sender.send_rtp(_packet(300, ssrc))
        await _until(lambda: len(pair.rtp) == 301)


async def test_hostile_datagrams_do_not_disturb_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """From before the sockets are taken over: the ports are open as soon as candidates are gathered."""
    dice = random.Random(SEED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as enemy:
        attach = tap.MediaTap.connected

        async def attacked(self: tap.MediaTap, timeout: float) -> None:  # the signature of what it stands in for
            protocols = self._pc.getTransceivers()[0].receiver.transport.transport._connection._protocols
            for number in range(500):
                for protocol in protocols:
                    enemy.sendto(_hostile(number, dice), protocol.transport.get_extra_info("sockname"))
            await attach(self, timeout)

        monkeypatch.setattr(tap.MediaTap, "connected", attacked)
        async with _Pair() as pair:
            pair.sender.send_rtp(_packet(1, pair.sender.media()[0].ssrc))
            await _until(lambda: len(pair.rtp) == 1)


async def test_a_flood_of_one_sender_does_not_starve_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each socket is read up to a bound on a tick: what does not fit is lost to the sender that floods."""
    monkeypatch.setattr(tap, "_DRAIN_LIMIT", 64)
    async with _Pair() as flooding, _Pair() as calm:
        for number in range(2000):  # they wait in the socket's buffer: nothing is read before the next await
            flooding.sender.send_rtp(_packet(number, 1, size=100))
        calm.sender.send_rtp(_packet(1, 2))
        await _until(lambda: len(calm.rtp) == 1)
        assert len(flooding.rtp) < 2000
        await _until(lambda: len(flooding.rtp) == 2000)


def test_a_flood_of_streams_and_packets_leaves_the_memory_flat() -> None:
    """Ten thousand SSRCs, each with gaps and fragments that never end."""
    frames: list[object] = []
    receiver = SessionReceiver(
        7,
        routes={97: Route("video", "h264", 90000), 96: Route("audio", "opus", 48000)},
        retransmissions={98: 97},
        on_frame=frames.append,
        patience_ns=500_000_000,
        zero_ns=0,
    )
    fragment = b"\x7c\x85" + bytes(1100)
    began = time.process_time()
    for number in range(10_000):
        for sequence in (1, 2, 5, 900):
            receiver.packet(struct.pack("!BBHII", 0x80, 97, sequence, number, number + 1) + fragment, number * 1_000_000)
        if number % 20 == 0:
            receiver.tick(number * 1_000_000)
    assert frames == []
    assert len(receiver._by_ssrc) + len(receiver._retired) < 20
    held = sum(len(stream.jitter._held) + len(stream.jitter._missing) for stream in receiver._by_ssrc.values())
    assert held < 4096
    assert time.process_time() - began < 20  # linear; it takes about a second
