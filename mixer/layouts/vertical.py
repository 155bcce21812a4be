"""Vertical: one user large on the left and shown whole, the others small in columns on the right."""

from collections.abc import Sequence

from mixer.fit import Rect, Size
from mixer.layouts import Options, Placement

NUMBER = 2

_MAX_SMALL = 16


def place(people: Sequence[int], canvas: Size, options: Options) -> list[Placement]:
    large = options.max_resolution_uid
    small = [uid for uid in people if uid != large][:_MAX_SMALL]
    columns, per_column, parts = _columns(len(small))
    placements = []
    if large is not None and large in people:
        placements.append(Placement(large, Rect(0, 0, (parts - columns) / parts, 1), fit=True))
    for index, uid in enumerate(small):
        column, row = divmod(index, per_column)  # the outer column is filled first
        placements.append(Placement(uid, Rect((parts - 1 - column) / parts, row / per_column, 1 / parts, 1 / per_column)))
    return placements


def _columns(count: int) -> tuple[int, int, int]:
    """Small columns, places in each, and into how many column widths the canvas is divided."""
    if count <= 4:
        return 1, 4, 5
    if count <= 6:
        return 1, 6, 7
    if count <= 8:
        return 1, 8, 9
    return 2, 8, 10
