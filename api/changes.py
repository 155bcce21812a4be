"""Wakes those who wait for a recording to change.

Only this process's changes are told; who waits also looks by itself now and then, because another control plane may
have made the change.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")


class Changes:
    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def tell(self, sid: str) -> None:
        for event in self._waiting.get(sid, ()):
            event.set()

    async def until(self, sid: str, look: Callable[[], Awaitable[T]], ready: Callable[[T], bool], seconds: float) -> T:
        """Look until `ready`, at most for `seconds`; returns what was seen last."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        changed = asyncio.Event()
        self._waiting[sid].add(changed)
        try:
            while True:
                changed.clear()
                seen = await look()
                left = deadline - clock()
                if ready(seen) or left <= 0:
                    return seen
                try:
                    async with asyncio.timeout(min(left, LOOK_SECONDS)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiting[sid].discard(changed)
            if not self._waiting[sid]:
                del self._waiting[sid]
