"""Layouts: who is drawn where. The contract and the loader; every other file in this folder is one layout.

Layouts are pure: the same people and options give the same places. They count in fractions of the canvas.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mixer.fit import Rect, Size

MAX_PLACES = 17


@dataclass(frozen=True, slots=True)
class Region:
    """One region of the custom layout."""

    rect: Rect
    uid: int | None = None  # None: the next user in join order who has no region of their own
    alpha: float = 1.0
    fit: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What a layout may need besides the people; each layout takes what is its own."""

    max_resolution_uid: int | None = None
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """One user's place. In a list of placements the later ones are painted over the earlier ones."""

    uid: int
    rect: Rect
    alpha: float = 1.0  # 0 transparent, 1 opaque
    fit: bool = False  # False: crop to fill; True: whole picture, black bars
    present: bool = True  # False: the place is kept for a user who is not in the channel


class Layout(Protocol):
    NUMBER: int  # the layout's number in the public API

    @staticmethod
    def place(people: Sequence[int], canvas: Size, options: Options) -> list[Placement]:
        """Place `people`, uids in join order; those without video have a place like everybody else."""


def load(number: int) -> Layout:
    """The layout with this number.

    Raises:
        ValueError: there is none.
    """
    for found in pkgutil.iter_modules(__path__):
        module: Layout = importlib.import_module(f"{__name__}.{found.name}")  # type: ignore[assignment]  # a module is a Layout
        if number == module.NUMBER:
            return module
    raise ValueError(f"no layout {number}")
