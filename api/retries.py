"""When a notice that failed is sent again. Values in, values out; times are Unix milliseconds."""

import email.utils
from collections.abc import Callable
from typing import Final, Literal

Schedule = Literal["long", "quick"]

# From the end of a failed attempt to the next one, in seconds. The long one ends after three days.
DELAYS: Final[dict[Schedule, tuple[int, ...]]] = {
    "long": (0, 5, 30, 300, 1800, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 20 * 3600),
    "quick": (0, 5, 30),
}
JITTER: Final = 0.1  # of a delay, at most; added, so that receivers that were down are not met by everything at once
LONGEST_REST_MS: Final = 3_600_000  # that a receiver may ask for
_REST_MS: Final = 5_000  # of one who has too much and does not say for how long


def next_ms(schedule: Schedule, failures: int, now_ms: int, random: Callable[[], float]) -> int | None:
    """When to try again after so many failures; None: not any more. `random` gives 0 to 1."""
    delays = DELAYS[schedule]
    if failures > len(delays):
        return None
    return now_ms + round(1000 * delays[failures - 1] * (1 + JITTER * random()))


def rest_until_ms(status: int, retry_after: str | None, now_ms: int) -> int:
    """Until when a receiver that answers so wants to be left alone; `now_ms`: it does not say so."""
    if status not in (429, 503):
        return now_ms
    if retry_after is None:
        return now_ms + _REST_MS if status == 429 else now_ms
    return min(max(_time(retry_after.strip(), now_ms), now_ms), now_ms + LONGEST_REST_MS)


def _time(retry_after: str, now_ms: int) -> int:
    """RFC 9110 section 10.2.3: seconds or a date."""
    if retry_after.isascii() and retry_after.isdecimal():
        return now_ms + 1000 * int(retry_after[:9])
    try:
        return round(email.utils.parsedate_to_datetime(retry_after).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return now_ms + _REST_MS
