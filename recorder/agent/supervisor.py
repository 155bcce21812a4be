"""Attends one worker: keeps its lease, notices when it is silent, and sees it out. Does not know what it records."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from recorder.agent.process import Grace, WorkerProcess, end
from recorder.peer import Peer, PeerLost
from recorder.protocol import Lease, Message, Reason, Refused, Stop

log = logging.getLogger(__name__)

COMMAND_SECONDS: Final = 5
_STOP: Final = Grace(ask=60, terminate=10, kill=5)  # closing a long MP4 copies it once
_LOST: Final = Grace(ask=1, terminate=2, kill=5)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the agent waits for a worker, in seconds."""

    hello: float = 20  # from its start to its first word
    lease: float = 12  # it may go on without us for so long
    lease_every: float = 3
    silent: float = 10  # without an answer to a lease it counts as hung
    reconnect: float = 2  # from a lost connection to the next; a process that dies loses it too
    stop: Grace = _STOP
    lost: Grace = _LOST
    drain: float = 45  # for all recordings of the node together


class WorkerLink:
    """The connection to a worker, which may change while the worker lives."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._attached = asyncio.Event()
        self._detached = asyncio.Event()
        self._detached.set()
        self.pid: int | None = None

    def attach(self, peer: Peer, pid: int) -> None:
        if self._peer:
            self._peer.close()
        self._peer = peer
        self.pid = pid
        self._attached.set()
        self._detached.clear()

    def detach(self, peer: Peer) -> None:
        """The connection has ended and everything it brought is handled."""
        if peer is self._peer:
            self._peer = None
            self._attached.clear()
            self._detached.set()

    async def attached(self, seconds: float) -> bool:
        return await _within(self._attached, seconds)

    async def detached(self, seconds: float) -> bool:
        return await _within(self._detached, seconds)

    async def request(self, message: Message, seconds: float) -> Message:
        """Ask the worker.

        Raises:
            PeerLost: there is no connection, or it ended.
            TimeoutError: no answer in time.
        """
        if self._peer is None:
            raise PeerLost
        async with asyncio.timeout(seconds):
            return await self._peer.request(message)


class Supervisor:
    """The rules for the workers of one recording, one worker at a time."""

    def __init__(self, sid: str, timing: Timing) -> None:
        self.link = WorkerLink()
        self._sid = sid
        self._timing = timing
        self._over = asyncio.Event()  # the worker has said that it is at its end
        self._stopping = asyncio.Event()
        self._reason: Reason = "stopped"

    @property
    def stopping(self) -> Reason | None:
        """Why the recording is being stopped from outside; None when it is not."""
        return self._reason if self._stopping.is_set() else None

    def stop(self, reason: Reason) -> None:
        """Have the worker end; the first reason counts."""
        if not self._stopping.is_set():
            self._reason = reason
            self._stopping.set()

    async def stopped_within(self, seconds: float) -> bool:
        return await _within(self._stopping, seconds)

    def worker_is_over(self) -> None:
        """The worker has reported its end and will exit."""
        self._over.set()

    async def attend(self, process: WorkerProcess, hello_seconds: float) -> str:
        """Stay with a worker until its process is gone and all it said is handled; returns how it went."""
        try:
            async with asyncio.TaskGroup() as group:
                leasing = group.create_task(self._lease(hello_seconds))
                await _first(process.wait(), self._over.wait(), self._stopping.wait(), _finished(leasing))
                how = await self._see_out(process, leasing)
                leasing.cancel()
        finally:
            process.send(signal.SIGTERM)  # only when we are cancelled is there still one
        await self.link.detached(self._timing.reconnect)
        return how

    async def _see_out(self, process: WorkerProcess, leasing: asyncio.Task[str]) -> str:
        if not process.alive():
            return process.describe_end()
        if leasing.done():
            log.error("a worker is silent", extra={"sid": self._sid, "pid": process.pid, "why": leasing.result()})
            await end(process, self._ask_to_stop, self._timing.lost)
            return leasing.result()

        async def ask() -> None:
            if not self._over.is_set():
                await self._ask_to_stop()
            await _first(process.wait(), _finished(leasing))
            if leasing.done() and process.alive():
                raise PeerLost

        rung = await end(process, ask, self._timing.stop)
        return process.describe_end() if rung == "ask" else f"{rung}: {process.describe_end()}"

    async def _ask_to_stop(self) -> None:
        await self.link.attached(self._timing.hello)  # it may only just have been started
        answer = await self.link.request(Stop(sid=self._sid, reason=self._reason), COMMAND_SECONDS)
        if isinstance(answer, Refused) and answer.reason != "exiting":
            log.warning("a worker refuses to stop", extra={"sid": self._sid, "reason": answer.reason})

    async def _lease(self, hello_seconds: float) -> str:
        """Renew the worker's lease until it does not answer; returns what went wrong."""
        if not await self.link.attached(hello_seconds):
            return "it did not connect"
        while True:
            try:
                await self.link.request(Lease(seconds=self._timing.lease), self._timing.silent)
            except TimeoutError:
                return "it does not answer"
            except PeerLost:
                if not await self.link.attached(self._timing.reconnect):
                    return "connection lost"
                continue
            await asyncio.sleep(self._timing.lease_every)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _finished(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when the first of `waits` does."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
