"""The deployment's master key: one 0600 file, made at the first start, from which every other key is derived."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from recorder.settings import ConfigError

KEY_BYTES = 32


class MasterKey:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def derive(self, purpose: str, salt: bytes = b"") -> bytes:
        """The 256-bit key for one purpose (and one salt)."""
        return HKDF(SHA256(), KEY_BYTES, salt or None, purpose.encode()).derive(self._key)


def load_master_key(path: Path) -> MasterKey:
    """Read the key of this deployment, or make it when there is none.

    Raises:
        ConfigError: the file is damaged or others may read it.
    """
    if not path.exists():
        _create(path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} may be read by others: chmod 600 it")
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} is damaged: it must hold {KEY_BYTES} bytes in hex")
    return MasterKey(key)


def write_private(path: Path, content: str) -> None:
    """Make `path` with mode 0600, whole or not at all.

    Raises:
        FileExistsError: somebody else made it first.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(beside)  # unlike a rename it does not replace a file that another process just made
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _create(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        write_private(path, secrets.token_hex(KEY_BYTES))
