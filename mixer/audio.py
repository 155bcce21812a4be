"""Mixes the speakers of a recording, sample by sample, on the recording's timeline, with a limiter that never clips.

All sound is float32 in planes, `(channels, samples)`, full scale is ±1.
"""

import math

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]

_THRESHOLD = 0.891  # -1 dBFS: louder is turned down to this, softer passes untouched
_RELEASE_SECONDS = 0.25


class AudioMixer:
    """The sum of all speakers. Each writes ahead of the read position, in any chunks, in the order of time.

    Sample numbers count from the zero of the timeline. Speakers are added up as they write, so that neither memory nor the
    cost of reading grows with their number.
    """

    def __init__(self, *, channels: int, rate: int = 48000, ahead_seconds: float = 3, start: int = 0) -> None:
        self.position = start  # the next sample to be read
        self.late = 0  # samples dropped: already read, or written by this speaker before
        self.early = 0  # samples dropped: more than `ahead_seconds` beyond the read position
        self._channels = channels
        self._ring = np.zeros((channels, round(rate * ahead_seconds)), np.float32)
        self._written: dict[int, int] = {}  # up to where each speaker has written
        self._limiter = Limiter(rate)

    def write(self, uid: int, start: int, samples: Sound | npt.NDArray[np.int16]) -> None:
        """Add what a speaker said from sample `start` on. One channel is spread to two; two are averaged to one."""
        length = samples.shape[1]
        first = min(max(self.position, self._written.get(uid, start), start), start + length)
        end = max(min(start + length, self.position + self._ring.shape[1]), first)
        self.late += first - start
        self.early += start + length - end
        if first == end:
            return
        self._written[uid] = end
        self._add(first, self._planes(samples[:, first - start : end - start]))

    def forget(self, uid: int) -> None:
        """This speaker is gone; what was written stays."""
        self._written.pop(uid, None)

    def read(self, count: int) -> Sound:
        """The next `count` samples, silent where nobody wrote."""
        mixed = np.zeros((self._channels, count), np.float32)
        available = min(count, self._ring.shape[1])
        for ring, part in self._pieces(self.position, available):
            mixed[:, part] = self._ring[:, ring]
            self._ring[:, ring] = 0
        self.position += count
        return self._limiter.limit(mixed)

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
    """Turns loud passages down. No look-ahead, so no delay: the gain falls with the very sample that would be too loud, as
    fast as the wave rises, and recovers slowly; below the threshold samples pass bit for bit."""

    def __init__(self, rate: int) -> None:
        self._decay = 1 / (rate * _RELEASE_SECONDS)  # of the envelope's logarithm, per sample
        self._envelope = 0.0

    def limit(self, sound: Sound) -> Sound:
        count = sound.shape[1]
        if count == 0:
            return sound
        peaks = np.abs(sound).max(axis=0).astype(np.float64)
        faded = self._envelope * math.exp(-self._decay)
        if max(faded, peaks.max()) <= _THRESHOLD:
            self._envelope = 0.0
            return sound
        # envelope[i] = max(peak[i], envelope[i - 1] * fade) for all i at once: undo the fade, take the running maximum.
        rise = np.exp(self._decay * np.arange(count))
        envelope = np.maximum(np.maximum.accumulate(peaks * rise), faded) / rise
        self._envelope = float(envelope[-1])
        gain = _THRESHOLD / np.maximum(envelope, _THRESHOLD)
        limited: Sound = sound * gain.astype(np.float32)
        return limited
