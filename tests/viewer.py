"""What a viewer of a recording notices of one publisher: frozen pictures, silence, time shifts, wrong order, lip sync.

The publisher's content tells the time (`recorder.tools.content`): a frame counter, a flash and a beep at each full second.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from recorder.tools import measure
from recorder.tools.content import SAMPLE_RATE, tone_hz

NOTICED_SECONDS = 0.1  # a picture that stands still, or silence, for less is no gap: grids of frame rates give it without any loss
_EDGE_SECONDS = 0.3  # nor is what was still on its way when the recording was stopped, or not yet there when it began
_PERIOD_SECONDS = 8.0  # of the content
_WINDOW_SECONDS = 0.02
_SILENCE = 2e-4  # of full scale: the content's noise is ten times as loud


@dataclass(frozen=True, slots=True)
class Gap:
    start: float  # seconds of presentation time
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One publisher in one file. Times are seconds from the file's first picture."""

    length: float  # of the picture; sound is checked against it
    sound_length: float
    pictures: tuple[tuple[float, float], ...]  # time, time of the publisher's content modulo the period; only readable ones
    unreadable: int  # pictures without a counter
    frozen: tuple[Gap, ...]
    silent: tuple[Gap, ...]  # only of a recording of one person
    offsets: tuple[float, ...]  # flash minus beep
    beeps: tuple[float, ...]

    @property
    def frozen_seconds(self) -> float:
        return sum(gap.seconds for gap in self.frozen)

    @property
    def silent_seconds(self) -> float:
        return sum(gap.seconds for gap in self.silent)

    @property
    def backward_steps(self) -> int:
        """Pictures that are older than the one before them; of more than half a period nothing can be said."""
        return sum(
            _wrapped(content - before) < 0
            for (earlier, before), (at, content) in pairwise(self.pictures)
            if at - earlier < _PERIOD_SECONDS / 4
        )

    def shift_between(self, early: tuple[float, float], late: tuple[float, float]) -> float:
        """How much later (positive) the content is shown in the span `late` than it was in `early`."""
        return _wrapped(self._delay(late) - self._delay(early))

    def _delay(self, span: tuple[float, float]) -> float:
        """File time less content time, modulo the period: the median over fresh pictures."""
        fresh = [(at, content) for (_, before), (at, content) in pairwise(self.pictures) if content != before and span[0] <= at < span[1]]
        first = fresh[0][0] - fresh[0][1]
        return first + median(_wrapped(at - content - first) for at, content in fresh)

    @property
    def offset_p95(self) -> float:
        """Of the absolute A/V offset."""
        return float(np.percentile(np.abs(self.offsets), 95)) if self.offsets else float("inf")

    def figures(self) -> dict[str, float]:
        return {
            "seconds": round(self.length, 3),
            "frozen_seconds": round(self.frozen_seconds, 3),
            "silent_seconds": round(self.silent_seconds, 3),
            "longest_freeze": round(max((gap.seconds for gap in self.frozen), default=0.0), 3),
            "longest_silence": round(max((gap.seconds for gap in self.silent), default=0.0), 3),
            "av_offset_p95_ms": round(1000 * self.offset_p95, 1),
            "backward_steps": self.backward_steps,
            "unreadable": self.unreadable,
            "beeps": len(self.beeps),
        }


def watch(path: Path, people: Iterable[tuple[int, measure.Rect | None]], *, fps: int = 30, aspect: float = 16 / 9) -> dict[int, Seen]:
    """Watch a file once for several people, each a uid and the tile it is in (None: all of the picture), shown at `aspect`."""
    tiles = dict(people)
    counters: dict[int, list[tuple[float, int | None]]] = {uid: [] for uid in tiles}
    levels: dict[int, list[tuple[float, float]]] = {uid: [] for uid in tiles}
    for at, frame in measure.video_frames(path):
        luma = measure.luma_of(frame)
        for uid, rect in tiles.items():
            tile = measure.crop(luma, rect)
            counters[uid].append((at, measure.read_counter(tile, aspect)))
            levels[uid].append((at, measure.flash_level(tile, aspect)))
    sound_start, samples = measure.samples_of(path)
    silent = _silence(samples, sound_start) if len(tiles) == 1 else ()
    found = {}
    for uid, seen in counters.items():
        start, end = seen[0][0], seen[-1][0] + 1 / fps
        beeps = [sound_start + onset for onset in measure.onsets(samples, tone_hz(uid))]
        flashes = [at for (_, before), (at, level) in pairwise(levels[uid]) if before < 128 <= level]
        pictures = tuple((at - start, counter / fps % _PERIOD_SECONDS) for at, counter in seen if counter is not None)
        found[uid] = Seen(
            length=end - start,
            sound_length=len(samples) / SAMPLE_RATE,
            pictures=pictures,
            unreadable=sum(counter is None for _, counter in seen),
            frozen=_freezes(pictures, end - start, fps),
            silent=_inner((Gap(gap.start - start, gap.seconds) for gap in silent), end - start),
            offsets=tuple(measure.offsets(flashes, beeps)),
            beeps=tuple(beep - start for beep in beeps),
        )
    return found


def _freezes(pictures: Iterable[tuple[float, float]], length: float, fps: int) -> tuple[Gap, ...]:
    fresh = [0.0]
    last: float | None = None
    for at, content in pictures:
        if content != last:
            fresh.append(at)
            last = content
    fresh.append(length)
    return _inner((Gap(a, b - a - 1 / fps) for a, b in pairwise(fresh) if b - a - 1 / fps >= NOTICED_SECONDS), length)


def _inner(gaps: Iterable[Gap], length: float) -> tuple[Gap, ...]:
    """Without short ones at the very edges."""
    return tuple(
        gap
        for gap in gaps
        if gap.seconds > _EDGE_SECONDS or (gap.start > _EDGE_SECONDS and gap.start + gap.seconds < length - NOTICED_SECONDS)
    )


def _silence(samples: measure.Samples, start: float) -> tuple[Gap, ...]:
    window = int(_WINDOW_SECONDS * SAMPLE_RATE)
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    quiet = np.concatenate([[False], np.sqrt((whole**2).mean(axis=1)) < _SILENCE, [False]])
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8))).tolist()
    gaps = (Gap(start + a * _WINDOW_SECONDS, (b - a) * _WINDOW_SECONDS) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return tuple(gap for gap in gaps if gap.seconds >= NOTICED_SECONDS)


def _wrapped(seconds: float) -> float:
    """The same time of the content's period, nearest to 0."""
    return (seconds + _PERIOD_SECONDS / 2) % _PERIOD_SECONDS - _PERIOD_SECONDS / 2
