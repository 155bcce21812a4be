"""Every layout from its first to its eighteenth user, drawn by the real scaler and compared with pictures drawn here by hand.

The rectangles are written out from the formulas of the specification in exact fractions, and nothing of the mixer is used to
make an expectation. Everybody sends their number in their own colour, in every shape and orientation a sender may have.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from mixer.canvas import Canvas
from mixer.compositor import Compositor
from mixer.fit import Rect, Size, Tile, pixels
from mixer.layouts import Options, Region, load
from mixer.picture import Picture, Plane, Planes
from recorder.media.scale import Scaler

PEOPLE = (1, 2, 3, 4, 5, 9, 10, 16, 17, 18)
LAYOUTS = {"floating": 0, "best fit": 1, "vertical": 2, "custom": 3}
CANVASES = [(360, 640), (640, 360), (850, 478)]
LARGE = 2  # maxResolutionUid
BLACK = (16, 128, 128)
BACKGROUND = (70, 110, 150)

Box = tuple[int, int, int, int]  # left, top, right, bottom
Fractional = tuple[Fraction, Fraction, Fraction, Fraction]  # x, y, width, height

# --- what the specification says -----------------------------------------------------------------------------------------


def of(*values: str | int | Fraction) -> Fractional:
    x, y, width, height = (Fraction(value) for value in values)
    return x, y, width, height


def floating(people: Sequence[int]) -> dict[int, Fractional]:
    x = ("0.012", "0.259", "0.506", "0.753")
    y = ("0.753", "0.506", "0.259", "0.012")
    places = [of(0, 0, 1, 1)] + [of(x[n % 4], y[n // 4], "0.235", "0.235") for n in range(16)]
    return dict(zip(people, places, strict=False))


def best_fit(people: Sequence[int]) -> dict[int, Fractional]:
    count = min(len(people), 17)
    if count == 17:
        places = [of(Fraction(1, 10) + Fraction(i % 4, 5), Fraction(i // 4, 5), "0.2", "0.2") for i in range(16)]
        return dict(zip(people, [*places, of("0.4", "0.8", "0.2", "0.2")], strict=False))
    columns, rows = ((1, 1), (2, 1), (2, 2), (2, 2), *[(3, 3)] * 5, *[(4, 4)] * 7)[count - 1]
    cell = Fraction(1, columns), Fraction(1, rows)
    return dict(zip(people, [of(i % columns * cell[0], i // columns * cell[1], *cell) for i in range(count)], strict=True))


def vertical(people: Sequence[int], large: int | None = LARGE) -> dict[int, Fractional]:
    small = [uid for uid in people if uid != large][:16]
    n = len(small)
    if n <= 4:
        width, places = Fraction(4, 5), [of("0.8", Fraction(k, 4), "0.2", "0.25") for k in range(4)]
    elif n <= 6:
        width, places = Fraction(6, 7), [of(Fraction(6, 7), Fraction(k, 6), Fraction(1, 7), Fraction(1, 6)) for k in range(6)]
    elif n <= 8:
        width, places = Fraction(8, 9), [of(Fraction(8, 9), Fraction(k, 8), Fraction(1, 9), Fraction(1, 8)) for k in range(8)]
    else:
        width = Fraction(8, 10)  # the outer column first
        places = [of(x, Fraction(k, 8), "0.1", "0.125") for x in ("0.9", "0.8") for k in range(8)]
    main = {large: of(0, 0, width, 1)} if large is not None and large in people else {}
    return main | dict(zip(small, places, strict=False))


# A stage of thirteen free places in the background, a strip that overlaps them, one half transparent and one invisible place.
STAGE = [of(Fraction(i % 5, 5), Fraction(i // 5, 3), "0.2", Fraction(1, 3)) for i in range(13)]
NAMED = {3: (of("0.1", "0.25", "0.5", "0.5"), 1.0), 5: (of("0.4", "0.5", "0.55", "0.4"), 0.5), 99: (of("0.8", "0.8", "0.2", "0.2"), 1.0)}
INVISIBLE = 4, of(0, 0, 1, 1)


def custom(people: Sequence[int]) -> dict[int, Fractional]:
    others = [uid for uid in people[:17] if uid not in NAMED and uid != INVISIBLE[0]]
    shown = {uid: rect for uid, (rect, _) in NAMED.items() if uid in people}
    return dict(zip(others, STAGE, strict=False)) | shown  # the named regions come later in the list: they are on top


EXPECTED: Mapping[str, Callable[[Sequence[int]], dict[int, Fractional]]] = {
    "floating": floating,
    "best fit": best_fit,
    "vertical": vertical,
    "custom": custom,
}


def options() -> Options:
    def rect(place: Fractional) -> Rect:
        return Rect(*(round(float(value), 6) for value in place))  # six decimals, as a customer writes them

    regions = [Region(rect(place)) for place in STAGE]
    regions += [Region(rect(place), uid=uid, alpha=alpha, fit=uid == 3) for uid, (place, alpha) in NAMED.items()]
    return Options(max_resolution_uid=LARGE, regions=(*regions, Region(rect(INVISIBLE[1]), uid=INVISIBLE[0], alpha=0)))


def box(place: Fractional, size: tuple[int, int]) -> Box:
    def edge(fraction: Fraction, length: int) -> int:
        return 2 * int(fraction * length / 2 + Fraction(1, 2))  # the nearest even pixel

    x, y, width, height = place
    return edge(x, size[0]), edge(y, size[1]), edge(x + width, size[0]), edge(y + height, size[1])


# --- what people send ----------------------------------------------------------------------------------------------------

FONT = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]  # five rows of three bits for each digit
SHAPES = ((640, 360, 0), (360, 640, 0), (640, 360, 90), (320, 240, 180), (360, 640, 270), (482, 362, 0))  # as displayed; rotation


def colour_of(uid: int) -> tuple[int, int, int]:
    return 40 + 9 * uid, 60 + 37 * uid % 130, 190 - 53 * uid % 130


@lru_cache
def upright(uid: int) -> tuple[Plane, Plane, Plane]:
    """This user's number on their colour, as it should be seen."""
    width, height, _ = SHAPES[uid % len(SHAPES)]
    rows = [[int(bit) for digit in f"{uid:02}" for bit in f"{int(FONT[int(digit)][row]):03b}0"] for row in range(5)]
    step = min(width // 16, height // 12) // 2 * 2
    stencil = np.kron(np.array(rows), np.ones((step, step), int)).astype(bool)
    left, top = ((width - stencil.shape[1]) // 4 * 2, (height - stencil.shape[0]) // 4 * 2)
    mask = np.zeros((height, width), bool)
    mask[top : top + stencil.shape[0], left : left + stencil.shape[1]] = stencil
    y, u, v = colour_of(uid)
    ink = 235 if y < 126 else 16
    luma, chroma = np.where(mask, ink, y).astype(np.uint8), mask[::2, ::2]
    return luma, np.where(chroma, 128, u).astype(np.uint8), np.where(chroma, 128, v).astype(np.uint8)


def sent(uid: int) -> Picture:
    """The same as the sender's camera saw it."""
    rotation = SHAPES[uid % len(SHAPES)][2]
    return Picture(Planes(*(np.ascontiguousarray(np.rot90(plane, rotation // 90)) for plane in upright(uid))), rotation)


# --- what the canvas should look like --------------------------------------------------------------------------------------


@cache
def appearance(uid: int, width: int, height: int, whole: bool) -> list[tuple[Plane, Plane]]:
    """For each plane how this user looks in a place of this size, and where it is not plain: around the strokes of the digits."""
    source_width, source_height, _ = SHAPES[uid % len(SHAPES)]
    ratios = Fraction(width, source_width), Fraction(height, source_height)
    scale = min(ratios) if whole else max(ratios)
    inner = [2 * int(length * scale / 2 + Fraction(1, 2)) for length in (source_width, source_height)] if whole else [width, height]
    left, top = (width - inner[0]) // 4 * 2, (height - inner[1]) // 4 * 2
    used = (Fraction(source_width), Fraction(source_height)) if whole else (width / scale, height / scale)
    looks = []
    for plane, black, part in zip(upright(uid), BLACK, (1, 2, 2), strict=True):
        crop = [float((total - length) / 2 / part) for total, length in zip((source_width, source_height), used, strict=True)]
        area = (crop[0], crop[1], crop[0] + float(used[0] / part), crop[1] + float(used[1] / part))
        picture = Image.fromarray(plane).resize((inner[0] // part, inner[1] // part), Image.Resampling.LANCZOS, box=area)
        ground = Image.fromarray(np.full_like(np.asarray(picture), plane[0, 0]))
        uneven = ImageChops.difference(picture, ground).point([0, *[255] * 255]).filter(ImageFilter.MaxFilter(5))
        look = np.full((height // part, width // part), black, np.uint8)
        soft = np.zeros_like(look)
        where = np.s_[top // part : (top + inner[1]) // part, left // part : (left + inner[0]) // part]
        look[where], soft[where] = np.asarray(picture), np.asarray(uneven)
        looks.append((look, soft))
    return looks


def paint(
    size: tuple[int, int], places: Mapping[int, Fractional], silent: Iterable[int] = (), number: int = 0
) -> list[tuple[Plane, Plane]]:
    """The canvas's planes and their masks of what is not plain, from the places in the order of painting."""
    width, height = size
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    planes = [(np.full(shape, value, np.uint8), np.zeros(shape, np.uint8)) for shape, value in zip(shapes, BACKGROUND, strict=True)]
    for uid, place in places.items():
        if uid in silent:
            continue
        left, top, right, bottom = box(place, size)
        whole = uid == (LARGE if number == 2 else 3) and number in (2, 3)
        alpha = NAMED[uid][1] if number == 3 and uid in NAMED else 1.0
        for (plane, mask), (look, soft), part in zip(planes, appearance(uid, right - left, bottom - top, whole), (1, 2, 2), strict=True):
            where = np.s_[top // part : bottom // part, left // part : right // part]
            plane[where] = np.rint(plane[where] * (1 - alpha) + look * alpha)
            mask[where] = soft if alpha == 1 else mask[where] | soft
    return planes


class Scene:
    """A composite that lives through changes."""

    def __init__(self, number: int, size: tuple[int, int], options: Options) -> None:
        self.canvas = Canvas(*size)
        self._layout = load(number)
        self.options = options
        self._compositor = Compositor(self.canvas, Scaler)
        self._compositor.set_background(BACKGROUND)

    def show(self, people: Sequence[int], silent: Iterable[int] = ()) -> Planes:
        self._compositor.arrange(self._layout.place(people, self.canvas.size, self.options))
        for uid in people:
            if uid not in silent:
                self._compositor.set_picture(uid, sent(uid))
        self._compositor.draw()
        return self.canvas.planes


def assert_looks(found: Planes, expected: list[tuple[Plane, Plane]]) -> None:
    for plane, (golden, soft) in zip(found, expected, strict=True):
        error = np.abs(plane.astype(int) - golden)
        plain = soft == 0
        assert error[plain].max() <= 2, np.argwhere((error > 2) & plain)[:5]
        assert plain.mean() > 0.2
        if not plain.all():
            assert error[~plain].mean() < 12  # the digits are there; where scalers may differ is their edges


# --- the comparison --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*CANVASES, (1280, 720), (1920, 1080), (426, 240), (98, 46), (1078, 1918)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_rectangle_is_exact(name: str, size: tuple[int, int]) -> None:
    for count in range(1, 19):
        people = list(range(1, count + 1))
        placements = load(LAYOUTS[name]).place(people, Size(*size), options())
        found = {p.uid: pixels(p.rect, Size(*size)) for p in placements if p.present and p.alpha > 0}
        boxes = {uid: box(place, size) for uid, place in EXPECTED[name](people).items()}
        assert found == {uid: Tile(left, top, right - left, bottom - top) for uid, (left, top, right, bottom) in boxes.items()}


@pytest.mark.parametrize("size", CANVASES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_as_people_join_everybody_is_seen_in_their_place(name: str, size: tuple[int, int]) -> None:
    scene = Scene(LAYOUTS[name], size, options())
    for count in PEOPLE:
        people = list(range(1, count + 1))
        assert_looks(scene.show(people), paint(size, EXPECTED[name](people), number=LAYOUTS[name]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_seventeen_on_a_large_canvas(name: str) -> None:
    people, size = list(range(1, 18)), (1280, 720)
    assert_looks(Scene(LAYOUTS[name], size, options()).show(people), paint(size, EXPECTED[name](people), number=LAYOUTS[name]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_as_people_leave_the_others_move_up_and_the_eighteenth_is_seen(name: str) -> None:
    people, size = list(range(18, 0, -1)), (640, 360)  # joined in another order than their numbers
    scene = Scene(LAYOUTS[name], size, options())
    for leaver in (None, 16, 18, LARGE, 1, 9, 11, 10, 7):
        people = [uid for uid in people if uid != leaver]
        assert_looks(scene.show(people), paint(size, EXPECTED[name](people), number=LAYOUTS[name]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_who_sends_only_sound_keeps_a_place_that_shows_what_is_below(name: str) -> None:
    people, size, silent = list(range(1, 10)), (640, 360), (4, LARGE, 8)
    found = Scene(LAYOUTS[name], size, options()).show(people, silent)
    assert_looks(found, paint(size, EXPECTED[name](people), silent, LAYOUTS[name]))


@pytest.mark.parametrize("count", PEOPLE)
@pytest.mark.parametrize("large", [None, 99])
def test_vertical_without_its_large_user_shows_the_background_there(count: int, large: int | None) -> None:
    people, size = list(range(1, count + 1)), (640, 360)
    places = vertical(people, large)
    assert len(places) == min(count, 16)
    found = Scene(2, size, Options(max_resolution_uid=large)).show(people)
    assert_looks(found, paint(size, places))


def test_another_large_user_is_fitted_and_the_former_one_cropped() -> None:
    people, size = list(range(1, 8)), (640, 360)
    scene = Scene(2, size, options())
    before = scene.show(people).y.copy()
    scene.options = Options(max_resolution_uid=5)
    found = scene.show(people)
    left, top, right, bottom = box(vertical(people, 5)[5], size)
    look, _ = appearance(5, right - left, bottom - top, True)[0]
    assert np.abs(found.y[top:bottom, left:right].astype(int) - look).mean() < 3
    assert (before != found.y).mean() > 0.3
