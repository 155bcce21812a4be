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
        length = sound.shape[1]
        if count == length:
            joined = np.concatenate((self._history, sound), axis=1)
            self._history = joined[:, length:]
            return joined[:, self.DELAY - 1 : self.DELAY - 1 + length]
        self._history, windows = _windows(self._history, sound, self.TAPS)
        stretched: Sound = np.einsum("cst,st->cs", windows[:, np.arange(count) * length // count], _kernels(length, count, self.TAPS))
        return stretched


def _windows(history: Sound, sound: Sound, taps: int) -> tuple[Sound, Sound]:
    """The history for the next chunk, and for each sample the `taps` samples that end with it."""
    joined = np.concatenate((history, sound), axis=1)
    return joined[:, sound.shape[1] :], np.lib.stride_tricks.sliding_window_view(joined, taps, axis=1)


@lru_cache(maxsize=64)
def _kernels(length: int, count: int, taps: int) -> npt.NDArray[np.float32]:
    """Filters for the `count` positions that divide `length` samples evenly; each row interpolates right of the window's middle."""
    fractions = (np.arange(count) * length % count) / count
    distances = np.arange(taps) - (taps // 2 - 1) - fractions[:, np.newaxis]
    window = np.i0(_BETA * np.sqrt(np.maximum(1 - (distances / (taps // 2)) ** 2, 0)))
    kernels = np.sinc(distances) * window
    normalised: npt.NDArray[np.float32] = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
