"""A receiver of callbacks in a process of its own that takes nothing which is not as described: signatures, members, types, order.

    python -m tests.strict_receiver

It says its port first. Each line of its input is a command in JSON, each further line of its output an answer:

    {"do": "secret", "secret": "…"}   what notices are signed with
    {"do": "report"}                  everything that came, and what was wrong with it
"""

import asyncio
import contextlib
import hmac
import json
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.strict_events import Notice, check_notice, check_order, notice_adapter


@dataclass(frozen=True, slots=True)
class Report:
    problems: list[str]
    notices: list[Notice]

    def of(self, sid: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.sid == sid]

    def details(self, sid: str, *kinds: int) -> list[dict[str, Any]]:
        return [notice.payload.details for notice in self.of(sid) if notice.eventType in kinds]


class StrictReceiver:
    """The test's side of the process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/callbacks"

    async def expect(self, secret: str) -> None:
        await self._ask(do="secret", secret=secret)

    async def report(self) -> Report:
        answer = await self._ask(do="report")
        return Report(answer["problems"], [notice_adapter.validate_python(one) for one in answer["notices"]])

    async def until_exit(self, sid: str, seconds: float = 20) -> Report:
        """What came, when the recording's last notice has."""
        async with asyncio.timeout(seconds):
            while True:
                report = await self.report()
                if report.details(sid, 11):
                    return report
                await asyncio.sleep(0.1)

    async def _ask(self, **command: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return json.loads(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def strict_receiver() -> AsyncIterator[StrictReceiver]:
    """A receiver that listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.strict_receiver"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=1 << 26,
        cwd=Path(__file__).parents[1],
    )
    try:
        assert process.stdout
        yield StrictReceiver(process, int(await process.stdout.readline()))
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


class _Book:
    def __init__(self) -> None:
        self.secret = ""
        self.problems: list[str] = []
        self.notices: dict[str, list[Notice]] = defaultdict(list)  # by sid
        self._turn = threading.Lock()

    def take(self, headers: Any, body: bytes) -> int:
        """The status to answer with."""
        with self._turn:
            try:
                self._check(headers, body)
            except (AssertionError, ValueError, KeyError):
                self.problems.append(f"{traceback.format_exc(limit=-2)}{body!r}")
                return 400
        return 200

    def _check(self, headers: Any, body: bytes) -> None:
        for name, digest in (("Agora-Signature", "sha1"), ("Agora-Signature-V2", "sha256")):
            assert headers[name] == hmac.new(self.secret.encode(), body, digest).hexdigest(), name
        assert headers["Content-Type"] == "application/json"
        notice = check_notice(body)
        came = self.notices[notice.sid]
        came.append(notice)
        if notice.eventType == 11:
            check_order(came)
        else:
            assert 11 not in {one.eventType for one in came}, "after the end"

    def obey(self, command: dict[str, Any]) -> object:
        with self._turn:
            if command["do"] == "secret":
                self.secret = command["secret"]
                return None
            came = [notice.model_dump() for notices in self.notices.values() for notice in notices]
            return {"problems": self.problems, "notices": came}


def _main() -> None:
    book = _Book()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status = book.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        print(json.dumps(book.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    _main()
