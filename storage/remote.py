"""What all stores behind a network have in common: verification, uploads in parts, limits of time.

A vendor's file offers a `Client`, the few calls that differ; `RemoteStore` makes an `ObjectStore` of it.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from storage import ObjectInfo, Stored, Verification
from storage.errors import AccessDenied, AlreadyThere, Busy, ChecksumMismatch, LocalFileError, NotFound, StorageError
from storage.pinned import limited
from storage.sealed import Source

BASE_SECONDS: Final = 60.0  # for one exchange, beside the time its bytes may take
SLOWEST_BYTES_PER_SECOND: Final = 32 << 10  # an upload that stays below is given up and tried again

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an object, and how it is to be described."""

    size: int
    sha256: str
    md5: bytes
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

    def put(self, key: str, path: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        try:
            content = _content_of_file(path, content_type, cache_control)
            if content.sha256 != sha256:
                raise LocalFileError("the file is no longer what was committed")
            with path.open("rb") as file:
                if content.size > self._client.multipart_over_bytes:
                    return self._stored(key, content, lambda: self._put_parts(key, file, content))
                return self._stored(key, content, lambda: self._call(lambda: self._client.put(key, file, content), content.size))
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
        """What `call` returns, in a time that `size` allows; the SDK's errors become ours."""
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
        try:
            info = self._call(lambda: self._client.head(key)).info
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

    def _put_parts(self, key: str, file: BinaryIO, content: Content) -> str:
        self._abort_leftovers(key)
        upload = self._call(lambda: self._client.begin(key, content))
        try:
            parts = [
                self._put_part(key, upload, number, data)
                for number, data in enumerate(iter(lambda: file.read(self._client.part_bytes), b""), 1)
            ]
            return self._call(lambda: self._client.complete(key, upload, parts, content), content.size)
        except (StorageError, OSError):
            self._abort(key, upload)
            raise

    def _put_part(self, key: str, upload: str, number: int, data: bytes) -> Any:
        part = Part(number, data, hashlib.md5(data, usedforsecurity=False).digest())
        return self._call(lambda: self._client.put_part(key, upload, part), len(data))

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


def _content_of_file(path: Source, content_type: str, cache_control: str) -> Content:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for data in iter(lambda: file.read(1 << 20), b""):
            sha256.update(data)
            md5.update(data)
        return Content(file.tell(), sha256.hexdigest(), md5.digest(), content_type, cache_control)
