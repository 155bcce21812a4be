"""Clients that keep a connection and send little: each request has so much time, and no more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from cli.demo.processes import free_ports
from recorder import strict_http
from recorder.strict_http import StrictHttp

PATIENCE = 0.4
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n"
FOREVER = 200  # bytes sent, one each PATIENCE / 8


class App:
    def __init__(self) -> None:
        self.bodies: list[bytes | None] = []  # None: it never came
        routes = [Route("/", self.answer, methods=["GET", "POST"]), Route("/slow", self.slowly), WebSocketRoute("/ws", self.echo)]
        self.app = Starlette(routes=routes)

    async def answer(self, request: Request) -> PlainTextResponse:
        try:
            self.bodies.append(await request.body())
        except ClientDisconnect:
            self.bodies.append(None)
        return PlainTextResponse("ok")

    async def slowly(self, _request: Request) -> PlainTextResponse:
        await asyncio.sleep(2 * PATIENCE)
        return PlainTextResponse("late")

    async def echo(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())


@contextlib.asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app.app, port=port, http=StrictHttp, log_config=None, lifespan="off", timeout_keep_alive=60))
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        await running


async def said(port: int, parts: Iterable[bytes], pause: float) -> bytes:
    """What is answered to `parts`, sent with a pause before each but the first, until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    hearing = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        for number, part in enumerate(parts):
            if number:
                await asyncio.wait([hearing], timeout=pause)
            if hearing.done():
                break
            writer.write(part)
            await writer.drain()
    answer = await hearing
    writer.close()
    return answer


def slowly(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_http, "REQUEST_SECONDS", PATIENCE)


async def test_a_request_that_does_not_come_is_given_up() -> None:
    app = App()
    async with serving(app) as port:
        for parts in (
            [b""],
            [GET[:-1]],
            slowly(GET[:-2] + b"x" * FOREVER),
            slowly(GET[:-2] + b"X: y\r\n" * FOREVER),
            [POST + b"12"],
            [POST.replace(b"9", b"%d" % FOREVER), *slowly(b"x" * FOREVER)],
        ):
            answer = await said(port, parts, PATIENCE / 8)
            assert answer.startswith(b"HTTP/1.1 408 "), parts[0]
            assert answer.count(b"HTTP/") == 1
    assert app.bodies == [None, None]


async def test_the_second_request_of_a_connection_has_as_much_time_and_no_more() -> None:
    app = App()
    async with serving(app) as port:
        answer = await said(port, [GET, *slowly(GET[:-2] + b"x" * FOREVER)], PATIENCE / 8)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"okHTTP/1.1 408 " in answer


async def test_nobody_else_is_given_up() -> None:
    """Whose request is there waits for its answer, and who has an answer may ask again later."""
    app = App()
    async with serving(app) as port:
        last = GET.replace(b"here\r\n", b"here\r\nConnection: close\r\n")
        assert b"late" in await said(port, [last.replace(b" / ", b" /slow ")], 0)
        answer = await said(port, [GET, POST + b"123456789", last], 2 * PATIENCE)
        assert answer.count(b"HTTP/1.1 200 ") == 3
        assert app.bodies == [b"", b"123456789", b""]
        async with connect(f"ws://127.0.0.1:{port}/ws") as socket:
            await asyncio.sleep(2 * PATIENCE)
            await socket.send("still here")
            assert await socket.recv() == "still here"
