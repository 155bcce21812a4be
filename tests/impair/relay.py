"""The socket part of the impairment: one session's datagrams between the peer that offered and the hub."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from tests.impair.impairment import Impairment

Address = tuple[str, int]

_RECEIVE_BUFFER_BYTES = 2 << 20
_DATAGRAM_LIMIT = 2048
_TICK_SECONDS = 0.001  # packets due closer together than that leave together


class _Direction:
    """One way through the relay."""

    def __init__(self, impairment: Impairment, send: Callable[[bytes], None]) -> None:
        self.impairment = impairment
        self._send = send
        self._timer: asyncio.TimerHandle | None = None

    def put(self, data: bytes) -> None:
        self.impairment.push(data, time.monotonic_ns())

    def flush(self) -> None:
        """Send what is due, and come back for the rest."""
        now_ns = time.monotonic_ns()
        for data in self.impairment.take(now_ns):
            self._send(data)
        due_ns = self.impairment.next_ns()
        self.stop()
        if due_ns is not None:
            self._timer = asyncio.get_running_loop().call_later(max(_TICK_SECONDS, (due_ns - now_ns) / 1e9), self.flush)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class Relay:
    """A pair of sockets: `near` is what the offering peer takes for the hub, `far` is what the hub takes for that peer."""

    def __init__(self, hub: Address, *, up: Impairment, down: Impairment) -> None:
        self._hub = hub
        self._peer: Address | None = None  # whoever sent last: there is only one
        self._near, self._far = _socket(), _socket()
        self.up = _Direction(up, self._send_up)
        self.down = _Direction(down, self._send_down)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._near, self._read_near)
        loop.add_reader(self._far, self._read_far)

    @property
    def address(self) -> Address:
        host, port = self._near.getsockname()
        return host, port

    def move(self) -> None:
        """Go on from another port, as behind a NAT that forgot the mapping: what the hub sends to the old one is lost."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._far)
        self._far.close()
        self._far = _socket()
        loop.add_reader(self._far, self._read_far)

    def close(self) -> None:
        """End for good; harmless when repeated."""
        if self._near.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        for sock in (self._near, self._far):
            loop.remove_reader(sock)
            sock.close()
        self.up.stop()
        self.down.stop()

    def _read_near(self) -> None:
        for data, address in _received(self._near):
            self._peer = address
            self.up.put(data)
        self.up.flush()

    def _read_far(self) -> None:
        for data, address in _received(self._far):
            if address == self._hub:
                self.down.put(data)
        self.down.flush()

    def _send_up(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full buffer loses packets, as networks do
            self._far.sendto(data, self._hub)

    def _send_down(self, data: bytes) -> None:
        if self._peer:
            with contextlib.suppress(OSError):
                self._near.sendto(data, self._peer)


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock


def _received(sock: socket.socket) -> list[tuple[bytes, Address]]:
    found = []
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while True:
            found.append(sock.recvfrom(_DATAGRAM_LIMIT))
    return found
