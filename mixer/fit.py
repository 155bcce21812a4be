"""Where things go: rectangles in fractions and in pixels, and how a picture is cropped or fitted to a tile. Pure arithmetic."""

import math
from dataclasses import dataclass

_SIGNIFICANT = 1e-6


@dataclass(frozen=True, slots=True)
class Rect:
    """Fractions of the canvas, origin at the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int

    def turned(self, rotation: int) -> "Size":
        """The size after turning by `rotation` degrees."""
        return self if rotation % 180 == 0 else Size(self.height, self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """Whole pixels; always even, so that neighbours share edges and 4:2:0 chroma fits."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def size(self) -> Size:
        return Size(self.width, self.height)

    def contains(self, other: "Tile") -> bool:
        return self.x <= other.x and self.y <= other.y and self.right >= other.right and self.bottom >= other.bottom

    def intersection(self, other: "Tile") -> "Tile | None":
        left, top = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Tile(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def relative_to(self, other: "Tile") -> "Tile":
        """The same pixels, counted from the top left of `other`."""
        return Tile(self.x - other.x, self.y - other.y, self.width, self.height)


def pixels(rect: Rect, canvas: Size) -> Tile:
    """Turn fractions of the canvas into a tile inside it; its size may be zero."""
    left, right = (_edge(x, canvas.width) for x in (rect.x, rect.x + rect.width))
    top, bottom = (_edge(y, canvas.height) for y in (rect.y, rect.y + rect.height))
    return Tile(left, top, right - left, bottom - top)


def crop(source: Size, rotation: int, tile: Size) -> Tile:
    """The middle part of a picture that covers `tile`, in pixels of the picture before it is turned."""
    shape = tile.turned(rotation)
    if source.width * shape.height > source.height * shape.width:
        width, height = source.height * shape.width / shape.height, float(source.height)
    else:
        width, height = float(source.width), source.width * shape.height / shape.width
    return _centred(width, height, source)


def fit(source: Size, rotation: int, tile: Size) -> Tile:
    """Where the whole picture goes inside `tile`, in pixels from the tile's top left; the rest is bars."""
    shape = source.turned(rotation)
    if shape.width * tile.height > shape.height * tile.width:
        width, height = float(tile.width), tile.width * shape.height / shape.width
    else:
        width, height = tile.height * shape.width / shape.height, float(tile.height)
    return _centred(width, height, tile)


def even(length: int) -> int:
    """The even length next below, at least 2."""
    return max(2, length - length % 2)


def _edge(fraction: float, length: int) -> int:
    # Six decimals are significant. Edges that are equal but for the seventh (0.333333 + 0.333333 against 0.666667) or for float
    # noise must not fall to different sides of a half; a millionth of the longest canvas is less than a thousandth of a pair.
    pairs = math.floor((fraction + _SIGNIFICANT) * length / 2 + 0.5)
    return 2 * min(max(pairs, 0), length // 2)


def _centred(width: float, height: float, outer: Size) -> Tile:
    inner_width = min(max(2, 2 * round(width / 2)), even(outer.width))
    inner_height = min(max(2, 2 * round(height / 2)), even(outer.height))
    x, y = (outer.width - inner_width) // 2, (outer.height - inner_height) // 2
    return Tile(x - x % 2, y - y % 2, inner_width, inner_height)
