"""Which streams come in: by their frames, and by what the channel says of them. Pure; times are ns on the recording's timeline."""

from collections.abc import Callable
from typing import Final

from recorder.frames import Kind, Track
from recorder.worker.vigil import Vigil

QUIET_NS: Final = 5_000_000_000  # a stream without a frame for so long does not come in any more
MISSED_NS: Final = 1_000_000_000  # somebody sends, and nothing has come for so long
MUTED_NS: Final = 2_000_000_000  # a mute is told at once: of whom nothing came for so long before, the channel only found that out
MIXED: Final = 0  # uid of what all send together

Changed = Callable[[int, Kind, bool, int], object]  # uid, kind, whether it comes in, since when


class Streams:
    """`look()` wants to be called a few times a second."""

    def __init__(self, *, mixed: bool, changed: Changed, missed: Callable[[], object]) -> None:
        """`mixed`: tell also of the mixed stream, which comes in while any does. `missed`: nothing comes from people who are there."""
        self._mixed = mixed
        self._changed = changed
        self._missed = missed
        self._announced: dict[Track, int | None] = {}  # what is sent, by what the channel says; the time of the last frame
        self._vanished: set[Track] = set()  # was sent, and is not, although nobody muted it
        self._hosts: set[int] = set()
        self._receiving: set[Track] = set()
        self._last_ns: int | None = None  # of all frames
        self._vigil = Vigil()

    def joined(self, uid: int) -> None:
        """Somebody is there who may send."""
        self._hosts.add(uid)

    def left(self, uid: int, now_ns: int) -> None:
        self._hosts.discard(uid)
        for track in [track for track in self._announced if track.uid == uid]:
            self.stopped(track, now_ns)
        self._vanished = {track for track in self._vanished if track.uid != uid}

    def started(self, track: Track) -> None:
        """The track is wanted, and its sender says that it sends."""
        self._announced.setdefault(track, None)
        self._vanished.discard(track)

    def stopped(self, track: Track, now_ns: int) -> None:
        """It is not sent or not wanted any more; frames that still come were on their way."""
        if track in self._announced:
            last_ns = self._announced.pop(track)
            if last_ns is not None and now_ns - last_ns > MUTED_NS:
                self._vanished.add(track)
            self._end(track, now_ns)

    def frame(self, track: Track, now_ns: int) -> None:
        if track not in self._announced:
            return
        self._announced[track] = self._last_ns = now_ns
        if track not in self._receiving:
            first_of_kind = not self._has(track.kind)
            self._receiving.add(track)
            self._changed(track.uid, track.kind, True, now_ns)
            if self._mixed and first_of_kind:
                self._changed(MIXED, track.kind, True, now_ns)

    def look(self, now_ns: int) -> None:
        for track in tuple(self._receiving):
            last_ns = self._announced[track]
            if last_ns is not None and now_ns - last_ns > QUIET_NS:
                self._end(track, now_ns)
        # Whoever mutes everything on purpose is no fault; of whom nothing ever came is.
        expected = self._announced or self._vanished or (self._hosts and self._last_ns is None)
        missing = self._last_ns is None or now_ns - self._last_ns > MISSED_NS
        if self._vigil.see(bool(expected) and missing, now_ns):
            self._missed()

    def end(self, now_ns: int) -> None:
        """Nothing is received any more."""
        for track in tuple(self._announced):
            self.stopped(track, now_ns)

    def _end(self, track: Track, now_ns: int) -> None:
        if track in self._receiving:
            self._receiving.remove(track)
            self._changed(track.uid, track.kind, False, now_ns)
            if self._mixed and not self._has(track.kind):
                self._changed(MIXED, track.kind, False, now_ns)

    def _has(self, kind: Kind) -> bool:
        return any(track.kind == kind for track in self._receiving)
