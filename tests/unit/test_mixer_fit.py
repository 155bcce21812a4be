"""Pixel rectangles, cropping and fitting."""

import pytest

from mixer.fit import Rect, Size, Tile, crop, fit, pixels
from mixer.layouts import Options, load


def test_the_value_of_the_specification() -> None:
    assert pixels(Rect(0.5, 0.5, 0.5, 0.5), Size(360, 640)) == Tile(180, 320, 180, 320)


@pytest.mark.parametrize("canvas", [Size(360, 640), Size(640, 360), Size(426, 240), Size(1280, 720), Size(854, 482), Size(98, 46)])
@pytest.mark.parametrize("people", [2, 4, 9, 16])
def test_cells_of_a_grid_cover_the_canvas_without_gap_or_overlap(canvas: Size, people: int) -> None:
    covered = [[0] * canvas.width for _ in range(canvas.height)]
    for placement in load(1).place(range(people), canvas, Options()):
        tile = pixels(placement.rect, canvas)
        assert not any(edge % 2 for edge in (tile.x, tile.y, tile.width, tile.height))
        for y in range(tile.y, tile.bottom):
            for x in range(tile.x, tile.right):
                covered[y][x] += 1
    assert {count for row in covered for count in row} == {1}


@pytest.mark.parametrize("count", [5, 6, 7, 9, 10])
@pytest.mark.parametrize("length", [18, 30, 102, 150, 198, 210, 710, 1910])
def test_float_noise_does_not_part_neighbours(count: int, length: int) -> None:
    canvas = Size(length, 2)
    tiles = [pixels(Rect(index / count, 0, 1 / count, 1), canvas) for index in range(count)]
    assert [tile.right for tile in tiles] == [tile.x for tile in tiles[1:]] + [length]


@pytest.mark.parametrize("rect", [Rect(0.9, 0.9, 0.2, 0.2), Rect(-0.1, 0, 2, 2), Rect(0.999999, 0, 0.000001, 1)])
def test_tiles_stay_inside_the_canvas(rect: Rect) -> None:
    assert Tile(0, 0, 102, 58).contains(pixels(rect, Size(102, 58)))


@pytest.mark.parametrize(
    ("source", "rotation", "tile", "expected"),
    [
        (Size(640, 360), 0, Size(320, 180), Tile(0, 0, 640, 360)),
        (Size(640, 360), 0, Size(180, 180), Tile(140, 0, 360, 360)),
        (Size(360, 640), 0, Size(320, 180), Tile(0, 218, 360, 202)),
        (Size(640, 360), 90, Size(180, 320), Tile(0, 0, 640, 360)),
        (Size(640, 360), 270, Size(320, 180), Tile(218, 0, 202, 360)),
        (Size(641, 361), 180, Size(320, 180), Tile(0, 0, 640, 360)),
        (Size(2, 2), 0, Size(1280, 2), Tile(0, 0, 2, 2)),
    ],
)
def test_crop_takes_the_middle_that_covers_the_tile(source: Size, rotation: int, tile: Size, expected: Tile) -> None:
    assert crop(source, rotation, tile) == expected


@pytest.mark.parametrize(
    ("source", "rotation", "tile", "expected"),
    [
        (Size(640, 360), 0, Size(320, 180), Tile(0, 0, 320, 180)),
        (Size(640, 360), 0, Size(320, 320), Tile(0, 70, 320, 180)),
        (Size(640, 360), 90, Size(320, 320), Tile(70, 0, 180, 320)),
        (Size(100, 100), 0, Size(512, 360), Tile(76, 0, 360, 360)),
        (Size(1280, 2), 0, Size(20, 20), Tile(0, 8, 20, 2)),
    ],
)
def test_fit_puts_the_whole_picture_into_the_middle(source: Size, rotation: int, tile: Size, expected: Tile) -> None:
    assert fit(source, rotation, tile) == expected
