"""A small S3 server that fails as told, and looks at every playlist it gets: all it names must be there.

It checks Content-MD5 as a real one does, but no signatures: the contract suite of vendors does that with real servers.
"""

import base64
import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET: Final = "rec"

Fault = Callable[["_Handler", bytes], None]
"""Called with a request of any kind and its body, instead of answering it."""


class FaultStore:
    """`fault` is what happens to every PUT; `everything` widens it to all calls. Set it at any time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.puts: list[str] = []  # accepted, in order
        self.lists: list[tuple[int, str, bytes]] = []  # every version of a playlist: Unix ms, key, content
        self.dangling: list[tuple[str, str]] = []  # playlists that named what was not there
        self.fault: Fault | None = None
        self.everything = False
        self.calls = 0
        self.failed = 0
        self.lock = threading.Lock()
        self.endpoint = ""

    def take(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        with self.lock:
            if key.endswith(".m3u8"):
                folder = key.rpartition("/")[0]
                named = (unquote(line) for line in data.decode().splitlines() if line and not line.startswith("#"))
                self.lists.append((time.time_ns() // 1_000_000, key, data))
                self.dangling += [(key, name) for name in named if f"{folder}/{name}".lstrip("/") not in self.objects]
            self.objects[key] = data
            self.metadata[key] = metadata
            self.puts.append(key)


@contextlib.contextmanager
def fault_store() -> Iterator[FaultStore]:
    store = FaultStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    server.daemon_threads = True
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FaultStore

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, f"<Error><Code>{code}</Code><Message>canary-message</Message></Error>".encode(), Content_Type="application/xml")

    def reset(self) -> None:
        """Close the connection as a crash does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _failing(self, body: bytes) -> bool:
        self.store.calls += 1
        fault = self.store.fault
        if fault is None or (self.command != "PUT" and not self.store.everything):
            return False
        self.store.failed += 1
        fault(self, body)
        return True

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        if self.store.fault is reset_at_half:
            self.rfile.read(size // 2)
            self.store.failed += 1
            self.reset()
            return
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(size)
        if not self._failing(body):
            self.accept(body)

    def accept(self, body: bytes, *, etag: str | None = None, answer: bool = True) -> None:
        md5 = hashlib.md5(body, usedforsecurity=False)
        wanted = self.headers.get("Content-MD5")
        if wanted and base64.b64decode(wanted) != md5.digest():
            self.refuse(400, "BadDigest")
            return
        known = {name: value for name, value in self.headers.items() if name.lower().startswith(("x-amz-meta-", "content-type"))}
        self.store.take(self.key, body, {name.lower(): value for name, value in known.items()})
        if answer:
            self.send(200, ETag=f'"{etag or md5.hexdigest()}"')

    def do_HEAD(self) -> None:
        if not self._failing(b""):
            self._read()

    def do_GET(self) -> None:
        if self._failing(b""):
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            found = sorted((key, data) for key, data in self.store.objects.items() if key.startswith(prefix))
            items = "".join(f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size></Contents>" for key, data in found)
            self.send(200, f"<ListBucketResult>{items}</ListBucketResult>".encode(), Content_Type="application/xml")
        else:
            self._read()

    def _read(self) -> None:
        data = self.store.objects.get(self.key)
        if data is None:
            self.refuse(404, "NoSuchKey")
            return
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.send(200, data, ETag=f'"{etag}"', **self.store.metadata[self.key])

    def do_DELETE(self) -> None:
        if not self._failing(b""):
            self.store.objects.pop(self.key, None)
            self.send(204)


# ---- faults -----------------------------------------------------------------------------------------------------------


def answers(status: int, code: str) -> Fault:
    return lambda handler, _body: handler.refuse(status, code)


def reset_at_half(_handler: _Handler, _body: bytes) -> None:
    """The server does this by itself, before it has read the body."""


def reset_before_the_reply(handler: _Handler, body: bytes) -> None:
    """The object is there, and the client does not know."""
    handler.accept(body, answer=False)
    handler.reset()


def hang(seconds: float) -> Fault:
    """Neither an answer nor an end."""

    def hang_(handler: _Handler, _body: bytes) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return hang_


def wrong_etag(handler: _Handler, body: bytes) -> None:
    """The store says that it has other bytes."""
    handler.accept(body, etag=hashlib.md5(body + b"x", usedforsecurity=False).hexdigest())


def ok_with_an_error(handler: _Handler, _body: bytes) -> None:
    """Status 200, and an error in the body: nothing is stored."""
    handler.send(200, b"<Error><Code>InternalError</Code></Error>", Content_Type="application/xml")


def redirects(location: str) -> Fault:
    return lambda handler, _body: handler.send(307, Location=location)
