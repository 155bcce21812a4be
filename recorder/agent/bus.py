"""The agent's side of the bus: what it asks of a control plane, and a connection to one on the same machine."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from recorder.peer import LINE_LIMIT_BYTES, Handler, Peer, PeerLost
from recorder.protocol import AgentHello, Claim, Claimed, Event, Message, Refused, Sign, Signed

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 15
QUIET_TRIES: Final = 4  # some two seconds: at the start of everything the control plane may be the last to come up
LONGEST_WAIT_SECONDS: Final = 5.0


class Bus(Protocol):
    async def claim(self, claim: Claim) -> Claimed | Refused:
        """Ask for a recording; waits for a control plane as long as it takes."""

    async def sign(self, request: Sign) -> Signed | Refused:
        """Have the deployment sign a manifest; waits for a control plane as long as it takes."""

    async def deliver(self, event: Event) -> None:
        """Tell what happened; returns when a control plane has taken it, however long that takes. May deliver twice."""


class LocalBus:
    """A Unix socket to the control plane, connected again for ever. `run()` serves it; the calls wait while it is away."""

    def __init__(self, path: Path, hello: Callable[[], AgentHello], handler: Handler) -> None:
        """`hello` is asked at each connection; `handler` answers offers and commands."""
        self._path = path
        self._hello = hello
        self._handler = handler
        self._peer: Peer | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._peer is not None

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._serve()
                failures = 0
            except (OSError, TimeoutError) as error:
                failures += 1
                if failures == QUIET_TRIES:
                    log.warning("no control plane", extra={"error": str(error)})
            longest = min(LONGEST_WAIT_SECONDS, 0.1 * 2 ** min(failures, 8))
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311  # jitter, not a secret

    async def claim(self, claim: Claim) -> Claimed | Refused:
        while True:
            answer = await self._request(claim)
            if isinstance(answer, Claimed | Refused):
                return answer
            log.error("the control plane answers a claim with something else", extra={"sid": claim.sid})
            await asyncio.sleep(LONGEST_WAIT_SECONDS)

    async def sign(self, request: Sign) -> Signed | Refused:
        answer = await self._request(request)
        return answer if isinstance(answer, Signed) else Refused(reason="bad_request")

    async def deliver(self, event: Event) -> None:
        answer = await self._request(event)
        if isinstance(answer, Refused):  # asking again gives the same answer and would hold up every later event
            log.error("the control plane refuses an event", extra={"sid": event.sid, "reason": answer.reason, "event": event.body.type})

    async def _serve(self) -> None:
        """One connection, until it ends."""
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_LIMIT_BYTES)
        peer = Peer(reader, writer, self._handler)
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(peer.run())
                async with asyncio.timeout(ANSWER_SECONDS):
                    await peer.request(self._hello())
                log.info("connected to the control plane")
                self._peer = peer
                self._connected.set()
                await serving
                log.warning("lost the control plane")
        except* (PeerLost, TimeoutError) as errors:
            raise ConnectionError("the control plane does not answer") from errors
        except* (ValidationError, ValueError) as errors:
            raise ConnectionError("the control plane does not speak our language") from errors
        finally:
            self._connected.clear()
            self._peer = None
            peer.close()

    async def _request(self, message: Message) -> Message:
        while True:
            await self._connected.wait()
            peer = self._peer
            with contextlib.suppress(PeerLost, TimeoutError):
                if peer:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        return await peer.request(message)
            if peer and peer is self._peer:
                peer.close()  # `_serve` notices and connects again
                self._connected.clear()
