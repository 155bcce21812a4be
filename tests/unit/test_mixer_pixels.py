"""Crop, fit, rotation, overlap and transparency through the real scaler, pixel by pixel against plain arithmetic."""

import numpy as np
import pytest

from mixer.canvas import Canvas
from mixer.compositor import Compositor
from mixer.fit import Rect, Size
from mixer.layouts import Options, Region, load
from mixer.picture import Picture, Plane, Planes
from recorder.media.scale import Scaler


def ramp(width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Luma tells how far to the right a pixel lies, U how far down, V nothing."""
    x, y = np.linspace(16, 235, width), np.linspace(16, 240, height // 2)
    flat = np.full((height // 2, width // 2), 90)
    u = np.repeat(y[:, np.newaxis], width // 2, 1)
    return np.rint(np.repeat(x[np.newaxis], height, 0)).astype(np.uint8), np.rint(u).astype(np.uint8), flat.astype(np.uint8)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("source", [(640, 360), (360, 640), (322, 182), (34, 62), (1280, 720)])
@pytest.mark.parametrize("size", [(320, 180), (180, 320), (96, 96), (62, 10)])
def test_every_pixel_shows_its_part_of_the_picture(size: tuple[int, int], source: tuple[int, int], rotation: int, whole: bool) -> None:
    seen = source if rotation % 180 == 0 else source[::-1]
    planes = (np.ascontiguousarray(np.rot90(plane, rotation // 90)) for plane in ramp(*seen))
    canvas = Canvas(*size)
    compositor = Compositor(canvas, Scaler)
    compositor.arrange(load(3).place([1], canvas.size, Options(regions=(Region(Rect(0, 0, 1, 1), fit=whole),))))
    compositor.set_picture(1, Picture(Planes(*planes), rotation))
    compositor.draw()
    ratios = size[0] / seen[0], size[1] / seen[1]
    scale = min(ratios) if whole else max(ratios)
    for plane, length, total, top, axis, part in (
        (canvas.planes.y, size[0], seen[0], 235, 1, 1),
        (canvas.planes.u, size[1], seen[1], 240, 0, 2),
    ):
        at = (np.arange(length // part) * part + part / 2 - length / 2) / scale / total + 0.5  # 0 … 1 over the picture
        middle = plane[plane.shape[0] // 2] if axis else plane[:, plane.shape[1] // 2]
        inside = (at > 0.03) & (at < 0.97)  # the outermost pixels are mixed with what is repeated around the picture
        tolerance = 2 + (top - 16) / total + (top - 16) / (total * scale)  # even pixels: off by one of the source and one of ours
        count = total // part
        shown = 16 + (top - 16) * (at * count - 0.5) / (count - 1)
        assert np.abs(middle[inside] - shown[inside]).max() <= tolerance
        beyond = (at < -2 / total / scale - 0.01) | (at > 1 + 2 / total / scale + 0.01)
        assert (middle[beyond] == (16 if axis else 128)).all()
    assert abs(int(canvas.planes.v[canvas.size.height // 4, canvas.size.width // 4]) - 90) <= 1


BLACK = (16, 128, 128)
COLOURS = [(60, 90, 180), (90, 200, 70), (120, 60, 100), (160, 150, 150), (200, 120, 60)]
STEPS = [Rect(0.1 * step, 0.1 * step, 0.5, 0.5) for step in range(5)]


@pytest.mark.parametrize("alphas", [(1, 1, 1, 1, 1), (1, 0.5, 1, 0, 0.5), (0.5, 0.5, 0.5, 0.5, 0.5), (0, 1, 0.25, 0.75, 1)])
def test_later_regions_lie_on_earlier_ones_as_thick_as_they_say(alphas: tuple[float, ...]) -> None:
    size, people = (200, 100), [1, 2, 3, 4, 5]
    canvas = Canvas(*size)
    compositor = Compositor(canvas, Scaler)
    regions = tuple(Region(rect, uid=uid, alpha=alpha) for uid, rect, alpha in zip(people, STEPS, alphas, strict=True))
    compositor.arrange(load(3).place(people, canvas.size, Options(regions=regions)))
    golden = [np.full(plane.shape, value, float) for plane, value in zip(canvas.planes, BLACK, strict=True)]
    for uid, alpha in zip(people, alphas, strict=True):
        compositor.set_picture(uid, Picture(Planes.filled(Size(200, 100), COLOURS[uid - 1])))
        left, top = 20 * (uid - 1), 10 * (uid - 1)
        for plane, value, part in zip(golden, COLOURS[uid - 1], (1, 2, 2), strict=True):
            where = np.s_[top // part : top // part + 50 // part, left // part : left // part + 100 // part]
            plane[where] = plane[where] * (1 - alpha) + value * alpha
    for _ in range(2):
        compositor.draw()
        for plane, expected in zip(canvas.planes, golden, strict=True):
            assert np.abs(plane - expected).max() <= 2
        compositor.set_picture(2, Picture(Planes.filled(Size(40, 20), COLOURS[1])))  # one of them anew: the others stay as they are
