"""The control plane's time of day, which never goes back: what has expired stays so when somebody corrects the machine's clock."""

import time
from collections.abc import Callable


class Steady:
    """Unix milliseconds by `wall_ms`, or by the time that went by where that is more."""

    def __init__(self, wall_ms: Callable[[], int], *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ns = monotonic_ns
        self._from_ns = wall_ms() * 1_000_000 - monotonic_ns()  # of the monotonic clock's zero; only ever more

    def __call__(self) -> int:
        passed_ns = self._monotonic_ns()
        self._from_ns = max(self._from_ns, self._wall_ms() * 1_000_000 - passed_ns)
        return (self._from_ns + passed_ns) // 1_000_000
