"""The spool: where media waits on local disk until a store has it.

One folder per recording: `partial/` for files being written, `files/` for committed ones, `journal` for what the writer
committed, `notes` for what it saw, `absence` while it sees nobody, `uploads` for what the uploading side did. Only the writer process
commits; the uploading side reads `journal` and removes files. Records are opaque but for `name`, `size` and `sha256`.

With a `Seal` committed files lie encrypted, each from its commit on, and the empty file `sealed` says so to whoever has no key yet.
Open files are plain: libav goes back in them, and after a crash they are cut. `size` and `sha256` are those of the plain bytes.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from storage.durable import sync_file, sync_folder
from storage.errors import LocalFileError, SpoolError
from storage.journal import Journal, Record
from storage.reserve import Reserve
from storage.sealed import Seal

ARRIVING = ".arriving"  # from another spool; a crash leaves it behind, and the recording where it was
MOVED = ".moved"  # to another spool; what is left here is of no use any more
_GONE = ".gone"
_PROBE = ".probe"
_BESIDE = ".beside"  # a file that is being sealed, or unsealed


class Spool:
    """All recordings of one node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self) -> None:
        """Own the spool until `unlock` or the end of the process, then clear away what a crash left half removed.

        Raises:
            SpoolError: another process owns it, or a part of it lies on another disk, where a file cannot be moved at one stroke.
        """
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise SpoolError(f"another process uses the spool {self.root}") from error
        self._lock = descriptor
        try:
            for sid in self.recordings():
                self.recording(sid).check_moves()
        except SpoolError:
            self.unlock()
            raise
        for leftover in (path for suffix in (_GONE, ARRIVING) for path in self.root.glob(f".*{suffix}")):
            shutil.rmtree(leftover, ignore_errors=True)

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def recording(self, sid: str) -> "RecordingSpool":
        """The folder of one recording; created when it is not there."""
        return RecordingSpool(self.root / _one_part(sid))

    def recordings(self) -> Sequence[str]:
        """The recordings that have a folder."""
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def set_aside(self, sid: str) -> None:
        """Take the folder of a recording for none any more, if the disk still can; it stays as `.<sid>.moved`."""
        with contextlib.suppress(OSError):
            (self.root / _one_part(sid)).rename(self.root / f".{sid}{MOVED}")

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def fill(self) -> float:
        """How full the disk is, 0 to 1, counted as `df` does: in bytes or in files, whichever is more."""
        disk = os.statvfs(self.root)
        blocks, files = disk.f_blocks - disk.f_bfree, disk.f_files - disk.f_ffree
        return max(used / (used + left) if used + left else 0.0 for used, left in ((blocks, disk.f_bavail), (files, disk.f_favail)))


class RecordingSpool:
    """The folder of one recording. Its writer is one process at a time; threads of it may commit side by side."""

    def __init__(self, folder: Path, seal: Seal | None = None) -> None:
        self.folder = folder
        self.seal = seal
        make_room = Reserve(folder.parent).release
        self.uploads = Journal(folder / "uploads", make_room)
        self.notes = Journal(folder / "notes")
        self.corrupt_lines = 0  # found by the last `records()`
        self._journal = Journal(folder / "journal", make_room)
        self._partial = folder / "partial"
        self._files = folder / "files"
        self._naming = threading.Lock()
        self._lock: int | None = None
        self._names: set[str] | None = None  # committed or being so, ever; read from the journal before the first commit
        if not self._files.exists():
            for path in (folder, self._partial, self._files):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (folder, folder.parent):  # else a power cut takes the folder with all that is committed in it
                sync_folder(path)
        if seal:
            self.use(seal)

    @property
    def sealed(self) -> bool:
        """Files are committed encrypted; without `seal` none can be."""
        return self.seal is not None or self.mark.exists()

    @property
    def mark(self) -> Path:
        """Where the folder says that it is sealed."""
        return self.folder / "sealed"

    def use(self, seal: Seal) -> None:
        """Commit every file encrypted with this key; the folder remembers that it is so."""
        self.seal = seal
        self.mark_sealed()

    def mark_sealed(self) -> None:
        if not self.mark.exists():
            self.mark.touch(mode=0o600)
            sync_folder(self.folder)

    def lock(self, *, wait: bool = False) -> bool:
        """Be the recording's one writer until `close` or the end of the process; False: another process is. `wait` for its end."""
        if self._lock is None:
            descriptor = os.open(self.folder / ".writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
            if self.sealed:
                for path in self._partial.iterdir():
                    if path.name.endswith(_BESIDE):  # of a crash
                        path.unlink()
        return True

    @property
    def absence(self) -> Path:
        """The mark of a worker that nobody is in the channel, for the next one."""
        return self.folder / "absence"

    def left_open(self) -> list[str]:
        """What lies where open files are written; while nobody writes, a crash has left it."""
        return sorted(path.name for path in self._partial.iterdir())

    def reopen(self, name: str) -> None:
        """Take back a file that was about to be committed: it lies there and has no record. Nothing happens when it does not.

        Raises:
            LocalFileError: it was sealed, and changed since.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.sealed:
                with self.plain(name) as path:
                    path.rename(self.partial(name))
                self.file(name).unlink()
            else:
                self.file(name).rename(self.partial(name))

    @contextlib.contextmanager
    def plain(self, name: str) -> Iterator[Path]:
        """A committed file as it was while it was open: itself, or an unsealed copy for as long as the block lasts.

        Raises:
            LocalFileError: it was sealed, and changed since.
            SpoolError: the key is not known.
        """
        if not self.sealed:
            yield self.file(name)
            return
        beside = self._beside(name)
        try:
            with self._key().file(self.file(name), name).open("rb") as source, beside.open("wb") as target:
                shutil.copyfileobj(source, target)
            yield beside
        finally:
            beside.unlink(missing_ok=True)

    def is_as_committed(self, name: str, sha256: str) -> bool:
        """The file has these bytes still. Of a sealed one that cannot be told without its key, and is True then.

        Raises:
            OSError: it cannot be read.
        """
        if self.sealed and self.seal is None:
            return True
        try:
            return self._measured(name)["sha256"] == sha256
        except LocalFileError:
            return False

    def check_moves(self) -> None:
        """See that an open file can become a committed one by a rename.

        Raises:
            SpoolError: it cannot: one of the folders is a mount of its own.
        """
        probe = self._partial / _PROBE
        try:
            probe.touch()
            probe.replace(self._files / _PROBE)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise SpoolError(f"{self._partial} and {self._files} are not on one disk") from error
            return  # full, or read-only: that is met where it matters
        finally:
            for path in (probe, self._files / _PROBE):
                with contextlib.suppress(OSError):
                    path.unlink()

    @property
    def holds_media(self) -> bool:
        """Something was written that is not removed: committed, or left open."""
        return any(path.name != _PROBE for folder in (self._files, self._partial) for path in folder.iterdir())

    def partial(self, name: str) -> Path:
        """Where a file is written while it is open."""
        return self._partial / _one_part(name)

    def commit(self, name: str, record: Mapping[str, object]) -> Record:
        """Make the finished `partial(name)` durable and journal it; returns `record` with `name`, `size` and `sha256`.

        When it returns, the file and its record survive a power cut. A name is committed once in a recording's life.

        Raises:
            SpoolError: the disk failed and nothing was committed; the file is gone, trying again is no use.
        """
        path = self.partial(name)
        with self._naming:
            if name in self._committed():
                raise SpoolError("a file of this name was committed before")
            self._committed().add(name)
        try:
            full = {**record, "name": name, **(self._sealed(path, name) if self.sealed else _fixed(path))}
            (self._beside(name) if self.sealed else path).rename(self._files / name)
            sync_folder(self._files)
            if self.sealed:
                path.unlink()
        except OSError as error:
            # After a failed fsync the kernel may call the lost pages clean: another try would succeed without them.
            for remains in (path, self._beside(name), self._files / name):
                with contextlib.suppress(OSError):
                    remains.unlink()
            raise SpoolError(f"cannot commit a file: {error.strerror}") from error
        self._journal.append(full)
        return full

    def adopt(self, name: str, record: Mapping[str, object]) -> Record:
        """Journal a committed file whose record was lost; returns it with `name`, `size` and `sha256`.

        Raises:
            SpoolError: the disk failed.
            LocalFileError: it was sealed, and changed since.
        """
        try:
            full = {**record, "name": name, **self._measured(name)}
        except OSError as error:
            raise SpoolError(f"cannot read a committed file: {error.strerror}") from error
        self._committed().add(name)
        self._journal.append(full)
        return full

    def append(self, record: Mapping[str, object]) -> None:
        """Journal a record that has no file.

        Raises:
            SpoolError: the disk failed.
        """
        self._journal.append(record)

    def records(self) -> list[Record]:
        """All whole records of the journal, in order; `corrupt_lines` tells how many lines were left out."""
        content = self._journal.read()
        self.corrupt_lines = content.corrupt
        return list(content.records)

    def unrecorded(self) -> list[Path]:
        """Committed files whose record was lost: the crash came between the rename and the journal, or the line is torn."""
        known = self._recorded()
        return sorted(path for path in self._files.iterdir() if path.name not in known and path.name != _PROBE)

    def file(self, name: str) -> Path:
        """Where a committed file lies until it is removed."""
        return self._files / _one_part(name)

    def remove(self, name: str) -> None:
        """Delete a committed file: only when a store has verified it."""
        self.file(name).unlink(missing_ok=True)

    def close(self) -> None:
        self._journal.close()
        self.uploads.close()
        self.notes.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def destroy(self) -> None:
        """Delete the folder with everything in it. A crash half-way leaves nothing that looks like a recording."""
        self.close()
        gone = self.folder.with_name(f".{self.folder.name}{_GONE}")
        self.folder.rename(gone)
        shutil.rmtree(gone)

    def _beside(self, name: str) -> Path:
        return self.partial(f"{name}{_BESIDE}")

    def _key(self) -> Seal:
        if self.seal is None:
            raise SpoolError("the key of the recording is not known yet")
        return self.seal

    def _sealed(self, path: Path, name: str) -> dict[str, object]:
        """Write a file durably sealed beside itself and measure it."""
        with path.open("rb") as source, self._beside(name).open("wb") as target:
            size, sha256 = self._key().write(source, target, name)
            target.flush()
            os.fsync(target.fileno())
        return {"size": size, "sha256": sha256}

    def _measured(self, name: str) -> dict[str, object]:
        """Make a committed file durable and measure what was committed."""
        path = self.file(name)
        if not self.sealed:
            return _fixed(path)
        sync_file(path)
        with self._key().file(path, name).open("rb") as file:
            return _measure(file)

    def _committed(self) -> set[str]:
        if self._names is None:
            self._names = self._recorded()
        return self._names

    def _recorded(self) -> set[str]:
        return {str(record["name"]) for record in self._journal.read().records if "sha256" in record}


def _fixed(path: Path) -> dict[str, object]:
    """Make a file durable and measure it."""
    sync_file(path)
    with path.open("rb") as file:
        return _measure(file)


def _measure(file: BinaryIO) -> dict[str, object]:
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it reads into a buffer, which every binary file can
    return {"size": file.tell(), "sha256": digest.hexdigest()}


def _one_part(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError("not the name of one file")
    return name
