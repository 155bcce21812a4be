"""Brings the committed files of one recording to its store: in parallel up to a bound, playlists after what they name.

Knows nothing of recordings and playlists' contents: the caller renders them. Failures that pass are retried for ever, the
spool keeps the files meanwhile. After some minutes of them files go to the backup store, if there is one, and from there to the
customer's when that is back. A store that refuses us gets nothing more until it is opened with other keys.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from storage import ObjectStore, Stored
from storage.errors import AlreadyThere, LocalFileError, PermanentStorageError, StorageError, TransientStorageError
from storage.pace import Pace
from storage.sealed import Seal

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
SEALED_TYPE: Final = "application/octet-stream"
_GROWING: Final = frozenset({".m3u8", ".mpd"})  # rewritten while the recording runs
_REWRITTEN: Final = "max-age=3"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A committed file. It never changes."""

    name: str
    path: Path
    sha256: str
    size: int = 0  # bytes
    seal: Seal | None = None  # it lies sealed at `path`, and so it goes to the backup store; `sha256` and `size` are of the plain bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """One version of a playlist: goes out when every file it names is verified, unless a newer version is there by then."""

    name: str
    data: bytes
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verified:
    """A file is in the customer's store. The local one is deleted when the report of this returns, and so is a backup copy."""

    name: str
    stored: Stored
    seconds: float  # since it was added
    retries: int


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A file is in the backup store. The local one is deleted when the report of this returns."""

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
class Diverted:
    """The customer's store has failed for too long: the file is now sent to the backup store."""

    name: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A file cannot be uploaded because neither the spool nor the backup store has it any more."""

    name: str
    error: StorageError


@dataclass(frozen=True, slots=True)
class Occupied:
    """The store keeps another object under the file's key and lets nobody replace it. The file stays where it is."""

    name: str
    error: AlreadyThere


@dataclass(frozen=True, slots=True)
class RefusedByStore:
    """Nothing more goes to the customer's store until it is opened again. Files stay where they are."""

    error: PermanentStorageError


UploadReport = Verified | BackedUp | Published | Retrying | Diverted | Lost | Occupied | RefusedByStore
Report = Callable[[UploadReport], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Destination:
    """`open` blocks; it is called when there is something to upload, and kept. `key` turns a name into an object key."""

    open: Callable[[], ObjectStore]
    key: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Backup:
    """Where files go while the customer's store fails."""

    destination: Destination
    folder: Path  # where files lie on their way back; made when there is one
    after_seconds: float = 300  # of failures without a success in between


@dataclass(slots=True)
class _Waiting:
    file: MediaFile
    since: float
    failing_since: float | None = None
    retries: int = 0


class _Left(TransientStorageError):
    """The place was left while this was on its way there, so that whether it is there does not count."""


class _Store:
    """A store that is opened at its first use, in a thread."""

    def __init__(self, destination: Destination, threads: ThreadPoolExecutor) -> None:
        self.key = destination.key
        self.left = False  # for another place, perhaps: nothing goes there any more
        self._open = destination.open
        self._threads = threads
        self._opened: asyncio.Future[ObjectStore] | None = None

    async def call(self, call: Callable[[ObjectStore], T]) -> T:
        """Run in a thread. A call is never given up half-way: stores bound their calls, and a late PUT would overwrite a newer one."""
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._opened = loop.run_in_executor(self._threads, self._open)
        store = await asyncio.shield(self._opened)
        return await loop.run_in_executor(self._threads, call, store)

    def close(self) -> None:
        opened = self._opened
        if opened and opened.done() and not opened.cancelled() and not opened.exception():
            opened.result().close()


class Uploader:
    """`run()` works until it is cancelled; everything else may be called before and meanwhile, from the event loop."""

    def __init__(
        self,
        destination: Destination,
        report: Report,
        *,
        parallel: int = 4,
        verified: Iterable[str] = (),
        backup: Backup | None = None,
        pace: Pace | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`verified`: names that need no upload because an earlier life of this process did it."""
        self.refused: PermanentStorageError | None = None
        self._destination = destination
        self._report = report
        self._parallel = parallel
        self._backup = backup
        self._pace = pace or Pace()
        self._now = now
        self._sleep = sleep
        self._verified = set(verified)
        self._files: deque[_Waiting] = deque()
        self._copies: deque[_Waiting] = deque()  # in the backup store, oldest first
        self._lists: dict[str, bytes] = {}  # to be kept in the backup store
        self._publications: dict[str, Publication] = {}  # the newest version that is not out, by name
        self._publishing: set[str] = set()
        self._busy = 0
        self._failing_since: float | None = None  # the first failure after the last success
        self._work = asyncio.Event()
        self._behind = asyncio.Event()
        self._settled = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._threads = ThreadPoolExecutor(parallel + 1, thread_name_prefix="upload")
        self._store = _Store(destination, self._threads)
        self._former: list[_Store] = []  # calls may still use them
        self._backup_store = _Store(backup.destination, self._threads) if backup else None
        self._look()

    @property
    def diverting(self) -> bool:
        """The customer's store has failed for so long that files go to the backup store."""
        return self._is_over_due(self._failing_since)

    @property
    def behind(self) -> bool:
        """Something is in the backup store, or waits for a store that is away, and is not at the customer's."""
        return bool(self._copies or self._publications)

    def add(self, file: MediaFile) -> None:
        """Upload `file`; files start in the order they are added."""
        self._files.append(_Waiting(file, self._now()))
        self._look()

    def add_copy(self, file: MediaFile) -> None:
        """Bring `file`, which an earlier life of this process put into the backup store, to the customer's."""
        self._copies.append(_Waiting(file, self._now()))
        self._look()

    def publish(self, publication: Publication) -> None:
        """Upload this version of a playlist; an older one that is not out yet is forgotten."""
        self._publications[publication.name] = publication
        self._look()

    def keep(self, name: str, data: bytes) -> None:
        """Put a playlist into the backup store, beside the files there."""
        if self._backup_store:
            self._lists[name] = data
            self._look()

    @property
    def left(self) -> bool:
        """Nothing goes to the customer's store until `reopen`."""
        return self._store.left

    def leave(self) -> None:
        """Bring nothing more to the customer's store until `reopen`; from here on nothing of what is under way is `Verified`."""
        self._store.left = True
        self._look()

    def reopen(self, open_again: Callable[[], ObjectStore], key: Callable[[str], str] | None = None) -> None:
        """Go on with another store from the next call on; also after a refusal."""
        self._destination = replace(self._destination, open=open_again, key=key or self._destination.key)
        self._former.append(self._store)
        self._store = _Store(self._destination, self._threads)
        self.refused = None
        self._look()

    async def settled(self) -> None:
        """Wait until every file is in a store and every playlist out, or waits for a store that is away; or until we are refused."""
        await self._settled.wait()

    async def caught_up(self) -> None:
        """Wait until everything is at the customer's."""
        await self._caught_up.wait()

    async def ask(self, call: Callable[[ObjectStore], T]) -> T:
        """Run `call` with the customer's store in a thread.

        Raises:
            StorageError
        """
        return await self._store.call(call)

    async def clear_backup(self, names: Iterable[str]) -> None:
        """Delete what is left of these files in the backup store; it may be there or not."""
        backup = self._backup_store
        if backup is None:
            return
        for key in [backup.key(name) for name in names]:
            try:
                await backup.call(lambda store, key=key: store.delete(key))  # type: ignore[misc]  # the default binds the loop's value
            except StorageError as error:
                log.warning("a copy stays in the backup store", extra={"key": key, "error": str(error)})

    async def run(self) -> None:
        """Upload until cancelled. Files that are not verified stay where they are."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._parallel):
                    group.create_task(self._upload_for_ever())
                group.create_task(self._catch_up_for_ever())
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for store in (*self._former, self._store, self._backup_store):
                if store:
                    store.close()

    # ---- what is to be done ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Something has changed: wake who waits for it."""
        quiet = not (self._busy or self._files or self._lists)
        out = not self._publications
        _set(self._settled, on=bool(self.refused) or (quiet and (out or self.diverting)))
        _set(self._caught_up, on=quiet and out and not self._copies and not self.refused)
        self._work.set()
        _set(self._behind, on=not self.refused and (bool(self._copies) or (not out and self.diverting)))

    async def _upload_for_ever(self) -> None:
        while True:
            job = self._next()
            if job is None:
                self._work.clear()
                await self._work.wait()
                continue
            self._busy += 1
            try:
                await job
            finally:
                self._busy -= 1
                self._look()  # a playlist may have become ready

    def _next(self) -> Awaitable[None] | None:
        """Playlists first: they are small, and viewers wait for them."""
        if self._lists:
            return self._keep(next(iter(self._lists)))
        if self.refused or self.left:
            return None
        ready = None if self.diverting else self._ready()
        if ready:
            self._publishing.add(ready)
            return self._publish(ready)
        return self._put(self._files.popleft()) if self._files else None

    def _ready(self) -> str | None:
        """A playlist all of whose files are there. One version at a time: an older one would overwrite a newer one."""
        found = (one for one in self._publications.values() if one.name not in self._publishing and one.names <= self._verified)
        return next((one.name for one in found), None)

    # ---- to the customer's store, or past it ----------------------------------------------------------------------

    async def _put(self, waiting: _Waiting) -> None:
        file = waiting.file
        while True:
            try:
                await self._pace.take(file.size)
                if self.diverting or self._is_over_due(waiting.failing_since):
                    await self._divert(waiting)
                else:
                    await self._store_file(waiting)
            except _Left:
                waiting.retries += 1  # so that it is looked for, should it go there again
                self._files.appendleft(waiting)
                return
            except TransientStorageError as error:
                waiting.retries += 1
                waiting.failing_since = self._now() if waiting.failing_since is None else waiting.failing_since
                await self._wait(Retrying(file.name, waiting.retries, error))
            except AlreadyThere as error:  # of this file, not of the store: the others are welcome
                await self._report(Occupied(file.name, error))
                return
            except PermanentStorageError as error:
                self._files.appendleft(waiting)
                await self._refuse(error)
                return
            except LocalFileError as error:
                await self._report(Lost(file.name, error))
                return
            else:
                return
            if self.refused or self.left:
                self._files.appendleft(waiting)
                return

    async def _store_file(self, waiting: _Waiting, path: Path | None = None) -> None:
        """Bring a file to the customer's store, from the spool or from `path`."""
        file = waiting.file
        store = self._store
        key = store.key(file.name)
        stored = await self._there_already(store, file) if waiting.retries else None
        if store.left:
            raise _Left
        if stored is None:
            stored = await self._ask_customer(_putting(key, file, path or file.path))
        self._verified.add(file.name)
        await self._report(Verified(file.name, stored, self._now() - waiting.since, waiting.retries))
        file.path.unlink(missing_ok=True)

    async def _there_already(self, where: _Store, file: MediaFile) -> Stored | None:
        """What a try that looked like a failure has stored after all, when the store can tell that it is the same."""
        key = where.key(file.name)
        try:
            found = await where.call(lambda store: store.head(key))
        except StorageError:
            return None
        if found is None or (found.size, found.sha256) != (file.size, file.sha256):
            return None
        return Stored(key, file.size, file.sha256, "head")

    async def _divert(self, waiting: _Waiting) -> None:
        """Bring a file to the backup store. Its refusal is the operator's to mend, and no reason to give anything up."""
        assert self._backup_store
        file = waiting.file
        await self._report(Diverted(file.name))
        try:
            stored = await self._backup_store.call(_backing_up(self._backup_store.key(file.name), file))
        except PermanentStorageError as error:
            log.error("the backup store refuses us", extra={"error": str(error)})  # noqa: TRY400  # the text says it all
            raise TransientStorageError(f"backup store: {error}") from error
        self._copies.append(_Waiting(file, waiting.since, retries=waiting.retries))
        await self._report(BackedUp(file.name, stored, self._now() - waiting.since, waiting.retries))
        file.path.unlink(missing_ok=True)

    async def _publish(self, name: str) -> None:
        """Until this playlist is out, in its newest version that can be; or until the store is given up for a while."""
        newest: Publication | None = self._publications.pop(name)
        try:
            for attempt in itertools.count(1):
                assert newest
                try:
                    await self._publish_once(newest)
                except _Left:
                    return
                except TransientStorageError as error:
                    await self._wait(Retrying(name, attempt, error))
                else:
                    newest = None
                    return
                if self.refused or self.diverting or self.left:
                    return
                if name in self._publications and self._publications[name].names <= self._verified:
                    newest = self._publications.pop(name)
        except PermanentStorageError as error:
            await self._refuse(error)
        finally:
            self._publishing.discard(name)
            if newest:
                self._publications.setdefault(name, newest)

    async def _publish_once(self, newest: Publication) -> None:
        content_type, _ = describe(newest.name)
        key = self._store.key(newest.name)
        await self._ask_customer(lambda store: store.put_bytes(key, newest.data, content_type=content_type, cache_control=_REWRITTEN))
        await self._report(Published(newest.name))

    async def _keep(self, name: str) -> None:
        assert self._backup_store
        data = self._lists.pop(name)
        content_type, _ = describe(name)
        key = self._backup_store.key(name)
        for attempt in itertools.count(1):
            try:
                await self._backup_store.call(lambda store: store.put_bytes(key, data, content_type=content_type, cache_control=_REWRITTEN))
            except TransientStorageError as error:
                await self._wait(Retrying(name, attempt, error))
            except PermanentStorageError:
                log.exception("the backup store refuses us")
                return  # the journal has what it is made of
            else:
                return

    # ---- from the backup store --------------------------------------------------------------------------------------

    async def _catch_up_for_ever(self) -> None:
        """Try one thing after the other that is behind, oldest first, playlists last; wait after each failure."""
        attempt = 0
        while True:
            await self._behind.wait()
            try:
                await (self._bring(self._copies[0]) if self._copies else self._publish_late())
                attempt = 0
            except TransientStorageError as error:
                attempt += 1
                log.info("the customer's store is still away", extra={"attempt": attempt, "error": str(error)})
                await self._sleep(_wait(attempt))
            except PermanentStorageError as error:
                await self._refuse(error)
            self._look()

    async def _bring(self, copy: _Waiting) -> None:
        """From the backup store to the customer's."""
        assert self._backup
        file = copy.file
        path = self._backup.folder / file.name
        await self._pace.take(file.size)
        try:
            if not path.exists():
                await self._fetch(file.name, path)
            await self._store_file(copy, path)
        except AlreadyThere as error:
            self._copies.remove(copy)  # from what is to be brought; it stays where it is
            path.unlink(missing_ok=True)
            await self._report(Occupied(file.name, error))
            return
        except LocalFileError as error:
            await self._report(Lost(file.name, error))
        except OSError as error:
            raise TransientStorageError(f"the file cannot be brought back: {error.strerror}") from error
        self._copies.remove(copy)
        path.unlink(missing_ok=True)
        await self.clear_backup([file.name])

    async def _fetch(self, name: str, path: Path) -> None:
        """From the backup store to `path`.

        Raises:
            LocalFileError: it is not there.
        """
        assert self._backup_store
        backup, key = self._backup_store, self._backup_store.key(name)
        try:
            if await backup.call(lambda store: store.head(key)) is None:
                raise LocalFileError("the file is gone from the backup store")
            path.parent.mkdir(mode=0o700, exist_ok=True)
            await backup.call(lambda store: store.get(key, path))
        except PermanentStorageError as error:
            raise TransientStorageError(f"backup store: {error}") from error

    async def _publish_late(self) -> None:
        name = self._ready()
        if name is None:
            await self._sleep(1)  # a worker has it, and gives it back or gets it out
            return
        newest = self._publications[name]
        self._publishing.add(name)
        try:
            await self._publish_once(newest)
        finally:
            self._publishing.discard(name)
        if self._publications.get(name) is newest:
            del self._publications[name]

    # ---- the customer's store ---------------------------------------------------------------------------------------

    async def _ask_customer(self, call: Callable[[ObjectStore], Stored]) -> Stored:
        store = self._store
        if store.left:
            raise _Left
        try:
            stored = await store.call(call)
        except StorageError as error:
            if store.left:
                raise _Left from error
            self._judge(error, store)
            raise
        if store.left:
            raise _Left
        self._failing_since = None
        return stored

    def _judge(self, error: StorageError, store: _Store) -> None:
        """Note a failure of the customer's store; raises what a refusal is that no longer counts."""
        if isinstance(error, TransientStorageError) and self._failing_since is None:
            self._failing_since = self._now()
        if isinstance(error, PermanentStorageError) and store is not self._store:  # meanwhile there are other keys
            raise TransientStorageError("refused with keys that are no longer used") from error

    def _is_over_due(self, failing_since: float | None) -> bool:
        return self._backup is not None and failing_since is not None and self._now() - failing_since >= self._backup.after_seconds

    async def _refuse(self, error: PermanentStorageError) -> None:
        if self.refused is None:
            self.refused = error
            await self._report(RefusedByStore(error))
        self._look()

    async def _wait(self, retrying: Retrying) -> None:
        await self._report(retrying)
        self._look()
        await self._sleep(_wait(retrying.attempt))


def _putting(key: str, file: MediaFile, path: Path) -> Callable[[ObjectStore], Stored]:
    content_type, cache_control = describe(file.name)
    source = file.seal.file(path, file.name) if file.seal else path
    return lambda store: store.put(key, source, content_type=content_type, cache_control=cache_control, sha256=file.sha256)


def _backing_up(key: str, file: MediaFile) -> Callable[[ObjectStore], Stored]:
    if file.seal is None:
        return _putting(key, file, file.path)
    sealed = file.seal.file(file.path, file.name)
    return lambda store: store.put(
        key, file.path, content_type=SEALED_TYPE, cache_control=_REWRITTEN, sha256=sealed.sealed_sha256(file.sha256)
    )


def _set(event: asyncio.Event, *, on: bool) -> None:
    event.set() if on else event.clear()


def describe(name: str) -> tuple[str, str]:
    """Content type and cache header of a file, by its name."""
    suffix = Path(name).suffix
    cache = _REWRITTEN if suffix in _GROWING else "max-age=31536000, immutable"
    return CONTENT_TYPES.get(suffix, "application/octet-stream"), cache


def wait_seconds(attempt: int, chance: float) -> float:
    """How long to wait after failure number `attempt`: 1, 2, 4 … 60 s, less up to half of it by `chance` (0 to 1)."""
    return float(min(LONGEST_WAIT_SECONDS, 2.0 ** min(attempt - 1, 10)) * (1 - chance / 2))


def _wait(attempt: int) -> float:
    return wait_seconds(attempt, random.random())  # noqa: S311  # jitter, not a secret
