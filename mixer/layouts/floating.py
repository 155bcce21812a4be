"""Floating: the first user fills the canvas, the others sit on top in rows of four from the bottom left upwards."""

from collections.abc import Sequence

from mixer.fit import Rect, Size
from mixer.layouts import MAX_PLACES, Options, Placement

NUMBER = 0

_SMALL = 0.235
_GAP = 0.012


def place(people: Sequence[int], canvas: Size, options: Options) -> list[Placement]:
    return [Placement(uid, Rect(0, 0, 1, 1) if index == 0 else _small(index - 1)) for index, uid in enumerate(people[:MAX_PLACES])]


def _small(number: int) -> Rect:
    row, column = divmod(number, 4)
    step = _SMALL + _GAP
    return Rect(_GAP + column * step, 1 - (row + 1) * step, _SMALL, _SMALL)
