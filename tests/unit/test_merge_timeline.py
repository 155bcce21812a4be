"""Where slices go in the output."""

from pathlib import Path

import pytest

from recorder.tools.offline.playlist import Piece
from recorder.tools.offline.timeline import Axis, Span, longest_hold_ns, segments, within

SECOND = 1_000_000_000


def piece(start: float, end: float, *, missing: bool = False) -> Piece:
    return Piece(Path(f"{start}.ts"), round(start * SECOND), round((end - start) * SECOND), missing=missing)


def span(begin: float, end: float) -> Span:
    return Span(round(begin * SECOND), round(end * SECOND))


PIECES = [piece(100, 115), piece(101, 116), piece(131, 140), piece(155.001, 160)]


def test_segments_end_after_fifteen_seconds_of_absence() -> None:
    first, second = segments(PIECES)
    assert (first, second) == (span(100, 140), span(155.001, 160))
    assert within(PIECES, first) == tuple(PIECES[:3])
    assert within(PIECES, second) == (PIECES[3],)


def test_absences_last_or_are_left_out() -> None:
    whole, dropped = Axis(segments(PIECES)), Axis(segments(PIECES), drop_absences=True)
    assert (whole.length_ns, dropped.length_ns) == (60 * SECOND, 44_999_000_000)
    assert [whole.place(second * SECOND) for second in (99, 100, 131, 157)] == [None, 0, 31 * SECOND, 57 * SECOND]
    assert dropped.place(157 * SECOND) == 41_999_000_000


def test_what_slices_cover() -> None:
    axis = Axis([span(100, 160)])
    seen = [piece(102, 117), piece(117.05, 130), piece(130, 140, missing=True), piece(140, 150)]
    assert axis.covered(seen) == [span(2, 30), span(40, 50)]
    assert longest_hold_ns(axis.covered(seen), 75 * SECOND) == 25 * SECOND
    assert longest_hold_ns(axis.covered(seen), 55 * SECOND) == 10 * SECOND


@pytest.mark.parametrize(
    ("window", "wanted"),
    [(span(0, 5), [0]), (span(16, 35), [0, 1, 2]), (span(31, 70), [1, 2, 3]), (span(20, 31), [0, 1]), (span(58, 60), [3])],
)
def test_which_slices_a_window_needs(window: Span, wanted: list[int]) -> None:
    """The second cannot be decoded without the first until it is old."""
    axis = Axis([span(100, 160)])
    seen = [piece(100, 115), piece(115, 130), piece(131, 145), piece(145, 160)]
    alone = [seen[0], seen[1], seen[3]] if window.begin_ns >= 31 * SECOND else [seen[0], seen[3]]
    assert axis.needed(seen, window, lambda one: one in alone) == tuple(seen[index] for index in wanted)
