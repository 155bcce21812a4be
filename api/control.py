"""The control side of the local bus: a Unix socket to which the agents of this machine connect.

It carries messages and keeps their order; what they mean is the ledger's business.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api.apps import Apps
from api.bus import Command, NoAnswer, Unreachable
from api.ledger import Ledger
from api.signer import Signer
from recorder.peer import LINE_LIMIT_BYTES, Peer, PeerLost
from recorder.protocol import AgentHello, AskApp, Claim, Done, Event, Load, Message, Offer, Refused, Sign

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 3.0


class LocalBus:
    """Implements `api.bus.Bus`."""

    def __init__(
        self, path: Path, ledger: Ledger, apps: Apps, *, signer: Signer | None = None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._path = path
        self._ledger = ledger
        self._apps = apps
        self._signer = signer
        self._answer_seconds = answer_seconds
        self._nodes: dict[str, Peer] = {}
        self._arrival = asyncio.Condition()

    @property
    def connected(self) -> int:
        """How many agents are connected."""
        return len(self._nodes)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve agents during the block; at its end they are disconnected and will look for the next control plane."""
        async with asyncio.TaskGroup() as group:
            connections: set[asyncio.Task[None]] = set()

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = group.create_task(self._serve(reader, writer))
                connections.add(task)
                task.add_done_callback(connections.discard)

            server = await asyncio.start_unix_server(accept, self._path, limit=LINE_LIMIT_BYTES)
            self._path.chmod(0o600)
            try:
                yield
            finally:
                server.close()
                for task in connections:
                    task.cancel()

    async def offer(self, sid: str, load: Load) -> bool:
        silent = False
        try:
            async with asyncio.timeout(self._answer_seconds):
                for node, peer in tuple(self._nodes.items()):
                    try:
                        answer = await peer.request(Offer(sid=sid, load=load))
                    except PeerLost:
                        silent = True
                        continue
                    if isinstance(answer, Done):
                        return True
                    why = (answer.reason, answer.detail) if isinstance(answer, Refused) else (answer.type, "")
                    log.info("offer refused", extra={"sid": sid, "node": node, "reason": why[0], "detail": why[1]})
        except TimeoutError as error:
            raise NoAnswer from error
        if silent:
            raise NoAnswer
        return False

    async def command(self, node: str, command: Command) -> Done | Refused:
        peer = None
        try:
            async with asyncio.timeout(self._answer_seconds):
                peer = await self._wait_for(node)
                answer = await peer.request(command)
        except (TimeoutError, PeerLost) as error:
            raise (NoAnswer if peer else Unreachable) from error
        if isinstance(answer, Done | Refused):
            return answer
        raise NoAnswer

    async def _wait_for(self, node: str) -> Peer:
        """An agent that restarts, or that has not found a restarted control plane yet, is back within a second or two."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: node in self._nodes)
            return self._nodes[node]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._ledger, self._apps, self._signer, self._arrived)
        peer = connection.peer = Peer(reader, writer, connection.handle)
        try:
            await peer.run()
        except* (ValidationError, ValueError) as errors:
            count = len(errors.exceptions)  # their text would quote the message
            log.error("an agent sent what is no message", extra={"node": connection.node, "errors": count})  # noqa: TRY400  # the same
        except* SQLAlchemyError:
            # Unanswered, so the agent sends it again over a new connection.
            log.exception("a message of an agent could not be stored", extra={"node": connection.node})
        finally:
            if connection.node and self._nodes.get(connection.node) is peer:
                del self._nodes[connection.node]
                log.warning("agent disconnected", extra={"node": connection.node})

    async def _arrived(self, node: str, peer: Peer) -> None:
        former = self._nodes.pop(node, None)
        if former:
            former.close()
        self._nodes[node] = peer
        log.info("agent connected", extra={"node": node})
        async with self._arrival:
            self._arrival.notify_all()


class _Connection:
    """One agent: hello first, then claims and events, handled in the order in which they were sent. Or the hub, which asks only."""

    def __init__(self, ledger: Ledger, apps: Apps, signer: Signer | None, arrived: Callable[[str, Peer], Awaitable[None]]) -> None:
        self.node: str | None = None
        self.peer: Peer
        self._ledger = ledger
        self._apps = apps
        self._signer = signer
        self._arrived = arrived
        self._in_order = asyncio.Lock()  # fair: the peer starts a task for each message, in order

    async def handle(self, message: Message) -> Message:
        async with self._in_order:
            match message:
                case AgentHello(node=node) if self.node in (None, node):
                    await self._ledger.hello(message)
                    self.node = node
                    await self._arrived(node, self.peer)
                    return Done()
                case AskApp():
                    return await self._apps.answer(message)
                case Claim() if self.node:
                    return await self._ledger.claim(message) if message.node == self.node else Refused(reason="not_yours")
                case Sign() if self.node and self._signer:
                    return await self._signer.answer(message, self.node, self._ledger.owner)
                case Event() if self.node:
                    return await self._ledger.record(message)
                case _:
                    return Refused(reason="bad_request", detail=f"{message.type} is not expected here")
