"""The four layouts against the tables of the specification."""

import importlib
import pkgutil

import pytest

from mixer import layouts
from mixer.fit import Rect, Size
from mixer.layouts import Layout, Options, Placement, Region, load

CANVAS = Size(640, 360)
COLUMNS = (0.012, 0.259, 0.506, 0.753)
ROWS = (0.753, 0.506, 0.259, 0.012)


def placed(number: int, people: int | list[int], options: Options = Options()) -> list[Placement]:  # noqa: B008 - frozen
    uids = list(range(1, people + 1)) if isinstance(people, int) else people
    return load(number).place(uids, CANVAS, options)


def rects(placements: list[Placement]) -> list[tuple[float, float, float, float]]:
    return [(p.rect.x, p.rect.y, p.rect.width, p.rect.height) for p in placements]


def close(expected: list[tuple[float, float, float, float]]) -> list[object]:
    return [pytest.approx(rect, abs=1e-9) for rect in expected]


FLOATING = [(0, 0, 1, 1)] + [(x, y, 0.235, 0.235) for y in ROWS for x in COLUMNS]


@pytest.mark.parametrize("people", range(18))
def test_floating_follows_the_table(people: int) -> None:
    placements = placed(0, people)
    assert rects(placements) == close(FLOATING[:people])
    assert [p.uid for p in placements] == list(range(1, people + 1))
    assert not any(p.fit for p in placements)


def test_floating_values_of_the_specification() -> None:
    found = rects(placed(0, 17))
    assert found[5] == pytest.approx((0.012, 0.506, 0.235, 0.235))
    assert found[16] == pytest.approx((0.753, 0.012, 0.235, 0.235))


GRIDS = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (2, 2)} | dict.fromkeys(range(5, 10), (3, 3)) | dict.fromkeys(range(10, 17), (4, 4))


@pytest.mark.parametrize("people", GRIDS)
def test_best_fit_follows_the_table(people: int) -> None:
    columns, rows = GRIDS[people]
    expected = [(i % columns / columns, i // columns / rows, 1 / columns, 1 / rows) for i in range(people)]
    assert rects(placed(1, people)) == close(expected)


def test_best_fit_values_of_the_specification() -> None:
    assert rects(placed(1, 5))[4] == pytest.approx((1 / 3, 1 / 3, 1 / 3, 1 / 3))
    found = rects(placed(1, 17))
    assert found[16] == pytest.approx((0.4, 0.8, 0.2, 0.2))
    assert found[15] == pytest.approx((0.7, 0.6, 0.2, 0.2))
    assert found[0] == pytest.approx((0.1, 0, 0.2, 0.2))


LARGE = Options(max_resolution_uid=1)
VERTICAL = [  # users incl. large, large's width, small: x of the columns in the order they are filled, places in each
    (range(1, 6), 4 / 5, [4 / 5], 4),
    (range(6, 8), 6 / 7, [6 / 7], 6),
    (range(8, 10), 8 / 9, [8 / 9], 8),
    (range(10, 18), 8 / 10, [9 / 10, 8 / 10], 8),
]


@pytest.mark.parametrize(("people", "large", "columns", "places"), [(n, *rest) for counts, *rest in VERTICAL for n in counts])
def test_vertical_follows_the_table(people: int, large: float, columns: list[float], places: int) -> None:
    placements = placed(2, people, LARGE)
    width = (1 - large) / len(columns)
    small = [(columns[k // places], k % places / places, width, 1 / places) for k in range(people - 1)]
    assert rects(placements) == close([(0, 0, large, 1), *small])
    assert [p.uid for p in placements] == list(range(1, people + 1))
    assert [p.fit for p in placements] == [True] + [False] * (people - 1)


def test_vertical_values_of_the_specification() -> None:
    assert rects(placed(2, 12, LARGE))[1 + 9] == pytest.approx((0.8, 0.125, 0.1, 0.125))
    absent = rects(placed(2, 5, Options(max_resolution_uid=99)))
    assert len(absent) == 5
    assert absent[4] == pytest.approx((6 / 7, 4 / 6, 1 / 7, 1 / 6))


def test_vertical_without_its_large_user_shows_sixteen() -> None:
    assert [p.uid for p in placed(2, 20)] == list(range(1, 17))


def test_vertical_finds_its_large_user_wherever_it_joined() -> None:
    placements = placed(2, list(range(1, 20)), Options(max_resolution_uid=19))
    assert [p.uid for p in placements] == [19, *range(1, 17)]


@pytest.mark.parametrize("number", [0, 1])
def test_the_eighteenth_waits_and_moves_up(number: int) -> None:
    assert [p.uid for p in placed(number, 18)] == list(range(1, 18))
    left = [uid for uid in range(1, 19) if uid != 3]
    after = placed(number, left)
    assert [p.uid for p in after] == left
    assert rects(after) == rects(placed(number, 17))


HALF = Rect(0.5, 0.5, 0.5, 0.5)


def test_custom_gives_regions_to_named_users_and_the_rest_in_join_order() -> None:
    regions = (Region(Rect(0, 0, 1, 1)), Region(HALF, uid=30, alpha=0.5, fit=True), Region(Rect(0, 0, 0.25, 0.25)))
    assert placed(3, [30, 10, 20, 40], Options(regions=regions)) == [
        Placement(10, Rect(0, 0, 1, 1)),
        Placement(30, HALF, alpha=0.5, fit=True),
        Placement(20, Rect(0, 0, 0.25, 0.25)),
    ]


def test_custom_keeps_the_region_of_an_absent_user_and_leaves_others_empty() -> None:
    regions = (Region(HALF, uid=7), Region(Rect(0, 0, 0.5, 0.5)), Region(Rect(0.5, 0, 0.5, 0.5)))
    assert placed(3, [5], Options(regions=regions)) == [Placement(7, HALF, present=False), Placement(5, Rect(0, 0, 0.5, 0.5))]


def test_custom_knows_seventeen_regions() -> None:
    regions = tuple(Region(Rect(0, 0, 0.1, 0.1)) for _ in range(20))
    assert len(placed(3, 20, Options(regions=regions))) == 17


NAMES = [found.name for found in pkgutil.iter_modules(layouts.__path__)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("people", [[], [7], list(range(50, 20, -1))])
def test_every_layout_keeps_the_contract(name: str, people: list[int]) -> None:
    module: Layout = importlib.import_module(f"{layouts.__name__}.{name}")  # type: ignore[assignment]  # a module is a Layout
    assert load(module.NUMBER) is module
    regions = tuple(Region(Rect(index / 20, 0, 0.05, 1)) for index in range(20))
    options = Options(max_resolution_uid=40, regions=regions)
    found = module.place(people, CANVAS, options)
    assert found == module.place(tuple(people), CANVAS, options)  # pure
    assert bool(found) == bool(people)
    assert len({placement.uid for placement in found}) == len(found) <= 17
    assert {placement.uid for placement in found} <= set(people)
    for placement in found:
        rect = placement.rect
        assert min(rect.x, rect.y) >= 0
        assert min(rect.width, rect.height) > 0
        assert max(rect.x + rect.width, rect.y + rect.height) <= 1 + 1e-9


def test_numbers_are_given_once() -> None:
    numbers = [importlib.import_module(f"{layouts.__name__}.{name}").NUMBER for name in NAMES]
    assert len(set(numbers)) == len(numbers)


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no layout 4"):
        load(4)
