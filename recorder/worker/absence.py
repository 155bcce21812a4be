"""Since when nobody who counts has been in the channel: counted over a recording, whatever happens to its workers meanwhile."""

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
_NS: Final = 1_000_000_000


class Absence:
    """Begins with nobody there. With a `mark` the next worker counts on from where a killed one began.

    The time is the machine's monotonic clock, so that a wall clock that is set changes nothing; only across a restart of the
    machine the wall clock has to do. The file is not forced to disk: nobody but a power cut takes it away, and a mark that cannot
    be written costs only that the next worker counts anew.
    """

    def __init__(self, mark: Path | None = None) -> None:
        self._mark = mark
        self._since: float | None = _marked(mark) if mark else None
        if self._since is None:
            self.begin()

    def begin(self) -> None:
        """Nobody is there from now on; nothing happens when nobody was."""
        if self._since is None:
            self._since = time.monotonic()
            self._write()

    def end(self) -> None:
        """Somebody is there."""
        if self._since is not None:
            self._since = None
            if self._mark:
                with contextlib.suppress(OSError):
                    self._mark.unlink(missing_ok=True)

    def seconds(self) -> float:
        """How long it has lasted; 0 while somebody is there."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _write(self) -> None:
        if self._mark is None or self._since is None:
            return
        beside = self._mark.with_name(f".{self._mark.name}")
        note = {"boot": _boot(), "monotonic_ns": round(self._since * _NS), "utc_ns": time.time_ns()}
        try:
            beside.write_text(json.dumps(note), encoding="ascii")
            beside.replace(self._mark)
        except OSError as error:
            log.warning("a next worker will count the idle time anew", extra={"error": error.strerror})


def _marked(mark: Path) -> float | None:
    """When it began by this machine's monotonic clock, which may be before the machine was started; None: no mark is left."""
    try:
        note = json.loads(mark.read_text("ascii"))
        boot, monotonic_ns, utc_ns = str(note["boot"]), int(note["monotonic_ns"]), int(note["utc_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    now = time.monotonic()
    if boot and boot == _boot():
        return min(now, monotonic_ns / _NS)
    return now - max(0.0, (time.time_ns() - utc_ns) / _NS)


def _boot() -> str:
    """Names one run of the machine; empty where it cannot be told."""
    try:
        return _BOOT_FILE.read_text("ascii").strip()
    except OSError:
        return ""
