"""A scripted agent on the control plane's real Unix socket."""

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from recorder.peer import LINE_LIMIT_BYTES, Peer, PeerLost
from recorder.protocol import (
    AgentHello,
    Claim,
    Claimed,
    Done,
    Ended,
    Event,
    EventBody,
    File,
    FileOpened,
    Finished,
    Message,
    Offer,
    PhaseChanged,
    Refused,
    RenewStorage,
    SetLayout,
    Slice,
    SliceCommitted,
    SliceStored,
    Stop,
    Subscribe,
)

Command = Stop | Subscribe | SetLayout | RenewStorage
Script = Callable[[Message], Message | None]
START_MS = 1_700_000_000_123


class FakeAgent:
    """Takes every offer, claims it at once, and answers commands with Done unless `script` says otherwise."""

    def __init__(self, node: str, script: Script | None = None, *, claims: bool = True) -> None:
        self.node = node
        self.received: list[Message] = []
        self.claimed: dict[str, Claimed] = {}
        self.peer: Peer
        self._script = script or (lambda _message: None)
        self.claims = claims  # at once, what it is offered
        self._sequences: defaultdict[tuple[str, int], itertools.count[int]] = defaultdict(itertools.count)
        self._tasks: asyncio.TaskGroup
        self.silent = asyncio.Event()  # set: answers nothing any more

    def commands(self, sid: str) -> list[Command]:
        return [message for message in self.received if isinstance(message, Command) and message.sid == sid]

    def continue_from(self, former: "FakeAgent") -> None:
        """As the same node after a new connection: it remembers what it was told, and goes on counting its events."""
        self.received[:0] = former.received
        self.claimed = former.claimed | self.claimed
        self._sequences = former._sequences

    async def claim(self, sid: str, *, resume: int | None = None, moves: bool = False) -> Message:
        answer = await self.peer.request(Claim(sid=sid, node=self.node, resume=resume, moves=moves))
        if isinstance(answer, Claimed):
            self.claimed[sid] = answer
        return answer

    async def emit(self, sid: str, *bodies: EventBody, epoch: int | None = None, sequence: int | None = None) -> Message:
        answer: Message = Done()
        for body in bodies:
            number = epoch if epoch is not None else self.claimed[sid].epoch
            count = next(self._sequences[sid, number]) if sequence is None else sequence
            answer = await self.peer.request(Event(sid=sid, epoch=number, sequence=count, at_ms=START_MS, body=body))
        return answer

    async def record(self, sid: str, *names: str) -> None:
        """As if media had come and slices of these names had been committed and stored."""
        await self.emit(sid, PhaseChanged(phase="starting"), PhaseChanged(phase="ready"), PhaseChanged(phase="recording"))
        for number, name in enumerate(names):
            await self.emit(sid, SliceCommitted(slice=a_slice(name, number)), SliceStored(name=name))

    async def finish(self, sid: str, finished: Finished | None = None) -> None:
        await self.emit(sid, PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="stopped"))
        await self.emit(sid, finished or Finished(outcome="complete", reason="stopped", uploading="uploaded"))

    async def _claim_offered(self, sid: str) -> None:
        with contextlib.suppress(PeerLost):  # the test is over
            await self.claim(sid)

    async def _handle(self, message: Message) -> Message:
        self.received.append(message)
        if self.silent.is_set():
            await asyncio.Event().wait()
        answer = self._script(message)
        if answer is None and isinstance(message, Offer) and self.claims:
            self._tasks.create_task(self._claim_offered(message.sid))
        return answer or Done()


@contextlib.asynccontextmanager
async def connected(
    socket: Path, node: str = "node-1", *, live: tuple[str, ...] = (), script: Script | None = None, claims: bool = True
) -> AsyncIterator[FakeAgent]:
    agent = FakeAgent(node, script, claims=claims)
    reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT_BYTES)
    async with asyncio.TaskGroup() as tasks:
        agent._tasks = tasks
        agent.peer = Peer(reader, writer, agent._handle)
        serving = tasks.create_task(agent.peer.run())
        assert await agent.peer.request(AgentHello(node=node, live=live)) == Done()
        try:
            yield agent
        finally:
            agent.peer.close()
            serving.cancel()


def refusing(kind: type[Message], reason: str) -> Script:
    def script(message: Message) -> Message | None:
        return Refused.model_validate({"reason": reason}) if isinstance(message, kind) else None

    return script


def a_slice(name: str, sequence: int, *, epoch: int = 1, sha256: str = "0" * 64) -> Slice:
    return Slice(
        name=name,
        playlist="list.m3u8",
        epoch=epoch,
        sequence=sequence,
        size=1000,
        sha256=sha256,
        start_ms=START_MS + 15_000 * sequence,
        start_ns=15_000_000_000 * sequence,
        duration_ns=15_000_000_000,
        tags=("#EXT-X-DISCONTINUITY",),
    )


def a_file(name: str, *, track: str = "audio_and_video", uid: int = 0, mixed: bool = True, start_ms: int = START_MS) -> FileOpened:
    return FileOpened(
        file=File.model_validate({"name": name, "track": track, "uid": uid, "mixed": mixed, "playable": True, "start_ms": start_ms})
    )
