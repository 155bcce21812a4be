"""Laying sound on the grid: exact places, no clicks, no cuts for what can be stretched."""

from itertools import pairwise

import numpy as np
import pytest

from mixer.audio import Sound
from recorder.media.resample import Stretcher
from recorder.worker.laying import FADE, RATE_HZ, Chunk, Layer

MS = 1_000_000
PIECE = RATE_HZ // 50  # 20 ms
HZ, LEVEL = 200, 0.5
STEEPEST = LEVEL * 2 * np.pi * HZ / RATE_HZ  # from one sample of the tone to the next


def _tone(first: int, count: int, level: float = LEVEL) -> Sound:
    return (level * np.sin(2 * np.pi * HZ * np.arange(first, first + count) / RATE_HZ)).astype(np.float32)[np.newaxis]


class Tape:
    """What was laid, in one plane; refuses overlaps."""

    def __init__(self) -> None:
        self.layer = Layer(1, 0)
        self._parts: list[Sound] = []
        self.length = -Stretcher.DELAY  # the first piece begins just before zero

    def piece(self, number: int, *, time_ms: float | None = None, level: float = LEVEL) -> None:
        """The 20 ms of the tone from `number` * 20 ms on, as captured then or at another time."""
        time_ns = round((number * 20 if time_ms is None else time_ms) * MS)
        for chunk in self.layer.lay([(_tone(number * PIECE, PIECE, level), time_ns)]):
            self.add(chunk)

    def end(self) -> None:
        for chunk in self.layer.end():
            self.add(chunk)

    def add(self, chunk: Chunk) -> None:
        gap = chunk.start - self.length
        assert gap >= 0, "laid twice"
        self._parts += [np.zeros((1, gap), np.float32), chunk.samples]
        self.length += gap + chunk.samples.shape[1]

    @property
    def sound(self) -> Sound:
        return np.concatenate(self._parts, axis=1)[:, Stretcher.DELAY :]

    @property
    def steepest(self) -> float:
        return float(np.abs(np.diff(np.concatenate(self._parts, axis=1)[0], prepend=0, append=0)).max())


def test_pieces_that_follow_each_other_pass_untouched() -> None:
    tape = Tape()
    for number in range(50):
        tape.piece(number)
    tape.end()
    inner = slice(FADE, 50 * PIECE - FADE - Stretcher.DELAY)
    np.testing.assert_array_equal(tape.sound[:, inner], _tone(0, 50 * PIECE)[:, inner])
    assert tape.length == 50 * PIECE - Stretcher.DELAY


@pytest.mark.parametrize("missing", [1, 2, 25, 500])
def test_a_gap_is_silence_of_its_length_with_soft_edges(missing: int) -> None:
    tape = Tape()
    for number in [*range(10), *range(10 + missing, 20 + missing)]:
        tape.piece(number)
    tape.end()
    silent = np.flatnonzero(tape.sound[0, 9 * PIECE : (11 + missing) * PIECE] == 0) + 9 * PIECE
    hole = silent[(silent >= 10 * PIECE) & (silent < (10 + missing) * PIECE - Stretcher.DELAY)]
    assert len(hole) == missing * PIECE - Stretcher.DELAY
    assert tape.length == (20 + missing) * PIECE - Stretcher.DELAY
    after = slice((10 + missing) * PIECE + FADE, (19 + missing) * PIECE)
    np.testing.assert_array_equal(tape.sound[:, after], _tone(0, (20 + missing) * PIECE)[:, after])
    assert tape.steepest < 1.5 * STEEPEST


def test_a_lost_packet_of_the_shortest_length_is_a_gap() -> None:
    layer = Layer(1, 0)
    short = RATE_HZ // 400
    chunks: list[Chunk] = []
    for number in [*range(50), *range(51, 100)]:
        chunks += layer.lay([(_tone(number * short, short), number * short * 10**9 // RATE_HZ)])
    assert layer.places.next == 100 * short - Stretcher.DELAY
    assert sum(chunk.samples.shape[1] for chunk in [*chunks, *layer.end()]) == 99 * short
    assert layer.places.cuts == 0


@pytest.mark.parametrize("back_ms", [4, 15, 20.02, 95, 730])
def test_a_leap_back_is_cross_faded_and_then_at_its_place(back_ms: float) -> None:
    tape = Tape()
    for number in range(50):
        tape.piece(number)
    for number in range(50, 100):
        tape.piece(number, time_ms=number * 20 - back_ms)
    tape.end()
    assert tape.steepest < 1.6 * STEEPEST
    shift = round(back_ms * RATE_HZ / 1000)
    in_phase = back_ms % (1000 / HZ) == 0  # then nothing at all is heard of it
    settled = slice(FADE if in_phase else 51 * PIECE, 98 * PIECE - shift)
    np.testing.assert_allclose(tape.sound[:, settled], _tone(shift, 100 * PIECE)[:, settled], atol=1e-6)


@pytest.mark.parametrize("ppm", [-4000, -100, 100, 4000])
def test_what_the_timeline_slews_gently_is_stretched_and_never_cut(ppm: int) -> None:
    tape = Tape()
    for number in range(3000):
        tape.piece(number, time_ms=number * 20 * (1 + ppm / 1e6))
    tape.end()
    assert tape.layer.places.cuts == 0
    assert tape.steepest < 1.2 * STEEPEST
    assert tape.layer.places.next is not None
    assert abs(tape.layer.places.next - 3000 * PIECE * (1 + ppm / 1e6)) < 2 * RATE_HZ // 1000


def test_a_correction_too_fast_to_be_stretched_waits_for_a_quiet_moment() -> None:
    """100 ms too early, at 50 ms a second; the speaker pauses for a breath after half a second."""
    tape = Tape()
    for number in range(50):
        tape.piece(number)
    for number in range(50, 100):
        quiet = 65 <= number < 75
        tape.piece(number, time_ms=number * 20 - min(number - 50, 15), level=0.001 if quiet else LEVEL)
        if number < 65:
            assert tape.layer.places.cuts == 0
    assert 1 <= tape.layer.places.cuts <= 2
    assert tape.layer.places.next is not None
    assert abs(tape.layer.places.next - (100 * PIECE - 15 * 48)) < 2 * 48


@pytest.mark.parametrize("direction", [-1, 1])
def test_without_a_quiet_moment_sound_is_at_most_15_ms_from_its_picture_and_does_not_click(direction: int) -> None:
    tape = Tape()
    furthest = 0.0
    for number in range(400):
        time_ms = number * 20 + direction * max(0, min(number - 50, 200))
        tape.piece(number, time_ms=time_ms)
        assert tape.layer.places.next is not None
        furthest = max(furthest, abs(tape.layer.places.next - (time_ms + 20) * 48))
    tape.end()
    assert furthest < 17 * 48
    assert 5 <= tape.layer.places.cuts <= 12
    assert tape.steepest < 1.6 * STEEPEST


def test_sound_that_is_needed_before_its_continuation_came_ends_softly_and_goes_on_softly() -> None:
    tape = Tape()
    for number in range(10):
        tape.piece(number)
    for chunk in tape.layer.release(9 * PIECE):  # all of it is out already
        tape.add(chunk)
    assert tape.length == 10 * PIECE - FADE - Stretcher.DELAY
    for before in range(10 * PIECE, 13 * PIECE, 1024):
        for chunk in tape.layer.release(before):
            tape.add(chunk)
    length = tape.length
    assert length == 10 * PIECE - Stretcher.DELAY
    for number in range(10, 20):  # two of them too late
        tape.piece(number)
    tape.end()
    assert not tape.sound[0, length : 10 * PIECE + 2 * 1024].any()
    assert tape.sound[0, 13 * PIECE : 14 * PIECE].any()
    assert tape.steepest < 1.5 * STEEPEST


@pytest.mark.parametrize("seed", range(6))
def test_pieces_laid_together_sound_as_if_laid_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces: list[tuple[Sound, int]] = []
    time_ns = 0.0
    for number in range(300):
        count = int(rng.choice([PIECE, PIECE // 8, 2 * PIECE]))
        level = float(rng.choice([0.5, 0.001]))  # a quiet moment lets the places be corrected
        pieces.append((rng.normal(0, level / 3, (1, count)).astype(np.float32), round(time_ns)))
        time_ns += count / RATE_HZ * 1e9 * (1 + 300e-6 * (number // 100 - 1))  # drift of one kind, none, of the other
        time_ns += float(rng.choice([0, 3 * MS, -4 * MS, 90 * MS, -60 * MS], p=[0.94, 0.015, 0.015, 0.015, 0.015]))
    alone, together = Layer(1, 0), Layer(1, 0)
    first = [chunk for piece in pieces for chunk in alone.lay([piece])] + list(alone.end())
    bounds = [0, *sorted(rng.choice(300, 40, replace=False)), 300]
    second = [chunk for start, end in pairwise(bounds) for chunk in together.lay(pieces[start:end])] + list(together.end())
    np.testing.assert_array_equal(_laid(first), _laid(second))
    assert alone.places.cuts == together.places.cuts
    assert alone.places.next == together.places.next


def _laid(chunks: list[Chunk]) -> Sound:
    zero = -Stretcher.DELAY
    length = max(chunk.start + chunk.samples.shape[1] for chunk in chunks) - zero
    grid = np.zeros((1, length), np.float32)
    for chunk in chunks:
        grid[:, chunk.start - zero : chunk.start - zero + chunk.samples.shape[1]] += chunk.samples
    return grid
