"""Whether a store takes what a recording would bring: written by this process, under the address rules of all uploads."""

import asyncio
import contextlib
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal
from weakref import WeakValueDictionary

from recorder.destination import first_file, key_of, open_destination
from recorder.settings import Settings
from recorder.spec import RecordingSpec, Storage
from storage import ObjectStore
from storage.errors import StorageError
from storage.uploader import describe

log = logging.getLogger(__name__)

SECONDS: Final = 15.0  # a store that takes longer is no place for a recording
_AT_ONCE: Final = 8  # stores that hang must not take the process's other threads
_OF_ONE_AT_ONCE: Final = 2  # nor one customer's all of these
_CONTENT: Final = b"cloud-recorder was here to test this bucket. It may be deleted.\n"

Verified = Literal["put", "head"]


@dataclass(frozen=True, slots=True)
class Tested:
    """`problem` is None when the store took the test object; then `verified` says how that was seen."""

    problem: str | None = None
    verified: Verified | None = None
    removed: bool = False


class StorageTests:
    def __init__(self, settings: Settings, *, seconds: float = SECONDS) -> None:
        self._settings = settings
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="storage-test")
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def test(self, where: Storage, owner: str) -> Tested:
        """Write a small object under a new name, look whether it is there, and remove it as far as the keys allow.

        `owner` is the customer or the app that it is for.
        """
        key = key_of(where, f"cloud-recorder-test-{secrets.token_hex(8)}.txt")
        return await self._within(where, key, _CONTENT, owner=owner, remove=True)

    async def start_problem(self, spec: RecordingSpec) -> str | None:
        """Write the first file of a recording; returns why that is not possible."""
        first = first_file(spec, with_manifest=self._settings.recording.manifest)
        assert spec.storage
        if first is None:
            return (await self.test(spec.storage, spec.app_id)).problem
        name, data = first
        return (await self._within(spec.storage, key_of(spec.storage, name), data, owner=spec.app_id, remove=False)).problem

    async def _within(self, where: Storage, key: str, data: bytes, *, owner: str, remove: bool) -> Tested:
        place = self._places.setdefault(owner, asyncio.Semaphore(_OF_ONE_AT_ONCE))

        def left(done: asyncio.Future[Tested]) -> None:
            place.release()
            with contextlib.suppress(asyncio.CancelledError):
                done.exception()  # nobody may be waiting for it any more

        try:
            async with asyncio.timeout(self._seconds):
                await place.acquire()
                work = partial(self._try, where, key, data, remove=remove)
                trying = asyncio.get_running_loop().run_in_executor(self._threads, work)
                trying.add_done_callback(left)  # a thread holds its place after the time, too: it cannot be interrupted
                return await asyncio.shield(trying)
        except TimeoutError:
            return Tested("the store does not answer in time")

    def _try(self, where: Storage, key: str, data: bytes, *, remove: bool) -> Tested:
        try:
            store = open_destination(where, self._settings)
        except StorageError as error:
            return Tested(str(error))
        try:
            return _try_store(store, key, data, remove=remove)
        finally:
            store.close()


def _try_store(store: ObjectStore, key: str, data: bytes, *, remove: bool) -> Tested:
    content_type, _ = describe(key)
    try:
        stored = store.put_bytes(key, data, content_type=content_type, cache_control="max-age=3")
    except StorageError as error:
        return Tested(str(error) or type(error).__name__)
    if not remove:
        return Tested(verified=stored.verified)
    try:
        store.delete(key)
    except StorageError as error:
        log.info("a test object stays in a bucket", extra={"error": str(error)})
        return Tested(verified=stored.verified)
    return Tested(verified=stored.verified, removed=True)
