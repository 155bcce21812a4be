"""Where the media of a participant lies on the wall clock, and where it goes in the output. Pure; times are Unix ns or ns of the output."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from recorder.tools.offline.lists import Piece

ABSENCE_NS = 15_000_000_000  # a longer gap ends a recording segment


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


def limits(pieces: Sequence[Piece]) -> list[int | None]:
    """For each slice the moment from which the next one counts; None: it is the last."""
    return [*(following.start_ns for following in pieces[1:]), None]


class Axis:
    """Puts moments of the wall clock onto the output's timeline, whole or without the absences between segments."""

    def __init__(self, spans: Sequence[Span], *, drop_absences: bool) -> None:
        self._places: list[tuple[Span, int]] = []  # with the place of its begin
        place = 0
        for index, span in enumerate(spans):
            if index and not drop_absences:
                place += span.begin_ns - spans[index - 1].end_ns
            self._places.append((span, place))
            place += span.length_ns
        self.length_ns = place

    def place(self, time_ns: int) -> int | None:
        """None: this moment is not in the output. What a slice holds beyond what its list says still belongs to its segment."""
        found = None
        for span, place in self._places:
            if time_ns >= span.begin_ns:
                found = place + time_ns - span.begin_ns
        return found

    def absences(self) -> list[Span]:
        """Of the output: when nobody was there."""
        ends = [(place, place + span.length_ns) for span, place in self._places]
        return [Span(end, begin) for (_, end), (begin, _) in pairwise(ends) if begin > end]
