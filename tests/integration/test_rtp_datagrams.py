"""Reading many datagrams at once, in both ways."""

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from recorder.rtp import datagrams
from recorder.rtp.datagrams import COUNT, SIZE, Datagrams


@pytest.fixture(params=[Datagrams, datagrams.create])
def batch(request: pytest.FixtureRequest) -> Datagrams:
    made: Datagrams = request.param()
    return made


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest, batch: Datagrams) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as receiver, socket.socket(family, socket.SOCK_DGRAM) as sender:
        try:
            receiver.bind((request.param, 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        sender.bind((request.param, 0))
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        batch.prepare(receiver)
        sender.connect(receiver.getsockname())
        yield receiver, sender


def _payloads(batch: Datagrams, count: int) -> list[bytes]:
    return [bytes(batch.block[i * SIZE : i * SIZE + batch.sizes[i]]) for i in range(count)]


def test_everything_that_waits_is_read_once_and_in_order(batch: Datagrams, pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    sent = [bytes([i % 256]) * (1 + 13 * i % 1400) for i in range(COUNT + 6)]
    for data in sent:
        sender.send(data)
    assert batch.read(receiver) == COUNT
    assert _payloads(batch, COUNT) == sent[:COUNT]
    assert batch.read(receiver) == 6
    assert _payloads(batch, 6) == sent[COUNT:]
    assert all(batch.address(i) == sender.getsockname() for i in range(6))
    assert batch.read(receiver) == 0


def test_an_empty_datagram_and_one_that_is_too_long(batch: Datagrams, pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    sender.send(b"")
    sender.send(bytes(SIZE + 100))
    sender.send(b"x")
    assert batch.read(receiver) == 3
    assert batch.sizes[:3] == [0, SIZE, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's times are read on Linux only")
def test_arrival_is_when_the_kernel_received_it(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    batch = datagrams.create()
    batch.prepare(receiver)
    moments = []
    for _ in range(3):
        before = time.monotonic_ns()
        sender.send(b"x")
        moments.append((before, time.monotonic_ns()))
        time.sleep(0.02)
    assert batch.read(receiver) == 3
    for (before, after), arrival in zip(moments, batch.arrivals_ns, strict=False):
        assert before - 10_000_000 <= arrival <= after + 10_000_000  # two clocks are read one after the other


def test_a_closed_socket_is_an_error(batch: Datagrams) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        pass
    with pytest.raises(OSError):
        batch.read(sock)
