"""The meter against the examples of the original's price list, and what must hold whatever happens."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.bill import amount, merged, minutes
from recorder.usage import GRACE_MS, Category, Meter, Tally, Used, before_2021, category_of, day_of, web_category

NOON_MS = 1_763_985_600_000  # 2025-11-24, 12:00 UTC
DAY_MS = 86_400_000
PRICES: dict[Category, Decimal] = {  # per minute; "hd+" and the three it stands for are never charged together
    "audio": Decimal("0.00149"),
    "hd": Decimal("0.00599"),
    "fhd": Decimal("0.01349"),
    "2k": Decimal("0.02399"),
    "2k+": Decimal("0.05399"),
    "hd+": Decimal("0.02249"),
    "web-hd": Decimal("0.014"),
    "web-fhd": Decimal("0.028"),
}

Sizes = list[tuple[int, int]]
Part = tuple[int, Sizes]  # seconds, and the videos recorded meanwhile
NOTHING: Sizes = []
ROOM: Sizes = [(640, 360), (1280, 720), (960, 720)]
SESSIONS: list[tuple[str, list[list[Part]], dict[Category, int]]] = [
    ("4 users, audio only", [[(6000, NOTHING)]], {"audio": 6000}),
    ("2 sessions of the same", [[(6000, NOTHING)]] * 2, {"audio": 12_000}),
    ("4 x 640x360", [[(3500, [(640, 360)] * 4)]], {"hd": 3500}),
    ("three sizes", [[(1680, ROOM)]], {"fhd": 1680}),
    ("then a fourth", [[(1680, ROOM), (520, [*ROOM, (1920, 1080)])]], {"fhd": 1680, "2k+": 520}),
    ("720p and 1080p", [[(60, [(1280, 720), (1920, 1080)])]], {"2k": 60}),
    ("4 x 640x352 counts as 4 x 640x360", [[(60, [(640, 352)] * 4)]], {"hd": 60}),
    ("video for 20 of 30 min", [[(300, NOTHING), (1200, [(640, 360)]), (300, NOTHING)]], {"hd": 1200, "audio": 600}),
]
SESSIONS_BEFORE_2021: list[tuple[list[Part], dict[Category, int]]] = [
    ([(1800, [(640, 360)] * 3), (900, [(640, 360), (240, 180), (1280, 720)])], {"hd": 1800, "hd+": 900}),
    ([(60_000, [(640, 360)] * 5)], {"hd+": 60_000}),
]


def seconds(*useds: Used) -> dict[Category, float]:
    total: Counter[Category] = Counter()
    for used in useds:
        for (_, category), milliseconds in used.items():
            total[category] += milliseconds
    return {category: milliseconds / 1000 for category, milliseconds in total.items()}


def tallied(parts: list[Part]) -> Used:
    """By the changes of what is recorded."""
    now_ms = NOON_MS
    tally = Tally(now_ms)
    there = 0
    for length, sizes in parts:
        for uid, (width, height) in enumerate(sizes):
            tally.change(now_ms, uid, 230_400 if width * height == 225_280 else width * height)
        for uid in range(len(sizes), there):
            tally.change(now_ms, uid, 0)
        there = len(sizes)
        now_ms += length * 1000
    tally.advance(now_ms)
    return tally.used


def metered(parts: list[Part]) -> Used:
    """By frames, two seconds apart so that none is a pause, and reports in between."""
    now_ms = NOON_MS
    meter = Meter(now_ms)
    for length, sizes in parts:
        for step_ms in (*range(0, length * 1000, 2000), length * 1000):
            for uid, size in enumerate(sizes):
                meter.picture(uid, *size, now_ms + step_ms)
            if step_ms % 10_000 == 0:
                meter.advance(now_ms + step_ms)
        now_ms += length * 1000
    return meter.close(now_ms)


@pytest.mark.parametrize("measure", [tallied, metered])
@pytest.mark.parametrize(("sessions", "expected"), [case[1:] for case in SESSIONS], ids=[case[0] for case in SESSIONS])
def test_examples(measure: Callable[[list[Part]], Used], sessions: list[list[Part]], expected: dict[Category, int]) -> None:
    assert seconds(*(measure(parts) for parts in sessions)) == expected


@pytest.mark.parametrize("measure", [tallied, metered])
@pytest.mark.parametrize(("parts", "expected"), SESSIONS_BEFORE_2021)
def test_examples_before_2021(measure: Callable[[list[Part]], Used], parts: list[Part], expected: dict[Category, int]) -> None:
    found: Counter[Category] = Counter()
    for category, length in seconds(measure(parts)).items():
        found[before_2021(category)] += int(length)
    assert found == expected


@pytest.mark.parametrize(
    ("area", "category"),
    [
        (0, "audio"),
        (1, "hd"),
        (921_600, "hd"),
        (921_601, "fhd"),
        (2_073_600, "fhd"),
        (2_073_601, "2k"),
        (3_686_400, "2k"),
        (3_686_401, "2k+"),
        (8_847_360, "2k+"),
        (8_847_361, "2k+"),
    ],
)
def test_thresholds(area: int, category: Category) -> None:
    assert category_of(area) == category


@pytest.mark.parametrize(
    ("size", "category"), [((960, 720), "web-hd"), ((1280, 720), "web-hd"), ((1280, 722), "web-fhd"), ((1920, 1080), "web-fhd")]
)
def test_web_pages_count_by_their_output(size: tuple[int, int], category: Category) -> None:
    assert web_category(*size) == category


def test_the_example_month() -> None:
    """All five rows of the price list's first example in one account."""
    month: Counter[Category] = Counter()
    for _, sessions, _ in (SESSIONS[n] for n in (0, 1, 2, 4)):
        for category, length in seconds(*(tallied(parts) for parts in sessions)).items():
            month[category] += int(length * 1000)
    assert {category: minutes(month[category]) for category in ("audio", "hd", "fhd", "2k", "2k+")} == {
        "audio": 300,
        "hd": 59,
        "fhd": 28,
        "2k": 0,
        "2k+": 9,
    }
    assert [minutes(month[c]) * PRICES[c] for c in ("audio", "hd", "fhd", "2k+")] == [
        Decimal(text) for text in ("0.447", "0.35341", "0.37772", "0.48591")
    ]
    assert amount(month, PRICES) == Decimal("1.66")


def test_money_by_other_price_lists() -> None:
    assert amount(merged({"fhd": 60_000_000}), PRICES) == Decimal("22.49")  # 1000 min of 5 x 640x360 before 2021
    assert amount({web_category(960, 720): 6_000_000}, PRICES) == Decimal("1.40")
    assert amount({"hd": 6_000_000}, {}) == 0


def test_minutes_are_rounded_up_once() -> None:
    assert [minutes(ms) for ms in (0, 1, 59_000, 60_000, 61_000)] == [0, 1, 1, 1, 2]
    assert merged({"fhd": 59_000, "2k": 1000, "audio": 1}) == {"hd+": 60_000, "audio": 1}


# ---- frames --------------------------------------------------------------------------------------------------------


def test_a_short_pause_is_part_of_the_video() -> None:
    meter = Meter(0)
    for now_ms in (0, GRACE_MS, 2 * GRACE_MS):
        meter.picture(1, 640, 360, now_ms)
    assert seconds(meter.close(2 * GRACE_MS + 1)) == {"hd": (2 * GRACE_MS + 1) / 1000}


def test_a_longer_one_is_not_and_the_video_ended_with_its_last_frame() -> None:
    meter = Meter(0)
    for now_ms in (1000, 2000, 2000 + GRACE_MS + 1, 7000):
        meter.picture(1, 640, 360, now_ms)
    assert seconds(meter.close(20_000)) == {"hd": 1 + (7000 - 5001) / 1000, "audio": 20 - 1 - (7000 - 5001) / 1000}


def test_what_is_counted_is_certain() -> None:
    meter = Meter(0)
    meter.picture(1, 640, 360, 0)
    meter.picture(1, 640, 360, 1000)
    assert seconds(meter.advance(3000)) == {"hd": 1}  # it may have ended then
    meter.picture(2, 1920, 1080, 3500)
    assert seconds(meter.advance(4000)) == {"hd": 1}
    assert seconds(meter.advance(5000)) == {"hd": 1, "audio": 2.5}
    assert seconds(meter.close(6000)) == {"hd": 1, "audio": 2.5, "fhd": 2.5}


def test_a_new_size_counts_from_its_first_frame() -> None:
    meter = Meter(0)
    meter.picture(1, 1280, 720, 0)
    meter.picture(1, 320, 180, 2000)
    meter.picture(1, 1920, 1080, 3000)
    assert seconds(meter.close(4000)) == {"hd": 3, "fhd": 1}


def test_frames_without_a_size_do_not_count() -> None:
    meter = Meter(0)
    meter.picture(1, 0, 0, 0)
    meter.picture(1, 640, 360, 1000)
    assert seconds(meter.close(2000)) == {"audio": 1, "hd": 1}


def test_sessions_of_screenshots_alone_count_both_ways() -> None:
    meter = Meter(0, snapshots_only=True)
    meter.picture(1, 640, 360, 1000)
    meter.picture(1, 640, 360, 2000)
    assert seconds(meter.close(3000)) == {"audio": 1, "hd": 2, "snapshot": 3}


def test_time_is_split_at_midnight() -> None:
    midnight_ms = NOON_MS + DAY_MS // 2
    tally = Tally(midnight_ms - 1500)
    tally.change(midnight_ms - 500, 1, 100)
    tally.advance(midnight_ms + DAY_MS + 250)
    assert dict(tally.used) == {
        ("2025-11-24", "audio"): 1000,
        ("2025-11-24", "hd"): 500,
        ("2025-11-25", "hd"): DAY_MS,
        ("2025-11-26", "hd"): 250,
    }


# ---- properties ------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 20_000) | st.integers(0, 2 * DAY_MS),  # ms since the step before
        st.integers(1, 3),  # uid
        st.sampled_from([(0, 0), (640, 360), (640, 352), (1280, 720), (1920, 1080), (4096, 2160)]) | st.just(None),  # None: a report
    ),
    max_size=40,
)


def _timeline(steps: list[tuple[int, int, tuple[int, int] | None]], begin_ms: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    now_ms = begin_ms
    for passed, uid, size in steps:
        now_ms += passed
        yield now_ms, uid, size


@given(STEPS, st.integers(0, 2 * DAY_MS), st.integers(0, 20_000))
def test_all_of_a_session_is_counted_once(steps: list[tuple[int, int, tuple[int, int] | None]], begin_ms: int, rest_ms: int) -> None:
    meter, silent = Meter(begin_ms), Meter(begin_ms)
    told: Used = {}
    now_ms = begin_ms
    for now_ms, uid, size in _timeline(steps, begin_ms):
        if size is None:
            before, told = told, dict(meter.advance(now_ms))
            assert all(told[key] >= milliseconds > 0 for key, milliseconds in before.items())  # never less, never negative
            assert now_ms - begin_ms - GRACE_MS <= sum(told.values()) <= now_ms - begin_ms
        else:
            meter.picture(uid, *size, now_ms)
            silent.picture(uid, *size, now_ms)
    end_ms = now_ms + rest_ms
    used = meter.close(end_ms)
    assert all(used[key] >= milliseconds for key, milliseconds in told.items())
    assert sum(used.values()) == end_ms - begin_ms
    assert used == silent.close(end_ms)  # reports in between change nothing
    for day in {day for day, _ in used}:
        assert sum(milliseconds for (on, _), milliseconds in used.items() if on == day) <= DAY_MS
    assert {day for day, _ in used} <= {day_of(ms) for ms in (*range(begin_ms, end_ms, DAY_MS), end_ms)}


@given(STEPS, st.integers(0, DAY_MS))
def test_it_is_what_the_frames_say(steps: list[tuple[int, int, tuple[int, int] | None]], begin_ms: int) -> None:
    """Against the definition: a video is there from a frame to the next one, if that is not too late, and to the end."""
    frames = [(at, uid, size) for at, uid, size in _timeline(steps, begin_ms) if size and size != (0, 0)]
    end_ms = frames[-1][0] + 1000 if frames else begin_ms
    meter = Meter(begin_ms)
    for at, uid, size in frames:
        meter.picture(uid, *size, at)
    expected: Counter[Category] = Counter()
    spans = []
    for index, (at, uid, (width, height)) in enumerate(frames):
        following = next((later for later, other, _ in frames[index + 1 :] if other == uid), None)
        until = end_ms if following is None and end_ms - at <= GRACE_MS else at if following is None else following
        if until - at <= GRACE_MS:
            spans.append((at, until, 230_400 if width * height == 225_280 else width * height))
    edges = sorted({begin_ms, end_ms, *(edge for span in spans for edge in span[:2])})
    for left, right in itertools.pairwise(edges):
        expected[category_of(sum(area for begin, end, area in spans if begin <= left and right <= end))] += right - left
    found = {category: round(length * 1000) for category, length in seconds(meter.close(end_ms)).items()}
    assert found == expected
