"""Requests out of shape, as bytes on a socket: each gets one refusal and the end of its connection, and hides no other request.

The control plane and the hub are real processes. What was executed is told by the control plane's own count of calls.
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cli.demo.processes import free_ports
from recorder.strict_http import LARGEST_HEAD_BYTES
from tests.integration.test_tenants_command import api
from tests.live import hub, settings
from tests.raw_http import heard

LINES = b"Host: here\r\n"
CHUNKED = LINES + b"Transfer-Encoding: chunked\r\n"

# A path is put in for {} of the first line.
REFUSED: dict[str, bytes] = {
    # Two lengths, or none that is a number.
    "length and chunks": b"POST {} HTTP/1.1\r\n" + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST {} HTTP/1.1\r\n" + LINES + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST {} HTTP/1.1\r\n" + LINES + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}",
    "one length twice": b"POST {} HTTP/1.1\r\n" + LINES + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    **{
        f"length {length!r}": b"POST {} HTTP/1.1\r\n" + LINES + b"Content-Length: " + length + b"\r\n\r\n{}"
        for length in (b"-2", b"+2", b"0x2", b"2.0", b"2 2", b"2, 2", b"", b"\x0b2", b"2_0", b"1e1", b"9" * 30)
    },
    # Codings of which only one is known, and not under HTTP/1.0.
    **{
        f"coding {coding!r}": b"POST {} HTTP/1.1\r\n" + LINES + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (b"xchunked", b"gzip", b"identity, chunked", b"chunked, identity", b"\x0bchunked", b"chunked\r\nTransfer-Encoding: x")
    },
    "chunks in 1.0": b"POST {} HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    **{
        f"chunk {chunks!r}": b"POST {} HTTP/1.1\r\n" + CHUNKED + b"\r\n" + chunks
        for chunks in (
            b"zz\r\n{}\r\n0\r\n\r\n",
            b"-2\r\n{}\r\n0\r\n\r\n",
            b"+2\r\n{}\r\n0\r\n\r\n",
            b"0x2\r\n{}\r\n0\r\n\r\n",
            b"f" * 21 + b"\r\n{}\r\n0\r\n\r\n",
            b"1\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}XX0\r\n\r\n",
            b"2\n{}\n0\n\n\r\n",
            b"2;a\nb\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\n\n",
            b"2\r\n{}\r\n0\r\nContent-Length: 3\r\n\r\n",
            b"2\r\n{}\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        )
    },
    # Lines.
    "bare LF": b"GET {} HTTP/1.1\nHost: here\n\n",
    "bare LF in the headers": b"GET {} HTTP/1.1\r\nHost: here\nX: y\r\n\r\n",
    "bare LF at the end": b"GET {} HTTP/1.1\r\nHost: here\r\n\n",
    "bare CR": b"GET {} HTTP/1.1\rHost: here\r\r\r\n\r\n",
    "folded": b"GET {} HTTP/1.1\r\n" + LINES + b"X: y\r\n z\r\n\r\n",
    "folded coding": b"POST {} HTTP/1.1\r\n" + LINES + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded first": b"GET {} HTTP/1.1\r\n " + LINES + b"\r\n",
    "space before the colon": b"GET {} HTTP/1.1\r\n" + LINES + b"X : y\r\n\r\n",
    "space before the colon of the length": b"POST {} HTTP/1.1\r\n" + LINES + b"Content-Length : 2\r\n\r\n{}",
    "tab before the colon": b"GET {} HTTP/1.1\r\n" + LINES + b"X\t: y\r\n\r\n",
    "no colon": b"GET {} HTTP/1.1\r\n" + LINES + b"X\r\n\r\n",
    "no name": b"GET {} HTTP/1.1\r\n" + LINES + b": y\r\n\r\n",
    **{f"name with {bad!r}": b"GET {} HTTP/1.1\r\n" + LINES + b"X" + bad + b": y\r\n\r\n" for bad in (b"\0", b"\xe9", b"\x7f", b"(")},
    **{f"value with {bad!r}": b"GET {} HTTP/1.1\r\n" + LINES + b"X: y" + bad + b"z\r\n\r\n" for bad in (b"\0", b"\r", b"\x01", b"\x7f")},
    # Targets, methods and versions.
    "CONNECT": b"CONNECT here:443 HTTP/1.1\r\nHost: here:443\r\n\r\n",
    "CONNECT with a path": b"CONNECT {} HTTP/1.1\r\n" + LINES + b"\r\n",
    "authority": b"GET here:443 HTTP/1.1\r\n" + LINES + b"\r\n",
    "no slash": b"GET x HTTP/1.1\r\n" + LINES + b"\r\n",
    "asterisk": b"GET * HTTP/1.1\r\n" + LINES + b"\r\n",
    "another scheme": b"GET ftp://here{} HTTP/1.1\r\n" + LINES + b"\r\n",
    "fragment": b"GET {}#x HTTP/1.1\r\n" + LINES + b"\r\n",
    **{f"target with {bad!r}": b"GET {}" + bad + b"x HTTP/1.1\r\n" + LINES + b"\r\n" for bad in (b"\x01", b"\xe9", b" ", b"\t", b"\0")},
    "control in the method": b"G\x01T {} HTTP/1.1\r\n" + LINES + b"\r\n",
    "two spaces": b"GET  {} HTTP/1.1\r\n" + LINES + b"\r\n",
    "HTTP/0.9": b"GET {}\r\n\r\n",
    **{
        f"version {version!r}": b"GET {} " + version + b"\r\n" + LINES + b"\r\n"
        for version in (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1")
    },
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # Hosts.
    "no host": b"GET {} HTTP/1.1\r\n\r\n",
    "two hosts": b"GET {} HTTP/1.1\r\n" + LINES + b"Host: there\r\n\r\n",
    "one host twice": b"GET {} HTTP/1.1\r\n" + LINES + LINES + b"\r\n",
    **{f"host {host!r}": b"GET {} HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" for host in (b"a b", b"a/b", b"me@a", b"a:b", b"[a", b"a#b")},
    # Sizes: also heads that never end.
    "long target": b"GET {}?" + b"x" * LARGEST_HEAD_BYTES + b" HTTP/1.1\r\n" + LINES + b"\r\n",
    "long header": b"GET {} HTTP/1.1\r\n" + LINES + b"X: " + b"y" * LARGEST_HEAD_BYTES + b"\r\n\r\n",
    "many headers": b"GET {} HTTP/1.1\r\n" + LINES + b"X: y\r\n" * (LARGEST_HEAD_BYTES // 6) + b"\r\n",
    "endless target": b"GET {}?" + b"x" * 200_000,
    "endless header": b"GET {} HTTP/1.1\r\n" + LINES + b"X: " + b"y" * 200_000,
    "endless headers": b"GET {} HTTP/1.1\r\n" + LINES + b"X: y\r\n" * 30_000,
    # WebSockets are opened by a GET without a body.
    "WebSocket with a body": b"GET {} HTTP/1.1\r\n"
    + LINES
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\nContent-Length: 2\r\n\r\n{}",
}


def at(target: bytes, request: bytes) -> bytes:
    line, end, rest = request.partition(b"\n")
    return line.replace(b"{}", target) + end + rest


@pytest.mark.timeout(120)
async def test_requests_out_of_shape_are_refused_once_and_end_their_connection(tmp_path: Path) -> None:
    of = settings(tmp_path)
    async with plane(tmp_path / "api") as there, hub(of):
        for port, target in ((there.port, there.query.encode()), (of.hub.port, b"/whip/app/room/1")):
            again = b"GET /again HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
            answered = {name: await heard(port, at(target, request), then=again) for name, request in REFUSED.items()}
            assert {name: one.statuses for name, one in answered.items() if one.statuses != [400]} == {}
            assert not [name for name, one in answered.items() if b"HTTP/" in one.rest]
            assert (await heard(port, again, then=b"")).statuses == [404]
        assert await there.executed("[a-z]+", "5..") == 0
        assert "Traceback" not in there.log.read_text() + (tmp_path / "hub.log").read_text()


@pytest.mark.timeout(120)
async def test_what_is_unusual_is_answered_once(tmp_path: Path) -> None:
    async with plane(tmp_path) as there:
        query, acquire = there.query.encode(), there.acquire.encode()
        body = there.body
        post = b"POST " + acquire + b" HTTP/1.1\r\n" + there.headers
        length = b"Content-Length: %d\r\n" % len(body)
        chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        many = b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%s\r\n" % (b" " * 0x1000) * 17 + b"0\r\n\r\n"
        h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        answers = {
            "length": (200, post + length + b"\r\n" + body),
            "chunks": (200, post + chunks),
            "h2c is not spoken": (200, post + h2c + length + b"\r\n" + body),
            "absolute target": (200, post.replace(b"POST ", b"POST http://there.example:81") + length + b"\r\n" + body),
            "unknown expectation": (200, post + b"Expect: the-moon\r\n" + length + b"\r\n" + body),
            "large body": (413, post + b"Content-Length: 70000\r\n\r\n" + b" " * 70_000),
            "large chunk": (413, post + b"Transfer-Encoding: chunked\r\n\r\n11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n"),
            "many chunks": (413, post + many),
            "OPTIONS *": (404, b"OPTIONS * HTTP/1.1\r\n" + there.headers + b"\r\n"),
            "no WebSocket": (
                404,
                b"GET " + query + b"/x HTTP/1.1\r\n" + there.headers + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ),
            "WebSocket with a body of nothing": (
                404,
                b"GET "
                + query
                + b"/x HTTP/1.1\r\n"
                + there.headers
                + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            ),
            "absolute target without path": (404, b"GET http://here HTTP/1.1\r\n" + there.headers + b"\r\n"),
            "bad escapes": (404, b"GET /%zz%00%ff%0d%0a HTTP/1.1\r\n" + there.headers + b"\r\n"),
            **{f"method {method!r}": (404, method + b" " + query + b" HTTP/1.1\r\n" + there.headers + b"\r\n") for method in METHODS},
        }
        for name, (status, request) in answers.items():
            told = await heard(there.port, request, then=there.last)
            assert told.statuses == [status, 404], name
            assert b"SENTINEL" in told.answers[1].body, name
        old = b"GET " + query + b" HTTP/1.0\r\n" + there.headers.replace(b"Host: here\r\n", b"") + b"\r\n"
        assert (await heard(there.port, old, then=there.last)).statuses == [404]
        assert (await heard(there.port, post + length + b"\r\n" + body[:-1], body[-1:], then=there.last)).statuses == [200, 404]
        assert "Traceback" not in there.log.read_text()


METHODS = (b"PUT", b"DELETE", b"PATCH", b"TRACE", b"BREW", b"get", b"PROPFIND")


@pytest.mark.timeout(120)
async def test_no_request_hides_in_another(tmp_path: Path) -> None:
    """Each time the hidden bytes are a whole call, and would be executed where they were taken for one: the last case shows it."""
    async with plane(tmp_path) as there:
        query, acquire = there.query.encode(), there.acquire.encode()
        body, headers = there.body, there.headers
        hidden = b"POST " + acquire + b" HTTP/1.1\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body
        size = b"Content-Length: %d\r\n\r\n" % len(hidden)
        get, post = (method + headers for method in (b"GET " + query + b" HTTP/1.1\r\n", b"POST " + acquire + b" HTTP/1.1\r\n"))
        stranger = post.replace(there.login, b"Basic bm9ib2R5Om5vdGhpbmc=")
        h2c = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        cases: dict[str, tuple[list[int], tuple[bytes, ...]]] = {
            "body of a GET": ([404, 404], (get + size, hidden)),
            "body of a call that is turned away": ([401, 404], (stranger + size, hidden)),
            "body that is none": ([400, 404], (post + size, hidden)),
            "behind an upgrade": ([400, 404], (post + h2c + size, hidden)),
            "behind an upgrade of a GET": ([404, 404], (get + h2c + size, hidden)),
            "behind a WebSocket": ([400], (get + h2c.replace(b"h2c", b"websocket") + size, hidden)),
            "in a chunk": ([400, 404], (post + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(hidden), hidden, b"\r\n0\r\n\r\n")),
            "behind 64 kB": ([413, 404], (post + b"Content-Length: %d\r\n\r\n" % (70_000 + len(hidden)) + b" " * 70_000, hidden)),
            "asked to continue": ([400, 404], (post + b"Expect: 100-continue\r\n" + size, hidden)),
            "behind the last request": ([404], (get + b"Connection: close\r\n\r\n" + hidden,)),
            "behind the last chunk of two lengths": ([400], (get + CHUNKED[12:] + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + hidden,)),
            "behind a length of nothing": ([400], (get + b"Content-Length: 0\r\n" + size + hidden,)),
            "behind a bare LF": ([400], (get + b"\n" + hidden,)),
            "behind a half last chunk": ([400], (post + CHUNKED[12:] + b"\r\n0\r\n\n" + hidden,)),
            "behind a broken chunk": ([400], (post + CHUNKED[12:] + b"\r\nx\r\n\r\n" + hidden,)),
            "behind a chunk that is broken after the answer": ([401], (stranger + CHUNKED[12:] + b"\r\n", b"x\r\n\r\n" + hidden)),
        }
        for name, (statuses, parts) in cases.items():
            told = await heard(there.port, *parts, then=there.last)
            assert told.statuses == statuses, name
            assert statuses[-1] != 404 or b"SENTINEL" in told.answers[-1].body or len(statuses) == 1, name
        assert await there.executed("acquire", "200") == 0
        assert (await heard(there.port, get + b"\r\n" + hidden, then=there.last)).statuses == [404, 200, 404]
        assert await there.executed("acquire", "200") == 1
        assert "Traceback" not in there.log.read_text()


@dataclass
class Plane:
    """A control plane, and requests to it as bytes."""

    port: int
    probes: int
    log: Path
    app: str
    login: bytes

    @property
    def headers(self) -> bytes:
        return b"Host: here\r\nAuthorization: " + self.login + b"\r\n"

    @property
    def acquire(self) -> str:
        return f"/v1/apps/{self.app}/cloud_recording/acquire"

    @property
    def query(self) -> str:
        return f"/v1/apps/{self.app}/cloud_recording/resourceid/none/sid/none/mode/mix/query"

    @property
    def last(self) -> bytes:
        """A call whose answer can be told from all others, and that ends the connection."""
        line = f"GET {self.query.replace('none', 'SENTINEL')} HTTP/1.1\r\n".encode()
        return line + self.headers + b"Connection: close\r\n\r\n"

    @property
    def body(self) -> bytes:
        return json.dumps({"cname": "room", "uid": "7", "clientRequest": {}}).encode()

    async def executed(self, call: str, status: str = "[0-9]+") -> int:
        """How many calls of that name were answered so."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"http://127.0.0.1:{self.probes}/metrics")).text
        counted = re.findall(rf'^recorder_requests_total{{call="{call}",status="{status}"}} (\S+)$', text, re.MULTILINE)
        return int(sum(map(float, counted)))


@asynccontextmanager
async def plane(folder: Path) -> AsyncIterator[Plane]:
    folder.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        (probes,) = free_ports(1)
        service = await stack.enter_async_context(api(folder, API__PROBE_PORT=probes, API__REQUESTS_PER_SECOND=1000))
        given = json.loads((service.data / "credentials.json").read_text())
        login = base64.b64encode(f"{given['customer_id']}:{given['customer_secret']}".encode())
        yield Plane(httpx.URL(service.url).port or 0, probes, service.log, given["app_id"], b"Basic " + login)
