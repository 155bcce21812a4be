"""Connector of the built-in channel hub: the roster over a WebSocket, one WHEP session per participant.

The WebSocket is the recorder's presence in the channel: invisible to others, gone with the connection.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from urllib.parse import quote

import httpx
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from recorder.channels import INTERRUPTED_SECONDS, ChannelError, ChannelRefused, Kicked, Listener, Place, TokenExpired
from recorder.frames import EncodedFrame, Kind, Track
from recorder.hub import messages
from recorder.rtp import depacketisers
from recorder.rtp.following import CONNECT_SECONDS, Follower, Signalling, Wanted, reading_seconds
from recorder.rtp.negotiation import VIDEO_ORIENTATION, Media, offer_codecs, offer_extension, use_addresses
from recorder.rtp.receiver import Route, SessionReceiver
from recorder.spec import RecordingSpec, Subscription

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
REJOIN_SECONDS = 30.0  # how long the roster may be away before the channel counts as lost
LEAVE_SECONDS = 2.0  # for good manners at the end of a session: the recording's last slice waits for it


class HubConnector:
    def __init__(self, place: Place, spec: RecordingSpec, listener: Listener) -> None:
        self._place = place
        self._spec = spec
        self._listener = listener
        self._tick_seconds = reading_seconds(place.jitter_ms, pictures=spec.video)
        self._wanted = Subscription()
        self._people: dict[int, messages.Participant] = {}
        self._followers: dict[int, Follower] = {}
        self._leaving = False
        self._roster: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        token = spec.token.get_secret_value() if spec.token else ""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._path = f"{quote(spec.app_id, safe='')}/{quote(spec.channel, safe='')}"
        self.http = httpx.AsyncClient(
            base_url=place.url,
            headers=self._headers,
            timeout=CONNECT_SECONDS,
            trust_env=False,
            verify=ssl.create_default_context(),  # the system's authorities, as for the roster, or those in SSL_CERT_FILE
        )

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
                raise _refused(bytes(error.response.body)) from error
            raise ChannelError(f"the hub answers {error.response.status_code}") from error
        except ssl.SSLError as error:
            raise ChannelError("the hub's certificate or its TLS is not good") from error
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
            interruption = asyncio.get_running_loop().call_later(INTERRUPTED_SECONDS, self._listener.interrupted)
            try:
                error = await self._rejoin()
            finally:
                interruption.cancel()
            if error:
                return error
            self._settle()

    async def _rejoin(self) -> ChannelError | None:
        """Connect again; returns why that is no use any more."""
        deadline = time.monotonic() + REJOIN_SECONDS
        while True:
            try:
                self._roster = await self._connect()
                await self._greeted(self._roster)
            except (ChannelRefused, Kicked) as error:
                return error
            except ChannelError as error:
                if time.monotonic() > deadline:
                    return error
                await asyncio.sleep(0.5)
            else:
                return None

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
                follower = self._followers[uid] = Follower(uid, self.whep(uid), tick_seconds=self._tick_seconds)
                follower.task = self._group.create_task(follower.run())
            if follower:
                low = self._spec.low_stream and participant.video_low and "video" in kinds
                follower.want(Wanted(frozenset(kinds), low), sent=frozenset(_sent(participant) & kinds))

    def whep(self, uid: int) -> Signalling:
        path = f"/whep/{self._path}/{uid}?uid={self._spec.uid}"
        return _Whep(self.http, path, uid, self._place, self._listener.frame)

    async def _watch_sessions(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for follower in self._followers.values():
                follower.check()


class _Whep:
    """Sessions with one participant by WHEP."""

    def __init__(self, http: httpx.AsyncClient, path: str, uid: int, place: Place, on_frame: Callable[[EncodedFrame], None]) -> None:
        """`path` is where to ask for sessions; `uid` is the participant's."""
        self._http = http
        self._path = path
        self._uid = uid
        self._place = place
        self._on_frame = on_frame

    async def offer(self, sdp: str, *, low: bool) -> tuple[str, str]:
        path = f"{self._path}&video=low" if low else self._path
        try:
            response = await self._http.post(path, content=sdp, headers={"Content-Type": "application/sdp"})
        except httpx.HTTPError as error:
            raise ConnectionError(f"WHEP: {type(error).__name__}") from error
        if response.status_code != httpx.codes.CREATED:
            raise ConnectionError(f"WHEP answers {response.status_code}")
        return response.text, response.headers.get("Location", "")

    def receiver(self, media: list[Media]) -> SessionReceiver:
        routes = {
            codec.payload_type: Route(m.kind, codec.name, codec.clock_rate)  # type: ignore[arg-type]  # checked by the condition
            for m in media
            for codec in m.codecs
            if codec.name in depacketisers.CODECS
        }
        repeats = {c.payload_type: int(c.fmtp["apt"]) for m in media for c in m.codecs if c.name == "rtx" and "apt" in c.fmtp}
        create = self._place.capture.receiver if self._place.capture else SessionReceiver
        receiver = create(
            self._uid,
            routes=routes,
            retransmissions=repeats,
            orientation_id=next((m.extensions.get(VIDEO_ORIENTATION, 0) for m in media if m.kind == "video"), 0),
            on_frame=self._on_frame,
            patience_ns=self._place.jitter_ms * 1_000_000,
            zero_ns=self._place.zero_ns,
        )
        self._place.meters.add(self._uid, receiver)
        return receiver

    async def hang_up(self, name: str) -> None:
        if name:
            with contextlib.suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: the client is closed already
                await self._http.delete(name, timeout=LEAVE_SECONDS)


def _lost(close_code: int | None) -> ChannelError | None:
    """Why the hub closed the roster for good; None: it may be tried again."""
    if close_code == messages.CLOSE_REPLACED:
        return Kicked("somebody else joined with the recorder's uid")
    if close_code == messages.CLOSE_TOKEN_EXPIRED:
        return TokenExpired("the token expired")
    return None


def _refused(body: bytes) -> ChannelRefused:
    """Why the hub does not let us in."""
    try:
        denial = messages.Denial.model_validate_json(body)
    except ValidationError:
        return ChannelRefused("the channel refuses the token")
    return TokenExpired(denial.reason) if denial.error == "token_expired" else ChannelRefused(denial.reason)


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
