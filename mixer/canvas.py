"""The canvas a composite is drawn on."""

import numpy as np

from mixer.fit import Size, Tile, even
from mixer.picture import Colour, Planes

# Rows start at multiples of a cache line, which the encoder's copy likes.
_ALIGNMENT = 64


class Canvas:
    """Planes in one buffer that lives as long as the recording. Odd sizes become the even size next below."""

    def __init__(self, width: int, height: int) -> None:
        self.size = Size(even(width), even(height))
        width, height = self.size.width, self.size.height
        stride = -(-width // _ALIGNMENT) * _ALIGNMENT
        self.buffer = np.empty((height * 3 // 2, stride), np.uint8)  # the layout of yuv420p with padded rows
        luma = self.buffer[:height]
        u, v = self.buffer[height:].reshape(2, height // 2, stride // 2)
        self.planes = Planes(luma[:, :width], u[:, : width // 2], v[:, : width // 2])
        self.planes.copy_from(Planes.filled(self.size))

    @property
    def tile(self) -> Tile:
        return Tile(0, 0, self.size.width, self.size.height)


def colour(text: str) -> Colour:
    """`#RRGGBB` in the canvas's colours.

    Raises:
        ValueError: it is written otherwise.
    """
    if len(text) != 7 or text[0] != "#":
        raise ValueError(f"not a colour: {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (
        round(16 + 219 / 255 * luma),
        round(128 + 224 / 255 * (blue - luma) / 1.772),
        round(128 + 224 / 255 * (red - luma) / 1.402),
    )
