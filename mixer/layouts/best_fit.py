"""Best fit: a grid of equal cells without gaps, as small as holds everybody."""

from collections.abc import Sequence

from mixer.fit import Rect, Size
from mixer.layouts import MAX_PLACES, Options, Placement

NUMBER = 1


def place(people: Sequence[int], canvas: Size, options: Options) -> list[Placement]:
    shown = people[:MAX_PLACES]
    return [Placement(uid, _cell(index, len(shown))) for index, uid in enumerate(shown)]


def _cell(index: int, count: int) -> Rect:
    if count == MAX_PLACES:  # four rows of four, and the last one alone in the middle below them
        return Rect(0.4, 0.8, 0.2, 0.2) if index == 16 else Rect(0.1 + 0.2 * (index % 4), 0.2 * (index // 4), 0.2, 0.2)
    columns = next(columns for columns in (1, 2, 3, 4) if columns**2 >= count)
    rows = 1 if count == 2 else columns
    row, column = divmod(index, columns)
    return Rect(column / columns, row / rows, 1 / columns, 1 / rows)
