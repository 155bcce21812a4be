"""Where the media of a participant lies on the wall clock, and where it goes in the output. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from recorder.tools.offline.playlist import Piece

ABSENCE_NS = 15_000_000_000  # a longer gap ends a recording segment
SEAM_NS = 100_000_000  # slices further apart do not continue each other


@dataclass(frozen=True, slots=True)
class Span:
    begin_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.begin_ns


def segments(pieces: Sequence[Piece]) -> list[Span]:
    """The recording segments that these slices, in order of time, make up together."""
    spans: list[Span] = []
    for piece in pieces:
        if spans and piece.start_ns - spans[-1].end_ns <= ABSENCE_NS:
            spans[-1] = Span(spans[-1].begin_ns, max(spans[-1].end_ns, piece.end_ns))
        else:
            spans.append(Span(piece.start_ns, piece.end_ns))
    return spans


def within(pieces: Sequence[Piece], span: Span) -> tuple[Piece, ...]:
    return tuple(piece for piece in pieces if span.begin_ns <= piece.start_ns <= span.end_ns)


class Axis:
    """Puts moments of the wall clock onto the output's timeline, with the absences between segments or without them."""

    def __init__(self, spans: Sequence[Span], *, drop_absences: bool = False) -> None:
        self._spans = list(spans)
        self._places: list[int] = []
        place = 0
        for index, span in enumerate(spans):
            if index and not drop_absences:
                place += span.begin_ns - spans[index - 1].end_ns
            self._places.append(place)
            place += span.length_ns
        self._begins = [span.begin_ns for span in spans]
        self.length_ns = place

    def place(self, time_ns: int) -> int | None:
        """None: it is before all. What a slice holds beyond what its list says still belongs to its segment."""
        index = bisect_right(self._begins, time_ns) - 1
        return self._places[index] + time_ns - self._begins[index] if index >= 0 else None

    def covered(self, pieces: Sequence[Piece]) -> list[Span]:
        """Of the output: where these slices are, but for those that are missing."""
        found: list[Span] = []
        for piece in pieces:
            begin_ns = self.place(piece.start_ns)
            if begin_ns is None or piece.missing:
                continue
            end_ns = begin_ns + piece.duration_ns
            if found and begin_ns - found[-1].end_ns <= SEAM_NS:
                found[-1] = Span(found[-1].begin_ns, max(found[-1].end_ns, end_ns))
            else:
                found.append(Span(begin_ns, end_ns))
        return found

    def needed(self, pieces: Sequence[Piece], window: Span, stands_alone: Callable[[Piece], bool]) -> tuple[Piece, ...]:
        """The slices from which a window of the output can be made; the first of them needs none before it."""
        placed = [(self.place(piece.start_ns) or 0, piece) for piece in pieces]
        past = (index for index, (begin_ns, piece) in enumerate(placed) if begin_ns <= window.begin_ns and stands_alone(piece))
        first = max(past, default=0)
        return tuple(piece for begin_ns, piece in placed[first:] if begin_ns < window.end_ns)


def longest_hold_ns(spans: Sequence[Span], length_ns: int) -> int:
    """For how long the last picture has to stand at most."""
    gaps = [after.begin_ns - before.end_ns for before, after in pairwise(spans)]
    return max([*gaps, length_ns - spans[-1].end_ns], default=0) if spans else 0
