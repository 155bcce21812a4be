"""Brings the committed files of one recording to its store: in parallel up to a bound, playlists after what they name.

Knows nothing of recordings and playlists' contents: the caller renders them. Failures that pass are retried for ever, the
spool keeps the files meanwhile; one that does not pass ends the upload and is returned.
"""

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from storage import ObjectStore, Stored
from storage.errors import LocalFileError, PermanentStorageError, TransientStorageError

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 60

CONTENT_TYPES: Final = {
    ".m3u8": "application/x-mpegURL",
    ".ts": "video/MP2T",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".jpg": "image/jpeg",
    ".mpd": "application/dash+xml",
    ".json": "application/json",
}
_GROWING: Final = frozenset({".m3u8", ".mpd"})  # rewritten while the recording runs


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A committed file. It never changes."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Publication:
    """One version of a playlist: goes out when every file it names is verified, unless a newer version is there by then."""

    name: str
    data: bytes
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verified:
    """A file is in the store. The local one is deleted when the report of this returns."""

    name: str
    stored: Stored
    seconds: float  # since it was added
    retries: int


@dataclass(frozen=True, slots=True)
class Published:
    name: str


@dataclass(frozen=True, slots=True)
class Retrying:
    name: str
    attempt: int  # counts from 1
    error: TransientStorageError


@dataclass(frozen=True, slots=True)
class Lost:
    """A file cannot be uploaded because the spool does not have it any more."""

    name: str
    error: LocalFileError


Report = Callable[[Verified | Published | Retrying | Lost], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Destination:
    """`open` blocks; it is called when there is something to upload, and kept. `key` turns a name into an object key."""

    open: Callable[[], ObjectStore]
    key: Callable[[str], str]


@dataclass(slots=True)
class _Waiting:
    file: MediaFile
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class Uploader:
    """`run()` works until it is cancelled or refused; `add` and `publish` may be called before and meanwhile, from the event loop."""

    def __init__(
        self,
        destination: Destination,
        report: Report,
        *,
        parallel: int = 4,
        verified: Iterable[str] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`verified`: names that need no upload because an earlier life of this process did it."""
        self.refused: PermanentStorageError | None = None
        self._destination = destination
        self._report = report
        self._parallel = parallel
        self._sleep = sleep
        self._verified = set(verified)
        self._files: deque[_Waiting] = deque()
        self._publications: dict[str, Publication] = {}  # the newest version that is not out, by name
        self._publishing: set[str] = set()
        self._busy = 0
        self._work = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._store: asyncio.Future[ObjectStore] | None = None
        self._former: list[asyncio.Future[ObjectStore]] = []  # calls may still use them
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="upload")

    def add(self, file: MediaFile) -> None:
        """Upload `file`; files start in the order they are added."""
        self._files.append(_Waiting(file))
        self._wake()

    def publish(self, publication: Publication) -> None:
        """Upload this version of a playlist; an older one that is not out yet is forgotten."""
        self._publications[publication.name] = publication
        self._wake()

    def reopen(self, open_again: Callable[[], ObjectStore]) -> None:
        """Go on with another store from the next call on: the same place with other keys."""
        self._destination = replace(self._destination, open=open_again)
        if self._store:
            self._former.append(self._store)
            self._store = None

    async def settled(self) -> None:
        """Wait until nothing is left to do, or the store has refused us."""
        await self._settled.wait()

    async def run(self) -> PermanentStorageError:
        """Upload until cancelled, or until the store refuses; returns why. Files that are not verified stay where they are."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._parallel):
                    group.create_task(self._upload_for_ever())
        except* PermanentStorageError as errors:
            self.refused = next(error for error in errors.exceptions if isinstance(error, PermanentStorageError))
        finally:
            self._settled.set()
            self._threads.shutdown(wait=False, cancel_futures=True)
            for store in (*self._former, self._store):
                if store and store.done() and not store.cancelled() and not store.exception():
                    store.result().close()
        assert self.refused
        return self.refused

    def _wake(self) -> None:
        if not self.refused:
            self._settled.clear()
        self._work.set()

    async def _upload_for_ever(self) -> None:
        while True:
            job = self._next()
            if job is None:
                if not (self._busy or self._files or self._publications):
                    self._settled.set()
                self._work.clear()
                await self._work.wait()
                continue
            self._busy += 1
            try:
                await job
            finally:
                self._busy -= 1
                self._work.set()  # a playlist may have become ready

    def _next(self) -> Awaitable[None] | None:
        """Playlists first: they are small, and viewers wait for them."""
        for name in self._publications:
            if self._ready(name):
                self._publishing.add(name)
                return self._publish(name)
        return self._put(self._files.popleft()) if self._files else None

    def _ready(self, name: str) -> bool:
        # One version at a time: an older one that is still on its way would overwrite a newer one.
        return name not in self._publishing and self._publications[name].names <= self._verified

    async def _put(self, waiting: _Waiting) -> None:
        file = waiting.file
        content_type, cache_control = describe(file.name)

        def put(store: ObjectStore) -> Stored:
            return store.put(
                self._destination.key(file.name), file.path, content_type=content_type, cache_control=cache_control, sha256=file.sha256
            )

        for attempt in itertools.count(1):
            try:
                stored = await self._call(put)
            except TransientStorageError as error:
                await self._wait(Retrying(file.name, attempt, error))
            except LocalFileError as error:
                await self._report(Lost(file.name, error))
                return
            else:
                self._verified.add(file.name)
                seconds = asyncio.get_running_loop().time() - waiting.since
                await self._report(Verified(file.name, stored, seconds, retries=attempt - 1))
                file.path.unlink(missing_ok=True)
                return

    async def _publish(self, name: str) -> None:
        content_type, cache_control = describe(name)
        newest = self._publications.pop(name)
        try:
            for attempt in itertools.count(1):

                def put(store: ObjectStore, data: bytes = newest.data) -> Stored:
                    return store.put_bytes(self._destination.key(name), data, content_type=content_type, cache_control=cache_control)

                try:
                    await self._call(put)
                except TransientStorageError as error:
                    await self._wait(Retrying(name, attempt, error))
                else:
                    await self._report(Published(name))
                    return
                if name in self._publications and self._publications[name].names <= self._verified:
                    newest = self._publications.pop(name)
        finally:
            self._publishing.discard(name)

    async def _wait(self, retrying: Retrying) -> None:
        await self._report(retrying)
        await self._sleep(wait_seconds(retrying.attempt, random.random()))  # noqa: S311  # jitter, not a secret

    async def _call(self, call: Callable[[ObjectStore], Stored]) -> Stored:
        """Run in a thread. A call is never given up half-way: stores bound their calls, and a late PUT would overwrite a newer one."""
        store = await self._opened()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, store)

    async def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = asyncio.get_running_loop().run_in_executor(self._threads, self._destination.open)
        return await asyncio.shield(self._store)


def describe(name: str) -> tuple[str, str]:
    """Content type and cache header of a file, by its name."""
    suffix = Path(name).suffix
    cache = "max-age=3" if suffix in _GROWING else "max-age=31536000, immutable"
    return CONTENT_TYPES.get(suffix, "application/octet-stream"), cache


def wait_seconds(attempt: int, chance: float) -> float:
    """How long to wait after failure number `attempt`: 1, 2, 4 … 60 s, less up to half of it by `chance` (0 to 1)."""
    return float(min(LONGEST_WAIT_SECONDS, 2.0 ** min(attempt - 1, 10)) * (1 - chance / 2))
