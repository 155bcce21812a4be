"""Token buckets: how often a key may do something."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """One bucket per key. Memory is bounded: the key that was used longest ago is forgotten first."""

    def __init__(
        self, *, per_second: float, burst: float | None = None, keys: int = 10_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = per_second
        self._burst = burst if burst is not None else max(1.0, math.ceil(per_second))
        self._most_keys = keys
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, key: str) -> bool:
        """Take one token; False when there is none."""
        tokens = self._tokens(key)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, self._now())
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_keys:
            self._buckets.popitem(last=False)
        return allowed

    def empty(self, key: str) -> bool:
        return self._tokens(key) < 1

    def _tokens(self, key: str) -> float:
        tokens, counted = self._buckets.get(key, (self._burst, self._now()))
        return min(self._burst, tokens + (self._now() - counted) * self._rate)
