"""Slows down whoever guesses secrets: after some failures the next attempts are refused unseen, each time for longer.

Three counts are kept: of one id from one address, of one address whatever the id, and of one id whatever the address. A pair of
id and address that has signed in before is held by the first alone, so that nobody can lock a customer out from elsewhere.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

WINDOW_SECONDS: Final = 60.0
MOST_FAILURES: Final = 10  # in a window: of an id from an address, and of an id
MOST_FAILURES_OF_ADDRESS: Final = 30  # many customers may stand behind one
FIRST_LOCK_SECONDS: Final = 30.0  # doubled with each lock
LONGEST_LOCK_SECONDS: Final = 900.0
FORGIVEN_SECONDS: Final = 3600.0  # without a failure
REMEMBERED: Final = 10_000  # of each kind; the one that was used longest ago is forgotten first

Scope = Literal["pair", "address", "id"]


@dataclass(slots=True)
class _Record:
    window_from: float
    last: float
    failures: int = 0
    locks: int = 0
    locked_until: float = 0.0


class Lockout:
    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pairs: OrderedDict[str, _Record] = OrderedDict()
        self._addresses: OrderedDict[str, _Record] = OrderedDict()
        self._names: OrderedDict[str, _Record] = OrderedDict()
        self._welcome: OrderedDict[str, None] = OrderedDict()  # pairs that have signed in

    def locked_for(self, name: str, address: str) -> float:
        """Seconds for which attempts of this id from this address are refused; 0: they are not."""
        address = _network(address)
        pair = f"{address} {name}"
        records = [self._pairs.get(pair)]
        if pair not in self._welcome:
            records += [self._addresses.get(address), self._names.get(name)]
        return max(0.0, *(record.locked_until - self._now() for record in records if record), 0.0)

    def failed(self, name: str, address: str) -> dict[Scope, float]:
        """Count it; returns what is locked from now on, and for how many seconds."""
        address = _network(address)
        seconds: dict[Scope, float] = {
            "pair": self._count(self._pairs, f"{address} {name}", MOST_FAILURES),
            "address": self._count(self._addresses, address, MOST_FAILURES_OF_ADDRESS),
            "id": self._count(self._names, name, MOST_FAILURES),
        }
        return {scope: lock for scope, lock in seconds.items() if lock}

    def succeeded(self, name: str, address: str) -> None:
        pair = f"{_network(address)} {name}"
        self._pairs.pop(pair, None)
        self._welcome[pair] = None
        self._welcome.move_to_end(pair)
        _bound(self._welcome)

    def _count(self, records: OrderedDict[str, _Record], key: str, most: int) -> float:
        """For how many seconds a lock begins now; 0: none does."""
        now = self._now()
        record = records.get(key)
        if record is None or now - record.last > FORGIVEN_SECONDS:
            record = records[key] = _Record(window_from=now, last=now)
        records.move_to_end(key)
        _bound(records)
        if now - record.window_from >= WINDOW_SECONDS:
            record.window_from, record.failures = now, 0
        record.last = now
        record.failures += 1
        if record.failures < most:
            return 0
        seconds: float = min(FIRST_LOCK_SECONDS * 2**record.locks, LONGEST_LOCK_SECONDS)
        record.locked_until = now + seconds
        record.locks += 1
        record.window_from, record.failures = now, 0
        return seconds


def _bound(items: OrderedDict[str, object] | OrderedDict[str, _Record] | OrderedDict[str, None]) -> None:
    if len(items) > REMEMBERED:
        items.popitem(last=False)


def _network(address: str) -> str:
    """One house has a whole IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed, 64), strict=False))
    return str(parsed)
