"""A signalling proxy in front of the hub: whoever joins through it gets a relay as the only path for media."""

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.impair.impairment import Conditions, Counters, Impairment
from tests.impair.relay import Address, Relay

_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"]
_PASSED_HEADERS = ("content-type", "location", "etag", "accept-patch", "accept-post", "retry-after", "www-authenticate")
_FRAGMENT = "application/trickle-ice-sdpfrag"


class ImpairedHub:
    """The hub as publishers or recorders behind a bad network reach it.

    `media` is the direction in which media flows (to the hub for publishers, from it for recorders), `feedback` the other one.
    """

    def __init__(self, hub: str, *, seed: int, media: Conditions | None = None, feedback: Conditions | None = None) -> None:
        self.url = ""
        self.relays: list[Relay] = []
        self._hub = hub
        self._seed = seed
        self._conditions = {"media": media or Conditions(), "feedback": feedback or Conditions()}
        self._impairments: dict[str, list[Impairment]] = {"media": [], "feedback": []}
        self._http = httpx.AsyncClient(base_url=hub, timeout=20, trust_env=False)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ImpairedHub"]:
        app = Starlette(routes=[Route("/{path:path}", self._forward, methods=_METHODS), WebSocketRoute("/{path:path}", self._roster)])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
            server = _Server(config)
            async with self._http, asyncio.TaskGroup() as group:
                group.create_task(server.serve([listener]))
                try:
                    while not server.started:
                        await asyncio.sleep(0.01)
                    yield self
                finally:
                    server.should_exit = True
                    for relay in self.relays:
                        relay.close()

    def set_media(self, conditions: Conditions) -> None:
        """The conditions from now on, in all sessions and in later ones."""
        self._set("media", conditions)

    def set_feedback(self, conditions: Conditions) -> None:
        self._set("feedback", conditions)

    async def black_out(self, seconds: float) -> None:
        """Nothing passes for a while, in either direction and in new sessions too; signalling goes on."""
        before = dict(self._conditions)
        for direction, conditions in before.items():
            self._set(direction, dataclasses.replace(conditions, blackout=True))
        await asyncio.sleep(seconds)
        for direction, conditions in before.items():
            self._set(direction, conditions)

    def counters(self, direction: str = "media") -> Counters:
        """The sum over all sessions."""
        every = [dataclasses.asdict(impairment.counters) for impairment in self._impairments[direction]]
        return Counters(**{field.name: sum(one[field.name] for one in every) for field in dataclasses.fields(Counters)})

    def _set(self, direction: str, conditions: Conditions) -> None:
        self._conditions[direction] = conditions
        for impairment in self._impairments[direction]:
            impairment.conditions = conditions

    def _relay(self, hub: Address, *, publishes: bool) -> Relay:
        made = {
            direction: Impairment(conditions, seed=f"{self._seed} {direction} {len(self.relays)}", start_ns=time.monotonic_ns())
            for direction, conditions in self._conditions.items()
        }
        for direction, impairment in made.items():
            self._impairments[direction].append(impairment)
        up, down = ("media", "feedback") if publishes else ("feedback", "media")
        relay = Relay(hub, up=made[up], down=made[down])
        self.relays.append(relay)
        return relay

    # ---- signalling ----

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        kind = request.headers.get("content-type", "").partition(";")[0]
        joins = request.method == "POST" and request.url.path.startswith(("/whip/", "/whep/"))
        if joins or kind == _FRAGMENT:
            body = without_candidates(body.decode()).encode()
        headers = {
            name: value for name, value in request.headers.items() if name in ("authorization", "content-type", "if-match", "origin")
        }
        try:
            answer = await self._http.request(request.method, _target(request), content=body, headers=headers)
        except httpx.HTTPError:
            return Response(status_code=502)
        content = answer.content
        if joins and answer.status_code == 201:
            relay = self._relay(hub_address(answer.text), publishes=request.url.path.startswith("/whip/"))
            content = through(answer.text, relay.address).encode()
        passed = {name: value for name, value in answer.headers.items() if name in _PASSED_HEADERS or name.startswith("access-control-")}
        return Response(content, answer.status_code, passed)

    async def _roster(self, socket: WebSocket) -> None:
        url = self._hub.replace("http", "ws", 1) + _target(socket)
        headers = {"Authorization": socket.headers["authorization"]} if "authorization" in socket.headers else {}
        try:
            upstream = await connect(url, additional_headers=headers, proxy=None)
        except InvalidStatus as error:
            await socket.send_denial_response(Response(bytes(error.response.body or b""), error.response.status_code))
            return
        except OSError:
            await socket.send_denial_response(Response(status_code=502))
            return
        async with upstream, asyncio.TaskGroup() as group:
            await socket.accept()
            reading = group.create_task(_until_gone(socket, upstream))
            with contextlib.suppress(ConnectionClosed):
                async for text in upstream:
                    await socket.send_text(str(text))
            reading.cancel()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client was the one who closed
                await socket.close(upstream.close_code or 1000)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the test run."""
        yield


def _target(connection: HTTPConnection) -> str:
    """Path and query as they were sent: channel names keep their escapes."""
    path = connection.scope["raw_path"].decode()
    return f"{path}?{connection.url.query}" if connection.url.query else path


async def _until_gone(socket: WebSocket, upstream: ClientConnection) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: closed by us
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    await upstream.close()


# ---- session descriptions ----


def without_candidates(sdp: str) -> str:
    """The same description without a way to reach its author: the relay must be the only path."""
    return "".join(line + "\r\n" for line in sdp.splitlines() if not line.startswith(("a=candidate:", "a=end-of-candidates")))


def hub_address(sdp: str) -> Address:
    """The first IPv4 candidate for UDP.

    Raises:
        LookupError: there is none.
    """
    for line in sdp.splitlines():
        fields = line.removeprefix("a=candidate:").split()
        if line.startswith("a=candidate:") and fields[2].lower() == "udp" and ":" not in fields[4]:
            return fields[4], int(fields[5])
    raise LookupError("the answer has no candidate")


def through(sdp: str, relay: Address) -> str:
    """The same description with the relay as its only candidate, in each section that had any."""
    host, port = relay
    lines: list[str] = []
    for line in sdp.splitlines():
        if not line.startswith("a=candidate:"):
            lines.append(line)
        elif not lines[-1].startswith("a=candidate:"):
            lines.append(f"a=candidate:1 1 udp 2130706431 {host} {port} typ host")
    return "".join(line + "\r\n" for line in lines)
