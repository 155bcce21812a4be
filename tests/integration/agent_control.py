"""A scripted control plane for tests of the agent: a real socket, state in memory."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recorder.manifest import sign
from recorder.peer import LINE_LIMIT_BYTES, Peer
from recorder.protocol import (
    AgentHello,
    Claim,
    Claimed,
    Done,
    Event,
    Finished,
    Load,
    Message,
    Offer,
    Refused,
    Sign,
    Signed,
    SliceCommitted,
    SliceStored,
)
from recorder.spec import RecordingSpec


@dataclass
class Control:
    """Answers as the real one does: events of an old epoch or seen before change nothing."""

    path: Path
    specs: dict[str, RecordingSpec] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    hellos: list[AgentHello] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # applied
    repeated: int = 0
    stale: int = 0
    answering: bool = True
    signing_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    _peer: Peer | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self.path, limit=LINE_LIMIT_BYTES)
        try:
            yield
        finally:
            server.close()
            if self._peer:
                self._peer.close()
            self.path.unlink(missing_ok=True)
            await asyncio.sleep(0)

    async def offer(self, spec: RecordingSpec) -> Message:
        self.specs[spec.sid] = spec
        return await self.ask(Offer(sid=spec.sid, load=Load.of(spec)))

    async def ask(self, message: Message) -> Message:
        async with asyncio.timeout(10):
            await self.until(lambda: self._peer is not None)
            assert self._peer
            return await self._peer.request(message)

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(condition)
            except TimeoutError:
                raise AssertionError([event.body.type for event in self.events][-30:]) from None

    def of(self, sid: str, kind: str) -> list[Event]:
        return [event for event in self.events if event.sid == sid and event.body.type == kind]

    def finished(self, sid: str) -> Finished | None:
        bodies = [event.body for event in self.of(sid, "finished")]
        return bodies[0] if bodies and isinstance(bodies[0], Finished) else None

    def committed(self, sid: str) -> list[str]:
        return [event.body.slice.name for event in self.of(sid, "slice") if isinstance(event.body, SliceCommitted)]

    def stored(self, sid: str) -> list[str]:
        return [event.body.name for event in self.of(sid, "stored") if isinstance(event.body, SliceStored)]

    async def until_finished(self, sid: str) -> Finished:
        await self.until(lambda: self.finished(sid) is not None)
        found = self.finished(sid)
        assert found
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self._handle)
        self._peer = peer
        try:
            await peer.run()
        finally:
            if self._peer is peer:
                self._peer = None

    async def _handle(self, message: Message) -> Message:
        answer = self._answer(message)
        async with self._changed:
            self._changed.notify_all()
        return answer

    def _answer(self, message: Message) -> Message:
        match message:
            case AgentHello():
                self.hellos.append(message)
                return Done()
            case Claim(sid=sid, resume=resume):
                self.claims.append(message)
                epoch = self.epochs.get(sid, 0)
                if sid not in self.specs:
                    return Refused(reason="unknown")
                finished = self.finished(sid)
                if finished and (resume is None or not finished.leaves_behind or self.of(sid, "backup_done")):
                    return Refused(reason="exiting")
                if resume is None:
                    epoch = self.epochs[sid] = epoch + 1
                elif resume != epoch:
                    return Refused(reason="stale")
                return Claimed(sid=sid, epoch=epoch, spec=json.loads(self.specs[sid].with_secrets()))
            case Sign(sid=sid, sha256=digest):
                return Signed(key="test", signature=sign(self.signing_key, sid, digest))
            case Event():
                self._apply(message)
                return Done()
        return Refused(reason="bad_request")

    def _apply(self, event: Event) -> None:
        if event.epoch < self.epochs[event.sid]:
            self.stale += 1
        elif any((seen.sid, seen.epoch, seen.sequence) == (event.sid, event.epoch, event.sequence) for seen in self.events):
            self.repeated += 1
        else:
            self.events.append(event)
