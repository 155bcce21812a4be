"""Files at rest that nobody reads without their recording's key: the format, how it is written and how it is read.

A file is a head and chunks, as age does it (https://age-encryption.org/v1, "payload"; the construction is STREAM,
https://eprint.iacr.org/2015/189). The head is a magic number and a random salt; salt, recording's key and the file's name give the
file's own key (HKDF-SHA256), so a chunk of another file, and a file under another name, are foreign. Each chunk is AES-256-GCM under
the nonce `number of the chunk (11 bytes) + 1 for the last one, else 0`: a chunk that is changed, moved, missing or cut off is found.
All chunks but the last are full, so any byte can be read without those before it.
"""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.errors import LocalFileError

KEY_BYTES: Final = 32
CHUNK_BYTES: Final = 64 << 10  # of plain bytes
_MAGIC: Final = b"CRsealed"
_SALT_BYTES: Final = 16
_HEAD_BYTES: Final = len(_MAGIC) + _SALT_BYTES
_TAG_BYTES: Final = 16
_SEALED_BYTES: Final = CHUNK_BYTES + _TAG_BYTES
_PURPOSE: Final = b"cloud-recorder sealed file\0"


class Source(Protocol):
    """Bytes that can be read more than once, from the start: a path, or a `SealedFile`."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...


class Seal:
    """The key of one recording's media. Never printed."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._key = key

    def write(self, source: BinaryIO, target: BinaryIO, name: str) -> tuple[int, str]:
        """Write all of `source` sealed into `target`; returns size and SHA-256 of the plain bytes."""
        salt = os.urandom(_SALT_BYTES)
        cipher = self.cipher(salt, name)
        digest, size, number = hashlib.sha256(), 0, 0
        target.write(_MAGIC + salt)
        chunk = source.read(CHUNK_BYTES)
        while True:
            following = source.read(CHUNK_BYTES)
            digest.update(chunk)
            size += len(chunk)
            target.write(cipher.encrypt(_nonce(number, last=not following), chunk, None))
            if not following:
                return size, digest.hexdigest()
            chunk, number = following, number + 1

    def write_bytes(self, data: bytes, name: str) -> bytes:
        """`data` as the content of a sealed file."""
        target = io.BytesIO()
        self.write(io.BytesIO(data), target, name)
        return target.getvalue()

    def file(self, path: Path, name: str) -> "SealedFile":
        """The plain bytes of the sealed file at `path`, which was written under `name`."""
        return SealedFile(path, name, self)

    def cipher(self, salt: bytes, name: str) -> AESGCM:
        info = _PURPOSE + name.encode(errors="surrogateescape")
        return AESGCM(HKDF(SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(self._key))


class SealedFile:
    """A `Source` of plain bytes."""

    def __init__(self, path: Path, name: str, seal: Seal) -> None:
        self._path = path
        self._name = name
        self._seal = seal

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """A seekable file of the plain bytes, decrypted as they are read.

        Reading raises `LocalFileError` where the file is not what was written; what was read before is good.

        Raises:
            LocalFileError: it is no sealed file.
        """
        file = self._path.open(mode, buffering=0)
        try:
            return _Plain(_Reader(file, self._name, self._seal), CHUNK_BYTES)
        except BaseException:
            file.close()
            raise

    def sealed_sha256(self, sha256: str) -> str:
        """The SHA-256 of the file as it lies there, seen to be good: its plain bytes have this `sha256`.

        Raises:
            LocalFileError: they have not, or it cannot be read.
        """
        try:
            with self.open("rb") as plain:
                if hashlib.file_digest(plain, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]  # as in `storage.spool`
                    raise LocalFileError("the file is no longer what was committed")
            with self._path.open("rb") as sealed:
                return hashlib.file_digest(sealed, "sha256").hexdigest()
        except OSError as error:
            raise LocalFileError(f"the file cannot be read: {error.strerror}") from error


class _Plain(io.BufferedReader):
    """SDKs ask a file without a descriptor for its length."""

    def __len__(self) -> int:
        assert isinstance(self.raw, _Reader)
        return self.raw.size

    def __bool__(self) -> bool:  # also of an empty one
        return True


class _Reader(io.RawIOBase):
    """Hands out plain bytes from the chunk they are in; keeps that chunk."""

    def __init__(self, file: io.FileIO, name: str, seal: Seal) -> None:
        self._file = file
        head = file.read(_HEAD_BYTES)
        body = os.fstat(file.fileno()).st_size - _HEAD_BYTES
        self._chunks = max(1, -(-body // _SEALED_BYTES))
        self.size = body - self._chunks * _TAG_BYTES
        last = body - (self._chunks - 1) * _SEALED_BYTES  # read by whoever reads to the end: only in an empty file is nothing in it
        if not head.startswith(_MAGIC) or last < _TAG_BYTES or (last == _TAG_BYTES and self._chunks > 1):
            raise LocalFileError("the file is not sealed, or was cut")
        self._cipher = seal.cipher(head[len(_MAGIC) :], name)
        self._at = 0
        self._number = -1  # of the chunk that is kept
        self._chunk = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError("a place before the start")
        self._at = at
        return at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what the buffered reader gives
        number, within = divmod(self._at, CHUNK_BYTES)
        if self._at >= self.size:
            if self.size or self._number == 0:
                return 0
            number = 0  # an empty file has one chunk, too
        if number != self._number:
            self._chunk, self._number = self._open(number), number
        found = self._chunk[within : within + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _open(self, number: int) -> bytes:
        self._file.seek(_HEAD_BYTES + number * _SEALED_BYTES)
        sealed = self._file.read(_SEALED_BYTES)
        try:
            return self._cipher.decrypt(_nonce(number, last=number == self._chunks - 1), sealed, None)
        except InvalidTag as error:
            raise LocalFileError("the sealed file was changed, or belongs to another name or recording") from error


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
