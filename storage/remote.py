"""What all stores behind a network have in common: verification, uploads in parts, limits of time.

A vendor's file offers a `Client`, the few calls that differ; `RemoteStore` makes an `ObjectStore` of it.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from storage import ObjectInfo, Stored, Verification
from storage.clock import StoreClock
from storage.errors import AccessDenied, AlreadyThere, Busy, ChecksumMismatch, LocalFileError, NotFound, StorageError, TransientStorageError
from storage.pinned import limited
from storage.sealed import Source

BASE_SECONDS: Final = 60.0  # for one exchange, beside the time its bytes may take
SLOWEST_BYTES_PER_SECOND: Final = 32 << 10  # an upload that stays below is given up and tried again
PARALLEL_PARTS: Final = 4  # of all uploads to one store; each is held in memory

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an object, and how it is to be described."""

    size: int
    sha256: str
    md5: bytes  # empty for an upload in parts, which have their own
    content_type: str
    cache_control: str


@dataclass(frozen=True, slots=True)
class Part:
    number: int  # from 1
    data: bytes
    md5: bytes


@dataclass(frozen=True, slots=True)
class Head:
    info: ObjectInfo
    etag: str  # whatever the vendor calls so; the same for the same version of an object


class Client(Protocol):
    """One bucket as the vendor's SDK shows it. Calls may raise what the SDK raises."""

    multipart_over_bytes: int
    part_bytes: int
    clock: StoreClock  # signs by it, and lets it learn from refusals

    def error(self, failure: Exception) -> StorageError | None:
        """Which of our errors the SDK's is, without a word of the store's answer but its code; None: it is no SDK's."""

    def put(self, key: str, body: bytes | BinaryIO, content: Content) -> str:
        """Send it all with a checksum that makes the store refuse other bytes; returns the ETag of the answer.

        Raises:
            ChecksumMismatch: the answer shows that the store has other bytes.
        """

    def begin(self, key: str, content: Content) -> str:
        """Begin an upload in parts; returns its id."""

    def put_part(self, key: str, upload: str, part: Part) -> Any:
        """Like `put`; returns what `complete` wants to know of the part."""

    def complete(self, key: str, upload: str, parts: Sequence[Any], content: Content) -> str:
        """Make the parts an object; returns its ETag."""

    def abort(self, key: str, upload: str) -> None: ...

    def unfinished(self, key: str) -> Sequence[str]:
        """Uploads in parts to this very key that were never completed; empty where the vendor clears them away itself."""

    def head(self, key: str) -> Head:
        """Raises NotFound, or the SDK's error that `error` takes for it, when there is none; so do `get` and `delete`."""

    def get(self, key: str, file: BinaryIO) -> None: ...

    def page(self, prefix: str, after: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        """Some of the objects with this prefix, and where the next call is to go on."""

    def delete(self, key: str) -> None: ...

    def close(self) -> None: ...


class RemoteStore:
    """One bucket of a vendor."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._may_head = True
        self._memory = BoundedSemaphore(PARALLEL_PARTS)

    def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        try:
            with source.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                if size > self._client.multipart_over_bytes:
                    content = Content(size, sha256, b"", content_type, cache_control)
                    return self._stored(key, content, lambda: self._put_parts(key, file, content))
                content = Content(size, sha256, _md5_of(file, sha256), content_type, cache_control)
                return self._stored(key, content, lambda: self._call(lambda: self._put_file(key, file, content), size))
        except OSError as error:
            raise LocalFileError(f"the file cannot be read: {error.strerror}") from error

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored:
        sha256, md5 = hashlib.sha256(data), hashlib.md5(data, usedforsecurity=False)
        content = Content(len(data), sha256.hexdigest(), md5.digest(), content_type, cache_control)
        return self._stored(key, content, lambda: self._call(lambda: self._client.put(key, data, content), content.size))

    def head(self, key: str) -> ObjectInfo | None:
        try:
            return self._call(lambda: self._client.head(key)).info
        except NotFound:
            return None

    def get(self, key: str, path: Path) -> None:
        size = self._call(lambda: self._client.head(key)).info.size
        beside = path.with_name(f".{path.name}.part")
        try:
            with beside.open("wb") as file:
                self._call(lambda: self._client.get(key, file), size)
                if file.tell() != size:
                    raise ChecksumMismatch("the store sends another number of bytes than it has")
            beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found: list[ObjectInfo] = []
        after: str | None = None
        while True:
            page, after = self._call(lambda after=after: self._client.page(prefix, after))  # type: ignore[misc]  # a default
            found += page
            if not after:
                return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        try:
            self._call(lambda: self._client.delete(key))
        except NotFound:
            return

    def close(self) -> None:
        self._client.close()

    def _call(self, call: Callable[[], T], size: int = 0) -> T:
        """What `call` returns; the SDK's errors become ours. Tried a second time when the clock was found wrong meanwhile."""
        ahead_seconds = self._client.clock.ahead_seconds
        try:
            return self._try(call, size)
        except StorageError:
            if self._client.clock.ahead_seconds == ahead_seconds:
                raise
        log.warning("the store's clock is not ours", extra={"ahead_seconds": round(self._client.clock.ahead_seconds)})
        return self._try(call, size)

    def _try(self, call: Callable[[], T], size: int) -> T:
        """In a time that `size` allows."""
        try:
            with limited(BASE_SECONDS + size / SLOWEST_BYTES_PER_SECOND):
                return call()
        except StorageError:
            raise
        except Exception as error:
            ours = self._client.error(error)
            if ours is None:
                raise
            raise ours from error

    def _stored(self, key: str, content: Content, put: Callable[[], str]) -> Stored:
        try:
            etag = put()
        except (AlreadyThere, Busy) as error:
            # An earlier try of ours may have arrived although its answer did not.
            if self._has(key, content):
                return Stored(key, content.size, content.sha256, "head")
            raise error from None
        return Stored(key, content.size, content.sha256, self._verify(key, content, etag))

    def _has(self, key: str, content: Content) -> bool:
        """Raises TransientStorageError when the store cannot tell now; one that may not be asked does not have it."""
        try:
            info = self._call(lambda: self._client.head(key)).info
        except TransientStorageError:
            raise
        except StorageError:  # the refusal of the PUT is what counts
            return False
        return (info.size, info.sha256) == (content.size, content.sha256)

    def _verify(self, key: str, content: Content, etag: str) -> Verification:
        if not self._may_head:
            return "put"
        try:
            head = self._call(lambda: self._client.head(key))
        except AccessDenied:
            self._may_head = False
            log.info("the storage keys are write-only, uploads are verified by the checksum of the PUT alone")
            return "put"
        except NotFound as error:
            raise ChecksumMismatch("the store does not have what it accepted") from error
        if (head.info.size, head.etag) != (content.size, etag) or head.info.sha256 not in (None, content.sha256):
            raise ChecksumMismatch("the store has something else than it accepted")
        return "head"

    def _put_file(self, key: str, file: BinaryIO, content: Content) -> str:
        file.seek(0)
        return self._client.put(key, file if content.size else b"", content)  # "requests" would send an empty file in chunks

    def _put_parts(self, key: str, file: BinaryIO, content: Content) -> str:
        self._abort_leftovers(key)
        upload = self._call(lambda: self._client.begin(key, content))
        try:
            parts = self._send_parts(key, upload, file, content)
            return self._call(lambda: self._client.complete(key, upload, parts, content), content.size)
        except (StorageError, OSError):
            self._abort(key, upload)
            raise

    def _send_parts(self, key: str, upload: str, file: BinaryIO, content: Content) -> Sequence[Any]:
        """Send the bytes of the file, each read once; returns what `complete` wants to know. No part is under way afterwards.

        Raises:
            LocalFileError: they are not the content's.
        """
        sha256, sent = hashlib.sha256(), list[Future[Any]]()
        with ThreadPoolExecutor(PARALLEL_PARTS, "upload-part") as threads:
            while not any(part.done() and part.exception() for part in sent):
                with contextlib.ExitStack() as turn:
                    turn.enter_context(self._memory)
                    data = file.read(self._client.part_bytes)
                    if not data:
                        break
                    sha256.update(data)
                    sent.append(threads.submit(self._put_part, key, upload, len(sent) + 1, data))
                    turn.pop_all()
                    sent[-1].add_done_callback(lambda _: self._memory.release())
        parts = [part.result() for part in sent]
        if sha256.hexdigest() != content.sha256:
            raise LocalFileError("the file is no longer what was committed")
        return parts

    def _put_part(self, key: str, upload: str, number: int, data: bytes) -> Any:
        part = Part(number, data, hashlib.md5(data, usedforsecurity=False).digest())
        shared = len(data) * PARALLEL_PARTS  # others may take their share of the line
        return self._call(lambda: self._client.put_part(key, upload, part), shared)

    def _abort_leftovers(self, key: str) -> None:
        """Earlier tries that died half-way cost the customer money until they are aborted."""
        try:
            found = self._call(lambda: self._client.unfinished(key))
        except StorageError:  # the right to list them is not ours to demand
            return
        for upload in found:
            self._abort(key, upload)

    def _abort(self, key: str, upload: str) -> None:
        try:
            self._call(lambda: self._client.abort(key, upload))
        except StorageError as error:
            log.warning("an unfinished multipart upload stays in the store", extra={"error": str(error)})


def _md5_of(file: BinaryIO, sha256: str) -> bytes:
    """The MD5 of all of the file.

    Raises:
        LocalFileError: it does not have this SHA-256.
    """
    found, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for data in iter(lambda: file.read(1 << 20), b""):
        found.update(data)
        md5.update(data)
    if found.hexdigest() != sha256:
        raise LocalFileError("the file is no longer what was committed")
    return md5.digest()
