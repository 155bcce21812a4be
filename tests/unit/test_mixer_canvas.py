"""The canvas's memory and colours."""

import numpy as np
import pytest

from mixer.canvas import Canvas, colour
from mixer.fit import Size
from mixer.picture import BLACK


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (426, 240), (98, 46), (1, 1), (1919, 1079)])
def test_planes_are_views_of_one_yuv420p_buffer(width: int, height: int) -> None:
    canvas = Canvas(width, height)
    size = Size(max(2, width // 2 * 2), max(2, height // 2 * 2))
    assert canvas.size == canvas.planes.size == size
    assert canvas.buffer.shape[0] == size.height * 3 // 2
    stride = canvas.buffer.shape[1]
    flat = canvas.buffer.reshape(-1)
    for plane, start, row, value in zip(
        canvas.planes, (0, size.height * stride, size.height * stride * 5 // 4), (stride, stride // 2, stride // 2), BLACK, strict=True
    ):
        assert (plane == value).all()
        plane[-1, -1] = 77
        assert flat[start + (plane.shape[0] - 1) * row + plane.shape[1] - 1] == 77
    assert np.count_nonzero(flat == 77) >= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#000000", (16, 128, 128)),
        ("#ffffff", (235, 128, 128)),
        ("#FF0000", (81, 90, 240)),
        ("#00ff00", (145, 54, 34)),
        ("#0000ff", (41, 240, 110)),
    ],
)
def test_colours_are_bt601_limited(text: str, expected: tuple[int, int, int]) -> None:
    assert colour(text) == expected


@pytest.mark.parametrize("text", ["", "000000", "#00000", "#0000000", "#gggggg", "red"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        colour(text)
