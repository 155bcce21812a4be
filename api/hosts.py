"""How many requests may be under way to each receiver's host, and a breaker for those that do not answer.

What a host answers does not matter here: a customer whose receiver refuses everything must not slow down another one's on the
same host.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST_AT_ONCE: Final = 32  # to one host
OPENS_AFTER: Final = 5  # attempts in a row without an answer
OPEN_SECONDS: Final = 30.0  # then one attempt at a time, until one is answered


@dataclass(slots=True)
class _Host:
    under_way: int = 0
    unanswered: int = 0  # in a row
    open_until: float = 0.0


class Hosts:
    def __init__(self, *, most_at_once: int = MOST_AT_ONCE, now: Callable[[], float] = time.monotonic) -> None:
        self._most_at_once = most_at_once
        self._now = now
        self._hosts: dict[str, _Host] = {}  # those with something under way or unanswered

    def room(self, name: str) -> int:
        """How many attempts may begin now."""
        host = self._hosts.get(name)
        if host is None:
            return self._most_at_once
        if host.unanswered < OPENS_AFTER:
            return self._most_at_once - host.under_way
        return 1 if self._now() >= host.open_until and host.under_way == 0 else 0

    def begin(self, name: str) -> None:
        self._hosts.setdefault(name, _Host()).under_way += 1

    def end(self, name: str, *, answered: bool) -> None:
        host = self._hosts[name]
        host.under_way -= 1
        if answered:
            host.unanswered = 0
        else:
            host.unanswered += 1
            if host.unanswered >= OPENS_AFTER:
                host.open_until = self._now() + OPEN_SECONDS
        if host.under_way == 0 and host.unanswered == 0:
            del self._hosts[name]

    @property
    def open(self) -> int:
        """How many hosts are left alone."""
        return sum(host.unanswered >= OPENS_AFTER for host in self._hosts.values())
