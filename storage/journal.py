"""An append-only file of JSON records that survives crashes: each line carries a CRC, torn or flipped lines are left out.

One process writes; others may read at any time.
"""

import errno
import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.durable import sync_folder
from storage.errors import SpoolError

Record = Mapping[str, Any]

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Content:
    """A journal as it was read."""

    records: tuple[Record, ...]
    corrupt: int  # lines left out


class Journal:
    """One journal file, opened when something is first appended. Safe to use from several threads."""

    def __init__(self, path: Path, make_room: Callable[[], bool] = lambda: False) -> None:
        """`make_room` is called when the disk is full, and tells whether it is worth trying again."""
        self._path = path
        self._make_room = make_room
        self._descriptor: int | None = None
        self._failed = False
        self._lock = threading.Lock()

    def append(self, record: Record, *, durable: bool = True) -> None:
        """Add a record; when it returns and `durable` was asked for, a power cut cannot take it away.

        Raises:
            SpoolError: the disk failed or is full. After a failure the journal takes no further record: after a failed fsync
                a later one may succeed without the pages that were lost (https://lwn.net/Articles/752063/).
        """
        with self._lock:
            if self._failed:
                raise SpoolError("the journal has failed before")
            synced = False
            try:
                if self._descriptor is None:
                    self._descriptor = self._open()
                self._write(self._descriptor, encode(record))
                if durable:
                    synced = True
                    os.fsync(self._descriptor)
            except OSError as error:
                self._failed = error.errno not in _FULL or synced
                raise SpoolError(f"cannot write the journal: {error.strerror}") from error

    def _write(self, descriptor: int, line: bytes) -> None:
        while True:
            size = os.fstat(descriptor).st_size
            try:
                return _write_all(descriptor, line)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                os.ftruncate(descriptor, size)  # what fitted in must not swallow the next record
                if not self._make_room():
                    raise

    def read(self) -> Content:
        """All records that are whole, in order."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return Content((), 0)
        except OSError as error:
            raise SpoolError(f"cannot read the journal: {error.strerror}") from error
        decoded = [decode(line) for line in lines if line]
        records = tuple(record for record in decoded if record is not None)
        return Content(records, len(decoded) - len(records))

    def close(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size == 0:
                sync_folder(self._path.parent)
            elif os.pread(descriptor, 1, size - 1) != b"\n":
                _write_all(descriptor, b"\n")  # the torn line of a crash must not swallow the next one
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def encode(record: Record) -> bytes:
    """One line: CRC-32 of the JSON in eight hex digits, a blank, the JSON."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> Record | None:
    """The record of a line without its end; None when the line is not whole."""
    checksum, blank, body = line[:8], line[8:9], line[9:]
    if blank != b" " or checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
