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


def test_a_closed_socket_is_an_error(batch: Datagrams) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        pass
    with pytest.raises(OSError):
        batch.read(sock)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's times are read on Linux only")
def test_the_first_datagram_arrived_when_it_came_not_when_it_was_read(pair: tuple[socket.socket, socket.socket]) -> None:
    """A stream begins where its first packet arrives: one that seems late makes all its sound late at first."""
    receiver, sender = pair
    batch = datagrams.create()
    batch.prepare(receiver)
    sender.send(b"x")
    sent = time.monotonic_ns()
    time.sleep(0.1)
    assert batch.read(receiver) == 1
    assert abs(batch.arrivals_ns[0] - sent) < 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's times are read on Linux only")
def test_a_step_of_the_wall_clock_moves_no_arrival(monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]) -> None:
    """Row T1: what waits in any socket bears the old time, so stamps are believed again a while later."""
    receiver, sender = pair
    batch = datagrams.create()
    batch.prepare(receiver)
    clock, step = time.time_ns, 0
    monkeypatch.setattr(time, "time_ns", lambda: clock() + step)
    for step in (0, 900_000_000, 900_000_000, -3_600_000_000_000):  # noqa: B007  # read by the clock
        before = time.monotonic_ns()
        sender.send(b"x")
        time.sleep(0.02)
        assert batch.read(receiver) == 1
        assert before - 10_000_000 <= batch.arrivals_ns[0] <= time.monotonic_ns()


def test_stamps_are_believed_again_after_a_step(pair: tuple[socket.socket, socket.socket]) -> None:
    if sys.platform != "linux":
        pytest.skip("the kernel's times are read on Linux only")
    receiver, sender = pair
    batch = datagrams.create()
    batch.prepare(receiver)
    sender.send(b"x")
    batch.read(receiver)  # the first time is a step too
    time.sleep(0.6)
    before = time.monotonic_ns()
    sender.send(b"x")
    sent = time.monotonic_ns()
    time.sleep(0.1)
    assert batch.read(receiver) == 1
    assert before - 10_000_000 <= batch.arrivals_ns[0] <= sent + 50_000_000
