"""Peers over in-memory streams: what one side writes is fed into the other's reader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from recorder.peer import Handler, Peer, PeerLost
from recorder.protocol import Claim, Done, Lease, Message, Offer, Refused


class _Pipe:
    """The part of a StreamWriter that a Peer uses; the other side reads what is written."""

    def __init__(self, other: asyncio.StreamReader) -> None:
        self._other = other
        self._closed = False

    def write(self, data: bytes) -> None:
        if self._closed:
            raise ConnectionResetError
        self._other.feed_data(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._other.feed_eof()


@asynccontextmanager
async def pair(left: Handler, right: Handler) -> AsyncIterator[tuple[Peer, Peer]]:
    readers = asyncio.StreamReader(), asyncio.StreamReader()
    one = Peer(readers[0], _Pipe(readers[1]), left)  # type: ignore[arg-type]  # as much of a StreamWriter as a Peer uses
    two = Peer(readers[1], _Pipe(readers[0]), right)  # type: ignore[arg-type]  # the same
    async with asyncio.TaskGroup() as group:
        group.create_task(one.run())
        group.create_task(two.run())
        try:
            yield one, two
        finally:
            one.close()
            two.close()


async def done(_: Message) -> Message:
    return Done()


async def test_both_sides_ask_at_the_same_time() -> None:
    async def offered(message: Message) -> Message:
        assert isinstance(message, Offer)
        return Refused(reason="no_capacity", detail=message.sid)

    async with pair(done, offered) as (left, right):
        answers = tuple(await asyncio.gather(left.request(Offer(sid="a")), right.request(Lease()), left.request(Offer(sid="b"))))
    assert answers == (Refused(reason="no_capacity", detail="a"), Done(), Refused(reason="no_capacity", detail="b"))


async def test_a_slow_answer_does_not_hold_up_the_next_one() -> None:
    release = asyncio.Event()

    async def handler(message: Message) -> Message:
        if isinstance(message, Offer):
            await release.wait()
        else:
            release.set()
        return Done()

    async with pair(done, handler) as (left, _):
        assert tuple(await asyncio.gather(left.request(Offer(sid="slow")), left.request(Lease()))) == (Done(), Done())


async def test_a_handler_may_ask_back_before_it_answers() -> None:
    async def claim(message: Message) -> Message:
        return Refused(reason="stale") if isinstance(message, Claim) else Done()

    async def offered(message: Message) -> Message:
        assert isinstance(message, Offer)
        return await peers[1].request(Claim(sid=message.sid, node="n"))

    peers: tuple[Peer, Peer]
    async with pair(claim, offered) as peers:
        assert await peers[0].request(Offer(sid="a")) == Refused(reason="stale")


async def test_waiting_requests_fail_when_the_other_side_goes() -> None:
    async def never(_: Message) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    readers = asyncio.StreamReader(), asyncio.StreamReader()
    peer = Peer(readers[0], _Pipe(readers[1]), never)  # type: ignore[arg-type]  # as above
    async with asyncio.TaskGroup() as group:
        group.create_task(peer.run())
        request = group.create_task(_outcome(peer))
        await asyncio.sleep(0)
        readers[0].feed_eof()
    assert request.result() == "lost"
    with pytest.raises(PeerLost):
        await peer.request(Lease())


async def _outcome(peer: Peer) -> str:
    try:
        await peer.request(Lease())
    except PeerLost:
        return "lost"
    return "answered"


@pytest.mark.parametrize("end", ["reset", "torn"])
async def test_what_was_asked_is_handled_although_the_asker_dies(end: str) -> None:
    """A process that is killed resets its connection, or leaves half a line."""
    begun, go_on, handled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_: Message) -> Message:
        begun.set()
        await go_on.wait()
        handled.set()
        return Done()

    readers = asyncio.StreamReader(), asyncio.StreamReader()
    one = Peer(readers[0], _Pipe(readers[1]), slow)  # type: ignore[arg-type]  # as much of a StreamWriter as a Peer uses
    two = Peer(readers[1], _Pipe(readers[0]), done)  # type: ignore[arg-type]  # the same
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(one.run())
        asking = group.create_task(_lost(two))
        await begun.wait()
        if end == "reset":
            readers[0].set_exception(ConnectionResetError())
        else:
            readers[0].feed_data(b'{"id":1,"answer":fal')
            readers[0].feed_eof()
        await asyncio.sleep(0)
        go_on.set()
        await serving
        assert handled.is_set()
        two.close()
        await asking


async def _lost(peer: Peer) -> None:
    with pytest.raises(PeerLost):
        await peer.request(Lease())
