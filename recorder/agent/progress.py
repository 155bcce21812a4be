"""How the uploads of one recording get on: told each minute, and an alarm when they stand still."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from recorder.protocol import EventBody, Finished, Progress, SliceCommitted, SliceStored, UploaderStarted, Warned

STALLED: Final = 10005  # `warnCode` of the alarm
PROGRESS_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 6.0  # for a file without a byte
SLOWEST_BYTES: Final = 250_000  # a second; with less a line cannot follow a recording
_LOOK_SECONDS: Final = 0.5
_UPLOADER: Final = 1


class UploadProgress:
    """`note()` hears everything that happens in the recording; `look()` says what that is worth to be told."""

    def __init__(self, lost: Callable[[], Collection[str]], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`lost` are the committed files that will never be stored; `clock` tells seconds."""
        self._lost = lost
        self._clock = clock
        self._waiting: dict[str, tuple[float, int]] = {}  # committed and not stored: since when, and its size
        self._committed = 0
        self._stored = 0
        self._stored_at: float | None = None  # the newest
        self._due: float | None = None  # of the next report; None: not started, or over
        self._stalled = False

    def note(self, body: EventBody) -> None:
        match body:
            case UploaderStarted():
                self._due = self._clock() + PROGRESS_SECONDS
            case SliceCommitted(slice=committed):
                self._committed += 1
                self._waiting[committed.name] = self._clock(), committed.size
            case SliceStored(name=name) if self._waiting.pop(name, None):
                self._stored += 1
                self._stored_at = self._clock()
            case Finished():
                self._due = None

    def look(self) -> list[EventBody]:
        """What is to be told now."""
        if self._due is None:
            return []
        now, told = self._clock(), list[EventBody]()
        if now >= self._due:
            self._due += PROGRESS_SECONDS
            told.append(Progress(stored=self._stored, committed=self._committed))
        stalled = self._stands_still(now)
        if stalled and not self._stalled:
            told.append(Warned(module=_UPLOADER, code=STALLED, detail=f"{len(self._waiting)} files wait"))
        self._stalled = stalled
        return told

    def _stands_still(self, now: float) -> bool:
        """A file is not stored although there was time for it, nor was any other meanwhile."""
        if self._stored_at is not None and now - self._stored_at < PATIENCE_SECONDS:
            return False
        lost = self._lost()
        waits = (now - since - size / SLOWEST_BYTES for name, (since, size) in self._waiting.items() if name not in lost)
        return any(wait > PATIENCE_SECONDS for wait in waits)

    async def run(self, emit: Callable[[EventBody], Awaitable[None]]) -> None:
        """Tell it for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for body in self.look():
                await emit(body)
