"""Draws the users' latest pictures into their places on the canvas, and only what changed since the last time.

It scales nothing itself: each place is given a scaler by the caller.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mixer.canvas import Canvas
from mixer.fit import Size, Tile, crop, even, fit, pixels
from mixer.layouts import Placement
from mixer.picture import BLACK, Colour, Picture, Planes

# (picture, part of it to use, width, height) -> that part scaled, in the canvas's colours. Kept per place, so that it may
# remember what it set up for the last picture. It must not turn the picture.
Scaler = Callable[[Picture, Tile, int, int], Planes]


@dataclass(frozen=True, slots=True)
class Image:
    """What is shown in the place of a user without video."""

    picture: Picture
    fit: bool = False


class Compositor:
    """Owns the canvas's content. Not thread-safe; everything takes effect at the next `draw()`."""

    def __init__(self, canvas: Canvas, new_scaler: Callable[[], Scaler]) -> None:
        self._canvas = canvas
        self._new_scaler = new_scaler
        self._layers: list[_Layer] = []
        self._pictures: dict[int, Picture] = {}
        self._images: Mapping[int, Image] = {}
        self._default_image: Image | None = None
        self._background = Planes.filled(canvas.size)
        self._dirty = [canvas.tile]

    def arrange(self, placements: Sequence[Placement]) -> None:
        """Replace the layout. Pictures of users who are no longer placed are forgotten."""
        if [layer.placement for layer in self._layers] == list(placements):
            return
        kept = {layer.placement: layer for layer in self._layers}
        self._layers = [
            kept.pop(placement) if placement in kept else _Layer(placement, pixels(placement.rect, self._canvas.size), self._new_scaler())
            for placement in placements
        ]
        uids = {placement.uid for placement in placements}
        self._pictures = {uid: picture for uid, picture in self._pictures.items() if uid in uids}
        self._dirty.append(self._canvas.tile)

    def set_picture(self, uid: int, picture: Picture | None) -> None:
        """Show `picture` from now on; None: the user's image or the background. Ignored for users without a place."""
        if picture is None:
            self._pictures.pop(uid, None)
        elif any(layer.placement.uid == uid for layer in self._layers):
            self._pictures[uid] = picture

    def set_background(self, colour: Colour = BLACK, picture: Picture | None = None) -> None:
        """What shows where nobody is drawn: `picture`, cropped to fill the canvas, or else `colour`."""
        size = self._canvas.size
        self._background = Planes.filled(size, colour) if picture is None else _filling(picture, size, self._new_scaler())
        self._dirty.append(self._canvas.tile)

    def set_images(self, images: Mapping[int, Image], default: Image | None = None) -> None:
        """What shows in the places of users without video; `default` is for users who are in the channel and have none."""
        self._images = dict(images)
        self._default_image = default

    def draw(self) -> bool:
        """Bring the canvas up to date; tell whether it changed."""
        dirty, self._dirty = self._dirty, []
        for layer in self._layers:
            if layer.show(*self._content(layer.placement)):
                dirty.append(layer.tile)
        for tile in _outermost(dirty):
            self._repaint(tile)
        return bool(dirty)

    def _content(self, placement: Placement) -> tuple[Picture | None, bool]:
        picture = self._pictures.get(placement.uid)
        if picture is not None:
            return picture, placement.fit
        image = self._images.get(placement.uid, self._default_image if placement.present else None)
        return (image.picture, image.fit) if image else (None, False)

    def _repaint(self, tile: Tile) -> None:
        """Paint everything that shows within `tile`, beginning with the topmost layer that hides all below it."""
        stack: list[tuple[_Layer, Tile]] = []
        hidden = False
        for layer in reversed(self._layers):
            part = layer.tile.intersection(tile)
            if part is None or layer.planes is None:
                continue
            stack.append((layer, part))
            hidden = layer.is_opaque and part == tile
            if hidden:
                break
        if not hidden:
            self._canvas.planes.cut(tile).copy_from(self._background.cut(tile))
        for layer, part in reversed(stack):
            layer.paint(self._canvas.planes.cut(part), part)


class _Layer:
    """One place and the scaled picture in it."""

    def __init__(self, placement: Placement, tile: Tile, scaler: Scaler) -> None:
        self.placement = placement
        self.tile = tile
        self.planes: Planes | None = None  # None: nothing to paint
        self.is_opaque = placement.alpha >= 1
        self._scaler = scaler
        self._shown: tuple[Picture | None, bool] = (None, False)

    def show(self, picture: Picture | None, whole: bool) -> bool:
        """Take this picture over, fitted (`whole`) or cropped; tell whether the place looks different now."""
        if (picture, whole) == self._shown or not (self.tile.width and self.tile.height and self.placement.alpha > 0):
            return False
        self._shown = picture, whole
        if picture is None:
            self.planes = None
        elif whole:
            self.planes = _fitted(picture, self.tile.size, self._scaler)
        else:
            self.planes = _filling(picture, self.tile.size, self._scaler)
        return True

    def paint(self, target: Planes, part: Tile) -> None:
        assert self.planes is not None
        source = self.planes.cut(part.relative_to(self.tile))
        if self.is_opaque:
            target.copy_from(source)
        else:
            target.blend_from(source, self.placement.alpha)


def _filling(picture: Picture, size: Size, scaler: Scaler) -> Planes:
    # Turned after scaling: the result is the same and there is less to turn.
    shape = size.turned(picture.rotation)
    part = crop(picture.planes.size, picture.rotation, size)
    return scaler(picture, part, shape.width, shape.height).turned(picture.rotation)


def _fitted(picture: Picture, size: Size, scaler: Scaler) -> Planes:
    inner = fit(picture.planes.size, picture.rotation, size)
    shape = inner.size.turned(picture.rotation)
    whole = Tile(0, 0, even(picture.planes.size.width), even(picture.planes.size.height))
    planes = Planes.filled(size)
    planes.cut(inner).copy_from(scaler(picture, whole, shape.width, shape.height).turned(picture.rotation))
    return planes


def _outermost(tiles: Iterable[Tile]) -> list[Tile]:
    """The tiles without those that lie inside another."""
    outermost: list[Tile] = []
    for tile in sorted(tiles, key=lambda tile: -tile.width * tile.height):
        if not any(other.contains(tile) for other in outermost):
            outermost.append(tile)
    return outermost
