"""The hub's connector and the agent's line where the other side misbehaves."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.protocol import State

from recorder.channels import ChannelError, Kicked, Place
from recorder.channels.hub import HubConnector
from recorder.frames import EncodedFrame, Track
from recorder.hub.messages import CLOSE_REPLACED, Roster
from recorder.peer import Peer
from recorder.protocol import Done, Lease, Message, PhaseChanged
from recorder.rtp.negotiation import CodecParameters, Media
from recorder.spec import RecordingSpec, Subscription, UidRule
from recorder.worker.agent_link import AgentLink, hello
from tests.live import hub, publisher, settings

_SPEC = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=900, mode="mix")


class _Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.errors: list[ChannelError] = []
        self.interruptions = 0

    def participant_joined(self, uid: int, *, host: bool) -> None: ...

    def participant_left(self, uid: int) -> None: ...

    def track_started(self, track: Track) -> None: ...

    def track_stopped(self, track: Track) -> None: ...

    def frame(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    def interrupted(self) -> None:
        self.interruptions += 1

    def lost(self, error: ChannelError) -> None:
        self.errors.append(error)


@contextlib.asynccontextmanager
async def _connector(url: str) -> AsyncIterator[tuple[HubConnector, _Heard]]:
    heard = _Heard()
    connector = HubConnector(Place("hub", url, time.monotonic_ns(), addresses=("127.0.0.1",)), _SPEC, heard)
    try:
        yield connector, heard
    finally:
        await connector.leave()


async def _garbage(socket: ServerConnection) -> None:
    await socket.send('{"type": "welcome"}')


async def _hang_up(socket: ServerConnection) -> None:
    await socket.close()


async def _replaced(socket: ServerConnection) -> None:
    await socket.close(CLOSE_REPLACED)


@pytest.mark.parametrize(("greet", "error"), [(_garbage, ChannelError), (_hang_up, ChannelError), (_replaced, Kicked)])
async def test_a_hub_that_does_not_greet_cannot_be_joined(
    greet: Callable[[ServerConnection], Awaitable[None]], error: type[ChannelError]
) -> None:
    async with serve(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with _connector(f"http://127.0.0.1:{port}") as (connector, _):
            with pytest.raises(error):
                await connector.join()


async def test_packets_of_a_codec_that_is_not_read_are_only_counted() -> None:
    async with _connector("http://127.0.0.1:9") as (connector, heard):
        media = Media("0", "audio", "recvonly", (CodecParameters(0, "l16", 8000, 1, {}),), {}, 1, ())
        receiver = connector.whep(101).receiver([media])
        receiver.packet(struct.pack("!BBHII", 0x80, 0, 1, 160, 7) + bytes(160), time.monotonic_ns())
        assert receiver.counters.unrouted == 1
        assert heard.frames == []


async def _slowly(request: httpx.Request) -> None:
    """The end of a session takes its time."""
    if request.method == "DELETE":
        await asyncio.sleep(0.5)


async def test_a_new_session_gives_no_frame_twice(tmp_path: Path) -> None:
    at = settings(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        await stack.enter_async_context(publisher(url, 101))
        connector, heard = await stack.enter_async_context(_connector(url))
        connector.http.event_hooks = {"request": [_slowly]}
        await connector.join()
        for video in ("all", "none", "all", "none", "all"):
            connector.subscribe(Subscription(video=UidRule(kind=video)))
            await asyncio.sleep(1.5)
        for kind in ("audio", "video"):
            times = [frame.time_ns for frame in heard.frames if frame.track.kind == kind]
            assert len(times) > 50
            assert all(b - a > 5_000_000 for a, b in zip(times, times[1:], strict=False))  # noqa: RUF007  # as frames come, 20 or 33 ms
        assert heard.errors == []


async def test_a_channel_that_is_away_for_long_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.channels.hub.INTERRUPTED_SECONDS", 1.0)

    async def greet(socket: ServerConnection) -> None:
        await socket.send(Roster(participants=[]).model_dump_json())
        await socket.wait_closed()

    server = await serve(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with _connector(f"http://127.0.0.1:{port}") as (connector, heard):
        await connector.join()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(1.5)
        assert heard.interruptions == 1
        async with serve(greet, "127.0.0.1", port) as again:
            await _until_somebody(again)
            for socket in again.connections:  # away, and back within half a second
                await socket.close()
            await _until_somebody(again)
            await asyncio.sleep(1.5)
            assert heard.interruptions == 1
            assert heard.errors == []


async def _until_somebody(server: Server) -> None:
    async with asyncio.timeout(10):
        while not [socket for socket in server.connections if socket.state is State.OPEN]:
            await asyncio.sleep(0.02)


async def test_the_line_to_the_agent_is_opened_again_after_nonsense(tmp_path: Path) -> None:
    calls = 0

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await reader.readline()
            writer.write(b'{"id": 0, "answer": false, "body": {"type": "of tomorrow"}}\n')
            await writer.drain()
            await reader.read()
            writer.close()
            return
        peer = Peer(reader, writer, accept)
        serving = asyncio.create_task(peer.run())
        await peer.request(Lease(seconds=60))
        await serving

    async def accept(message: Message) -> Message:
        return Done()

    async def refuse(message: object) -> Message:
        raise AssertionError(message)

    path = tmp_path / "agent.sock"
    async with await asyncio.start_unix_server(agent, str(path)):
        link = AgentLink(path, hello("a" * 32, 1), lease_seconds=5, on_command=refuse)
        running = asyncio.create_task(link.run())
        try:
            link.report(PhaseChanged(phase="ready"))
            async with asyncio.timeout(10):
                await link.delivered()
            assert calls == 2
            assert link.lease_left > 50
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
