"""The time that a store takes for the right one: signatures are good for some minutes around it.

A store that refuses us says what time it is; when that is not ours, requests are signed for its time from then on.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from types import FunctionType
from typing import Any, Final

_TOLERANCE_SECONDS: Final = 30  # Tencent's SDK signs from a minute ago on, others allow more


class StoreClock:
    """Of one store. `now()` is our time until the store tells otherwise."""

    def __init__(self, ours: Callable[[], float] = time.time) -> None:
        """`ours`: seconds since 1970, UTC."""
        self.ahead_seconds = 0.0  # the store's before ours
        self._ours = ours

    def now(self) -> float:
        return self._ours() + self.ahead_seconds

    def learn(self, date: str | None) -> None:
        """Take the time from the `Date` header of a refusal; one that makes no sense, or says about what we know, changes nothing."""
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        if abs(theirs - self.now()) > _TOLERANCE_SECONDS:
            self.ahead_seconds = theirs - self._ours()


def with_names(function: Any, **names: Any) -> Any:
    """A copy of an SDK's function that finds these instead of what its module has under the same names.

    SDKs ask the machine's clock when they sign and offer no other way to give them one.
    """
    copy = FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
