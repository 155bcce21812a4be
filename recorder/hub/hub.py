"""All channels and sessions of a hub process. It knows nothing of HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final
from weakref import WeakValueDictionary

from aiortc import RTCPeerConnection

from recorder.hub.channel import Channel
from recorder.hub.egress import Egress
from recorder.hub.ingest import Ingest
from recorder.hub.negotiation import Offer, answer, for_publisher, for_subscriber
from recorder.hub.session import Session

_SESSIONS_LIMIT: Final = 1000
_CHANNEL_LIMIT: Final = 250  # of them in one channel: 49 publishers, and four recorders that take them all


class HubFull(Exception):
    """The hub or the channel has as many sessions as it takes."""


class NotPublishing(Exception):
    """No such participant publishes in this channel."""


class Hub:
    """A context: leaving it ends all sessions."""

    def __init__(self) -> None:
        # A channel lives as long as somebody is in it or on the way into it.
        self._channels: WeakValueDictionary[tuple[str, str], Channel] = WeakValueDictionary()
        self._sessions: dict[str, Ingest | Egress] = {}
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> "Hub":
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self._sessions.values():
            part.session.end("the hub ends")
        await self._group.__aexit__(kind, error, trace)

    def channel(self, app_id: str, name: str) -> Channel:
        channel = self._channels.get((app_id, name))
        if channel is None:
            channel = self._channels[app_id, name] = Channel(name)
        return channel

    def session(self, session_id: str) -> Ingest | Egress | None:
        return self._sessions.get(session_id)

    async def publish(self, channel: Channel, uid: int, offer: Offer, *, expires_at: float | None) -> tuple[Session, str]:
        """Open a publisher's session; returns it with the answer.

        Raises:
            HubFull, OfferMalformed, OfferUnacceptable, NoCandidate
        """
        self._check_room(channel)
        connection = for_publisher(offer)
        session = Session(connection, offer, expires_at=expires_at)
        ingest = Ingest(uid, channel, session)
        async with _closed_on_error(connection):
            text = await answer(connection, offer)
            ingest.negotiated(offer.low)
        self._start(ingest)
        return session, text

    async def subscribe(self, channel: Channel, uid: int, offer: Offer, *, low: bool, expires_at: float | None) -> tuple[Session, str]:
        """Open a session that gets the media of publisher `uid`, with the low stream if there is one and it is wanted.

        Returns it with the answer.

        Raises:
            NotPublishing, HubFull, OfferMalformed, OfferUnacceptable, NoCandidate
        """
        ingest = channel.publisher(uid)
        if not isinstance(ingest, Ingest):
            raise NotPublishing
        self._check_room(channel)
        sources = ingest.sources.copy()
        if picture := ingest.picture(low=low):
            sources["video"] = picture
        connection = for_subscriber(offer, {kind: source.codec for kind, source in sources.items()})
        session = Session(connection, offer, expires_at=expires_at)
        egress = Egress(session, ingest, sources)
        async with _closed_on_error(connection):
            text = await answer(connection, offer)
        self._start(egress)
        return session, text

    def _check_room(self, channel: Channel) -> None:
        here = sum(part.channel is channel for part in self._sessions.values())
        if len(self._sessions) >= _SESSIONS_LIMIT or here >= _CHANNEL_LIMIT:
            raise HubFull

    def _start(self, part: Ingest | Egress) -> None:
        self._sessions[part.session.id] = part
        self._group.create_task(self._serve(part))

    async def _serve(self, part: Ingest | Egress) -> None:
        try:
            await part.session.run(part)
        finally:
            del self._sessions[part.session.id]


@contextlib.asynccontextmanager
async def _closed_on_error(connection: RTCPeerConnection) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await connection.close()
        raise
