"""The pure parts of delivery: when to try again, and whom to leave alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import retries
from api.hosts import OPEN_SECONDS, OPENS_AFTER, Hosts

LONG = [0, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 72000]


def test_the_long_schedule_goes_on_for_three_days() -> None:
    assert [retries.next_ms("long", failures, 0, lambda: 0) for failures in range(1, 13)] == [1000 * delay for delay in LONG] + [None]
    assert 2.9 < sum(LONG) / 86_400 < 3.1


def test_the_quick_schedule_has_three_retries() -> None:
    assert [retries.next_ms("quick", failures, 7, lambda: 0) for failures in range(1, 5)] == [7, 5007, 30_007, None]


@given(st.integers(1, 11), st.floats(0, 1))
def test_jitter_only_adds_and_at_most_a_tenth(failures: int, chance: float) -> None:
    delay = 1000 * LONG[failures - 1]
    assert delay <= (retries.next_ms("long", failures, 0, lambda: chance) or 0) <= delay * 1.1


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        (429, "7", 7),
        (429, None, 5),
        (429, "soon", 5),
        (429, "-3", 5),
        (429, "99999999999999999999", 3600),
        (429, "Wed, 15 Nov 2023 00:00:00 GMT", 0),
        (429, "Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (429, "Tue, 14 Nov 2023 22:14:20 GMT", 60),
        (503, "8", 8),
        (503, None, 0),
        (500, "9", 0),
        (200, "9", 0),
        (429, "\xb2", 5),
    ],
)
def test_how_long_a_receiver_is_left_alone(status: int, retry_after: str | None, seconds: int) -> None:
    now_ms = 1_700_000_000_000  # 2023-11-14 22:13:20
    expected = 3600 if retry_after and retry_after.startswith("Wed") else seconds
    assert retries.rest_until_ms(status, retry_after, now_ms) == now_ms + 1000 * expected


def test_the_breaker() -> None:
    now = [0.0]
    hosts = Hosts(most_at_once=4, now=lambda: now[0])
    for _ in range(OPENS_AFTER):
        assert hosts.room("h") == 4
        hosts.begin("h")
        hosts.end("h", answered=False)
    assert (hosts.room("h"), hosts.room("other"), hosts.open) == (0, 4, 1)
    now[0] += OPEN_SECONDS
    assert hosts.room("h") == 1
    hosts.begin("h")
    assert hosts.room("h") == 0
    hosts.end("h", answered=False)
    assert hosts.room("h") == 0
    now[0] += OPEN_SECONDS
    hosts.begin("h")
    hosts.end("h", answered=True)
    assert (hosts.room("h"), hosts.open) == (4, 0)
