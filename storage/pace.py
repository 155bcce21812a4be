"""Caps how many bytes a second go out, over everything that shares one `Pace`."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Lets files start so that they fit the cap on average; each is then sent as fast as the line goes."""

    def __init__(
        self,
        bytes_per_second: float | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`bytes_per_second`: None, no cap."""
        self._bytes_per_second = bytes_per_second
        self._now = now
        self._sleep = sleep
        self._free_at = now()  # when everything let through so far is out, at the capped rate

    async def take(self, size: int) -> None:
        """Wait for the turn of a file of `size` bytes; turns come in the order of the calls."""
        if self._bytes_per_second is None:
            return
        now = self._now()
        start = max(now, self._free_at)
        self._free_at = start + size / self._bytes_per_second
        if start > now:
            await self._sleep(start - now)
