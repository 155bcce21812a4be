"""HTTP as bytes on a socket: what no client library would send."""

import asyncio
import contextlib
import re
import socket
from dataclasses import dataclass, field

SECONDS = 20
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)


@dataclass
class Answer:
    status: int
    body: bytes


@dataclass
class Heard:
    answers: list[Answer] = field(default_factory=list)
    rest: bytes = b""  # of what is no whole answer

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    def take(self, data: bytes) -> None:
        """Interim answers (1xx) are none. One without a length goes on to the end of its connection."""
        self.rest += data
        while head := _HEAD.match(self.rest):
            length = _LENGTH.search(head[2])
            end = head.end() + int(length[1]) if length else head.end()
            if len(self.rest) < end:
                return
            if not head[1].startswith(b"1"):
                self.answers.append(Answer(int(head[1]), self.rest[head.end() : end]))
            self.rest = self.rest[end:]


async def heard(port: int, *parts: bytes, then: bytes) -> Heard:
    """What is answered to `parts`, sent one by one with a moment between, and, after the first answer, to `then`, until the
    server closes the connection.

    Raises:
        TimeoutError: it does not.
    """
    loop, all_heard = asyncio.get_running_loop(), Heard()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def said(data: bytes) -> None:
            with contextlib.suppress(ConnectionError):  # closed: what was answered before can be read still
                await loop.sock_sendall(sock, data)

        async def listened() -> bool:
            try:
                data = await loop.sock_recv(sock, 1 << 16)
            except ConnectionError:
                return False
            all_heard.take(data)
            return bool(data)

        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            for number, part in enumerate(parts):
                if number:
                    await asyncio.sleep(0.05)
                await said(part)
            while not all_heard.answers and await listened():
                pass
            await said(then)
            while await listened():
                pass
    return all_heard
