"""Room on the disk of the spool that media never gets: when the disk is full, journals are written on what its removal frees."""

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 64 << 20


class Reserve:
    """One file in the root of a spool. Any process of the node may release it, its owner makes it again."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".reserve"

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def make(self, size: int = RESERVE_BYTES) -> bool:
        """Take the room; False: there is not as much."""
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            with beside.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            beside.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            return False
        return True

    def release(self) -> bool:
        """Give the room back to the disk; False: that was done before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
