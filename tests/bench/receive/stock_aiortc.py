"""The peer: nine ordinary aiortc connections with their own receivers, whose frames are assembled and then dropped."""

import asyncio
import queue
from typing import Any

import httpx
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.stats import RTCInboundRtpStreamStats

from recorder.rtp.negotiation import use_addresses
from tests.bench import receive
from tests.bench.receive import Room


class _Counting(queue.Queue[Any]):
    """Takes the place of a decoder's queue: the frame is complete, and its decoder never wakes up for it."""

    frames = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is None:  # how aiortc ends the decoder
            super().put(item, block, timeout)
        else:
            self.frames += 1


class _Session:
    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.receivers: list[RTCRtpReceiver] = []
        self.queues: list[_Counting] = []
        self.connection.on("track", self._starve)
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, "recvonly")

    def _starve(self, track: MediaStreamTrack) -> None:
        """Before the receiver starts its decoder."""
        receiver = next(t.receiver for t in self.connection.getTransceivers() if t.receiver.track is track)
        counting = _Counting()
        setattr(receiver, "_RTCRtpReceiver__decoder_queue", counting)  # noqa: B010  # outside, the name is not mangled
        self.receivers.append(receiver)
        self.queues.append(counting)

    async def open(self, http: httpx.AsyncClient, url: str) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        answer = await http.post(url, content=self.connection.localDescription.sdp, headers={"Content-Type": "application/sdp"})
        answer.raise_for_status()
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    async def packets(self) -> tuple[int, int]:
        """Received and missing."""
        received = missing = 0
        for receiver in self.receivers:
            for stats in (await receiver.getStats()).values():
                if isinstance(stats, RTCInboundRtpStreamStats):
                    received += stats.packetsReceived
                    missing += stats.packetsLost
        return received, missing


async def _read(sessions: list[_Session]) -> receive.Reading:
    packets = [await session.packets() for session in sessions]
    frames = sum(counting.frames for session in sessions for counting in session.queues)
    return receive.read(sum(came for came, _ in packets), sum(missing for _, missing in packets), frames)


async def _run(room: Room) -> None:
    use_addresses(("127.0.0.1",))
    sessions = [_Session() for _ in room.uids]
    async with httpx.AsyncClient(trust_env=False) as http:
        for uid, session in zip(room.uids, sessions, strict=True):
            await session.open(http, f"{room.hub}/whep/{room.path}/{uid}?uid=901")
    async with asyncio.timeout(30):
        while not all(len(session.queues) == 2 and all(q.frames for q in session.queues) for session in sessions):
            await asyncio.sleep(0.1)
    await asyncio.sleep(room.warm_seconds)
    first = await _read(sessions)
    await asyncio.sleep(room.measured_seconds)
    last = await _read(sessions)
    receive.tell(receive.between(first, last, missing=last.missing - first.missing))
    for session in sessions:
        await session.connection.close()


if __name__ == "__main__":
    asyncio.run(_run(receive.arguments(__doc__)))
