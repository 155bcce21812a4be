"""Draws the users' latest pictures into their places on the canvas, and only what changed since the last time.

It scales nothing itself: each place is given a scaler by the caller.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mixer.canvas import Canvas
from mixer.fit import Size, Tile, crop, fit, pixels
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
        self.spent_ns = 0  # CPU time of drawing so far, scaling included
        self._canvas = canvas
        self._new_scaler = new_scaler
        self._layers: list[_Layer] = []
        self._parts: list[_Part] = []  # of all layers, topmost first
        self._pictures: dict[int, Picture] = {}
        self._places: dict[int, list[_Layer]] = {}  # by user
        self._changed: set[_Layer] = set()  # whose scaled pictures are not yet on the canvas
        self._images: Mapping[int, Image] = {}
        self._default_image: Image | None = None
        self._background = Planes.filled(canvas.size)
        self._is_stale = True  # everything must be painted again

    def arrange(self, placements: Sequence[Placement]) -> None:
        """Replace the layout. Pictures of users who are no longer placed are forgotten."""
        if [layer.placement for layer in self._layers] == list(placements):
            return
        kept = {layer.placement: layer for layer in self._layers}
        self._layers = [
            kept.pop(placement) if placement in kept else _Layer(placement, pixels(placement.rect, self._canvas.size), self._new_scaler())
            for placement in placements
        ]
        for index, layer in enumerate(self._layers):
            layer.parts = self._stack(layer.tile)
            layer.around = [
                other
                for number, other in enumerate(self._layers)
                if number != index and other.tile.contains(layer.tile) and (other.tile != layer.tile or number < index)
            ]
        self._parts = self._stack(self._canvas.tile)
        self._places = {}
        for layer in self._layers:
            self._places.setdefault(layer.placement.uid, []).append(layer)
        self._pictures = {uid: picture for uid, picture in self._pictures.items() if uid in self._places}
        self._is_stale = True

    def set_picture(self, uid: int, picture: Picture | None) -> None:
        """Show `picture` from now on; None: the user's image or the background. Ignored for users without a place.

        It is scaled at once: a picture that was just decoded is still in the processor's cache, which halves the cost.
        """
        if picture is None:
            self._pictures.pop(uid, None)
        elif uid in self._places:
            started_ns = time.thread_time_ns()
            self._pictures[uid] = picture
            for layer in self._places[uid]:
                if layer.show(*self._content(layer.placement)):
                    self._changed.add(layer)
            self.spent_ns += time.thread_time_ns() - started_ns

    def set_background(self, colour: Colour = BLACK, picture: Picture | None = None) -> None:
        """What shows where nobody is drawn: `picture`, cropped to fill the canvas, or else `colour`."""
        self._background.fill(colour)
        if picture is not None:
            self._background.copy_from(_Filling(self._canvas.size, self._new_scaler())(picture))
        self._is_stale = True

    def set_images(self, images: Mapping[int, Image], default: Image | None = None) -> None:
        """What shows in the places of users without video; `default` is for users who are in the channel and have none."""
        self._images = dict(images)
        self._default_image = default

    def draw(self) -> bool:
        """Bring the canvas up to date; tell whether it changed."""
        started_ns = time.thread_time_ns()
        changed = [layer for layer in self._layers if layer.show(*self._content(layer.placement)) or layer in self._changed]
        self._changed.clear()
        is_stale, self._is_stale = self._is_stale, False
        if is_stale:
            self._repaint(self._canvas.tile, self._parts)
        else:
            for layer in changed:
                if not any(outer in changed for outer in layer.around):
                    self._repaint(layer.tile, layer.parts)
        self.spent_ns += time.thread_time_ns() - started_ns
        return is_stale or bool(changed)

    def _content(self, placement: Placement) -> tuple[Picture | None, bool]:
        picture = self._pictures.get(placement.uid)
        if picture is not None:
            return picture, placement.fit
        image = self._images.get(placement.uid, self._default_image if placement.present else None)
        return (image.picture, image.fit) if image else (None, False)

    def _stack(self, tile: Tile) -> list["_Part"]:
        """What of the layers lies within `tile`, topmost first."""
        stack = []
        for layer in reversed(self._layers):
            part = layer.tile.intersection(tile)
            if part is not None:
                stack.append(_Part(layer, part, self._canvas.planes.cut(part), hides=layer.is_opaque and part == tile))
        return stack

    def _repaint(self, tile: Tile, parts: Sequence["_Part"]) -> None:
        """Paint everything that shows within `tile`, beginning with the topmost layer that hides all below it."""
        shown: list[_Part] = []
        for part in parts:
            if part.layer.planes is None:
                continue
            shown.append(part)
            if part.hides:
                break
        else:
            self._canvas.planes.cut(tile).copy_from(self._background.cut(tile))
        for part in reversed(shown):
            part.layer.paint(part.target, part.tile)


class _Layer:
    """One place and the scaled picture in it."""

    def __init__(self, placement: Placement, tile: Tile, scaler: Scaler) -> None:
        self.placement = placement
        self.tile = tile
        self.planes: Planes | None = None  # None: nothing to paint
        self.is_opaque = placement.alpha >= 1
        self.parts: list[_Part] = []  # what lies within this tile, from all layers, topmost first
        self.around: list[_Layer] = []  # whose repainting repaints this tile
        self._is_visible = tile.width > 0 and tile.height > 0 and placement.alpha > 0
        self._filling = _Filling(tile.size, scaler)
        self._fitting = _Fitting(tile.size, scaler)
        self._shown: Picture | None = None
        self._is_fitted = False

    def show(self, picture: Picture | None, whole: bool) -> bool:
        """Take this picture over, fitted (`whole`) or cropped; tell whether the place looks different now."""
        if (picture is self._shown and whole == self._is_fitted) or not self._is_visible:
            return False
        self._shown, self._is_fitted = picture, whole
        if picture is None:
            self.planes = None
        else:
            self.planes = self._fitting(picture) if whole else self._filling(picture)
        return True

    def paint(self, target: Planes, part: Tile) -> None:
        assert self.planes is not None
        source = self.planes if part == self.tile else self.planes.cut(part.relative_to(self.tile))
        if self.is_opaque:
            target.copy_from(source)
        else:
            target.blend_from(source, self.placement.alpha)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What of a layer lies within some tile."""

    layer: _Layer
    tile: Tile
    target: Planes  # there on the canvas
    hides: bool  # nothing shows through: it is opaque and as large as that tile


class _Filling:
    """Crops pictures to fill a place."""

    def __init__(self, size: Size, scaler: Scaler) -> None:
        self._size = size
        self._scaler = scaler

    def __call__(self, picture: Picture) -> Planes:
        # Turned after scaling: the result is the same and there is less to turn.
        shape = self._size.turned(picture.rotation)
        part = crop(picture.planes.size, picture.rotation, self._size)
        return self._scaler(picture, part, shape.width, shape.height).turned(picture.rotation)


class _Fitting:
    """Shows whole pictures in the middle of a place, between black bars."""

    def __init__(self, size: Size, scaler: Scaler) -> None:
        self._size = size
        self._scaler = scaler
        self._inner = Tile(0, 0, 0, 0)  # where the last picture went
        self._barred: Planes | None = None

    def __call__(self, picture: Picture) -> Planes:
        source = picture.planes.size
        inner = fit(source, picture.rotation, self._size)
        shape = inner.size.turned(picture.rotation)
        scaled = self._scaler(picture, Tile(0, 0, source.width, source.height), shape.width, shape.height).turned(picture.rotation)
        if inner.size == self._size:
            return scaled
        if self._barred is None or inner != self._inner:
            self._inner, self._barred = inner, Planes.filled(self._size)
        self._barred.cut(inner).copy_from(scaled)
        return self._barred
