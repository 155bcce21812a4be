"""Decoded sound laid on the recording's sample grid, without holes, overlaps or clicks.

Small differences between the sender's clock and ours are taken up by stretching each piece by at most 0.5 %. A piece whose time
does not continue the piece before (mute, discontinuous transmission, loss, a leap) is laid at its time: what is missing between
is silence of the exact length with soft edges, what would overlap is cross-faded. What the stretching cannot follow waits for
a quiet moment, and at most until it is 15 ms.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from mixer.audio import Sound as Samples
from recorder.media.resample import Stretcher

RATE_HZ = 48_000
FADE = RATE_HZ // 200  # samples of a soft edge: 5 ms

_TOLERATED = RATE_HZ // 2000  # samples of difference left alone: 0.5 ms, the sender reports are no better
_STRETCH = 200  # one sample in so many
_LEAP = RATE_HZ // 500  # 2 ms: a difference that grew by more than this and the timeline's slew is a loss (of 2.5 ms, the shortest packet)
_SLEW = 20  # the timeline's corrections are at most one part in so many
_QUIET_LAG = RATE_HZ // 500  # samples of difference that a quiet moment is used to take away
_LAG = RATE_HZ * 3 // 200  # samples of difference that are taken away in speech too: 15 ms, so that a usual packet has enough for it
_QUIET = 0.003  # peak: -50 dBFS
_NEVER = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sound at its place: `samples` has the shape (channels, n); `start` counts 48 kHz samples from the grid's zero."""

    start: int
    samples: Samples


class Place(NamedTuple):
    """Where a piece goes: its samples from `skip` on, stretched to `length`, at `start`."""

    start: int
    length: int
    skip: int
    continues: bool  # the piece before it


class Places:
    """The arithmetic of laying: knows lengths and times, no sound. `zero_ns` of the timeline is sample 0."""

    def __init__(self, zero_ns: int) -> None:
        self.next: int | None = None  # where the next piece would continue the last one
        self.cuts = 0  # corrections that were not made by stretching
        self._zero_ns = zero_ns
        self._difference = 0  # how much later than it was laid the last piece belonged
        self._unused = 0  # samples that may still be stretched
        self._gone = _NEVER  # before this sample nothing can be laid any more
        self._broken = True

    def follow(self, count: int, time_ns: int) -> int | None:
        """Where `count` samples that belong to `time_ns` start, when they follow the last ones as they are, as most do; None: `place`
        them."""
        start = self.next
        if start is None or self._broken:
            return None
        late = self._wanted(time_ns) - start
        if not -_TOLERATED <= late <= _TOLERATED or abs(late - self._difference) > count // _SLEW + _LEAP:
            return None
        self._unused = min(self._unused + count, max(count, _STRETCH))
        self.next, self._difference = start + count, late
        return start

    def place(self, count: int, time_ns: int, is_quiet: Callable[[], bool]) -> Place:
        """`count` samples that belong to `time_ns`."""
        wanted = self._wanted(time_ns)
        late = 0 if self.next is None else wanted - self.next
        if self.next is None or self._broken or abs(late - self._difference) > count // _SLEW + _LEAP:
            return self._anew(wanted, count)
        if abs(late) > _LAG or (abs(late) > _QUIET_LAG and is_quiet()):
            self.cuts += 1
            return self._anew(wanted, count)
        self._unused = min(self._unused + count, max(count, _STRETCH))
        used = 0
        if abs(late) > _TOLERATED:
            room = self._unused // _STRETCH
            used = max(-room, min(room, late))
            self._unused -= abs(used) * _STRETCH
        start = self.next
        self.next, self._difference = start + count + used, late - used
        return Place(start, count + used, 0, continues=True)

    def leave(self, before: int) -> None:
        """What was laid has ended, and nothing can be laid before this sample any more."""
        self._gone, self._broken = before, True

    def _wanted(self, time_ns: int) -> int:
        return (time_ns - self._zero_ns) * RATE_HZ // 1_000_000_000 - Stretcher.DELAY

    def _anew(self, wanted: int, count: int) -> Place:
        """At its own time, as far as there is room."""
        start = max(wanted, self._gone, wanted if self.next is None else self.next)
        skip = min(start - wanted, count)
        self._broken = skip == count
        self.next = start + count - skip
        self._difference = wanted + count - self.next
        return Place(start, count - skip, skip, continues=False)


class Layer:
    """Pieces of decoded sound in, chunks on the grid out. The last 5 ms are kept back until what follows is known."""

    def __init__(self, channels: int, zero_ns: int) -> None:
        self.places = Places(zero_ns)
        self._channels = channels
        self._stretcher = Stretcher(channels)
        self._kept = np.zeros((channels, 0), np.float32)
        self._end = 0  # sample where it ends
        self._run: list[tuple[Samples, int]] = []  # that continue each other, each with its length when laid: handled as one
        self._run_start = 0

    def lay(self, pieces: Iterable[tuple[Samples, int]]) -> list[Chunk]:
        """Pieces in their order, each with its time. The result is the same as when each is laid alone, at a fraction of the cost."""
        chunks: list[Chunk] = []
        for samples, time_ns in pieces:
            count = samples.shape[1]
            start = self.places.follow(count, time_ns)
            if start is not None:
                self._go_on(start, samples, count)
                continue
            place = self.places.place(count, time_ns, partial(self._continues_quietly, samples, chunks))
            if place.continues:
                self._go_on(place.start, samples, place.length)
                continue
            self._end_run(chunks)
            if place.length:
                self._stretcher = Stretcher(self._channels)
                chunks += self._join(place, self._stretcher.stretch(samples, count))
        self._end_run(chunks)
        return chunks

    def release(self, before: int) -> Iterator[Chunk]:
        """All sound before this sample is needed now: what is kept back of it is given out as an end."""
        if not self._kept.shape[1] or self._end - self._kept.shape[1] < before:
            yield from self.end()
            self.places.leave(before)

    def end(self) -> Iterator[Chunk]:
        """Nothing follows for now."""
        if self._kept.shape[1]:
            yield from self._fade()
            self.places.leave(self._end)

    def _fade(self) -> Iterator[Chunk]:
        length = self._kept.shape[1]
        if length:
            yield Chunk(self._end - length, self._kept * _rise(length)[::-1])
            self._kept = self._kept[:, :0]

    def _join(self, place: Place, samples: Samples) -> Iterator[Chunk]:
        """A piece that does not continue what is kept back."""
        new = samples[:, place.skip :]
        fade = min(place.skip, self._kept.shape[1])
        if fade >= FADE // 4:  # shorter would click
            rise = _rise(fade)
            crossed = self._kept[:, -fade:] * rise[::-1] + samples[:, place.skip - fade : place.skip] * rise
            self._kept = np.concatenate((self._kept[:, :-fade], crossed), axis=1)
        else:
            yield from self._fade()
            length = min(FADE, new.shape[1])
            new = np.concatenate((new[:, :length] * _rise(length), new[:, length:]), axis=1)
        yield from self._put(place.start, new)

    def _put(self, start: int, samples: Samples) -> Iterator[Chunk]:
        """Right behind what is kept back."""
        joined = np.concatenate((self._kept, samples), axis=1)
        given = max(joined.shape[1] - FADE, 0)
        if given:
            yield Chunk(start - self._kept.shape[1], joined[:, :given])
        self._kept = joined[:, given:]
        self._end = start + samples.shape[1]

    def _go_on(self, start: int, samples: Samples, length: int) -> None:
        if not self._run:
            self._run_start = start
        self._run.append((samples, length))

    def _end_run(self, chunks: list[Chunk]) -> None:
        if self._run:
            chunks += self._put(self._run_start, self._stretcher.stretch_all(self._run))
            self._run.clear()

    def _continues_quietly(self, samples: Samples, chunks: list[Chunk]) -> bool:
        """Whether this piece and what is kept back are quiet; `chunks` takes what has to be laid before to know that."""
        if not _is_quiet(samples):
            return False
        self._end_run(chunks)
        return _is_quiet(self._kept)


def _is_quiet(samples: Samples) -> bool:
    return max(float(samples.max(initial=0)), -float(samples.min(initial=0))) < _QUIET


def _rise(length: int) -> Samples:
    """From nothing to all, without a corner."""
    rise: Samples = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
    return rise
