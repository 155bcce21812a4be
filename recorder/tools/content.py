"""What a publisher shows and sounds: lifelike enough for an encoder, exact enough to be measured in a recording.

Picture: a panning texture, a moving disc, noise, the uid and the frame number as text; a background hue per uid; in the
middle a frame counter of black and white cells and below it a patch that flashes white for 100 ms at each full second of
media time. Sound: quiet noise, and a beep of a tone per uid at the same instants. Everything repeats after a whole number
of seconds without a seam. Numpy only.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]

SAMPLE_RATE = 48_000
FLASH_SECONDS = 0.1
COUNTER_PERIOD = 1 << 12

_COLUMNS, _ROWS = 6, 3
_CHECK_BITS = 6
_CELL_MASK = 0b101100_111000_010011  # no counter value gives cells of one colour, so black and white can be told apart
_BLACK, _WHITE = 24, 228
_CHROMA = 52  # distance of the background from grey
_RAMP_SECONDS = 0.002  # edges of a beep: a hard edge would click over the whole spectrum


@dataclass(frozen=True, slots=True)
class Box:
    """An area of the picture in picture heights, origin in the middle: found again after scaling and centred cropping."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in a tile of this size that shows a picture of this aspect, cropped to fill."""
        unit = max(height, width / aspect)
        x, y = width / 2, height / 2
        return round(x + self.left * unit), round(y + self.top * unit), round(x + self.right * unit), round(y + self.bottom * unit)


# Narrow and low enough to stay visible when a 16:9 picture is cropped to a 9:16 tile, or to a strip of half its height.
COUNTER = Box(-0.27, -0.25, 0.27, -0.02)
FLASH = Box(-0.27, 0.02, 0.27, 0.25)


def counter_cells(counter: int) -> npt.NDArray[np.bool_]:
    """The counter as a grid of cells, True is white."""
    word = (counter % COUNTER_PERIOD << _CHECK_BITS | _check(counter % COUNTER_PERIOD)) ^ _CELL_MASK
    bits = [bool(word >> i & 1) for i in range(_COLUMNS * _ROWS)]
    return np.array(bits).reshape(_ROWS, _COLUMNS)


def counter_from_cells(cells: npt.NDArray[np.bool_]) -> int | None:
    """The inverse of `counter_cells`; None when the check bits do not fit."""
    word = sum(1 << i for i, white in enumerate(cells.reshape(-1)) if white) ^ _CELL_MASK
    counter, check = word >> _CHECK_BITS, word & (1 << _CHECK_BITS) - 1
    return counter if check == _check(counter) else None


def hue(uid: int) -> float:
    """The angle of the background colour in the plane of U and V, radians; golden-angle steps keep neighbours apart."""
    return 2 * math.pi * (uid * 0.6180339887498949 % 1)


def tone_hz(uid: int) -> float:
    return 600 + 2600 * (uid * 0.7548776662466927 % 1)


@dataclass(frozen=True, slots=True)
class Style:
    """What a picture shows besides time."""

    uid: int
    width: int = 640
    height: int = 360
    fps: int = 30
    period_seconds: int = 8  # the moving parts repeat after it


class Picture:
    """Draws any frame of one style; the same index gives the same picture."""

    def __init__(self, style: Style) -> None:
        self._style = style
        width, height = style.width, style.height
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        waves = np.sin(2 * np.pi * (3 * x / width + y / height)) + 0.6 * np.sin(2 * np.pi * (11 * x / width - 2 * y / height))
        texture = (105 + 22 * waves).astype(np.uint8)
        self._texture = np.concatenate([texture, texture], axis=1)  # its period is the width: panning has no seam
        self._noise = np.random.default_rng(style.uid).integers(0, 7, (height + 64, width + 64), dtype=np.uint8)
        self._radius = height // 8
        grid = np.mgrid[-self._radius : self._radius, -self._radius : self._radius]
        self._disc = np.where((grid**2).sum(axis=0) < self._radius**2, 34, 0).astype(np.uint8)
        self._glyph = max(1, height // 90)

    def draw(self, index: int) -> Plane:
        """One frame as planar 4:2:0, shape (height * 3 / 2, width)."""
        style = self._style
        width, height = style.width, style.height
        phase = index / (style.fps * style.period_seconds)
        frame = np.empty((height * 3 // 2, width), np.uint8)
        pan = int(width * phase) % width
        luma = frame[:height]
        np.copyto(luma, self._texture[:, pan : pan + width])
        top, left = np.random.default_rng(index).integers(0, 64, 2)
        luma += self._noise[top : top + height, left : left + width]
        x = int((width - 2 * self._radius) * (0.5 + 0.5 * math.sin(4 * math.pi * phase)))
        y = int((height - 2 * self._radius) * (0.5 + 0.5 * math.cos(6 * math.pi * phase)))
        luma[y : y + 2 * self._radius, x : x + 2 * self._radius] += self._disc
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        chroma[0] = round(128 + _CHROMA * math.cos(hue(style.uid)))
        chroma[1] = round(128 + _CHROMA * math.sin(hue(style.uid)))
        self._draw_marks(luma, chroma, index)
        draw_text(luma, f"{style.uid} {index}", self._glyph * 2, self._glyph * 2, self._glyph)
        return frame

    def _draw_marks(self, luma: Plane, chroma: Plane, index: int) -> None:
        style = self._style
        aspect = style.width / style.height
        left, top, right, bottom = COUNTER.pixels(style.width, style.height, aspect)
        rows = np.linspace(top, bottom, _ROWS + 1).round().astype(int)
        columns = np.linspace(left, right, _COLUMNS + 1).round().astype(int)
        for (row, column), white in np.ndenumerate(counter_cells(index)):
            luma[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = _WHITE if white else _BLACK
        _, flash_top, _, flash_bottom = FLASH.pixels(style.width, style.height, aspect)
        flashing = index % style.fps < math.ceil(style.fps * FLASH_SECONDS)
        luma[flash_top:flash_bottom, left:right] = _WHITE if flashing else _BLACK
        chroma[:, top // 2 : flash_bottom // 2, left // 2 : right // 2] = 128


def sound(uid: int, seconds: int) -> npt.NDArray[np.int16]:
    """Mono samples. A beep's edge crosses half its height exactly at the full second."""
    count = seconds * SAMPLE_RATE
    time = (np.arange(count) / SAMPLE_RATE + 0.5) % 1 - 0.5  # seconds since the nearest full second
    rise = np.clip((time + _RAMP_SECONDS / 2) / _RAMP_SECONDS, 0, 1)
    fall = np.clip((FLASH_SECONDS + _RAMP_SECONDS / 2 - time) / _RAMP_SECONDS, 0, 1)
    beep = 0.25 * np.sin(2 * np.pi * tone_hz(uid) * time) * rise * fall
    noise = np.random.default_rng(uid).normal(0, 0.002, count)
    return ((beep + noise) * 32767).astype(np.int16)


def draw_text(luma: Plane, text: str, left: int, top: int, scale: int) -> None:
    """Write digits and spaces, light on dark, 5 × 7 pixels of `scale` each; what does not fit is left out."""
    for position, letter in enumerate(text):
        x = left + position * 6 * scale
        if x + 6 * scale > luma.shape[1] or top + 7 * scale > luma.shape[0]:
            return
        rows = _DIGITS[int(letter)] if letter.isdigit() else (0,) * 7
        bits = np.array([[row >> (4 - i) & 1 for i in range(5)] + [0] for row in rows], np.uint8)
        luma[top : top + 7 * scale, x : x + 6 * scale] = np.kron(bits, np.full((scale, scale), _WHITE - _BLACK, np.uint8)) + _BLACK


_DIGITS = (
    (0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E),
    (0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E),
    (0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F),
    (0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E),
    (0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02),
    (0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E),
    (0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E),
    (0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08),
    (0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E),
    (0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C),
)


def _check(counter: int) -> int:
    """CRC-6 (x^6 + x + 1) over the 12 bits of the counter."""
    remainder = counter << _CHECK_BITS
    for bit in range(11, -1, -1):
        if remainder >> (bit + _CHECK_BITS) & 1:
            remainder ^= 0b1000011 << bit
    return remainder
