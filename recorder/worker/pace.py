"""How many of the output's pictures are made: fewer while the machine is late, all again when it has kept up for a while. Pure.

The grid of times stays; a picture that is left out is shown by the one before it. Being late alone does not count: after a
stall the recording catches up by itself. Being late and not getting less late does.
"""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
JUDGE_NS = SECOND
LATE_NS = SECOND // 2
PUNCTUAL_NS = SECOND // 10
CATCHING_UP = 0.9  # of what it was late a second before
LEAST_FPS = 3
HOLD_NS = 5 * SECOND  # punctual for so long before more is tried
LONGEST_HOLD_NS = 300 * SECOND


class Pace:
    def __init__(self, fps: int, slowed: Callable[[str], object]) -> None:
        """`slowed` is told in words each time that less is made."""
        self.step = 1  # one picture of so many is made
        self._fps = fps
        self._slowed = slowed
        self._judged_ns: int | None = None
        self._late_ns = 0  # when it was judged
        self._changed_ns = 0
        self._tried = False  # the last change was to more
        self._unpunctual_ns = 0
        self._hold_ns = HOLD_NS

    def observe(self, late_ns: int, now_ns: int) -> None:
        if late_ns > PUNCTUAL_NS:
            self._unpunctual_ns = now_ns
        if self._judged_ns is not None and now_ns - self._judged_ns < JUDGE_NS:
            return
        before_ns, self._late_ns, self._judged_ns = self._late_ns, late_ns, now_ns
        if late_ns > LATE_NS and late_ns > before_ns * CATCHING_UP > LATE_NS * CATCHING_UP:
            self._slow_down(now_ns)
        elif self.step > 1 and now_ns - max(self._unpunctual_ns, self._changed_ns) >= self._hold_ns:
            self._change(self.step // 2, now_ns, tried=True)
            log.info("keeping up again", extra={"fps": self._fps / self.step})

    def _slow_down(self, now_ns: int) -> None:
        if self._fps / (2 * self.step) < LEAST_FPS:
            return
        if self._tried:  # more was too much
            self._hold_ns = min(2 * self._hold_ns, LONGEST_HOLD_NS)
        self._change(2 * self.step, now_ns, tried=False)
        log.warning("too slow, fewer pictures are made", extra={"fps": self._fps / self.step, "late_seconds": self._late_ns / SECOND})
        self._slowed(f"{self._fps / self.step:g} of {self._fps} pictures a second")

    def _change(self, step: int, now_ns: int, *, tried: bool) -> None:
        self.step, self._tried = step, tried
        self._changed_ns = now_ns
