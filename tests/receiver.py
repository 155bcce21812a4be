"""A receiver of callbacks in a process of its own, which can be told to misbehave.

    python -m tests.receiver [CERTIFICATE KEY]

Each line of its input is a command in JSON, each line of its output an answer. Paths behave each by themselves:

    {"do": "up"}                    listen; answers the port, the same each time
    {"do": "down"}                  close the listener and all connections
    {"do": "behave", "path": "/a", "like": ["500", "hang"], "then": "200"}
                                    how the next requests to the path are answered, and all after them
                                    `wait 2`: 200, after so many seconds; `refuse TEXT`: 500 when the body has that text, else 200
    {"do": "received"}              what came: path, headers (lower case), body, Unix time of its arrival, how it was answered
"""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST = 1 << 20
HOSTS = [f"127.0.0.{last}" for last in range(1, 13)]  # so that it can stand for several hosts


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    answered: str
    peer: int  # port

    @property
    def notice(self) -> dict[str, Any]:
        notice: dict[str, Any] = json.loads(self.body)
        return notice


class Receiver:
    """The test's side of the process."""

    def __init__(self, process: asyncio.subprocess.Process, scheme: str) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self._scheme = scheme
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    async def up(self) -> None:
        self.port = await self._ask(do="up")

    async def down(self) -> None:
        await self._ask(do="down")

    async def behave(self, path: str, *like: str, then: str = "200") -> None:
        await self._ask(do="behave", path=path, like=like, then=then)

    async def received(self, path: str | None = None) -> list[Received]:
        found = await self._ask(do="received")
        everything = [
            Received(one["path"], one["headers"], one["body"].encode("latin-1"), one["at"], one["answered"], one["peer"]) for one in found
        ]
        return [one for one in everything if path in (None, one.path)]

    async def accepted(self, path: str | None = None) -> list[Received]:
        """What was answered with 200."""
        return [one for one in await self.received(path) if one.answered.partition(" ")[0] in ("200", "text", "endless", "wait")]

    async def _ask(self, **command: object) -> Any:
        async with self._turn:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            return json.loads(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def receiver(*certificate: Path) -> AsyncIterator[Receiver]:
    """A receiver that is up. `certificate`: PEM files of it and its key, for https."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.receiver", *map(str, certificate)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=1 << 30,
        cwd=Path(__file__).parents[1],
    )
    running = Receiver(process, "https" if certificate else "http")
    try:
        await running.up()
        yield running
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


@dataclass
class _Server:
    tls: ssl.SSLContext | None
    next: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    last: defaultdict[str, str] = field(default_factory=lambda: defaultdict(lambda: "200"))
    received: list[dict[str, object]] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    listener: asyncio.Server | None = None
    port: int = 0

    async def obey(self, command: dict[str, Any]) -> object:
        match command["do"]:
            case "up":
                if self.listener is None:
                    self.listener = await asyncio.start_server(
                        self._serve, HOSTS, self.port or _free_port(), ssl=self.tls, reuse_address=True
                    )
                    self.port = self.listener.sockets[0].getsockname()[1]
                return self.port
            case "down":
                if self.listener:
                    self.listener.close()
                    self.listener = None
                for writer in tuple(self.writers):
                    writer.transport.abort()
            case "behave":
                self.next[command["path"]] = list(command["like"])
                self.last[command["path"]] = command["then"]
            case "received":
                return self.received
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.strip().split("\r\n")
        method, path, _ = request.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(min(int(headers.get("content-length", "0")), LARGEST))
        like = self.next[path].pop(0) if self.next[path] else self.last[path]
        if like.startswith("refuse "):
            like = "500" if like.removeprefix("refuse ").encode() in body else "200"
        came = {"path": path, "headers": headers | {":method": method}, "body": body.decode("latin-1"), "at": time.time()}
        self.received.append(came | {"answered": like, "peer": writer.get_extra_info("peername")[1]})
        kind, _, argument = like.partition(" ")
        match kind:
            case "hang":
                await asyncio.sleep(3600)
            case "wait":
                await asyncio.sleep(float(argument))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            case "reset":
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case "close":
                return False
            case "garbage":
                writer.write(b"\x00\xff SMTP ready\r\n\r\n" * 3)
            case "endless":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    writer.write(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
                    await writer.drain()
            case "endless-head":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
                    await writer.drain()
            case "drip":  # a header each second, never the end of them
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-More: x\r\n")
                    await writer.drain()
                    await asyncio.sleep(1)
            case "text":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOk")
            case "204":
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            case _:
                more = f"{argument}\r\n" if argument else ""
                writer.write(f"HTTP/1.1 {kind} As told\r\n{more}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        await writer.drain()
        return kind != "garbage"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def _main(certificate: list[str]) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    server = _Server(tls)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        print(json.dumps(await server.obey(json.loads(line))), flush=True)
    os._exit(0)  # nobody waits for those that hang


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
