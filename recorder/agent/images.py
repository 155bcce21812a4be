"""The images that layouts name by URL: fetched once per recording by short-lived helpers, and told to the worker when there.

Nothing waits for them. What cannot be had is left out, and reported.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, get_args

from recorder.log import redact
from recorder.protocol import IMAGES_FOLDER, ImageFailed, ImageFault, ImageReady
from recorder.spec import Canvas, Layout

log = logging.getLogger(__name__)


SECONDS: Final = 5.0  # for one image, from the start of its helper to its last pixel

# (URL, where to, the canvas it is for) -> width and height. Raises ImageFailure.
Fetch = Callable[[str, Path, Canvas], Awaitable[tuple[int, int]]]

_NODE_PARALLEL: Final = 4  # each may take 640 MiB
_PARALLEL: Final = 2  # of one recording, so that one does not hold up all others
_KEPT: Final = 16  # images that no layout names any more, in case one names them again
_MOST_BYTES: Final = 64 << 20  # of one recording's pixels, here and again in its worker: 21 pictures of 1920 x 1080
_MOST_REPORTED: Final = 100  # failures of one recording told to the control plane: a customer can make any number of them
_MOST_SAID: Final = 4096  # bytes of a helper's last words
_MOST_SIDE: Final = 4096
_OUT_OF_TIME: Final = (signal.SIGALRM, signal.SIGXCPU)  # by its own limits
_ROOT: Final = Path(__file__).parents[2]
# No user's packages, nothing from the folder it is started in.
_COMMAND: Final = (sys.executable, "-s", "-P", "-B", "-W", "ignore", "-m", "recorder.agent.image_helper")
_PASSED_ON: Final = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")  # of the environment: nothing else is needed, or meant for it


class ImageFailure(Exception):
    """An image cannot be had; the message says why."""

    def __init__(self, why: ImageFault, detail: str) -> None:
        super().__init__(detail)
        self.why: ImageFault = why


class ImageHelpers:
    """Starts helpers. One for the node: it bounds how many there are."""

    def __init__(self, allowed_networks: Sequence[str], command: Sequence[str] = _COMMAND) -> None:
        self._networks = list(allowed_networks)
        self._command = command
        self._slots = asyncio.Semaphore(_NODE_PARALLEL)

    async def fetch(self, url: str, target: Path, canvas: Canvas) -> tuple[int, int]:
        """Have the image's pixels written to `target`; returns their width and height.

        Raises:
            ImageFailure: it cannot be had.
        """
        request = {"url": url, "networks": self._networks, "width": canvas.width, "height": canvas.height, "seconds": SECONDS}
        async with self._slots:
            try:
                with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as pixels:  # noqa: ASYNC230, PTH123  # local
                    return _checked(target, *await self._run(json.dumps(request).encode() + b"\n", pixels.fileno()))
            except OSError as error:
                raise ImageFailure("download", f"no helper or no place for it ({type(error).__name__})") from error

    async def _run(self, request: bytes, pixels: int) -> tuple[int, bytes]:
        """The exit code and the last words of a helper."""
        environment = {name: value for name in _PASSED_ON if (value := os.environ.get(name))}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=pixels,
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"PYTHONPATH": str(_ROOT)},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(SECONDS):
                return await _converse(process, request)
        except TimeoutError as error:
            raise ImageFailure("time", f"not there within {SECONDS:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it may have started
            await process.wait()


class Images:
    """Those of one recording. `run()` fetches until it is cancelled; `want` says which."""

    def __init__(
        self,
        folder: Path,
        fetch: Fetch,
        *,
        tell: Callable[[ImageReady], Awaitable[None]],
        emit: Callable[[ImageFailed], Awaitable[None]],
    ) -> None:
        """`tell` reaches the worker, if there is one; `emit` the control plane."""
        self._folder = folder / IMAGES_FOLDER
        self._fetch = fetch
        self._tell = tell
        self._emit = emit
        self._canvas = Canvas()
        self._wanted: tuple[str, ...] = ()
        self._ready: dict[str, ImageReady] = {}  # those that were wanted last come last
        self._coming: set[str] = set()
        self._failed: set[str] = set()  # of the layout there is: a later one that names them tries again
        self._told: set[str] = set()  # what the worker there is has got and not forgotten with a layout since
        self._reported: set[str] = set()
        self._count = 0
        self._changed = asyncio.Event()

    def want(self, layout: Layout, canvas: Canvas) -> None:
        """Fetch what this layout names; what others named is no longer needed."""
        self._canvas = canvas
        self._wanted = layout.image_urls
        self._told.intersection_update(self._wanted)
        self._failed.clear()
        self._ready = {url: image for url, image in self._ready.items() if url not in self._wanted} | self._of(self._wanted)
        self._make_room(0)
        self._changed.set()

    async def give(self, layout: Layout) -> None:
        """Tell the worker of those images of a layout to come that are there and that it does not have."""
        for url, image in self._of(layout.image_urls).items():
            if url not in self._told:
                self._told.add(url)
                await self._tell(image)

    def worker_is_here(self) -> None:
        """A worker has connected, perhaps one that knows nothing yet."""
        self._told.clear()
        self._changed.set()

    async def run(self) -> None:
        # Of a former life of this agent; nobody knows any more what is in there.
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                missing = [url for url in self._wanted if not (url in self._ready or url in self._coming or url in self._failed)]
                for url in missing[: _PARALLEL - len(self._coming)]:
                    self._coming.add(url)
                    group.create_task(self._get(url))
                await self._tell_all()
                await self._changed.wait()

    async def _tell_all(self) -> None:
        while untold := [url for url in self._wanted if url in self._ready and url not in self._told]:
            self._told.add(untold[0])
            await self._tell(self._ready[untold[0]])

    async def _get(self, url: str) -> None:
        try:
            await self._try(url)
        finally:
            self._coming.discard(url)
            self._changed.set()

    async def _try(self, url: str) -> None:
        name = str(self._count)
        self._count += 1
        target = self._folder / name
        try:
            with contextlib.suppress(OSError):  # then there is no place for the file, and that is told
                self._folder.mkdir(mode=0o700, exist_ok=True)
            width, height = await self._fetch(url, target, self._canvas)
            self._admit(width * height * 3 // 2)
        except ImageFailure as failure:
            target.unlink(missing_ok=True)
            self._failed.add(url)
            await self._report(url, failure)
            return
        self._ready[url] = ImageReady(url=url, file=name, width=width, height=height)
        log.info("image ready", extra={"url": redact(url), "width": width, "height": height})

    def _admit(self, size: int) -> None:
        if not self._make_room(size):
            raise ImageFailure("picture", f"the layout's images take more than {_MOST_BYTES >> 20} MiB on the canvas")

    def _make_room(self, size: int) -> bool:
        """For `size` bytes, by those that no layout names any more; tell whether there is."""
        others = [url for url in self._ready if url not in self._wanted]
        taken = size + sum(image.width * image.height * 3 // 2 for image in self._ready.values())
        for left, url in zip(range(len(others), 0, -1), others, strict=True):
            if left <= _KEPT and taken <= _MOST_BYTES:
                break
            image = self._ready.pop(url)
            taken -= image.width * image.height * 3 // 2
            (self._folder / image.file).unlink(missing_ok=True)
        return taken <= _MOST_BYTES

    async def _report(self, url: str, failure: ImageFailure) -> None:
        log.warning("an image of the layout is left out", extra={"url": redact(url), "why": failure.why, "detail": str(failure)})
        if url not in self._reported and len(self._reported) < _MOST_REPORTED:
            self._reported.add(url)
            await self._emit(ImageFailed(why=failure.why, detail=f"{redact(url)}: {failure}"))

    def _of(self, urls: Sequence[str]) -> dict[str, ImageReady]:
        return {url: self._ready[url] for url in urls if url in self._ready}


async def _converse(process: Process, request: bytes) -> tuple[int, bytes]:
    assert process.stdin
    assert process.stderr
    with contextlib.suppress(ConnectionError):  # how it ended says more
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    said = b""
    while chunk := await process.stderr.read(_MOST_SAID):
        said = (said + chunk)[-_MOST_SAID:]
    return await process.wait(), said


def _checked(target: Path, code: int, said: bytes) -> tuple[int, int]:
    """Width and height as the helper tells them, if it can be believed: it has handled what a stranger sent."""
    if code < 0:
        raise ImageFailure("time" if -code in _OUT_OF_TIME else "picture", f"its helper ended by signal {-code}")
    try:
        words = json.loads(said.rsplit(b"\n", 2)[-2])
        if code != 0:
            raise ImageFailure(words["why"] if words["why"] in get_args(ImageFault) else "picture", str(words["detail"])[:200])
        width, height = int(words["width"]), int(words["height"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ImageFailure("picture", f"its helper ended with exit code {code}") from error
    whole = all(2 <= side <= _MOST_SIDE and side % 2 == 0 for side in (width, height))
    if not whole or target.stat().st_size != width * height * 3 // 2:
        raise ImageFailure("picture", "its helper made something else")
    return width, height
