"""Resampling: exact counts, constant delay, no seams."""

import numpy as np
import pytest

from mixer.audio import Sound
from recorder.media.resample import Stretcher, Upsampler

RATE = 48000


def tone(frequency: float, count: int, rate: int = RATE) -> Sound:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(count) / rate)).astype(np.float32)[np.newaxis]


def decibels(error: Sound, signal: Sound) -> float:
    return float(10 * np.log10(np.mean(np.square(error, dtype=float)) / np.mean(np.square(signal, dtype=float))))


@pytest.mark.parametrize(("rate", "frequency"), [(8000, 300), (8000, 1000), (8000, 3000), (16000, 6500)])
@pytest.mark.parametrize("chunk", [1, 160, 333])
def test_upsampling_gives_the_same_tone_late_by_its_delay(rate: int, frequency: float, chunk: int) -> None:
    factor = RATE // rate
    upsampler = Upsampler(factor)
    sound = tone(frequency, 3996, rate)
    parts = [upsampler.push(sound[:, offset : offset + chunk]) for offset in range(0, 3996, chunk)]
    assert [part.shape[1] for part in parts] == [factor * min(chunk, 3996 - offset) for offset in range(0, 3996, chunk)]
    late = Upsampler.DELAY * factor
    found, expected = np.concatenate(parts, axis=1)[:, 2 * late :], tone(frequency, 3996 * factor)[:, late:-late]
    assert decibels(found - expected, expected) < -60


def test_upsampling_forgets_what_was_before_a_gap() -> None:
    upsampler = Upsampler(6)
    upsampler.push(tone(1000, 160, 8000))
    upsampler.reset()
    np.testing.assert_array_equal(upsampler.push(tone(500, 160, 8000)), Upsampler(6).push(tone(500, 160, 8000)))


def test_an_unchanged_length_passes_bit_for_bit() -> None:
    stretcher = Stretcher(2)
    sound = np.random.default_rng(1).uniform(-1, 1, (2, 4800)).astype(np.float32)
    found = np.concatenate([stretcher.stretch(part, part.shape[1]) for part in np.split(sound, 5, axis=1)], axis=1)
    np.testing.assert_array_equal(found[:, Stretcher.DELAY :], sound[:, : -Stretcher.DELAY])


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
@pytest.mark.parametrize("frequency", [440, 5000, 12000])
def test_a_stretched_tone_is_the_tone_on_another_clock(frequency: float, change: int) -> None:
    stretcher = Stretcher(1)
    parts = [stretcher.stretch(part, 960 + change) for part in np.split(tone(frequency, 48000), 50, axis=1)]
    assert {part.shape for part in parts} == {(1, 960 + change)}
    found = np.concatenate(parts, axis=1)[:, 100:]
    positions = np.arange(100, 100 + found.shape[1]) * 960 / (960 + change) - Stretcher.DELAY
    expected = (0.5 * np.sin(2 * np.pi * frequency * positions / RATE)).astype(np.float32)[np.newaxis]
    assert decibels(found - expected, expected) < -60


def test_changing_the_length_from_chunk_to_chunk_leaves_no_seam() -> None:
    rng = np.random.default_rng(3)
    counts = rng.choice([956, 959, 960, 961, 964], 50)
    stretcher = Stretcher(1)
    parts = [stretcher.stretch(part, int(count)) for part, count in zip(np.split(tone(997, 48000), 50, axis=1), counts, strict=True)]
    assert [part.shape[1] for part in parts] == counts.tolist()
    found = np.concatenate(parts, axis=1)[0, 100:]
    positions = np.concatenate([960 * index + np.arange(count) * 960 / count for index, count in enumerate(counts)])[100:] - Stretcher.DELAY
    np.testing.assert_allclose(found, 0.5 * np.sin(2 * np.pi * 997 * positions / RATE), atol=5e-4)
