"""What publishers' and subscribers' sessions have in common: a peer connection with a beginning, a beat and an end."""

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Final, Protocol

from aiortc import RTCPeerConnection

from recorder.hub.negotiation import CANDIDATES_LIMIT, Offer, read_candidates
from recorder.rtp.tap import MediaTap, RtpHandler

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 15.0
BEAT_SECONDS: Final = 0.5


class Part(Protocol):
    """The side of a session that knows its media. Called from the event loop."""

    def connected(self) -> None: ...

    def beat(self, now_ns: int) -> str | None:
        """Called every BEAT_SECONDS while connected; a text is the reason to end the session."""

    def ended(self) -> None:
        """The session is over; called only after `connected`."""


class Session:
    """One peer connection of the hub. Its URL is unguessable: who knows it may end it."""

    def __init__(self, connection: RTCPeerConnection, offer: Offer, *, expires_at: float | None) -> None:
        self.id = secrets.token_urlsafe(16)
        self.etag = f'"{secrets.token_hex(8)}"'
        self.tap: MediaTap
        self._connection = connection
        self._offer = offer
        self._candidates = offer.candidates
        # By the clock that nobody sets: a token whose time is over does not come back when the wall clock does.
        self._ends_at = None if expires_at is None else time.monotonic() + expires_at - time.time()
        self._over = asyncio.Event()

    def listen(self, on_rtp: RtpHandler, on_rtcp: RtpHandler) -> None:
        self.tap = MediaTap(self._connection)
        self.tap.listen(on_rtp, on_rtcp)

    def end(self, reason: str) -> None:
        """Ask the session to end; harmless when repeated."""
        if not self._over.is_set():
            log.debug("session ends", extra={"reason": reason})
            self._over.set()

    async def add_candidates(self, fragment: str, *, allow_loopback: bool) -> None:
        """Take candidates the peer found later.

        Raises:
            OfferMalformed, OfferUnacceptable: see `read_candidates`.
        """
        for candidate in read_candidates(fragment, ufrag=self._offer.ufrag, allow_loopback=allow_loopback):
            if self._candidates < CANDIDATES_LIMIT and not self._over.is_set():
                self._candidates += 1
                await self._connection.addIceCandidate(candidate)

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def run(self, part: Part) -> None:
        """Serve the session until it is over, then close the connection."""
        try:
            await self._first_of(self.tap.connected(CONNECT_SECONDS), self._over.wait())
            if not self._over.is_set():
                part.connected()
                try:
                    await self._serve(part)
                finally:
                    part.ended()
        except ConnectionError as error:
            log.info("session without connection", extra={"reason": str(error)})
        finally:
            self._over.set()
            await self.tap.close()

    async def _serve(self, part: Part) -> None:
        while not self._over.is_set():
            reason = part.beat(time.monotonic_ns())
            if self._ends_at is not None and time.monotonic() >= self._ends_at:
                reason = "token expired"
            if reason:
                self.end(reason)
            else:
                await self._first_of(self._over.wait(), self.tap.closed.wait(), seconds=BEAT_SECONDS)
            if self.tap.closed.is_set():
                self.end("connection closed")

    @staticmethod
    async def _first_of(*waits: Coroutine[None, None, object], seconds: float | None = None) -> None:
        """Until one of them is done; its exception is raised."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
