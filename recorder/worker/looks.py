"""Looks at what people send, as it is decoded: is it black, does it stand still, is it silent?

Times are nanoseconds on the recording's timeline.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from mixer.audio import Sound
from mixer.picture import Picture
from recorder.worker.vigil import BLACK, FROZEN, HOLD_NS, SILENT, Vigil

LOOK_NS: Final = 1_000_000_000
_STEP: Final = 8  # every eighth sample of each direction is looked at
_DARK: Final = 40  # luma; black is 16
_MOSTLY: Final = 0.98  # of the samples
_STILL: Final = 0.1  # mean difference of luma: what a camera sends differs by more, by its noise alone
_QUIET: Final = 3e-4  # of full scale: -70 dBFS
_PAUSE_NS: Final = 1_000_000_000  # sound that comes back after it has begun anew

Alarm = Callable[[int, int], object]  # warnCode, uid


class Looks:
    """Of one participant. A screen that really does not change is told as frozen, too: nobody can see the difference."""

    def __init__(self, uid: int, alarm: Alarm) -> None:
        self._uid = uid
        self._alarm = alarm
        self._due_ns: int | None = None
        self._seen: Picture | None = None
        self._samples: npt.NDArray[np.int16] | None = None  # of the picture to which later ones are compared
        self._dark = False
        self._black, self._frozen = Vigil(), Vigil()

    def see(self, picture: Picture | None, now_ns: int) -> None:
        """What is shown of them now; None: nothing is sent."""
        if self._due_ns is not None and now_ns < self._due_ns:
            return
        self._due_ns = now_ns + LOOK_NS
        still = picture is not None and not self._differs(picture)
        black = picture is not None and self._dark
        if self._black.see(black, now_ns):
            self._alarm(BLACK, self._uid)
        if self._frozen.see(still and not black, now_ns):
            self._alarm(FROZEN, self._uid)

    def _differs(self, picture: Picture) -> bool:
        if picture is self._seen:
            return False
        self._seen = picture
        samples = picture.planes.y[::_STEP, ::_STEP].astype(np.int16)
        self._dark = bool(np.mean(samples <= _DARK) >= _MOSTLY)
        before = self._samples
        if before is not None and before.shape == samples.shape and np.abs(samples - before).mean() < _STILL:
            return False
        self._samples = samples
        return True


class Hearing:
    """Of all who are heard. Each one's sound comes in the order of time."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._begun_ns: int | None = None  # since then sound comes in
        self._end_ns = 0  # of what has come
        self._loud_ns: int | None = None  # end of the newest that can be heard
        self._raised = False

    def hear(self, samples: Sound, end_ns: int) -> None:
        """Sound that ends at `end_ns`."""
        if self._begun_ns is None or end_ns - self._end_ns > _PAUSE_NS:
            self._begun_ns = end_ns
        self._end_ns = max(self._end_ns, end_ns)
        if samples.size and np.abs(samples).max() >= _QUIET:
            self._loud_ns = max(end_ns, self._loud_ns or end_ns)
            self._raised = False
        since_ns = self._begun_ns if self._loud_ns is None else max(self._begun_ns, self._loud_ns)
        if not self._raised and self._end_ns - since_ns >= HOLD_NS:
            self._raised = True
            self._alarm(SILENT, 0)
