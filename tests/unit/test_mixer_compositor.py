"""What is painted where: pixels are looked up on the canvas, scaling is by nearest neighbour so that they can be foretold."""

import numpy as np
import pytest

from mixer.canvas import Canvas, colour
from mixer.compositor import Compositor, Image
from mixer.fit import Rect, Size, Tile
from mixer.layouts import Options, Placement, load
from mixer.picture import BLACK, Colour, Picture, Plane, Planes

RED, GREEN, BLUE, WHITE = (colour(text) for text in ("#ff0000", "#00ff00", "#0000ff", "#ffffff"))
FULL = Rect(0, 0, 1, 1)
LEFT, RIGHT = Rect(0, 0, 0.5, 1), Rect(0.5, 0, 0.5, 1)


class NearestScaler:
    """Counts its calls: what is not scaled again was not redrawn."""

    calls = 0

    def __call__(self, picture: Picture, crop: Tile, width: int, height: int) -> Planes:
        NearestScaler.calls += 1
        y, u, v = picture.planes.cut(crop)
        return Planes(nearest(y, width, height), nearest(u, width // 2, height // 2), nearest(v, width // 2, height // 2))


def nearest(plane: Plane, width: int, height: int) -> Plane:
    rows = np.arange(height) * plane.shape[0] // height
    columns = np.arange(width) * plane.shape[1] // width
    picked: Plane = plane[rows][:, columns]
    return picked


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(160, 90)


@pytest.fixture
def compositor(canvas: Canvas) -> Compositor:
    NearestScaler.calls = 0
    return Compositor(canvas, NearestScaler)


def plain(colour: Colour, width: int = 160, height: int = 90, rotation: int = 0) -> Picture:
    return Picture(Planes.filled(Size(width, height), colour), rotation)


def at(canvas: Canvas, x: int, y: int) -> Colour:
    planes = canvas.planes
    return int(planes.y[y, x]), int(planes.u[y // 2, x // 2]), int(planes.v[y // 2, x // 2])


def area(canvas: Canvas, colour: Colour) -> Tile | None:
    """The bounding box of this colour, which must fill it."""
    match = (canvas.planes.y == colour[0]) & (np.repeat(np.repeat(canvas.planes.u == colour[1], 2, 0), 2, 1))
    if not match.any():
        return None
    rows, columns = np.flatnonzero(match.any(axis=1)), np.flatnonzero(match.any(axis=0))
    assert match[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return Tile(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))


def test_tiles_are_found_to_the_pixel(canvas: Canvas, compositor: Compositor) -> None:
    colours = [(luma, 128 + luma // 2, 90) for luma in range(30, 210, 20)]
    compositor.arrange(load(1).place(range(9), canvas.size, Options()))
    for uid, value in enumerate(colours):
        compositor.set_picture(uid, plain(value, 64, 48))
    assert compositor.draw()
    xs, ys = (0, 54, 106, 160), (0, 30, 60, 90)
    for uid, value in enumerate(colours):
        row, column = divmod(uid, 3)
        assert area(canvas, value) == Tile(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row])


def test_only_new_pictures_are_scaled_and_reported(canvas: Canvas, compositor: Compositor) -> None:
    assert compositor.draw()  # the background
    assert not compositor.draw()
    compositor.arrange([Placement(1, LEFT), Placement(2, RIGHT)])
    compositor.set_picture(1, plain(RED))
    compositor.set_picture(2, plain(GREEN))
    assert compositor.draw()
    assert NearestScaler.calls == 2
    assert not compositor.draw()
    picture = plain(BLUE)
    compositor.set_picture(1, picture)
    assert compositor.draw()
    assert NearestScaler.calls == 3
    compositor.set_picture(1, picture)
    assert not compositor.draw()
    assert (at(canvas, 0, 0), at(canvas, 159, 89)) == (BLUE, GREEN)


def test_the_time_of_drawing_is_counted(compositor: Compositor) -> None:
    compositor.arrange([Placement(1, FULL)])
    assert compositor.spent_ns == 0
    compositor.set_picture(1, plain(RED, 1920, 1080))
    scaled_ns = compositor.spent_ns
    assert scaled_ns > 0
    compositor.draw()
    drawn_ns = compositor.spent_ns
    assert drawn_ns > scaled_ns
    compositor.draw()
    assert 0 <= compositor.spent_ns - drawn_ns < drawn_ns  # nothing new to draw


def test_a_picture_is_scaled_while_it_is_fresh_and_shows_after_drawing(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, FULL)])
    assert compositor.draw()
    compositor.set_picture(1, plain(RED))
    assert (NearestScaler.calls, at(canvas, 0, 0)) == (1, BLACK)
    assert compositor.draw()
    assert (NearestScaler.calls, at(canvas, 0, 0)) == (1, RED)


def test_a_picture_that_came_and_went_before_drawing_is_not_seen(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, FULL)])
    compositor.set_picture(1, plain(RED))
    compositor.set_picture(1, None)
    assert compositor.draw()
    assert at(canvas, 0, 0) == BLACK


def test_users_who_keep_their_place_are_not_scaled_again(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, LEFT)])
    compositor.set_picture(1, plain(RED))
    compositor.draw()
    compositor.arrange([Placement(1, LEFT), Placement(2, RIGHT)])
    assert compositor.draw()
    assert NearestScaler.calls == 1
    assert area(canvas, RED) == Tile(0, 0, 80, 90)


def test_a_user_who_moves_up_takes_the_picture_along_and_one_who_left_is_gone(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, LEFT), Placement(2, RIGHT)])
    compositor.set_picture(1, plain(RED))
    compositor.set_picture(2, plain(GREEN))
    compositor.draw()
    compositor.arrange([Placement(2, LEFT)])
    assert compositor.draw()
    assert area(canvas, GREEN) == Tile(0, 0, 80, 90)
    assert area(canvas, BLACK) == Tile(80, 0, 80, 90)
    compositor.arrange([Placement(2, LEFT), Placement(1, RIGHT)])
    compositor.draw()
    assert area(canvas, RED) is None


def test_a_picture_for_a_user_without_a_place_is_ignored(canvas: Canvas, compositor: Compositor) -> None:
    compositor.set_picture(9, plain(RED))
    compositor.arrange([Placement(9, FULL)])
    compositor.draw()
    assert area(canvas, RED) is None


def test_crop_fills_and_cuts_both_sides_equally(canvas: Canvas, compositor: Compositor) -> None:
    picture = plain(RED, 160, 80)
    picture.planes.cut(Tile(0, 0, 40, 80)).copy_from(Planes.filled(Size(40, 80), GREEN))
    picture.planes.cut(Tile(120, 0, 40, 80)).copy_from(Planes.filled(Size(40, 80), GREEN))
    compositor.arrange([Placement(1, LEFT)])
    compositor.set_picture(1, picture)
    compositor.draw()  # 80x90 of 160x80: the middle 72 columns
    assert area(canvas, RED) == Tile(0, 0, 80, 90)


def test_fit_shows_everything_between_black_bars(canvas: Canvas, compositor: Compositor) -> None:
    compositor.set_background(BLUE)
    compositor.arrange([Placement(1, LEFT, fit=True)])
    compositor.set_picture(1, plain(RED, 160, 80))
    compositor.draw()
    assert area(canvas, RED) == Tile(0, 24, 80, 40)
    assert {at(canvas, 40, y) for y in (0, 23, 64, 89)} == {BLACK}
    assert area(canvas, BLUE) == Tile(80, 0, 80, 90)


def test_bars_are_black_where_the_picture_before_was(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, FULL, fit=True)])
    for picture, tile in ((plain(RED, 40, 80), Tile(58, 0, 44, 90)), (plain(RED, 160, 40), Tile(0, 24, 160, 40))):
        compositor.set_picture(1, picture)
        compositor.draw()
        assert area(canvas, RED) == tile
    compositor.set_picture(1, plain(GREEN, 40, 80, rotation=90))
    compositor.draw()
    assert (area(canvas, GREEN), area(canvas, RED)) == (Tile(0, 4, 160, 80), None)


def test_places_one_upon_the_other_change_together(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, LEFT), Placement(2, LEFT, alpha=0.5)])
    for below, above in ((RED, GREEN), (BLUE, WHITE)):
        compositor.set_picture(1, plain(below))
        compositor.set_picture(2, plain(above))
        compositor.draw()
        assert at(canvas, 40, 45) == tuple((a + b + 1) // 2 for a, b in zip(below, above, strict=True))


QUARTERS = {0: (RED, GREEN, WHITE, BLUE), 90: (WHITE, RED, BLUE, GREEN), 180: (BLUE, WHITE, GREEN, RED), 270: (GREEN, BLUE, RED, WHITE)}


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("rotation", QUARTERS)
def test_rotation_is_clockwise_and_comes_before_scaling(canvas: Canvas, compositor: Compositor, rotation: int, fit: bool) -> None:
    width, height = (32, 18) if rotation % 180 == 0 else (18, 32)
    picture = plain(BLACK, 2 * width, 2 * height, rotation)
    for value, (x, y) in zip(QUARTERS[0], ((0, 0), (width, 0), (0, height), (width, height)), strict=True):
        picture.planes.cut(Tile(x, y, width, height)).copy_from(Planes.filled(Size(width, height), value))
    compositor.arrange([Placement(1, FULL, fit=fit)])
    compositor.set_picture(1, picture)
    compositor.draw()
    assert tuple(at(canvas, x, y) for y in (10, 80) for x in (10, 150)) == QUARTERS[rotation]


def test_a_new_picture_below_leaves_the_tiles_above_it(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange(load(0).place([1, 2], canvas.size, Options()))
    compositor.set_picture(1, plain(RED))
    compositor.set_picture(2, plain(GREEN))
    compositor.draw()
    small = area(canvas, GREEN)
    assert small == Tile(2, 68, 38, 20)
    compositor.set_picture(1, plain(BLUE))
    compositor.draw()
    assert area(canvas, GREEN) == small
    assert at(canvas, 100, 10) == BLUE


def test_without_video_a_floating_tile_is_transparent(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange(load(0).place([1, 2], canvas.size, Options()))
    compositor.set_picture(1, plain(RED))
    compositor.draw()
    assert area(canvas, RED) == Tile(0, 0, 160, 90)
    compositor.set_picture(2, plain(GREEN))
    compositor.draw()
    compositor.set_picture(2, None)
    assert compositor.draw()
    assert area(canvas, RED) == Tile(0, 0, 160, 90)


MIDDLE = Rect(0.25, 0, 0.5, 1)


def test_transparent_tiles_are_mixed_again_whatever_changes(canvas: Canvas, compositor: Compositor) -> None:
    def half(below: Colour, above: Colour) -> Colour:
        y, u, v = ((a + b + 1) // 2 for a, b in zip(below, above, strict=True))
        return y, u, v

    compositor.arrange([Placement(1, FULL), Placement(2, MIDDLE, alpha=0.5), Placement(3, RIGHT)])
    compositor.set_picture(1, plain(RED))
    compositor.set_picture(2, plain(GREEN))
    compositor.draw()
    assert at(canvas, 80, 45) == half(RED, GREEN)
    compositor.set_picture(1, plain(WHITE))
    compositor.draw()
    assert at(canvas, 80, 45) == half(WHITE, GREEN)
    for _ in range(3):  # the base must not be what was mixed before
        compositor.set_picture(2, plain(BLUE))
        compositor.draw()
        assert at(canvas, 60, 45) == half(WHITE, BLUE)
    compositor.set_picture(3, plain(RED))
    compositor.draw()
    assert (at(canvas, 79, 45), at(canvas, 80, 45)) == (half(WHITE, BLUE), RED)
    compositor.set_picture(2, plain(GREEN))
    compositor.draw()
    assert (at(canvas, 79, 45), at(canvas, 80, 45)) == (half(WHITE, GREEN), RED)


def test_alpha_zero_paints_nothing_and_one_replaces(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, FULL), Placement(2, LEFT, alpha=0), Placement(3, RIGHT, alpha=1)])
    for uid, value in ((1, RED), (2, GREEN), (3, BLUE)):
        compositor.set_picture(uid, plain(value))
    compositor.draw()
    assert (area(canvas, RED), area(canvas, BLUE)) == (Tile(0, 0, 80, 90), Tile(80, 0, 80, 90))


def test_incremental_drawing_equals_drawing_everything_anew() -> None:
    rng = np.random.default_rng(7)
    canvas = Canvas(96, 54)
    compositor = Compositor(canvas, NearestScaler)
    placements = [
        Placement(uid, Rect(x, y, rng.uniform(0.1, 1 - x), rng.uniform(0.1, 1 - y)), float(rng.choice([0.3, 0.7, 1.0])), bool(uid % 2))
        for uid, (x, y) in enumerate(rng.uniform(0, 0.6, (8, 2)))
    ]
    compositor.arrange(placements)
    pictures: dict[int, Picture] = {}
    for _ in range(60):
        for uid in rng.choice(8, 2, replace=False).tolist():
            picture = Picture(
                Planes(*(rng.integers(16, 235, shape, np.uint8) for shape in ((20, 30), (10, 15), (10, 15)))), int(90 * (uid % 4))
            )
            pictures[uid] = picture
            compositor.set_picture(uid, picture)
        compositor.draw()
        fresh = Canvas(96, 54)
        whole = Compositor(fresh, NearestScaler)
        whole.arrange(placements)
        for uid, picture in pictures.items():
            whole.set_picture(uid, picture)
        whole.draw()
        for plane, expected in zip(canvas.planes, fresh.planes, strict=True):
            np.testing.assert_array_equal(plane, expected)


def test_background_picture_is_cropped_to_fill_and_colour_comes_back(canvas: Canvas, compositor: Compositor) -> None:
    compositor.set_background(BLUE, plain(GREEN, 32, 64))
    compositor.draw()
    assert area(canvas, GREEN) == Tile(0, 0, 160, 90)
    compositor.set_background(BLUE)
    assert compositor.draw()
    assert area(canvas, BLUE) == Tile(0, 0, 160, 90)


def test_images_stand_in_for_users_without_video(canvas: Canvas, compositor: Compositor) -> None:
    thirds = [Rect(index / 4, 0, 0.25, 1) for index in range(4)]
    compositor.arrange(
        [Placement(1, thirds[0]), Placement(2, thirds[1]), Placement(3, thirds[2], present=False), Placement(4, thirds[3], present=False)]
    )
    compositor.set_images({1: Image(plain(RED)), 4: Image(plain(WHITE))}, default=Image(plain(GREEN)))
    compositor.draw()
    assert [at(canvas, x, 45) for x in (20, 60, 100, 140)] == [RED, GREEN, BLACK, WHITE]
    compositor.set_picture(1, plain(BLUE))
    compositor.draw()
    assert at(canvas, 20, 45) == BLUE
    compositor.set_picture(1, None)
    compositor.draw()
    assert at(canvas, 20, 45) == RED
    compositor.set_images({})
    compositor.draw()
    assert area(canvas, BLACK) == Tile(0, 0, 160, 90)


def test_a_place_without_a_pixel_is_no_error(canvas: Canvas, compositor: Compositor) -> None:
    compositor.arrange([Placement(1, Rect(0.5, 0.5, 0.000001, 0.5))])
    compositor.set_picture(1, plain(RED))
    compositor.draw()
    assert area(canvas, BLACK) == Tile(0, 0, 160, 90)
