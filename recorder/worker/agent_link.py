"""The worker's line to its agent: reports out in order, commands in, and the lease that says the agent is alive.

The line may break and come back (an agent restarted on the same node adopts its workers); reports wait meanwhile.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from recorder.peer import LINE_LIMIT_BYTES, Peer, PeerLost
from recorder.protocol import (
    Done,
    EventBody,
    ImageReady,
    Lease,
    Message,
    Refused,
    Report,
    SaveSpace,
    SetLayout,
    Stop,
    Subscribe,
    WorkerHello,
)

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.25

Command = Stop | Subscribe | SetLayout | ImageReady | SaveSpace
CommandHandler = Callable[[Command], Awaitable[Message]]


class AgentLink:
    def __init__(self, path: Path, hello: WorkerHello, *, lease_seconds: float, on_command: CommandHandler) -> None:
        self._path = path
        self._hello = hello
        self._on_command = on_command
        self._lease_seconds = lease_seconds
        self._lease_ends = time.monotonic() + lease_seconds
        self._reports: deque[Report] = deque()
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def lease_left(self) -> float:
        """Seconds; negative when the agent has been away for too long."""
        return self._lease_ends - time.monotonic()

    def report(self, body: EventBody) -> None:
        """Queue an event for the agent; never blocks."""
        self._reports.append(Report(at_ms=time.time_ns() // 1_000_000, body=body))
        self._idle.clear()
        self._waiting.set()

    async def delivered(self) -> None:
        """Wait until the agent has everything."""
        await self._idle.wait()

    async def run(self) -> None:
        """Serve the line until cancelled."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_LIMIT_BYTES)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            peer = Peer(reader, writer, self._handle)
            serving = asyncio.create_task(peer.run())
            try:
                await self._send_all(peer, serving)
            except PeerLost:
                log.warning("the agent is away")
            finally:
                peer.close()
                serving.cancel()
                await asyncio.wait((serving,))
                if not serving.cancelled() and (error := serving.exception()):
                    log.error("the line to the agent failed, opening another", exc_info=error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _send_all(self, peer: Peer, serving: asyncio.Task[None]) -> None:
        answer = await peer.request(self._hello)
        if isinstance(answer, Refused):
            log.error("the agent refuses this worker", extra={"reason": answer.reason})
            self._lease_ends = time.monotonic()  # another epoch has taken over
            await serving
            return
        while True:
            while self._reports:
                await peer.request(self._reports[0])
                self._reports.popleft()
            self._idle.set()
            self._waiting.clear()
            waiting = asyncio.ensure_future(self._waiting.wait())
            try:
                await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if serving.done():
                raise PeerLost

    async def _handle(self, message: Message) -> Message:
        if isinstance(message, Lease):
            self._lease_ends = time.monotonic() + message.seconds
            return Done()
        if isinstance(message, Command):
            return await self._on_command(message)
        return Refused(reason="bad_request", detail=f"a worker has no use for {message.type}")


def hello(sid: str, epoch: int) -> WorkerHello:
    return WorkerHello(sid=sid, epoch=epoch, pid=os.getpid())
