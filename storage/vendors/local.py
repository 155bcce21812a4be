"""A folder of this machine as a store: the bucket is a sub-folder of a root that the operator set."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage import CheckAddress, ObjectInfo, ObjectStore, Stored, StoreOptions
from storage.durable import sync_folder
from storage.errors import AccessDenied, BadOptions, ChecksumMismatch, LocalFileError, PermanentStorageError, TransientStorageError
from storage.sealed import Source

NUMBERS = (100,)

_PARTIAL = ".part"
_PERMANENT = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.EROFS})


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    if options.root is None:
        raise BadOptions("no folder is set for the local store")
    if not options.bucket or options.bucket.startswith(".") or "/" in options.bucket or "\0" in options.bucket:
        raise BadOptions("the bucket's name is not the name of a folder")
    return LocalStore(options.root / options.bucket)


class LocalStore:
    """One folder; keys are paths below it, and cannot leave it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        try:
            file = source.open("rb")
        except OSError as error:
            raise LocalFileError(f"the file cannot be read: {error.strerror}") from error
        with file:
            return self._put(key, iter(lambda: file.read(1 << 20), b""), sha256)

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored:
        return self._put(key, iter((data,)), hashlib.sha256(data).hexdigest())

    def head(self, key: str) -> ObjectInfo | None:
        with _translated():
            try:
                return ObjectInfo(key, self._path(key).stat().st_size)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def get(self, key: str, path: Path) -> None:
        beside = path.with_name(f".{path.name}{_PARTIAL}")
        try:
            with _translated():
                source = self._path(key)
                if not source.is_file():
                    raise PermanentStorageError("there is no such object")
                shutil.copyfile(source, beside)
                beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        with _translated():
            below = self._path(f"{folder}/-").parent if (folder := prefix.rpartition("/")[0]) else self._folder
            found = (path for path in below.rglob("*") if path.is_file() and not path.name.endswith(_PARTIAL))
            sized = {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in found}
            return [ObjectInfo(key, size) for key, size in sorted(sized.items()) if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        with _translated():
            self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        pass

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise BadOptions("the object key is not a path inside the bucket")
        path = self._folder.joinpath(*parts)
        if not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise AccessDenied("a link leads out of the bucket")
        return path

    def _put(self, key: str, chunks: Iterator[bytes], sha256: str) -> Stored:
        with _translated():
            path = self._path(key)
            for folder in reversed((path.parent, *path.parent.parents)):
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    sync_folder(folder.parent)
            # Always the same name for one key: the next try replaces what a crash left, and nobody needs to sweep.
            beside = path.with_name(f".{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:32]}{_PARTIAL}")
            digest, size = hashlib.sha256(), 0
            try:
                with beside.open("wb") as file:
                    for chunk in chunks:
                        digest.update(chunk)
                        size += file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
            except LocalFileError:  # a sealed one, which was changed
                beside.unlink()
                raise
            if digest.hexdigest() != sha256:
                beside.unlink()
                raise LocalFileError("the file is no longer what was committed")
            beside.replace(path)
            sync_folder(path.parent)
            if path.stat().st_size != size:
                raise ChecksumMismatch
        return Stored(key, size, sha256, "head")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise AccessDenied("the folder of the local store does not let us write") from error
    except OSError as error:
        kind = PermanentStorageError if error.errno in _PERMANENT else TransientStorageError
        raise kind(f"the folder of the local store fails: {error.strerror}") from error
