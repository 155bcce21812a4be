"""Makes HTTP calls at a fixed rate, as callers that do not wait for each other. As lean as asyncio allows, for it shares the machine."""

import asyncio
import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from recorder.tools.api_client import Credentials


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    seconds: float  # from when the call was due; one that had to wait for a connection waited for the service
    body: bytes


class _Connection(asyncio.Protocol):
    """One call at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def call(self, request: bytes) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
        if end and length is not None and len(body) >= length and self._answer and not self._answer.done():
            self._received = b""
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError("the service closed the connection"))

    def close(self) -> None:
        self._transport.close()


class Load:
    """Calls of one customer's app, over `connections` that are kept open."""

    def __init__(self, url: str, credentials: Credentials, connections: int) -> None:
        self._host, _, port = url.removeprefix("http://").rpartition(":")
        self._port = int(port)
        self._path = f"/v1/apps/{credentials.app_id}/cloud_recording/"
        login = f"{credentials.customer_id}:{credentials.customer_secret.get_secret_value()}"
        self._headers = f"Host: {self._host}\r\nAuthorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
        self._connections = connections

    def request(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """POST `body`, or GET without one."""
        data = b"" if body is None else json.dumps(body).encode()
        content = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
        return f"{'POST' if data else 'GET'} {self._path}{path} HTTP/1.1\r\n{self._headers}{content}\r\n".encode() + data

    async def run(self, requests: Sequence[bytes], per_second: float) -> list[Answer]:
        """One call after the other, each at its time; the answers in the same order.

        Raises:
            OSError: the service cannot be reached, or closed a connection.
        """
        loop = asyncio.get_running_loop()
        idle: asyncio.Queue[_Connection] = asyncio.Queue()
        connections = [(await loop.create_connection(_Connection, self._host, self._port))[1] for _ in range(self._connections)]
        for connection in connections:
            idle.put_nowait(connection)
        begin = loop.time()
        calls: list[asyncio.Task[Answer]] = []

        async def call(due: float, request: bytes) -> Answer:
            connection = await idle.get()
            status, body = await connection.call(request)
            idle.put_nowait(connection)
            return Answer(status, loop.time() - due, body)

        try:
            async with asyncio.TaskGroup() as group:
                for number, request in enumerate(requests):
                    due = begin + number / per_second
                    await asyncio.sleep(due - loop.time())
                    calls.append(group.create_task(call(due, request)))
        finally:
            for connection in connections:
                connection.close()
        return [task.result() for task in calls]


def mixed(shares: dict[str, tuple[int, Iterable[bytes]]]) -> tuple[list[str], list[bytes]]:
    """Names and requests of one round, evenly mixed: of each kind so many as its first number says, taken from its requests."""
    kinds = sorted(chain.from_iterable([((index + 0.5) / count, name) for index in range(count)] for name, (count, _) in shares.items()))
    sources = {name: iter(requests) for name, (_, requests) in shares.items()}
    return [name for _, name in kinds], [next(sources[name]) for _, name in kinds]
