"""Loss on the way to the hub is repaired before anybody sees it; crafted packets over a real connection."""

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator

import httpx
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from recorder.hub.feedback import KeyframeRequest, Nack, parse
from recorder.rtp.packet import RR
from recorder.rtp.tap import MediaTap
from tests.integration.hub_room import Subscriber, running_hub, until, whip_path


class RawPublisher:
    """Sends packets of the test's making, and keeps what was asked for."""

    def __init__(self) -> None:
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._pc.addTransceiver("video", "sendonly")
        self.tap = MediaTap(self._pc)
        self.tap.listen(lambda data, at: None, self._on_rtcp)
        self.sent: dict[int, bytes] = {}
        self.nacks: list[int] = []
        self.keyframe_requests = 0
        self.reports: list[bytes] = []
        self.answers_nacks = True

    @contextlib.asynccontextmanager
    async def publishing(self, url: str, uid: int) -> AsyncIterator["RawPublisher"]:
        try:
            await self._pc.setLocalDescription(await self._pc.createOffer())
            async with httpx.AsyncClient(trust_env=False) as client:
                headers = {"Content-Type": "application/sdp"}
                answer = await client.post(url + whip_path(uid), content=self._pc.localDescription.sdp, headers=headers)
            assert "a=rtcp-fb:97 nack\r\n" in answer.text
            assert "a=rtcp-fb:97 nack pli\r\n" in answer.text
            await self._pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
            await self.tap.connected(10)
            (media,) = self.tap.media()
            self._ssrc, self._payload_type = media.ssrc, media.codecs[0].payload_type
            self._rtx = next(codec.payload_type for codec in media.codecs if codec.name == "rtx")
            yield self
        finally:
            await self.tap.close()

    def send(self, sequence: int, *, lost: bool = False) -> None:
        sequence &= 0xFFFF
        self.sent[sequence] = self._packet(self._payload_type, sequence, self._ssrc, b"\x10" + sequence.to_bytes(2, "big"))
        if not lost:
            self.tap.send_rtp(self.sent[sequence])

    def _on_rtcp(self, packet: bytes, arrival_ns: int) -> None:
        if packet[1] == RR:
            self.reports.append(packet)
        for message in parse(packet):
            if isinstance(message, KeyframeRequest):
                assert message.ssrc == self._ssrc
                self.keyframe_requests += 1
            elif isinstance(message, Nack):
                assert message.ssrc == self._ssrc
                for sequence in message.sequences:
                    self.nacks.append(sequence)
                    if self.answers_nacks:
                        self._repeat(sequence)

    def _repeat(self, sequence: int) -> None:
        """By RFC 4588 and as a plain copy, in turn."""
        packet = self.sent[sequence]
        if sequence % 2:
            self.tap.send_rtp(self._packet(self._rtx, len(self.nacks), self._ssrc + 1, sequence.to_bytes(2, "big") + packet[12:]))
        else:
            self.tap.send_rtp(packet)

    @staticmethod
    def _packet(payload_type: int, sequence: int, ssrc: int, payload: bytes) -> bytes:
        return struct.pack("!BBHII", 0x80, payload_type, sequence, sequence * 3000 & 0xFFFFFFFF, ssrc & 0xFFFFFFFF) + payload


@pytest.fixture
async def hub() -> AsyncIterator[str]:
    async with running_hub() as url:
        yield url


async def test_lost_packets_are_fetched_again_and_passed_on(hub: str) -> None:
    generator = random.Random(11)
    first, count = 65000, 1500
    async with RawPublisher().publishing(hub, 5) as publisher:
        publisher.send(first)
        async with Subscriber(hub, 5, ("video",)) as subscriber:
            await until(lambda: publisher.keyframe_requests > 0)  # the hub's side of the subscriber is up too
            for sequence in range(first + 1, first + count):
                publisher.send(sequence, lost=generator.random() < 0.05 and sequence != first + count - 1)
                if sequence % 30 == 0:
                    await asyncio.sleep(0.01)
            await until(lambda: len(subscriber.of("video")) >= count - 1)
            got = [payload[1:] for _, payload in subscriber.of("video")]
            assert len(got) == len(set(got)) == count - 1
            assert len(publisher.nacks) > 20
            assert len(set(publisher.nacks)) <= len(publisher.nacks) < 3 * len(set(publisher.nacks))
            numbers = {header.sequence for header, _ in subscriber.of("video")}
            assert numbers == {sequence & 0xFFFF for sequence in range(first + 1, first + count)}


async def test_what_cannot_be_repaired_is_asked_for_a_limited_time(hub: str) -> None:
    async with RawPublisher().publishing(hub, 5) as publisher:
        publisher.answers_nacks = False
        publisher.send(1)
        publisher.send(2, lost=True)
        publisher.send(3)
        await asyncio.sleep(2)
        assert 4 <= len(publisher.nacks) <= 6  # for a second, 200 ms apart: how long repairs take was never seen
        assert set(publisher.nacks) == {2}


async def test_publisher_gets_receiver_reports_and_few_keyframe_requests(hub: str) -> None:
    async with RawPublisher().publishing(hub, 5) as publisher:
        publisher.send(1)
        async with Subscriber(hub, 5, ("video",)), Subscriber(hub, 5, ("video",)):
            await until(lambda: len(publisher.reports) >= 2)
            assert 1 <= publisher.keyframe_requests <= 2
        assert struct.unpack_from("!I", publisher.reports[-1], 16)[0] & 0xFFFF == 1  # the highest sequence number
