"""The tap into aiortc against real peer connections over loopback; fails when the private parts it uses change."""

import asyncio
import gc
import math
import struct
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection

from recorder.rtp import packet as rtp
from recorder.rtp.negotiation import offer_codecs, use_addresses
from recorder.rtp.tap import LEAST_TICK_SECONDS, MediaTap


def _connection() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


class _Pair:
    """A subscriber that offers to receive, and a sender that answers."""

    def __init__(self) -> None:
        self.rtp: list[bytes] = []
        self.feedback: list[bytes] = []

    async def __aenter__(self) -> "_Pair":
        use_addresses(["127.0.0.1"])
        subscriber, sender = _connection(), _connection()
        for kind in ("video", "audio"):
            subscriber.addTransceiver(kind, direction="recvonly")
        self.subscriber, self.sender = MediaTap(subscriber), MediaTap(sender)
        self.subscriber.listen(lambda data, at: self.rtp.append(data), lambda data, at: None)
        self.sender.listen(lambda data, at: None, lambda data, at: self.feedback.append(data))
        await subscriber.setLocalDescription(await subscriber.createOffer())
        await sender.setRemoteDescription(subscriber.localDescription)
        for transceiver in sender.getTransceivers():
            transceiver.direction = "sendonly"
        await sender.setLocalDescription(await sender.createAnswer())
        await subscriber.setRemoteDescription(sender.localDescription)
        await asyncio.gather(self.subscriber.connected(10), self.sender.connected(10))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.subscriber.close()
        await self.sender.close()


def _packet(sequence: int, ssrc: int, size: int = 1000) -> bytes:
    return struct.pack("!BBHII", 0x80, 97, sequence & 0xFFFF, sequence * 3000 & 0xFFFFFFFF, ssrc) + bytes(size)


async def _until(condition: object, seconds: float = 5) -> None:
    assert callable(condition)
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


async def test_every_packet_arrives_in_both_directions() -> None:
    async with _Pair() as pair:
        ssrc = pair.sender.media()[0].ssrc
        for number in range(2000):
            pair.sender.send_rtp(_packet(number, ssrc))
            if number % 50 == 49:
                await asyncio.sleep(0.005)
        await _until(lambda: len(pair.rtp) == 2000)
        assert [rtp.parse_header(data).sequence for data in pair.rtp] == list(range(2000))  # type: ignore[union-attr]
        assert pair.rtp[7] == _packet(7, ssrc)
        pair.subscriber.send_rtcp(rtp.picture_loss_indication(1, ssrc))
        await _until(lambda: pair.feedback == [rtp.picture_loss_indication(1, ssrc)])
        assert pair.subscriber.packets_rejected == pair.sender.packets_unsent == 0


@pytest.mark.parametrize(("count", "wait_seconds"), [(0, 0.1), (32, 0.1), (40, 0.08), (64, 0.05), (200, LEAST_TICK_SECONDS)])
async def test_a_socket_that_fills_is_read_sooner(count: int, wait_seconds: float) -> None:
    async with _Pair() as pair:
        ticker = pair.subscriber._ticker
        assert ticker
        assert ticker._timer
        ticker._timer.cancel()
        ticker._tick()  # nothing of the handshake waits any more
        assert ticker._timer
        ticker._timer.cancel()
        for tap in (pair.subscriber, pair.sender):
            tap.tick_seconds = 0.1
        for number in range(count):
            pair.sender.send_rtp(_packet(number, pair.sender.media()[0].ssrc, 100))
        waits = list[float]()
        ended = max(ticker._begun + 0.1, ticker._due)
        ticker._begun = ended - 0.1
        loop, ticker._loop = ticker._loop, Mock(time=lambda: ended, call_later=lambda wait, call: waits.append(wait))
        ticker._tick()
        assert len(pair.rtp) == count
        assert waits == [pytest.approx(wait_seconds)]
        ticker._loop = loop


async def test_what_came_between_two_rounds_counts_for_how_full_a_socket_was() -> None:
    async with _Pair() as pair:
        ticker = pair.subscriber._ticker
        assert ticker
        assert ticker._timer
        ticker._timer.cancel()
        pair.subscriber.tick_seconds = pair.sender.tick_seconds = 0.1
        pair.subscriber.on_tick = lambda now_ns: 0.03
        loop, begun, waits = ticker._loop, ticker._loop.time(), list[float]()
        ticker._begun, ticker._due = begun - 0.1, begun
        for at in (0.0, 0.03, 0.06, 0.1):
            for number in range(32):
                pair.sender.send_rtp(_packet(number, pair.sender.media()[0].ssrc, 100))
            now = begun + at
            ticker._loop = Mock(time=lambda now=now: now, call_later=lambda wait, call: waits.append(wait))
            ticker._timer = None
            ticker._tick()
        assert waits == [pytest.approx(0.03)] * 4
        assert ticker._due - begun - 0.1 == pytest.approx(0.1 * 32 / 96)
        ticker._loop = loop


async def test_a_session_that_misses_a_packet_is_read_more_often_than_the_others() -> None:
    async with _Pair() as missing, _Pair() as other:
        ticker = missing.subscriber._ticker
        assert ticker
        assert ticker is other.subscriber._ticker
        rounds = 0

        def one_round(_now_ns: int) -> float:
            nonlocal rounds
            rounds += 1
            return math.inf

        asked = list[int]()

        def asks(now_ns: int) -> float:
            asked.append(now_ns)
            return 0.03 if len(asked) < 40 else math.inf

        for pair, on_tick in ((missing, asks), (other, one_round)):
            pair.subscriber.on_tick = on_tick
            for tap in (pair.subscriber, pair.sender):
                tap.tick_seconds = 0.2
        await _until(lambda: len(asked) > 2)
        before = rounds, len(asked)
        between = 0  # packets of a round that one session got before the other
        for number in range(1, 100):
            if len(asked) == 40:
                break
            for pair in (missing, other):
                pair.sender.send_rtp(_packet(number, pair.sender.media()[0].ssrc))
            await asyncio.sleep(0.02)
            between = max(between, len(missing.rtp) - len(other.rtp))
        assert rounds - before[0] < (40 - before[1]) / 3  # six times as often, but for a loop that is late
        assert between >= 2
        await _until(lambda: len(missing.rtp) == len(other.rtp))
        assert ticker._waiting == {}


async def test_what_was_negotiated_is_told() -> None:
    offer_codecs()
    async with _Pair() as pair:
        video, audio = pair.subscriber.media()
        assert (video.kind, video.direction) == ("video", "recvonly")
        assert (audio.kind, audio.direction) == ("audio", "recvonly")
        assert {"vp8", "h264", "vp9", "av1", "rtx"} == {codec.name for codec in video.codecs}
        assert audio.codecs[0].name == "opus"
        assert audio.codecs[0].clock_rate == 48000
        assert video.remote_ssrcs[0] == pair.sender.media()[0].ssrc  # the other is that of retransmissions


async def test_closing_one_side_closes_the_other() -> None:
    async with _Pair() as pair:
        await pair.sender.close()
        async with asyncio.timeout(5):
            await pair.subscriber.closed.wait()


async def test_a_peer_that_never_answers_is_a_connection_error() -> None:
    use_addresses(["127.0.0.1"])
    lonely = _connection()
    lonely.addTransceiver("audio", direction="recvonly")
    tap = MediaTap(lonely)
    await lonely.setLocalDescription(await lonely.createOffer())
    with pytest.raises(ConnectionError):
        await tap.connected(0.2)
    await tap.close()


async def test_a_packet_that_breaks_one_session_does_not_starve_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with _Pair() as first, _Pair() as second:
        for broken, other in ((first, second), (second, first)):  # whichever is drained first
            broken.rtp, other.rtp = _Refusing(), []
            for pair in (broken, other):  # both arrive between two ticks, and nothing afterwards
                pair.sender.send_rtp(_packet(1 if broken is first else 2, pair.sender.media()[0].ssrc))
            await _until(lambda other=other: len(other.rtp) == 1)
        assert caplog.text.count("a packet could not be handled") == 2


class _Refusing(list[bytes]):
    def append(self, data: bytes) -> None:
        raise IndexError


async def test_connections_leave_nothing_behind() -> None:
    async def once() -> None:
        async with _Pair() as pair:
            pair.sender.send_rtp(_packet(1, pair.sender.media()[0].ssrc))

    def left() -> tuple[int, int, int, int]:
        gc.collect()
        taps = sum(isinstance(thing, MediaTap) for thing in gc.get_objects())
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks()), taps

    await once()
    await _until(lambda: left()[2:] == (1, 0))
    before = left()
    for _ in range(10):
        await once()
    await _until(lambda: left() == before)
