"""Cloud stores for tests, on loopback: strict where the real ones are, and told to fail where a test wants it.

A vendor's module offers the signatures of its dialect as functions, for its golden vectors, and a `Cloud` that recomputes
them for every request, checks content hashes and the rules of uploads in parts, and keeps objects in memory.
"""

import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

SKEW_SECONDS = 15 * 60

Kind = Literal["refuse", "drip", "hang", "reset at half", "reset before reply", "wrong etag", "error in 200", "truncate"]


@dataclass(frozen=True)
class Identity:
    """Who may come, and what for: `read` (with listing) and `write` (with deleting)."""

    access_key: str
    secret_key: str
    token: str | None = None
    may: frozenset[str] = frozenset({"read", "write"})


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of this operation."""

    operation: str
    kind: Kind
    status: int = 0  # of a refusal
    code: str = ""
    times: int = 1


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query as sent
    path: str  # as sent
    query: Mapping[str, str]
    headers: Message
    body: bytes

    @property
    def host(self) -> str:
        return str(self.headers.get("Host", ""))

    def header(self, name: str) -> str:
        return str(self.headers.get(name, ""))


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Object:
    data: bytes
    headers: dict[str, str]  # content type, cache control, metadata, tags: as they were sent
    etag: str


@dataclass
class Upload:
    key: str
    headers: dict[str, str]
    parts: dict[int, Object] = field(default_factory=dict)


class Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


class Cloud(Protocol):
    ahead_seconds: float  # its clock before the machine's
    faults: list[Fault]
    seen: list[str]  # the operations, in order

    def operation(self, request: Request) -> str: ...

    def answer(self, request: Request) -> Answer: ...

    def refusal(self, status: int, code: str) -> Answer: ...

    def with_wrong_etag(self, answer: Answer) -> Answer: ...

    def truncate(self, request: Request) -> None:
        """Lose the last byte of the object that the request stored."""


def operation(request: Request) -> str:
    """What a request of S3 and of those who followed it wants."""
    query = request.query
    if "uploads" in query:
        return "begin" if request.method == "POST" else "unfinished"
    if "uploadId" in query:
        return {"PUT": "part", "POST": "complete", "DELETE": "abort"}[request.method]
    if request.method == "GET" and request.path.strip("/").count("/") == 0 and not (set(query) - LISTING) and query:
        return "list"
    return {"PUT": "put", "HEAD": "head", "GET": "get", "DELETE": "delete"}.get(request.method, "unknown")


LISTING = {"prefix", "marker", "delimiter", "max-keys", "encoding-type", "list-type", "continuation-token", "start-after", "fetch-owner"}


def xml_refusal(status: int, code: str) -> Answer:
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{escape(code)}</Code><Message>told by a test</Message>"
        "<Resource>/</Resource><RequestId>1</RequestId><TraceId>1</TraceId></Error>"
    )
    return Answer(status, {"Content-Type": "application/xml"}, body.encode())


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest().upper()}"'


def joined(upload: Upload, named: list[tuple[int, str]], smallest_part: int) -> bytes:
    """The parts that a request to complete names, if it may; all but the last have at least `smallest_part` bytes."""
    if not named or [number for number, _ in named] != sorted({number for number, _ in named}):
        raise Refused(400, "InvalidPartOrder")
    for number, etag in named:
        if number not in upload.parts or upload.parts[number].etag.strip('"').lower() != etag.strip('"').lower():
            raise Refused(400, "InvalidPart")
    chosen = [upload.parts[number].data for number, _ in named]
    if any(len(data) < smallest_part for data in chosen[:-1]):
        raise Refused(400, "EntityTooSmall")
    return b"".join(chosen)


@contextlib.contextmanager
def served(cloud: Cloud) -> Iterator[int]:
    """Run the cloud on loopback; gives its port."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients go away in these tests

    closing = threading.Event()
    handler = type("Handler", (_Handler,), {"cloud": cloud, "closing": closing})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud
    closing: threading.Event
    timeout = 20

    def do_GET(self) -> None:
        self._exchange()

    def do_PUT(self) -> None:
        self._exchange()

    def do_POST(self) -> None:
        self._exchange()

    def do_DELETE(self) -> None:
        self._exchange()

    def do_HEAD(self) -> None:
        self._exchange()

    def _exchange(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        head = Request(self.command, self.path, parts.path, query, self.headers, b"")
        name = self.cloud.operation(head)
        self.cloud.seen.append(name)
        fault = self._fault(name)
        if fault == "reset at half":
            self.rfile.read(length // 2)
            return self._reset()
        request = Request(self.command, self.path, parts.path, query, self.headers, self.rfile.read(length))
        if isinstance(fault, Answer):
            return self._send(fault)
        match fault:
            case "hang":
                self.closing.wait(20)
                return self._reset()
            case "error in 200":
                return self._send(Answer(200, {}, self.cloud.refusal(500, "InternalError").body))
        answer = self._answer(request)
        match fault:
            case "reset before reply":
                return self._reset()
            case "wrong etag":
                answer = self.cloud.with_wrong_etag(answer)
            case "truncate":
                self.cloud.truncate(request)
            case "drip":
                return self._drip(answer)
        return self._send(answer)

    def _fault(self, name: str) -> Kind | Answer | None:
        for fault in self.cloud.faults:
            if fault.operation == name and fault.times:
                fault.times -= 1
                return self.cloud.refusal(fault.status, fault.code) if fault.kind == "refuse" else fault.kind
        return None

    def _answer(self, request: Request) -> Answer:
        try:
            return self.cloud.answer(request)
        except Refused as refused:
            return self.cloud.refusal(refused.status, refused.code)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _drip(self, answer: Answer) -> None:
        """A byte now and then: no wait of the client for the next one is ever long."""
        self.close_connection = True
        lines = [f"HTTP/1.1 {answer.status} OK", *(f"{name}: {value}" for name, value in answer.headers.items())]
        for byte in ("\r\n".join(lines) + "\r\nX-Padding: " + "x" * 4000 + "\r\n\r\n").encode():
            if self.closing.wait(0.05):
                return
            self.wfile.write(bytes((byte,)))

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.cloud.ahead_seconds if timestamp is None else timestamp)

    def log_message(self, format: str, *args: object) -> None:
        pass


def recent(moment: float, now: float) -> bool:
    return abs(now - moment) <= SKEW_SECONDS


def key_of(path: str) -> str:
    return unquote(path).removeprefix("/")
