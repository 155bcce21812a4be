"""Images from servers that mean harm: rows M5, M6 and W15 of the faults, through real helper processes."""

import asyncio
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from recorder.agent.images import SECONDS, ImageFailure, ImageHelpers
from recorder.outbound import AddressPolicy, DownloadFailed, ForbiddenAddress, download
from recorder.spec import Canvas
from tests.hostile_urls import hostile_urls
from tests.image_server import ImageServer, image_server, png, whole

ALLOWED = ("127.0.0.0/8",)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with image_server() as running:
        yield running


async def fetched(url: str, target: Path, networks: tuple[str, ...] = ALLOWED) -> tuple[int, int]:
    return await ImageHelpers(networks).fetch(url, target, Canvas(width=640, height=360))


async def failure(url: str, target: Path, networks: tuple[str, ...] = ALLOWED) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        await fetched(url, target, networks)
    return caught.value


async def test_an_image_becomes_raw_pixels(server: ImageServer, tmp_path: Path) -> None:
    server.answers["/a%20picture.png?v=%C3%A4"] = whole(png((255, 255, 255), 64, 48), Content_Type="text/html")  # by content only
    assert await fetched(server.url("/a picture.png?v=ä"), tmp_path / "0") == (64, 48)
    pixels = (tmp_path / "0").read_bytes()
    assert pixels == b"\xff" * 64 * 48 + b"\x80" * 32 * 24 * 2  # full range
    assert (tmp_path / "0").stat().st_mode & 0o777 == 0o600


async def test_chunks_and_a_body_without_length(server: ImageServer, tmp_path: Path) -> None:
    body = png((1, 2, 3))
    server.answers["/chunked"] = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    server.answers["/bare"] = HEAD + b"\r\n" + body
    for path in server.answers:
        assert await fetched(server.url(path), tmp_path / "0") == (320, 180)


def bomb(side: int, bits: int = 8) -> bytes:
    """A small PNG that says it is `side` x `side`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0)
    rows = zlib.compress(bytes(min(side * side * 3, 60_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>"
MIB = 1 << 20


@pytest.mark.parametrize(
    ("answer", "why", "word"),
    [
        (whole(bomb(30_000)), "picture", "4096"),
        (whole(SVG, Content_Type="image/png"), "picture", "not a JPEG"),
        (whole(b"", "HTTP/1.1 302 Found", Location="/good"), "download", "302"),
        (whole(png((0, 0, 0)), "HTTP/1.1 206 Partial Content"), "download", "206"),
        (HEAD + b"Content-Length: 1000000000\r\n\r\n", "download", "larger"),
        (HEAD + b"\r\n" + bytes(6 * MIB + 1), "download", "larger"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + zlib.compress(bytes(MIB)), "download", "compressed"),
        (HEAD + b"Content-Length: 99999\r\n\r\n" + png((0, 0, 0)), "download", "cut off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "download", "no answer"),
        (HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n", "download", "no answer"),
        (b"", "download", "no answer"),
    ],
    ids=["bomb", "svg", "redirect", "partial", "length", "endless", "gzip", "cut", "ssh", "header", "nothing"],
)
async def test_hostile_answers(server: ImageServer, tmp_path: Path, answer: bytes, why: str, word: str) -> None:
    server.answers |= {"/bad": answer, "/good": whole(png((0, 0, 0)))}
    found = await failure(server.url("/bad"), tmp_path / "0")
    assert (found.why, word in str(found)) == (why, True), str(found)
    assert server.asked == ["/bad"]


@pytest.mark.parametrize(
    "pieces",
    [
        [(0.0, HEAD + b"\r\n"), (0.05, b"\x89")],
        [(0.0, HEAD), (0.05, b"X: y\r\n")],
        [(0.0, HEAD + b"\r\n"), (60.0, b"")],
    ],
    ids=["body", "headers", "silence"],
)
async def test_what_drips_is_over_after_five_seconds(server: ImageServer, tmp_path: Path, pieces: list[tuple[float, bytes]]) -> None:
    server.answers["/drip"] = pieces
    before = time.monotonic()
    found = await failure(server.url("/drip"), tmp_path / "0")
    assert found.why in ("time", "download")  # headers without end are too many before they take too long
    assert time.monotonic() - before < SECONDS + 1


async def test_the_largest_images_fit_into_the_limits(server: ImageServer, tmp_path: Path) -> None:
    """4096 x 4096 with noise, progressive: what takes a decoder most memory. It is made smaller for the canvas."""
    noise = Image.effect_noise((1024, 1024), 90).resize((4096, 4096), Image.Resampling.NEAREST).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", progressive=True, quality=40, subsampling=0)
    assert len(buffer.getvalue()) < 6 * MIB
    server.answers["/large"] = whole(buffer.getvalue())
    width, height = await fetched(server.url("/large"), tmp_path / "0")
    assert width == height == 640


async def test_no_form_of_an_address_leads_inside(tmp_path: Path) -> None:
    """The canary listens on every address of this machine; it must see nothing."""

    def tried(url: str) -> None:
        with pytest.raises((ForbiddenAddress, DownloadFailed)):
            download(url, AddressPolicy(()), most_bytes=1, seconds=SECONDS)

    async with image_server("0.0.0.0") as canary, image_server("::") as canary6:
        for port in (canary.port, canary6.port):  # what a helper does with a URL, without one: they take a second each
            for url in hostile_urls(port):
                await asyncio.to_thread(tried, url)
        for form in ("http://127.0.0.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "file:///etc/passwd"):
            assert (await failure(form.replace("{port}", str(canary.port)), tmp_path / "0", ())).why in ("address", "download")
        assert (canary.connections, canary6.connections) == (0, 0)


async def test_a_name_that_changes_its_address_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row M6, rebinding: what was looked up and admitted is connected to, whatever the name means a moment later."""
    real, asked = socket.getaddrinfo, []

    def rebinding(host: str, *rest: Any, **options: Any) -> Any:
        if host != "rebind.test":
            return real(host, *rest, **options)
        asked.append(host)
        return real("127.0.0.2" if len(asked) == 1 else "127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with image_server("127.0.0.2") as admitted:
        canary_socket = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", admitted.port)
        admitted.answers["/"] = whole(b"what was asked for")
        policy = AddressPolicy(("127.0.0.2/32",))
        found = await asyncio.to_thread(download, f"http://rebind.test:{admitted.port}/", policy, most_bytes=100, seconds=SECONDS)
        assert (found, len(asked)) == (b"what was asked for", 1)
        with pytest.raises(ForbiddenAddress):
            await asyncio.to_thread(download, f"http://rebind.test:{admitted.port}/", policy, most_bytes=100, seconds=SECONDS)
        canary_socket.close()


@pytest.mark.parametrize(
    "form", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/", "http://127.1:{port}/"]
)
async def test_the_operators_networks_are_let_through(server: ImageServer, tmp_path: Path, form: str) -> None:
    server.answers["/"] = whole(png((0, 0, 0)))
    assert await fetched(form.replace("{port}", str(server.port)), tmp_path / "0") == (320, 180)
    assert (await failure(form.replace("{port}", str(server.port)), tmp_path / "0", ("10.0.0.0/8",))).why == "address"
    assert server.connections == 1


@pytest.mark.parametrize(
    "form",
    [
        "ftp://127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_GET%20/",
        "//127.0.0.1:{port}/",
        "http://user:pw@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\r\nHost: x",
        "http://127.0.0.1:25/",
    ],
)
async def test_even_there_only_the_web_is_asked(server: ImageServer, tmp_path: Path, form: str) -> None:
    server.answers["/"] = whole(png((0, 0, 0)))
    found = await failure(form.replace("{port}", str(server.port)), tmp_path / "0")
    assert re.search("URL|port", str(found)), str(found)
    assert server.connections == 0


async def test_an_allowed_server_cannot_send_us_elsewhere(server: ImageServer, tmp_path: Path) -> None:
    async with image_server("127.0.0.2") as canary:
        server.answers["/"] = whole(b"", "HTTP/1.1 301 Moved Permanently", Location=canary.url("/", "127.0.0.2"))
        await failure(server.url("/"), tmp_path / "0", ("127.0.0.1/32",))
        assert canary.connections == 0


async def test_proxies_of_the_environment_are_not_used(server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with image_server() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        server.answers["/"] = whole(png((0, 0, 0)))
        await fetched(server.url("/"), tmp_path / "0")
        assert proxy.connections == 0


async def test_a_helper_that_hangs_is_killed_after_five_seconds(tmp_path: Path) -> None:
    """Row W15: it does not even end when it is asked to."""
    hang = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    hang += "open(sys.stdin.readline().split('\"')[3], 'w').write(str(os.getpid())); time.sleep(60)"
    before = time.monotonic()
    with pytest.raises(ImageFailure) as caught:
        await ImageHelpers((), (sys.executable, "-c", hang)).fetch(str(tmp_path / "pid"), tmp_path / "0", Canvas())
    assert caught.value.why == "time"
    assert SECONDS - 0.5 < time.monotonic() - before < SECONDS + 2
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_helper_that_was_taken_over_is_not_believed(tmp_path: Path) -> None:
    for said in (
        "{}",
        '{"width": 100000, "height": 2}',
        '{"width": 3, "height": 3}',
        '{"width": 64, "height": 64}',
        "x" * 100_000,
        "[" * 5000,
    ):
        command = (sys.executable, "-c", f"import sys; sys.stderr.write({said!r} + '\\n')")
        with pytest.raises(ImageFailure) as caught:
            await ImageHelpers((), command).fetch("http://x/", tmp_path / "0", Canvas())
        assert caught.value.why == "picture"


async def test_a_helper_inherits_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RECORDER_MASTER_KEY", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    tell = (
        "import json, os, sys; json.dump([dict(os.environ), os.listdir('/proc/self/fd')], open(sys.stdin.readline().split('\"')[3], 'w'))"
    )
    with socket.socket(), pytest.raises(ImageFailure):
        await ImageHelpers((), (sys.executable, "-c", tell)).fetch(str(tmp_path / "told"), tmp_path / "0", Canvas())
    environment, descriptors = json.loads((tmp_path / "told").read_text())
    assert set(environment) <= {"PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "LC_CTYPE"}
    assert len(descriptors) <= 5  # stdin, pixels, last words, and the two of looking


@pytest.mark.parametrize(
    ("deed", "end"),
    [
        ("open('/etc/passwd')", "Too many open files"),
        ("import socket; socket.socket()", "Too many open files"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("os.write(1, bytes(30 << 20)); os.write(1, b'x')", "signal 25"),  # SIGXFSZ
        ("__import__('time').sleep(30)", "signal 14"),
        ("while True: pass", "signal (14|24)"),
    ],
)
def test_limits_of_a_helper(tmp_path: Path, deed: str, end: str) -> None:
    script = "import os\nimport recorder.agent.image_helper as h\nh._limit(1.0)\nh._seal()\nsignal = __import__('signal')\n"
    script += f"signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n{deed}\n"
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run([sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, timeout=20, check=False)
    assert re.search(end, done.stderr.decode() + f"signal {-done.returncode}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_helper_of_root_is_nobody_and_starts_no_process(tmp_path: Path) -> None:
    script = "import os\nimport recorder.agent.image_helper as h\nh._limit(5.0)\nh._drop_root()\n"
    script += "print(os.getresuid(), os.getgroups())\nos.fork()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.stdout == b"(65534, 65534, 65534) []\n"
    assert b"BlockingIOError" in done.stderr


@pytest.mark.parametrize("end", ["time.sleep(30)", "print(child.pid, file=sys.stderr)"])
async def test_what_a_helper_started_ends_with_it(tmp_path: Path, end: str) -> None:
    note = tmp_path / "child"
    deed = "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60'], stderr=subprocess.DEVNULL); "
    deed += f"open({str(note)!r}, 'w').write(str(child.pid)); {end}"
    fetching = asyncio.ensure_future(ImageHelpers((), (sys.executable, "-c", deed)).fetch("http://x/", tmp_path / "0", Canvas()))
    async with asyncio.timeout(15):
        with pytest.raises(ImageFailure):
            await fetching
        while Path(f"/proc/{note.read_text()}/cmdline").exists() and Path(f"/proc/{note.read_text()}/cmdline").read_bytes():
            await asyncio.sleep(0.02)


async def test_a_fetch_that_is_cancelled_leaves_no_helper_behind(tmp_path: Path) -> None:
    """At whatever moment, also while it is being started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    for turns in range(16):
        command = (sys.executable, "-c", "import time; time.sleep(30)")
        fetching = asyncio.ensure_future(ImageHelpers((), command).fetch("http://x/", tmp_path / "0", Canvas()))
        for _ in range(turns):
            await asyncio.sleep(0)
        fetching.cancel()
        async with asyncio.timeout(3):
            with pytest.raises(asyncio.CancelledError):
                await fetching
    async with asyncio.timeout(5):
        while set(children.read_text().split()) - before:
            await asyncio.sleep(0.05)


async def test_many_at_once_take_turns(server: ImageServer, tmp_path: Path) -> None:
    server.answers["/"] = whole(png((0, 0, 0)))
    helpers = ImageHelpers(ALLOWED)
    found = await asyncio.gather(*(helpers.fetch(server.url("/"), tmp_path / str(i), Canvas()) for i in range(10)))
    assert set(found) == {(320, 180)}
