"""Judging screenshots: what a JPG shows, and how close it is to what the sender showed before any encoder."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from PIL import Image

from recorder.media.pictures import rgb_of
from recorder.tools import measure
from recorder.tools.content import Picture, Style

Rgb = npt.NDArray[np.uint8]


def pixels(path: Path) -> Rgb:
    with Image.open(path) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"))


def counter(shot: Rgb) -> int | None:
    """The number of the frame that it shows."""
    return measure.read_counter(np.asarray(Image.fromarray(shot).convert("L")))


def sent(style: Style, index: int) -> Rgb:
    """A frame as the sender drew it."""
    drawn = Picture(style).draw(index % (style.fps * style.period_seconds))
    return rgb_of(VideoFrame.from_ndarray(drawn, format="yuv420p"))


def psnr(a: Rgb, b: Rgb) -> float:
    """In dB; over all three colours."""
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / error))
