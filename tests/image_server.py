"""A web server on loopback that serves images and misbehaves on purpose; it counts what it is asked for."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from PIL import Image


def png(colour: tuple[int, int, int], width: int = 320, height: int = 180) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def whole(body: bytes, head: str = "HTTP/1.1 200 OK", **headers: str) -> bytes:
    """A complete answer."""
    fields = {"Content-Length": str(len(body)), "Connection": "close"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [head, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class ImageServer:
    """Serves `answers` by path: bytes are sent as they are; a list of (seconds, bytes) is sent piece by piece, for ever at the last."""

    answers: dict[str, bytes | list[tuple[float, bytes]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # paths
    connections: int = 0
    port: int = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split(" ")[1]
            self.asked.append(path)
            answer = self.answers.get(path, whole(b"", "HTTP/1.1 404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await self._drip(writer, answer)

    async def _drip(self, writer: asyncio.StreamWriter, pieces: list[tuple[float, bytes]]) -> None:
        for seconds, piece in pieces[:-1]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(seconds)
        seconds, piece = pieces[-1]
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def image_server(host: str = "127.0.0.1") -> AsyncIterator[ImageServer]:
    running = ImageServer()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(running.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, host, 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.sleep(0)  # for the sockets to be closed
