"""Takes a recording from a spool that fails to another one, as far as the failing disk can still be read."""

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from storage.durable import sync_file, sync_folder
from storage.errors import SpoolError
from storage.journal import Journal
from storage.sealed import Seal
from storage.spool import ARRIVING, RecordingSpool, Spool

log = logging.getLogger(__name__)


def evacuate(failing: Path, second: Spool, seal: Seal | None = None) -> RecordingSpool:
    """Copy the journals, the committed files that are not removed, and those left open; returns the copy, which appears whole.

    Nobody may write in `failing` meanwhile. Committed files that cannot be read any more, or are not what was committed, are left
    out: whoever looks for them finds none. Sealed ones go along as they are; without `seal` nobody looks into them here.

    Raises:
        SpoolError, OSError: the second spool fails, too.
    """
    arriving = second.root / f".{failing.name}{ARRIVING}"
    shutil.rmtree(arriving, ignore_errors=True)
    target = RecordingSpool(arriving, seal)
    if (failing / target.mark.name).exists():
        target.mark_sealed()
    _copy_records(failing / "notes", target.notes)
    for record in _records(failing / "journal"):
        if "sha256" in record and (failing / "files" / str(record["name"])).exists():
            _copy_committed(failing / "files" / str(record["name"]), record, target)
        else:
            target.append(record)
    partial = failing / "partial"
    for path in sorted(partial.iterdir()) if partial.is_dir() else ():
        try:
            shutil.copyfile(path, target.partial(path.name))
        except OSError as error:
            log.warning("an open file cannot be taken along", extra={"file": path.name, "error": str(error)})
    with contextlib.suppress(OSError):  # there is none while somebody is in the channel
        shutil.copyfile(failing / target.absence.name, target.absence)
    _copy_records(failing / "uploads", target.uploads)
    target.close()
    arriving.rename(second.root / failing.name)
    sync_folder(second.root)
    return second.recording(failing.name)


def _copy_committed(path: Path, record: Mapping[str, object], target: RecordingSpool) -> None:
    copy = target.file(path.name)
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        log.error("a committed file cannot be read any more", extra={"file": path.name, "error": str(error)})  # noqa: TRY400  # said here
        copy.unlink(missing_ok=True)
        target.append(record)
        return
    sync_file(copy)
    if not target.is_as_committed(path.name, str(record["sha256"])):
        log.error("a committed file is not what was committed", extra={"file": path.name})
        copy.unlink()
    sync_folder(copy.parent)
    target.append(record)


def _copy_records(source: Path, target: Journal) -> None:
    records = _records(source)
    for number, record in enumerate(records, 1):
        target.append(record, durable=number == len(records))


def _records(path: Path) -> list[Mapping[str, object]]:
    try:
        return list(Journal(path).read().records)
    except SpoolError as error:
        log.error("a journal cannot be read any more", extra={"journal": path.name, "error": str(error)})  # noqa: TRY400  # said here
        return []
