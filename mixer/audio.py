"""Mixes the speakers of a recording, sample by sample, on the recording's timeline, with a limiter that never clips.

All sound is float32 in planes, `(channels, samples)`, full scale is ±1.
"""

import math
import time

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]

_THRESHOLD = 0.891  # -1 dBFS: louder is turned down to this, softer passes untouched
_LOUDEST = 50.0  # so many speakers at full scale at once; louder still is limited too, but less smoothly
_HOLD_SECONDS = 0.025  # half a wave of 20 Hz
_RELEASE_SECONDS = 0.25  # for a factor of e, 8.7 dB


class AudioMixer:
    """The sum of all speakers. Each writes ahead of the read position, in any chunks, in the order of time.

    Sample numbers count from the zero of the timeline. Speakers are added up as they write, so that neither memory nor the
    cost of reading grows with their number.
    """

    def __init__(self, *, channels: int, rate: int = 48000, ahead_seconds: float = 3, start: int = 0) -> None:
        self.position = start  # the next sample to be read
        self.late = 0  # samples dropped: already read, or written by this speaker before
        self.early = 0  # samples dropped: more than `ahead_seconds` beyond the read position
        self.spent_ns = 0  # in `write()` and `read()`; by the clock, because to ask for CPU time takes as long as to add up a packet
        self._channels = channels
        self._ring = np.zeros((channels, round(rate * ahead_seconds)), np.float32)
        self._written: dict[int, int] = {}  # up to where each speaker has written
        self._limiter = Limiter(rate)

    def write(self, uid: int, start: int, samples: Sound | npt.NDArray[np.int16]) -> None:
        """Add what a speaker said from sample `start` on. One channel is spread to two; two are averaged to one."""
        started_ns = time.perf_counter_ns()
        length = samples.shape[1]
        first = min(max(self.position, self._written.get(uid, start), start), start + length)
        end = max(min(start + length, self.position + self._ring.shape[1]), first)
        self.late += first - start
        self.early += start + length - end
        if first < end:
            self._written[uid] = end
            self._add(first, self._planes(samples[:, first - start : end - start]))
        self.spent_ns += time.perf_counter_ns() - started_ns

    def forget(self, uid: int) -> None:
        """This speaker is gone; what was written stays."""
        self._written.pop(uid, None)

    def read(self, count: int) -> Sound:
        """The next `count` samples, silent where nobody wrote."""
        started_ns = time.perf_counter_ns()
        capacity = self._ring.shape[1]
        mixed = np.zeros((self._channels, count + Limiter.AHEAD), np.float32)
        for ring, part in self._pieces(self.position, min(count + Limiter.AHEAD, capacity)):
            mixed[:, part] = self._ring[:, ring]
        for ring, _ in self._pieces(self.position, min(count, capacity)):
            self._ring[:, ring] = 0
        self.position += count
        limited = self._limiter.limit(mixed, count)
        self.spent_ns += time.perf_counter_ns() - started_ns
        return limited

    def _add(self, first: int, sound: Sound) -> None:
        for ring, part in self._pieces(first, sound.shape[1]):
            self._ring[:, ring] += sound[:, part]

    def _pieces(self, first: int, count: int) -> list[tuple[slice, slice]]:
        """Where `count` samples lie in the ring: one piece, or two around its end."""
        capacity = self._ring.shape[1]
        offset = first % capacity
        head = min(count, capacity - offset)
        pieces = [(slice(offset, offset + head), slice(0, head))]
        if head < count:
            pieces.append((slice(0, count - head), slice(head, count)))
        return pieces

    def _planes(self, samples: Sound | npt.NDArray[np.int16]) -> Sound:
        sound: Sound = samples.astype(np.float32, copy=False)
        if samples.dtype == np.int16:
            sound = sound / np.float32(32768)
        if sound.shape[0] > self._channels:
            sound = sound.mean(axis=0, keepdims=True)
        return sound


class Limiter:
    """Turns loud passages down without delaying anything: it looks ahead as far as the sound is known already.

    The gain falls along a slope that ends at the loud sample, is held for longer than half a wave of the lowest tone, so that
    it does not follow the wave itself, and recovers slowly. A sample that came too late to be seen ahead makes the gain fall
    at once. Below the threshold samples pass bit for bit.
    """

    AHEAD = 480  # samples it looks ahead, 10 ms

    def __init__(self, rate: int) -> None:
        self._fall = math.log(_LOUDEST / _THRESHOLD) / self.AHEAD  # logarithms of the gain, per sample
        self._recovery = 1 / (rate * _RELEASE_SECONDS)
        self._reach = round(rate * _HOLD_SECONDS)
        self._recent = np.zeros(self._reach)  # what was demanded of the last samples
        self._reduction = 0.0  # of the last sample: how far the logarithm of the gain is below that of 1

    def limit(self, known: Sound, count: int) -> Sound:
        """The next `count` samples, limited. Those behind them are only looked at; they come again."""
        sound = known[:, :count]
        if count == 0:
            return sound
        loudest = max(float(known.max()), -float(known.min()))
        if loudest <= _THRESHOLD and self._reduction == 0 and not self._recent.any():
            return sound
        peaks = np.abs(known).max(axis=0).astype(np.float64)
        needed = np.log(np.maximum(peaks, _THRESHOLD) / _THRESHOLD)
        index = np.arange(known.shape[1])
        # The lines that fall from each peak to its left, and their maximum: undo the slope, take the running maximum.
        falling = np.maximum.accumulate((needed - self._fall * index)[::-1])[::-1] + self._fall * index
        demanded = np.concatenate((self._recent, np.maximum(falling[:count], 0)))
        self._recent = demanded[count:]
        recovering = np.maximum.accumulate(_running_maximum(demanded, self._reach + 1) + self._recovery * index[:count])
        reduction = np.maximum(recovering, self._reduction - self._recovery) - self._recovery * index[:count]
        np.maximum(reduction, 0, out=reduction)
        self._reduction = float(reduction[-1])
        limited: Sound = sound * np.exp(-reduction).astype(np.float32)
        return limited


def _running_maximum(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """The largest of every `width` values in a row."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.maximum(values[step:], values[:-step])
        covered += step
    return values
