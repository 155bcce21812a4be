"""Changing the rate of sound by windowed-sinc interpolation: telephone rates up to 48 kHz, and hair's breadths against drift.

Both work on chunks, continue seamlessly from one to the next, give an exact number of samples and delay by a constant.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mixer.audio import Sound

_BETA = 8.0  # of the Kaiser window: about 80 dB of rejection


class Upsampler:
    """Multiplies the sample rate by a whole number."""

    TAPS = 32
    DELAY = TAPS // 2  # in samples of the input

    def __init__(self, factor: int, channels: int = 1) -> None:
        self._factor = factor
        self._history = np.zeros((channels, self.TAPS - 1), np.float32)

    def push(self, sound: Sound) -> Sound:
        """`factor` times as many samples as came in, `DELAY` input samples late."""
        self._history, windows = _windows(self._history, sound, self.TAPS)
        kernels = _kernels(1, self._factor, self.TAPS)
        return (windows @ kernels.T).reshape(sound.shape[0], -1)

    def reset(self) -> None:
        """Samples are missing: what comes next does not continue what was."""
        self._history[:] = 0


class Stretcher:
    """Makes chunks a few samples longer or shorter, to follow a clock that runs a little differently."""

    TAPS = 16
    DELAY = TAPS // 2  # in samples

    def __init__(self, channels: int) -> None:
        self._history = np.zeros((channels, self.TAPS - 1), np.float32)

    def stretch(self, sound: Sound, count: int) -> Sound:
        """This chunk in `count` samples, `DELAY` samples late. An unchanged length passes bit for bit."""
        return self.stretch_all([(sound, count)])

    def stretch_all(self, chunks: list[tuple[Sound, int]]) -> Sound:
        """Chunks in their order, each in its count of samples, as one."""
        joined = np.concatenate((self._history, *(sound for sound, _ in chunks)), axis=1)
        total = joined.shape[1] - self._history.shape[1]
        self._history = joined[:, total:]
        if all(count == sound.shape[1] for sound, count in chunks):
            return joined[:, self.DELAY - 1 : self.DELAY - 1 + total]
        stretched: Sound = np.empty((joined.shape[0], sum(count for _, count in chunks)), np.float32)
        begin = position = 0
        for sound, count in chunks:
            length = sound.shape[1]
            if count == length:
                start = begin + self.DELAY - 1
                stretched[:, position : position + count] = joined[:, start : start + length]
            else:
                windows, kernels = _stretching(length, count, self.TAPS)
                taps = joined[:, begin : begin + length + self.TAPS - 1].take(windows, axis=1)
                taps *= kernels
                np.add.reduce(taps, axis=1, out=stretched[:, position : position + count])
            begin += length
            position += count
        return stretched


def _windows(history: Sound, sound: Sound, taps: int) -> tuple[Sound, Sound]:
    """The history for the next chunk, and for each sample the `taps` samples that end with it."""
    joined = np.concatenate((history, sound), axis=1)
    return joined[:, sound.shape[1] :], np.lib.stride_tricks.sliding_window_view(joined, taps, axis=1)


@lru_cache(maxsize=16)
def _stretching(length: int, count: int, taps: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each tap of each of `count` samples: which sample it takes, counted from the history's first, and its weight."""
    windows = np.arange(taps)[:, np.newaxis] + np.arange(count) * length // count
    return windows, np.ascontiguousarray(_kernels(length, count, taps).T)


@lru_cache(maxsize=64)
def _kernels(length: int, count: int, taps: int) -> npt.NDArray[np.float32]:
    """Filters for the `count` positions that divide `length` samples evenly; each row interpolates right of the window's middle."""
    fractions = (np.arange(count) * length % count) / count
    distances = np.arange(taps) - (taps // 2 - 1) - fractions[:, np.newaxis]
    window = np.i0(_BETA * np.sqrt(np.maximum(1 - (distances / (taps // 2)) ** 2, 0)))
    kernels = np.sinc(distances) * window
    normalised: npt.NDArray[np.float32] = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
