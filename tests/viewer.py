"""What a viewer of a recording notices of one publisher: frozen pictures, silence, time shifts, wrong order, lip sync.

The publisher's content tells the time (`recorder.tools.content`): a frame counter, a flash and a beep at each full second.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from recorder.tools import measure
from recorder.tools.content import COUNTER_PERIOD, SAMPLE_RATE, tone_hz

NOTICED_SECONDS = 0.1  # a picture that stands still, or silence, for less is no gap: grids of frame rates give it without any loss
_EDGE_SECONDS = 0.5  # nor is what was still on its way when the recording was stopped, or not yet there when it began
LOOP_SECONDS = 8.0  # the frame counter of a publisher that plays a loop begins again after it; a live one counts on
_WINDOW_SECONDS = 0.02
_SHORTEST_SECONDS = 0.005  # of a silence: a packet's 20 ms hold at least two such windows, blurred as the edges are by the encoder
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
    period: float  # of the content's time
    pictures: tuple[tuple[float, float], ...]  # time, time of the publisher's content modulo the period; only readable ones
    unreadable: int  # pictures without a counter
    frozen: tuple[Gap, ...]
    silent: tuple[Gap, ...]  # only of a recording of one person
    offsets: tuple[tuple[float, float], ...]  # time of a flash, and flash minus beep
    beeps: tuple[float, ...]

    @property
    def frozen_seconds(self) -> float:
        return sum(gap.seconds for gap in self.frozen)

    @property
    def silent_seconds(self) -> float:
        return sum(gap.seconds for gap in self.silent)

    @property
    def backward_steps(self) -> int:
        """Pictures that are older than the one shown before them. The content's period is told from the time that has passed."""
        return sum(
            (passed := at - earlier) + self._wrapped(content - before - passed) < 0
            for (earlier, before), (at, content) in pairwise(_fresh(self.pictures))
        )

    def shift_between(self, early: tuple[float, float], late: tuple[float, float]) -> float:
        """How much later (positive) the content is shown in the span `late` than it was in `early`."""
        return self._wrapped(self._delay(late) - self._delay(early))

    def _delay(self, span: tuple[float, float]) -> float:
        """File time less content time, modulo the period: the median over fresh pictures; NaN when there are none."""
        delays = [at - content for at, content in _fresh(self.pictures) if span[0] <= at < span[1]]
        if not delays:
            return nan
        return delays[0] + median(self._wrapped(delay - delays[0]) for delay in delays)

    def offset_p95(self, *, without: tuple[float, float] = (0, 0)) -> float:
        """Of the absolute A/V offset, outside of a span of time."""
        offsets = [abs(offset) for at, offset in self.offsets if not without[0] <= at < without[1]]
        return float(np.percentile(offsets, 95)) if offsets else float("inf")

    def _wrapped(self, seconds: float) -> float:
        """The same time of the content's period, nearest to 0."""
        return (seconds + self.period / 2) % self.period - self.period / 2

    def figures(self) -> dict[str, float]:
        return {
            "seconds": round(self.length, 3),
            "frozen_seconds": round(self.frozen_seconds, 3),
            "silent_seconds": round(self.silent_seconds, 3),
            "longest_freeze": round(max((gap.seconds for gap in self.frozen), default=0.0), 3),
            "longest_silence": round(max((gap.seconds for gap in self.silent), default=0.0), 3),
            "av_offset_p95_ms": round(1000 * self.offset_p95(), 1),
            "backward_steps": self.backward_steps,
            "unreadable": self.unreadable,
            "beeps": len(self.beeps),
        }


def watch(path: Path, people: Iterable[tuple[int, measure.Rect | None]], *, live: bool, fps: int = 30) -> dict[int, Seen]:
    """Watch a file once for several people, each a uid and the tile it is in (None: all of the picture).

    `live`: what they publish is no loop.
    """
    period = COUNTER_PERIOD / fps if live else LOOP_SECONDS
    tiles = dict(people)
    counters: dict[int, list[tuple[float, int | None]]] = {uid: [] for uid in tiles}
    levels: dict[int, list[tuple[float, float]]] = {uid: [] for uid in tiles}
    for at, frame in measure.video_frames(path):
        luma = measure.luma_of(frame)
        for uid, rect in tiles.items():
            tile = measure.crop(luma, rect)
            counters[uid].append((at, measure.read_counter(tile)))
            levels[uid].append((at, measure.flash_level(tile)))
    sound_start, samples = measure.samples_of(path)
    silent = _silence(samples, sound_start) if len(tiles) == 1 else ()
    found = {}
    for uid, seen in counters.items():
        start, end = seen[0][0], seen[-1][0] + 1 / fps
        beeps = [sound_start + onset for onset in measure.onsets(samples, tone_hz(uid))]
        flashes = [at for (_, before), (at, level) in pairwise(levels[uid]) if before < 128 <= level]
        pictures = tuple((at - start, counter / fps % period) for at, counter in seen if counter is not None)
        found[uid] = Seen(
            length=end - start,
            sound_length=len(samples) / SAMPLE_RATE,
            period=period,
            pictures=pictures,
            unreadable=sum(counter is None for _, counter in seen),
            frozen=_freezes(pictures, end - start, fps),
            silent=_inner((Gap(gap.start - start, gap.seconds) for gap in silent), end - start),
            offsets=tuple((flash - start, offset) for flash in flashes for offset in measure.offsets([flash], beeps)),
            beeps=tuple(beep - start for beep in beeps),
        )
    return found


def _fresh(pictures: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pictures that differ from the one before them."""
    found: list[tuple[float, float]] = []
    for at, content in pictures:
        if not found or content != found[-1][1]:
            found.append((at, content))
    return found


def _freezes(pictures: Iterable[tuple[float, float]], length: float, fps: int) -> tuple[Gap, ...]:
    times = [0.0, *(at for at, _ in _fresh(pictures)), length]
    return _inner((Gap(a, b - a - 1 / fps) for a, b in pairwise(times) if b - a - 1 / fps >= NOTICED_SECONDS), length)


def _inner(gaps: Iterable[Gap], length: float) -> tuple[Gap, ...]:
    """Without short ones at the very edges."""
    return tuple(
        gap
        for gap in gaps
        if gap.seconds > _EDGE_SECONDS or (gap.start > _EDGE_SECONDS and gap.start + gap.seconds < length - NOTICED_SECONDS)
    )


def silences(path: Path) -> tuple[Gap, ...]:
    """Where a file has no sound at all, of nobody, in seconds of its sound; the noise of the content is never silent."""
    start, samples = measure.samples_of(path)
    return _inner((Gap(gap.start - start, gap.seconds) for gap in _silence(samples, start)), len(samples) / SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class Heard:
    """One publisher in a file of sound alone. Times are seconds from its beginning."""

    length: float
    silent: tuple[Gap, ...]
    silent_seconds: float  # in all, the shortest ones too
    beeps: tuple[float, ...]


def listen(path: Path, uid: int) -> Heard:
    _, samples = measure.samples_of(path)
    length = len(samples) / SAMPLE_RATE
    edge = round(_EDGE_SECONDS * SAMPLE_RATE)
    missing = _quiet(samples[edge:-edge], _SHORTEST_SECONDS).sum() * _SHORTEST_SECONDS
    return Heard(length, _inner(_silence(samples, 0), length), float(missing), tuple(measure.onsets(samples, tone_hz(uid))))


def _quiet(samples: measure.Samples, seconds: float) -> npt.NDArray[np.bool_]:
    """Which of the windows of this length are silent."""
    window = int(seconds * SAMPLE_RATE)
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    quiet: npt.NDArray[np.bool_] = np.sqrt((whole**2).mean(axis=1)) < _SILENCE
    return quiet


def _silence(samples: measure.Samples, start: float) -> tuple[Gap, ...]:
    quiet = np.concatenate([[False], _quiet(samples, _WINDOW_SECONDS), [False]])
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8))).tolist()
    gaps = (Gap(start + a * _WINDOW_SECONDS, (b - a) * _WINDOW_SECONDS) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return tuple(gap for gap in gaps if gap.seconds >= NOTICED_SECONDS)
