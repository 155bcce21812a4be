"""Headless Chromium with a fake camera and microphone, on pages served from this machine."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from playwright.async_api import Browser, Page, async_playwright

PAGES = Path(__file__).parent / "pages"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--autoplay-policy=no-user-gesture-required",
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tests print enough."""


@contextlib.contextmanager
def served(folder: Path = PAGES) -> Iterator[str]:
    """Serve a folder on loopback; gives its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


async def played_by_hls_js(browser: Browser, playlist: Path) -> dict[str, Any]:
    """Play a stored playlist from start to end with hls.js; how far it came, and the frames and bytes of sound that were decoded.

    Raises:
        AssertionError: the player gave up.
    """
    for part in ("play.html", "hls.light.min.js"):
        shutil.copy(PAGES / part, playlist.parent)
    with served(playlist.parent) as url:
        page = await browser.new_page()
        try:
            await page.goto(f"{url}/play.html?{urlencode({'list': quote(playlist.name)})}")
            await page.wait_for_function("window.played", timeout=60_000)
            played: dict[str, Any] = await page.evaluate("window.played")
        finally:
            await page.close()
            for part in ("play.html", "hls.light.min.js"):
                (playlist.parent / part).unlink()
    assert played["error"] is None, played
    return played


@contextlib.asynccontextmanager
async def publishing_page(
    browser: Browser, *, hub: str, app_id: str, channel: str, uid: int, **parameters: str | int
) -> AsyncIterator[Page]:
    """A page that publishes camera and microphone; ready when its connection is up.

    Raises:
        AssertionError: the page could not publish.
    """
    query = urlencode({"hub": hub, "app": app_id, "channel": channel, "uid": uid} | parameters)
    with served() as pages:
        page = await browser.new_page()
        try:
            await page.goto(f"{pages}/publish.html?{query}")
            await page.wait_for_function("['connected', 'failed'].includes(window.publication?.state)", timeout=20_000)
            assert await page.evaluate("window.publication.error") is None
            yield page
        finally:
            await page.close()
