"""Raw pictures: 4:2:0 planes, and the project's one rule about colour.

Colour: everything is drawn in BT.601, limited range, whatever its size, and encoders tag their streams so. WebRTC senders
convert their cameras' pictures with BT.601 and mostly say nothing about it, so usually nothing has to be converted. What
a sender does say travels in `Picture` to the scaler, which converts; nothing else looks at it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from mixer.fit import Size, Tile

Plane = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]  # Y, U, V

BLACK: Colour = (16, 128, 128)


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The three planes of a picture of even width and height; the arrays may be views of something larger."""

    y: Plane
    u: Plane
    v: Plane

    @classmethod
    def filled(cls, size: Size, colour: Colour = BLACK) -> Self:
        whole, half = (size.height, size.width), (size.height // 2, size.width // 2)
        return cls(np.full(whole, colour[0], np.uint8), np.full(half, colour[1], np.uint8), np.full(half, colour[2], np.uint8))

    @property
    def size(self) -> Size:
        return Size(self.y.shape[1], self.y.shape[0])

    def __iter__(self) -> Iterator[Plane]:
        return iter((self.y, self.u, self.v))

    def cut(self, tile: Tile) -> "Planes":
        """A view of a part; nothing is copied."""
        whole = np.s_[tile.y : tile.bottom, tile.x : tile.right]
        half = np.s_[tile.y // 2 : tile.bottom // 2, tile.x // 2 : tile.right // 2]
        return Planes(self.y[whole], self.u[half], self.v[half])

    def turned(self, rotation: int) -> "Planes":
        """A view turned clockwise by 0, 90, 180 or 270 degrees; nothing is copied."""
        quarters = rotation // 90 % 4
        if quarters == 0:
            return self
        if quarters == 1:
            return Planes(self.y.T[:, ::-1], self.u.T[:, ::-1], self.v.T[:, ::-1])
        if quarters == 2:
            return Planes(self.y[::-1, ::-1], self.u[::-1, ::-1], self.v[::-1, ::-1])
        return Planes(self.y.T[::-1], self.u.T[::-1], self.v.T[::-1])

    def copy_from(self, source: "Planes") -> None:
        self.y[:] = source.y
        self.u[:] = source.u
        self.v[:] = source.v

    def fill(self, colour: Colour) -> None:
        for plane, value in zip(self, colour, strict=True):
            plane[:] = value

    def blend_from(self, source: "Planes", alpha: float) -> None:
        """Mix `source` in: 0 leaves what is here, 1 replaces it."""
        weight = round(alpha * 256)
        for target, plane in zip(self, source, strict=True):
            mixed = target.astype(np.uint16) * (256 - weight)
            mixed += plane.astype(np.uint16) * weight
            mixed += 128
            target[:] = mixed >> 8


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture of a user as it was decoded. Two pictures are the same only if they are one object."""

    planes: Planes
    rotation: int = 0  # degrees clockwise to turn it for display: 0, 90, 180, 270
    matrix: Literal["bt601", "bt709"] = "bt601"
    full_range: bool = False
