"""The deployment's master key: one 0600 file, made at the first start, from which every other key is derived.

The file holds a key in hex on each line. The first one is current: it seals and signs. The others open and verify what was sealed
and signed before they were replaced. Of a key that was dropped, a line `manifest <hex>` keeps what verifies its manifests.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from recorder.settings import ConfigError

log = logging.getLogger(__name__)

KEY_BYTES: Final = 32
_PUBLIC_BYTES: Final = 32  # of an Ed25519 key
_FORMER: Final = "manifest "

T = TypeVar("T")


class Key:
    """One of the keys in the file."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._derived: dict[str, bytes] = {}
        self.id = self.derive("key id")[:4].hex()  # names it, and tells nothing about it

    def derive(self, purpose: str, salt: bytes = b"") -> bytes:
        """The 256-bit key for one purpose (and one salt)."""
        if salt:
            return HKDF(SHA256(), KEY_BYTES, salt, purpose.encode()).derive(self._secret)
        if purpose not in self._derived:
            self._derived[purpose] = HKDF(SHA256(), KEY_BYTES, None, purpose.encode()).derive(self._secret)
        return self._derived[purpose]


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What the file holds."""

    secrets: tuple[bytes, ...]  # the current one first
    former: tuple[bytes, ...] = ()  # public keys that verify the manifests of keys that were dropped

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(map(Key, self.secrets))


class MasterKey:
    """The keys as the file holds them now: a running process has a new one as soon as it stands there."""

    def __init__(self, *secrets: bytes, former: tuple[bytes, ...] = (), path: Path | None = None) -> None:
        """Without `path`: these, for good. With it: those of this file, which must hold some."""
        self._path = path
        self._seen: tuple[int, ...] | None = self._look()
        self._problem = ""  # why the file could not be read the last time
        content = Content(secrets, former) if path is None else read(path)
        self._keys, self._former = content.keys, content.former

    @property
    def current(self) -> Key:
        return self.all()[0]

    @property
    def former(self) -> tuple[bytes, ...]:
        """Public keys that verify the manifests of keys that were dropped."""
        self.all()
        return self._former

    def all(self, naming: Iterable[str] = ()) -> tuple[Key, ...]:
        """The current one first. `naming`: ids of keys that are expected to be there."""
        seen = self._look()
        if seen != self._seen or not {key.id for key in self._keys}.issuperset(naming):
            self._seen = seen
            self._read_again()
        return self._keys

    def open(self, attempt: Callable[[Key], T]) -> tuple[T, Key]:
        """What `attempt` gives with the first key that it succeeds with, and that key.

        Raises:
            InvalidTag: `attempt` does so with each key.
        """
        tried = self.all()
        for key in tried:
            with contextlib.suppress(InvalidTag):
                return attempt(key), key
        self._read_again()  # on a file system of the network, a look may have seen an earlier state
        for key in self._keys:
            if key.id not in {one.id for one in tried}:
                with contextlib.suppress(InvalidTag):
                    return attempt(key), key
        raise InvalidTag

    def _look(self) -> tuple[int, ...] | None:
        """Something that differs when the file was changed; None: nothing to look at."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                found = self._path.stat()
                return found.st_ino, found.st_ctime_ns, found.st_size
        return None

    def _read_again(self) -> None:
        if self._path is None:
            return
        try:
            content = read(self._path)
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.error("the master key cannot be read again: the keys read before stay in use", extra={"why": self._problem})  # noqa: TRY400  # a traceback says no more
            return
        self._problem = ""
        if content != Content(tuple(key._secret for key in self._keys), self._former):
            self._keys, self._former = content.keys, content.former
            log.info("the file of the master key has changed", extra={"keys": [key.id for key in self._keys]})


def load_master_key(path: Path) -> MasterKey:
    """The key of this deployment, which is made when there is none.

    Raises:
        ConfigError: the file is damaged or others may read it.
    """
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_private(path, _text(Content((new_key(),))))
    return MasterKey(path=path)


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def read(path: Path) -> Content:
    """
    Raises:
        ConfigError: the file is damaged, missing, or others may read it. The message tells of lines by their numbers only.
    """
    try:
        mode, text = path.stat().st_mode, path.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} may be read by others: chmod 600 it")
    return _content(path, text)


def _content(path: Path, text: str) -> Content:
    keys: list[bytes] = []
    former: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        kept = former if line.startswith(_FORMER) else keys
        value = _hex(line.removeprefix(_FORMER))
        if line.strip() and len(value) != (_PUBLIC_BYTES if kept is former else KEY_BYTES):
            raise ConfigError(f"{path} is damaged: line {number} must hold {KEY_BYTES} bytes in hex")
        if value in kept:
            raise ConfigError(f"{path} is damaged: line {number} repeats an earlier one")
        if line.strip():
            kept.append(value)
    if not keys:
        raise ConfigError(f"{path} is damaged: it must hold {KEY_BYTES} bytes in hex")
    return Content(tuple(keys), tuple(former))


def change(path: Path, changed: Callable[[Content], Content]) -> Content:
    """Replace what the file holds, whole or not at all, and one after the other; returns what it holds now.

    Raises:
        ConfigError: it is damaged, or cannot be replaced.
    """
    path = path.resolve()  # a rename would replace the link
    try:
        with _locked(path.parent) as folder:
            before = read(path)
            content = changed(before)
            if content != before:
                _content(path, _text(content))  # nothing is written that could not be read
                beside = path.with_name(f".{path.name}.new")
                beside.unlink(missing_ok=True)  # of one who was killed here
                try:
                    _write_new(beside, _text(content))
                    beside.replace(path)
                finally:
                    beside.unlink(missing_ok=True)
                os.fsync(folder)
    except OSError as error:
        raise ConfigError(f"{path} cannot be replaced ({error.strerror})") from error
    return content


def write_private(path: Path, content: str) -> None:
    """Make `path` with mode 0600, whole or not at all.

    Raises:
        FileExistsError: somebody else made it first.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(beside, content)
        path.hardlink_to(beside)  # unlike a rename it does not replace a file that another process just made
    finally:
        beside.unlink(missing_ok=True)
    with _opened(path.parent) as folder:
        os.fsync(folder)


def _text(content: Content) -> str:
    return "".join(f"{line}\n" for line in (*(key.hex() for key in content.secrets), *map(former_line, content.former)))


def former_line(public: bytes) -> str:
    """The line of the file that keeps a public key."""
    return f"{_FORMER}{public.hex()}"


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _write_new(path: Path, content: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Waits for others that change a file there."""
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
