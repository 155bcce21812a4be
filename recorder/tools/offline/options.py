"""What can be asked of a merge, and what of it goes together. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Final, Literal

from mixer.fit import even

Fill = Literal["duplicate_prev", "black_frame"]

SEGMENTS, ALL, SOUND, PICTURES = range(4)  # modes

_FPS: Final = (5, 120)
_SIDE: Final = (16, 4096)
_WIDTH: Final = (120, 1920)
_HEIGHT: Final = (120, 1080)
_KBPS: Final = (50, 6300)
_UID: Final = (1, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Options:
    """Named after what they mean; `problems` speaks of them as the command line does."""

    mode: int = SEGMENTS
    composite: bool = False
    uid: int | None = None  # only this participant
    drop_absences: bool = False
    fps: int | None = None  # None: the source's, as the two below
    size: tuple[int, int] | None = None
    kbps: int | None = None
    fill: Fill = "duplicate_prev"
    also_sound: bool = False  # an M4A of each segment too
    shots_ms: int | None = None  # a JPG every so often too
    each_slice: bool = False  # an MP4 or M4A of each TS slice too
    begin_s: float | None = None
    length_s: float | None = None
    output: str | None = None  # name of the file
    compat: bool = False  # the original's defaults
    ignore_missing: bool = False  # slices that are missing or broken are absences

    def problems(self) -> list[str]:
        """Everything that is wrong, each option once."""
        return [*self._ranges(), *self._together()]

    def _ranges(self) -> Iterator[str]:
        if not SEGMENTS <= self.mode <= PICTURES:
            yield "-m must be 0, 1, 2 or 3"
        if self.fps is not None and self.fps > _FPS[1]:
            yield f"-p/--video_framerate must be at most {_FPS[1]}"
        if self.size and not all(_SIDE[0] <= side <= _SIDE[1] for side in self.size):
            yield f"-r must be two numbers from {_SIDE[0]} to {_SIDE[1]}"
        if self.kbps is not None and not _KBPS[0] <= self.kbps <= _KBPS[1]:
            yield f"--video_bitrate must be from {_KBPS[0]} to {_KBPS[1]}"
        if self.uid is not None and not _UID[0] <= self.uid <= _UID[1]:
            yield f"-u/--uid must be from {_UID[0]} to {_UID[1]}"
        if self.shots_ms is not None and self.shots_ms < 1:
            yield "-c must be at least 1"
        if self.begin_s is not None and not 0 <= self.begin_s < math.inf:
            yield "-b must not be negative"
        if self.length_s is not None and not 0 < self.length_s < math.inf:
            yield "-t must be positive"

    def _together(self) -> Iterator[str]:
        if self.length_s is not None and self.begin_s is None:
            yield "-t goes with -b"
        if self.drop_absences and self.mode == SEGMENTS and self.begin_s is None:
            yield "-s does not go with -m 0"
        if self.composite and self.mode == SEGMENTS:
            yield "-m 0 is for individual recordings"
        if self.composite and self.uid is not None:
            yield "-u/--uid is for individual recordings"
        if self.output is not None:
            yield from self._name(self.output)

    def _name(self, name: str) -> Iterator[str]:
        suffix = ".m4a" if self.mode == SOUND else ".mp4"
        if self.uid is None:
            yield "-o goes with -u"
        elif self.mode == SEGMENTS and self.begin_s is None:
            yield "-o goes with -m 1, 2 or 3, which make one file"
        elif PurePath(name).name != name or not name.endswith(suffix) or name.startswith("."):
            yield f"-o must be a name that ends with {suffix}, without a folder"


def effective(options: Options) -> Options:
    """As they work: a window makes one file for each participant, and rates have a lower limit."""
    return replace(
        options,
        mode=ALL if options.mode == SEGMENTS and options.begin_s is not None else options.mode,
        fps=None if options.fps is None else max(_FPS[0], options.fps),
        size=options.size and (even(options.size[0]), even(options.size[1])),
    )


def v2_size(width: int | None, height: int | None) -> Iterator[str]:
    """What is wrong with `--width` and `--height`."""
    if (width is None) != (height is None):
        yield "--width and --height go together"
    if width is not None and not _WIDTH[0] <= width <= _WIDTH[1]:
        yield f"--width must be from {_WIDTH[0]} to {_WIDTH[1]}"
    if height is not None and not _HEIGHT[0] <= height <= _HEIGHT[1]:
        yield f"--height must be from {_HEIGHT[0]} to {_HEIGHT[1]}"
