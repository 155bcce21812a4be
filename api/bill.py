"""From measured time to minutes and money. Pure."""

from collections import Counter
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from recorder.usage import Category, before_2021

_CENT: Final = Decimal("0.01")


def minutes(milliseconds: int) -> int:
    """Rounded up. To be asked once for the sum of a month and category, not for each session."""
    return -(-milliseconds // 60_000)


def merged(milliseconds: Mapping[Category, int]) -> dict[Category, int]:
    """Everything above HD as `hd+`, for price lists like those before 2021."""
    total: Counter[Category] = Counter()
    for category, time in milliseconds.items():
        total[before_2021(category)] += time
    return dict(total)


def amount(milliseconds: Mapping[Category, int], prices: Mapping[Category, Decimal]) -> Decimal:
    """What a month costs at these prices per minute, rounded to the nearest cent; a category without a price is free."""
    exact = sum((minutes(time) * prices.get(category, Decimal(0)) for category, time in milliseconds.items()), Decimal(0))
    return exact.quantize(_CENT, ROUND_HALF_UP)
