"""Whose time requests are signed for."""

import pytest

from storage.clock import StoreClock

NOON = "Wed, 25 Nov 2026 12:00:00 GMT"
NOON_SECONDS = 1795608000.0


@pytest.mark.parametrize("ours", [0.0, NOON_SECONDS - 7200, NOON_SECONDS + 7200, 2.0**33])
def test_storage_clock_takes_the_stores_time(ours: float) -> None:
    clock = StoreClock(lambda: ours)
    assert clock.now() == ours
    clock.learn(NOON)
    assert clock.now() == NOON_SECONDS


def test_storage_clock_keeps_ours_when_it_is_about_right() -> None:
    clock = StoreClock(lambda: NOON_SECONDS + 20)
    clock.learn(NOON)
    assert clock.ahead_seconds == 0


@pytest.mark.parametrize("date", [None, "", "soon", "Wed, 99 Nov 2026 12:00:00 GMT", "\x00", "25"])
def test_storage_clock_learns_nothing_from_nonsense(date: str | None) -> None:
    clock = StoreClock(lambda: 0.0)
    clock.learn(date)
    assert clock.ahead_seconds == 0
