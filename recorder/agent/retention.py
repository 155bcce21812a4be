"""What could not be stored stays in the spool for some time after the end of its recording, and goes then."""

import logging
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from storage.spool import MOVED, Spool

log = logging.getLogger(__name__)

LOOK_SECONDS = 3600.0
_DAY_SECONDS = 86_400


def forget(spool: Spool, busy: Collection[str], *, keep_days: float, now: Callable[[], float]) -> list[str]:
    """Remove the folders of recordings that are not `busy`, in which nothing was written for so long, and those set aside.

    `now` is the wall clock's seconds. Returns what was removed.
    """
    before = now() - keep_days * _DAY_SECONDS
    gone = []
    kept = [spool.root / sid for sid in spool.recordings() if sid not in busy]
    for folder in (*kept, *spool.root.glob(f".*{MOVED}")):
        if _written(folder) >= before:
            continue
        media = sum(path.is_file() for path in (folder / "files").glob("*"))
        log.error("what could not be stored is removed, its time is over", extra={"folder": str(folder), "media_files": media})
        try:
            shutil.rmtree(folder)
        except OSError:
            log.exception("a folder of the spool cannot be removed")
        else:
            gone.append(folder.name)
    return gone


def _written(folder: Path) -> float:
    """When something of the recording was written last."""
    return max(
        (path.stat().st_mtime for name in ("uploads", "journal") if (path := folder / name).exists()), default=folder.stat().st_mtime
    )
