"""Follows one participant over WebRTC: one session at a time, and another one when it dies, falls silent or other tracks are wanted.

How a session is agreed upon is the channel's: it hands in a `Signalling`.
"""

import asyncio
import logging
import time
from typing import NamedTuple, Protocol

from aiortc import InvalidAccessError, InvalidStateError, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from recorder.frames import Kind
from recorder.media.timeline import SenderClock
from recorder.rtp.negotiation import Media
from recorder.rtp.receiver import SessionReceiver
from recorder.rtp.tap import RECORDING_TICK_SECONDS, SOUND_ALONE_TICK_SECONDS, MediaTap

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.2  # after a session that failed, doubled up to five seconds
SILENT_SECONDS = 4.5  # no packet of a track that the participant sends: after 5 s another session is there
# What aiortc raises for descriptions it can't use: it costs one participant, not the recording.
_BROKEN_ANSWER = (ValueError, LookupError, InvalidAccessError, InvalidStateError)


class Signalling(Protocol):
    """How sessions with one participant are agreed upon."""

    async def offer(self, sdp: str, *, low: bool) -> tuple[str, str]:
        """Send the offer, for the low stream of the video or the high one; returns the answer and what names the session.

        Raises:
            ConnectionError: it is refused, or nobody answers.
        """

    def receiver(self, media: list[Media]) -> SessionReceiver:
        """What takes the packets of a session with these m-lines."""

    async def hang_up(self, name: str) -> None:
        """The session is over; failures are no matter."""


class Wanted(NamedTuple):
    """What a session is to give."""

    kinds: frozenset[Kind] = frozenset()
    low: bool = False  # the low stream of the video


def reading_seconds(patience_ms: float, *, pictures: bool) -> float:
    """How often a recording's packets are read while none is missing. Of the patience for a missing one a part may go by before it is
    noticed."""
    patience = patience_ms / 1000
    return min(RECORDING_TICK_SECONDS, patience / 5) if pictures else min(SOUND_ALONE_TICK_SECONDS, patience * 2 / 5)


class Session:
    """One connection and its receiver."""

    def __init__(self, tap: MediaTap, receiver: SessionReceiver, name: str, wanted: "Wanted") -> None:
        self.tap = tap
        self.receiver = receiver
        self.name = name
        self.wanted = wanted
        self.awaited_ns = time.monotonic_ns()  # since when packets should come

    def silent_seconds(self, kind: Kind) -> float:
        return (time.monotonic_ns() - max(self.awaited_ns, self.receiver.last_packet_ns(kind))) / 1e9


class Follower:
    """Keeps one session to one participant, and replaces it when it dies, falls silent, or another set of tracks is wanted."""

    def __init__(self, uid: int, signalling: Signalling, *, tick_seconds: float = RECORDING_TICK_SECONDS) -> None:
        """`tick_seconds`: how often packets are read."""
        self._uid = uid
        self._signalling = signalling
        self._tick_seconds = tick_seconds
        self._wanted = Wanted()
        self._sent: frozenset[Kind] = frozenset()  # tracks of which packets should come
        self._changed = asyncio.Event()
        self._session: Session | None = None
        self._clock = SenderClock()  # of all sessions: what is known of the sender holds in the next one too
        self.task: asyncio.Task[None] | None = None

    def want(self, wanted: Wanted, *, sent: frozenset[Kind]) -> None:
        """Receive this from now on; packets should come of those of its tracks that are `sent`."""
        if sent - self._sent and self._session:
            self._session.awaited_ns = time.monotonic_ns()
        self._sent = sent
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def end(self) -> None:
        if self.task:
            self.task.cancel()

    def flush(self) -> None:
        if self._session:
            self._session.tap.drain()
            self._session.receiver.flush()

    def check(self) -> None:
        """Wake up when the session no longer gives what is wanted."""
        if self._session and not self._serves(self._session):
            self._changed.set()

    def request_keyframe(self) -> None:
        if self._session:
            packet = self._session.receiver.request_keyframe(time.monotonic_ns())
            if packet:
                self._session.tap.send_rtcp(packet)

    async def run(self) -> None:
        pause = RETRY_SECONDS
        try:
            while True:
                self._changed.clear()
                if self._serves(self._session):
                    pause = RETRY_SECONDS
                    await self._wait(self._session)
                    continue
                fresh = await self._try_to_open() if self._wanted.kinds else None
                if fresh and self._serves(self._session):  # it came back meanwhile
                    await self._close(fresh, flush=False)
                elif fresh or not self._may_come_back(self._session):
                    previous, self._session = self._session, fresh
                    if previous:
                        await self._close(previous, flush=True)
                if not self._wanted.kinds:
                    await self._wait(None)
                elif fresh is None:
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
        finally:
            if self._session:
                session, self._session = self._session, None
                await self._close(session, flush=False)

    def _serves(self, session: Session | None) -> bool:
        """It gives what is wanted."""
        if session is None or session.tap.closed.is_set() or session.wanted != self._wanted:
            return False
        return all(session.silent_seconds(kind) < SILENT_SECONDS for kind in self._sent)

    def _may_come_back(self, session: Session | None) -> bool:
        """It is merely silent: its path may be open again before a new session is."""
        return session is not None and not session.tap.closed.is_set() and session.wanted == self._wanted

    async def _try_to_open(self) -> Session | None:
        if self._session and self._may_come_back(self._session):
            log.warning("no media although the participant sends, opening a new session", extra={"uid": self._uid})
        try:
            return await self._open(self._wanted)
        except (ConnectionError, TimeoutError, *_BROKEN_ANSWER) as error:
            log.warning("session failed", extra={"uid": self._uid, "error": str(error)})
            return None

    async def _wait(self, session: Session | None) -> None:
        """Until other tracks are wanted, or the session is silent or dead."""
        waits = [asyncio.ensure_future(self._changed.wait())]
        if session:
            waits.append(asyncio.ensure_future(session.tap.closed.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _open(self, wanted: Wanted) -> Session:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        for kind in sorted(wanted.kinds, reverse=True):
            pc.addTransceiver(kind, direction="recvonly")
        tap = MediaTap(pc, tick_seconds=self._tick_seconds)
        name = ""
        try:
            await pc.setLocalDescription(await pc.createOffer())
            answer, name = await self._signalling.offer(pc.localDescription.sdp, low=wanted.low)
            await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            receiver = self._signalling.receiver(tap.media())
            receiver.sender = self._clock
            tap.listen(receiver.packet, receiver.control, lambda now_ns: _give_feedback(tap, receiver, now_ns))
            await tap.connected(CONNECT_SECONDS)
        except BaseException:
            await tap.close()
            if name:
                await self._signalling.hang_up(name)
            raise
        log.info("session opened", extra={"uid": self._uid, "kinds": sorted(wanted.kinds), "low": wanted.low})
        return Session(tap, receiver, name, wanted)

    async def _close(self, session: Session, *, flush: bool) -> None:
        if flush:
            session.tap.drain()
            session.receiver.flush()
        await session.tap.close()  # first: the session that replaces it gives the same frames
        tap = {"rejected": session.tap.packets_rejected, "unsent": session.tap.packets_unsent}
        log.info("session over", extra={"uid": self._uid, **tap, **session.receiver.figures()})
        await self._signalling.hang_up(session.name)


def _give_feedback(tap: MediaTap, receiver: SessionReceiver, now_ns: int) -> float:
    """A tick of a session; returns in how many seconds the next one shall be at the latest."""
    feedback = receiver.tick(now_ns)
    if feedback:
        tap.send_rtcp(b"".join(feedback))
    return receiver.next_tick_seconds
