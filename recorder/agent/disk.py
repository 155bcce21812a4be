"""Watches the disk of the spool, and has less recorded as it fills up: media that is not uploaded is never thrown away for room.

    80 %  no recording is taken
    90 %  composites are encoded with half their bitrate, until the disk is below 80 % again
    95 %  the newest recording ends, and another one with each further percent
    full  all end; the end of each is written on a reserve of 64 MB

What counts is bytes or files (inodes), whichever is scarcer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from recorder.protocol import Reason
from storage.reserve import Reserve
from storage.spool import Spool

log = logging.getLogger(__name__)

REFUSE, LOWER, END, STEP, FULL = 0.80, 0.90, 0.95, 0.01, 0.995
LOOK_SECONDS: Final = 1.0


class Watched(Protocol):
    """A recording that is running."""

    @property
    def began_ms(self) -> int: ...

    def stop(self, reason: Reason) -> None: ...

    def save_space(self, on: bool) -> None:  # as told to the worker
        """Record with less, or as usual again; to be told once more changes nothing."""


class Disk:
    def __init__(self, spool: Spool, live: Callable[[], Iterable[Watched]]) -> None:
        """`live` are the recordings that run and were not told to end."""
        self._spool = spool
        self._reserve = Reserve(spool.root)
        self._reserved = False
        self._live = live
        self._saving = False
        self._end_at = END

    @property
    def refuses(self) -> str | None:
        """Why no recording can be taken; None: there is room."""
        return "the disk of the spool is full" if self._fill() >= REFUSE else None

    @property
    def is_full(self) -> bool:
        """Nothing fits in any more, so that it is no wonder when nothing can be written."""
        return self._fill() > FULL

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Do what the disk demands now."""
        fill = self._fill()
        if self._reserved and not self._reserve.is_there:
            self._reserved = False
            log.error("the disk of the spool is full, all recordings end", extra={"fill": round(fill, 3)})
            for recording in self._live():
                recording.stop("spool_full")
        elif not self._reserved and fill < REFUSE:
            self._reserved = self._reserve.is_there or self._reserve.make()
        self._save(fill)
        if fill < END:
            self._end_at = END
        elif fill >= self._end_at:
            self._end_newest(fill)

    def _fill(self) -> float:
        try:
            return self._spool.fill()
        except OSError:  # it fails altogether, which is met where it is written
            return 0.0

    def _save(self, fill: float) -> None:
        saving = fill >= (REFUSE if self._saving else LOWER)
        if saving != self._saving:
            self._saving = saving
            log.warning("the disk of the spool " + ("fills up, bitrates are halved" if saving else "has room again"))
        for recording in self._live():
            recording.save_space(saving)

    def _end_newest(self, fill: float) -> None:
        self._end_at = fill + STEP
        newest = max(self._live(), key=lambda recording: recording.began_ms, default=None)
        if newest:
            log.error("the disk of the spool is nearly full, the newest recording ends", extra={"fill": round(fill, 3)})
            newest.stop("spool_full")
