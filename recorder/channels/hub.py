"""Connector of the built-in channel hub: the roster over a WebSocket, one WHEP session per participant.

The WebSocket is the recorder's presence in the channel: invisible to others, gone with the connection.
"""

import asyncio
import contextlib
import logging
import time
from urllib.parse import quote

import httpx
from aiortc import InvalidAccessError, InvalidStateError, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from recorder.channels import ChannelError, ChannelRefused, Kicked, Listener, Place
from recorder.frames import Kind, Track
from recorder.hub import messages
from recorder.media.timeline import SenderClock
from recorder.rtp import depacketisers
from recorder.rtp.negotiation import VIDEO_ORIENTATION, Media, offer_codecs, offer_extension, use_addresses
from recorder.rtp.receiver import Route, SessionReceiver
from recorder.rtp.tap import RECORDING_TICK_SECONDS, MediaTap
from recorder.spec import RecordingSpec, Subscription

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
CONNECT_SECONDS = 10.0
REJOIN_SECONDS = 30.0  # how long the roster may be away before the channel counts as lost
RETRY_SECONDS = 0.2  # after a session that failed, doubled up to five seconds
SILENT_SECONDS = 5.0  # no packet for so long although the participant sends: a new session beside the old one
# What aiortc raises for descriptions it can't use: it costs one participant, not the recording.
_BROKEN_ANSWER = (ValueError, LookupError, InvalidAccessError, InvalidStateError)
LEAVE_SECONDS = 2.0  # for good manners at the end of a session: the recording's last slice waits for it


class HubConnector:
    def __init__(self, place: Place, spec: RecordingSpec, listener: Listener) -> None:
        self._place = place
        self._spec = spec
        self._listener = listener
        self._wanted = Subscription()
        self._people: dict[int, messages.Participant] = {}
        self._followers: dict[int, _Follower] = {}
        self._leaving = False
        self._roster: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        token = spec.token.get_secret_value() if spec.token else ""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._path = f"{quote(spec.app_id, safe='')}/{quote(spec.channel, safe='')}"
        self.http = httpx.AsyncClient(base_url=place.url, headers=self._headers, timeout=CONNECT_SECONDS, trust_env=False)

    async def join(self) -> None:
        use_addresses(self._place.addresses)
        offer_codecs()
        offer_extension("video", VIDEO_ORIENTATION)
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                self._roster = await self._connect()
                break
            except ChannelRefused:
                raise
            except ChannelError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
        await self._greeted(self._roster)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def subscribe(self, wanted: Subscription) -> None:
        self._wanted = wanted
        self._settle()

    def request_keyframe(self, track: Track) -> None:
        follower = self._followers.get(track.uid)
        if follower:
            follower.request_keyframe()

    async def leave(self) -> None:
        self._leaving = True
        for follower in self._followers.values():
            follower.flush()
        try:
            if self._task:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
        finally:
            if self._roster:
                await self._roster.close()
            await self.http.aclose()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("the connector failed", exc_info=error)
            self._listener.lost(ChannelError("the connector failed"))

    # ---- roster ----

    async def _connect(self) -> ClientConnection:
        url = self._place.url.replace("http", "ws", 1).rstrip("/")
        try:
            return await connect(
                f"{url}/roster/{self._path}?uid={self._spec.uid}",
                additional_headers=self._headers,
                open_timeout=CONNECT_SECONDS,
                close_timeout=LEAVE_SECONDS,
                ping_interval=5,
                ping_timeout=10,
                proxy=None,
            )
        except InvalidStatus as error:
            if error.response.status_code in (401, 403):
                raise ChannelRefused("the channel refuses the token") from error
            raise ChannelError(f"the hub answers {error.response.status_code}") from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ChannelError("the hub can't be reached") from error

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._settle()
            group.create_task(self._watch_sessions())
            error = await self._read_rosters()
            if not self._leaving:
                self._leaving = True
                self._listener.lost(error)
            raise asyncio.CancelledError  # ends the followers

    async def _read_rosters(self) -> ChannelError:
        """Follow the roster through reconnections; returns why the channel is lost for good."""
        while True:
            assert self._roster
            try:
                async for text in self._roster:
                    self._update(text)
            except ConnectionClosed:
                pass
            if error := _lost(self._roster.close_code):
                return error
            log.warning("roster connection lost, media goes on", extra={"code": self._roster.close_code})
            deadline = time.monotonic() + REJOIN_SECONDS
            while True:
                try:
                    self._roster = await self._connect()
                    await self._greeted(self._roster)
                    break
                except (ChannelRefused, Kicked) as error:
                    return error
                except ChannelError as error:
                    if time.monotonic() > deadline:
                        return error
                    await asyncio.sleep(0.5)
            self._settle()

    async def _greeted(self, roster: ClientConnection) -> None:
        """Take the first message of a roster connection: everybody who is there.

        Raises:
            ChannelError: it is another one, or none comes.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                greeting = messages.parse(await roster.recv())
        except (ConnectionClosed, TimeoutError) as error:
            raise _lost(roster.close_code) or ChannelError("the hub went away") from error
        except ValidationError as error:
            raise ChannelError("the hub speaks another language") from error
        if not isinstance(greeting, messages.Roster):
            raise ChannelError("the hub speaks another language")
        there = {p.uid: p for p in greeting.participants}
        for uid in [uid for uid in self._people if uid not in there]:
            self._left(uid)
        for participant in there.values():
            self._changed(participant)

    def _update(self, text: str | bytes) -> None:
        try:
            message = messages.parse(text)
        except ValidationError:
            log.warning("roster message not understood")
            return
        if isinstance(message, messages.Left):
            self._left(message.participant.uid)
        elif isinstance(message, messages.Joined | messages.Changed):
            self._changed(message.participant)
        self._settle()

    def _changed(self, participant: messages.Participant) -> None:
        if participant.uid == self._spec.uid:
            return
        before = self._people.get(participant.uid)
        self._people[participant.uid] = participant
        if before is None:
            self._listener.participant_joined(participant.uid, host=participant.host)
        sent_before, sends = _sent(before), _sent(participant)
        for kind in sorted(sends - sent_before):
            self._listener.track_started(Track(participant.uid, kind))
        for kind in sorted(sent_before - sends):
            self._listener.track_stopped(Track(participant.uid, kind))

    def _left(self, uid: int) -> None:
        participant = self._people.pop(uid, None)
        if participant is None:
            return
        follower = self._followers.pop(uid, None)
        if follower:
            follower.flush()
            follower.end()
        for kind in sorted(_sent(participant)):
            self._listener.track_stopped(Track(uid, kind))
        self._listener.participant_left(uid)

    # ---- sessions ----

    def _settle(self) -> None:
        """Make the sessions fit the roster and the subscription."""
        if self._group is None or self._leaving:
            return
        for uid, participant in self._people.items():
            kinds: set[Kind] = set()
            if participant.audio and self._wanted.audio.admits(uid):
                kinds.add("audio")
            if participant.video and self._wanted.video.admits(uid):
                kinds.add("video")
            follower = self._followers.get(uid)
            if follower is None and kinds:
                follower = self._followers[uid] = _Follower(self, uid)
                follower.task = self._group.create_task(follower.run())
            if follower:
                follower.want(frozenset(kinds), sends=bool(_sent(participant) & kinds))

    async def _watch_sessions(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for follower in self._followers.values():
                follower.check()

    # ---- for the followers ----

    async def offer(self, uid: int, sdp: str) -> tuple[str, str]:
        """Send the offer for a session with this participant; returns the answer and the URL that ends the session.

        Raises:
            ConnectionError: the hub refuses.
        """
        response = await self.http.post(
            f"/whep/{self._path}/{uid}?uid={self._spec.uid}", content=sdp, headers={"Content-Type": "application/sdp"}
        )
        if response.status_code != 201:
            raise ConnectionError(f"WHEP answers {response.status_code}")
        return response.text, response.headers.get("Location", "")

    def receiver(self, uid: int, media: list[Media]) -> SessionReceiver:
        routes = {
            codec.payload_type: Route(m.kind, codec.name, codec.clock_rate)  # type: ignore[arg-type]  # checked by the condition
            for m in media
            for codec in m.codecs
            if codec.name in depacketisers.CODECS
        }
        repeats = {c.payload_type: int(c.fmtp["apt"]) for m in media for c in m.codecs if c.name == "rtx" and "apt" in c.fmtp}
        create = self._place.capture.receiver if self._place.capture else SessionReceiver
        return create(
            uid,
            routes=routes,
            retransmissions=repeats,
            orientation_id=next((m.extensions.get(VIDEO_ORIENTATION, 0) for m in media if m.kind == "video"), 0),
            on_frame=self._listener.frame,
            patience_ns=self._place.jitter_ms * 1_000_000,
            zero_ns=self._place.zero_ns,
        )


class _Session:
    """One WHEP session and its receiver."""

    def __init__(self, tap: MediaTap, receiver: SessionReceiver, resource: str, kinds: frozenset[Kind]) -> None:
        self.tap = tap
        self.receiver = receiver
        self.resource = resource
        self.kinds = kinds
        self.awaited_ns = time.monotonic_ns()  # since when packets should come

    def silent_seconds(self) -> float:
        return (time.monotonic_ns() - max(self.awaited_ns, self.receiver.last_packet_ns)) / 1e9


class _Follower:
    """Keeps one session to one participant, and replaces it when it dies, falls silent, or another set of tracks is wanted."""

    def __init__(self, connector: HubConnector, uid: int) -> None:
        self._connector = connector
        self._uid = uid
        self._kinds: frozenset[Kind] = frozenset()
        self._sends = False
        self._changed = asyncio.Event()
        self._session: _Session | None = None
        self._clock = SenderClock()  # of all sessions: what is known of the sender holds in the next one too
        self.task: asyncio.Task[None] | None = None

    def want(self, kinds: frozenset[Kind], *, sends: bool) -> None:
        if sends and not self._sends and self._session:
            self._session.awaited_ns = time.monotonic_ns()
        self._sends = sends
        if kinds != self._kinds:
            self._kinds = kinds
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
                fresh = await self._try_to_open() if self._kinds else None
                if fresh and self._serves(self._session):  # it came back meanwhile
                    await self._close(fresh, flush=False)
                elif fresh or not self._may_come_back(self._session):
                    previous, self._session = self._session, fresh
                    if previous:
                        await self._close(previous, flush=True)
                if not self._kinds:
                    await self._wait(None)
                elif fresh is None:
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
        finally:
            if self._session:
                session, self._session = self._session, None
                await self._close(session, flush=False)

    def _serves(self, session: _Session | None) -> bool:
        """It gives what is wanted."""
        if session is None or session.tap.closed.is_set() or session.kinds != self._kinds:
            return False
        return not self._sends or session.silent_seconds() < SILENT_SECONDS

    def _may_come_back(self, session: _Session | None) -> bool:
        """It is merely silent: its path may be open again before a new session is."""
        return session is not None and not session.tap.closed.is_set() and session.kinds == self._kinds

    async def _try_to_open(self) -> _Session | None:
        if self._session and self._may_come_back(self._session):
            log.warning("no media although the participant sends, opening a new session", extra={"uid": self._uid})
        try:
            return await self._open(self._kinds)
        except (ConnectionError, httpx.HTTPError, TimeoutError, *_BROKEN_ANSWER) as error:
            log.warning("session failed", extra={"uid": self._uid, "error": str(error)})
            return None

    async def _wait(self, session: _Session | None) -> None:
        """Until other tracks are wanted, or the session is silent or dead."""
        waits = [asyncio.ensure_future(self._changed.wait())]
        if session:
            waits.append(asyncio.ensure_future(session.tap.closed.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _open(self, kinds: frozenset[Kind]) -> _Session:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        for kind in sorted(kinds, reverse=True):
            pc.addTransceiver(kind, direction="recvonly")
        tap = MediaTap(pc, tick_seconds=RECORDING_TICK_SECONDS)
        try:
            await pc.setLocalDescription(await pc.createOffer())
            answer, resource = await self._connector.offer(self._uid, pc.localDescription.sdp)
            await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            receiver = self._connector.receiver(self._uid, tap.media())
            receiver.sender = self._clock
            tap.listen(receiver.packet, receiver.control, lambda now_ns: _give_feedback(tap, receiver, now_ns))
            await tap.connected(CONNECT_SECONDS)
        except BaseException:
            await tap.close()
            raise
        return _Session(tap, receiver, resource, kinds)

    async def _close(self, session: _Session, *, flush: bool) -> None:
        if flush:
            session.tap.drain()
            session.receiver.flush()
        await session.tap.close()  # first: the session that replaces it gives the same frames
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: the client is closed already
            if session.resource:
                await self._connector.http.delete(session.resource, timeout=LEAVE_SECONDS)


def _give_feedback(tap: MediaTap, receiver: SessionReceiver, now_ns: int) -> bool:
    """A tick of a session; returns whether a packet is missing."""
    feedback = receiver.tick(now_ns)
    if feedback:
        tap.send_rtcp(b"".join(feedback))
    return receiver.waits


def _lost(close_code: int | None) -> ChannelError | None:
    """Why the hub closed the roster for good; None: it may be tried again."""
    if close_code == messages.CLOSE_REPLACED:
        return Kicked("somebody else joined with the recorder's uid")
    if close_code == messages.CLOSE_TOKEN_EXPIRED:
        return ChannelRefused("the token expired")
    return None


def _sent(participant: messages.Participant | None) -> set[Kind]:
    """What a participant publishes and has not muted."""
    kinds: set[Kind] = set()
    if participant and participant.audio and not participant.audio_muted:
        kinds.add("audio")
    if participant and participant.video and not participant.video_muted:
        kinds.add("video")
    return kinds


def create(place: Place, spec: RecordingSpec, listener: Listener) -> HubConnector:
    return HubConnector(place, spec, listener)
