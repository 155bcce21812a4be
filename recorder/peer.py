"""Request and answer over a stream: one JSON line per message, both sides may ask.

Used between control plane and agent and between agent and worker. It knows nothing of what the messages mean.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict

from recorder.protocol import Message

LINE_LIMIT_BYTES = 4 << 20

Handler = Callable[[Message], Awaitable[Message]]


class PeerLost(ConnectionError):
    """The other side closed the connection before it answered."""


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    answer: bool
    body: Message


class Peer:
    """One connection. `run()` serves it until it ends; `request()` may be called meanwhile from any task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._closed = False

    async def request(self, message: Message) -> Message:
        """Send `message` and return the other side's answer.

        Raises:
            PeerLost: the connection ended first.
        """
        if self._closed:
            raise PeerLost
        number = next(self._ids)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._send(_Envelope(id=number, answer=False, body=message))
            return await future
        finally:
            self._waiting.pop(number, None)

    async def run(self) -> None:
        """Read until the other side closes. Each request is handled in a task of its own, and to its end."""
        try:
            async with asyncio.TaskGroup() as group:
                # A process that is killed resets its connections. What it asked before is handled all the same.
                with contextlib.suppress(ConnectionError):
                    async for line in self._reader:
                        if not line.endswith(b"\n"):  # cut off by the death of who was writing it
                            break
                        envelope = _Envelope.model_validate_json(line)
                        if envelope.answer:
                            waiting = self._waiting.get(envelope.id)
                            if waiting and not waiting.done():
                                waiting.set_result(envelope.body)
                        else:
                            group.create_task(self._answer(envelope))
                self.close()  # handlers may be waiting for answers that will never come
        except* ConnectionError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        self._closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PeerLost())
        with contextlib.suppress(RuntimeError):  # the loop may be closing
            self._writer.close()

    async def _answer(self, request: _Envelope) -> None:
        answer = await self._handler(request.body)
        with contextlib.suppress(ConnectionError):
            await self._send(_Envelope(id=request.id, answer=True, body=answer))

    async def _send(self, envelope: _Envelope) -> None:
        try:
            self._writer.write(envelope.model_dump_json().encode() + b"\n")
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise PeerLost from error
