"""What a bad network does to the packets of one direction: a function of a seed, the packets and the time.

Pure: packets and nanoseconds in, packets out. Every effect has random numbers of its own, so the same packets are lost
whatever else is set. Numbers are drawn for every packet, so a change of conditions in the middle changes nothing before it.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.impair.packets import Sighting, sight

_MS = 1_000_000
_REPLAYED_FROM = 1000  # packets back
_LONGEST_HOLD_NS = 1_000_000_000  # for packets that wait for others to overtake them


@dataclass(frozen=True, slots=True)
class Burst:
    """The model of Gilbert and Elliott: chances per packet that a bad stretch begins and ends, and of loss inside one."""

    begin: float
    end: float
    loss: float = 1.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """One direction of a path. Chances are 0 … 1 per packet."""

    delay_ms: float = 0
    jitter_ms: float = 0  # added to the delay, uniform from 0
    keeps_order: bool = True  # False: jitter reorders
    reorder: float = 0  # chance to be held back …
    reorder_packets: int = 50  # … until so many others have passed, but at most a second
    duplicate: float = 0
    replay: float = 0  # chance that an old packet comes once more after this one
    loss: float = 0
    burst: Burst | None = None
    rate_kbps: float | None = None
    queue_ms: float = 200  # how much may wait for the rate; what comes on top is dropped
    blackout: bool = False
    blackouts: tuple[tuple[float, float], ...] = ()  # seconds since the start: from, to
    drop: Callable[[Sighting], bool] | None = None  # asked in the order of packets


@dataclass(slots=True)
class Counters:
    taken: int = 0
    lost: int = 0
    dropped: int = 0  # by the predicate
    blacked_out: int = 0
    overflowed: int = 0
    reordered: int = 0
    duplicated: int = 0
    replayed: int = 0


class Impairment:
    """`push` takes packets, `take` gives those that are due; time never goes back."""

    def __init__(self, conditions: Conditions, *, seed: str, start_ns: int) -> None:
        self.conditions = conditions
        self.counters = Counters()
        self._start_ns = start_ns
        self._dice = {name: random.Random(f"{seed} {name}") for name in ("loss", "burst", "jitter", "reorder", "duplicate", "replay")}
        self._in_burst = False
        self._line_free_ns = start_ns  # when the rate lets the next packet through
        self._last_due_ns = start_ns
        self._held: deque[tuple[int, int, bytes]] = deque()  # (count that frees it, latest time, packet)
        self._old: deque[bytes] = deque(maxlen=_REPLAYED_FROM)
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, bytes]] = []  # heap of (due, number, packet)

    def push(self, data: bytes, now_ns: int) -> None:
        conditions, counters = self.conditions, self.counters
        counters.taken += 1
        dice = {name: generator.random() for name, generator in self._dice.items()}
        if self._is_black(now_ns):
            counters.blacked_out += 1
        elif conditions.drop and conditions.drop(sight(data)):
            counters.dropped += 1
        elif self._is_lost(dice):
            counters.lost += 1
        else:
            self._queue(data, now_ns, dice)
        self._free_held(now_ns)

    def take(self, now_ns: int) -> list[bytes]:
        """All packets due by now, in order."""
        self._free_held(now_ns)
        found = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def next_ns(self) -> int | None:
        """When something will be due; None: nothing waits."""
        times = [latest for _, latest, _ in self._held]
        if self._waiting:
            times.append(self._waiting[0][0])
        return min(times, default=None)

    # ---- inside ----

    def _is_black(self, now_ns: int) -> bool:
        seconds = (now_ns - self._start_ns) / 1e9
        return self.conditions.blackout or any(begin <= seconds < end for begin, end in self.conditions.blackouts)

    def _is_lost(self, dice: dict[str, float]) -> bool:
        burst = self.conditions.burst
        if burst:
            self._in_burst = dice["burst"] >= burst.end if self._in_burst else dice["burst"] < burst.begin
            if self._in_burst:
                return dice["loss"] < burst.loss
        return dice["loss"] < self.conditions.loss

    def _queue(self, data: bytes, now_ns: int, dice: dict[str, float]) -> None:
        conditions, counters = self.conditions, self.counters
        sent_ns = now_ns
        if conditions.rate_kbps:
            begins_ns = max(now_ns, self._line_free_ns)
            if begins_ns - now_ns > conditions.queue_ms * _MS:
                counters.overflowed += 1
                return
            sent_ns = self._line_free_ns = begins_ns + int(len(data) * 8 * _MS / conditions.rate_kbps)
        due_ns = sent_ns + int((conditions.delay_ms + conditions.jitter_ms * dice["jitter"]) * _MS)
        if conditions.keeps_order:
            due_ns = max(due_ns, self._last_due_ns)
        self._last_due_ns = max(due_ns, self._last_due_ns)
        if dice["reorder"] < conditions.reorder:
            counters.reordered += 1
            self._held.append((counters.taken + conditions.reorder_packets, due_ns + _LONGEST_HOLD_NS, data))
            return
        self._wait(data, due_ns)
        if dice["duplicate"] < conditions.duplicate:
            counters.duplicated += 1
            self._wait(data, due_ns)
        if dice["replay"] < conditions.replay and self._old:
            counters.replayed += 1
            self._wait(self._old[int(dice["replay"] / conditions.replay * len(self._old))], due_ns)
        if conditions.replay:
            self._old.append(data)

    def _free_held(self, now_ns: int) -> None:
        while self._held and (self._held[0][0] <= self.counters.taken or self._held[0][1] <= now_ns):
            self._wait(self._held.popleft()[2], now_ns)

    def _wait(self, data: bytes, due_ns: int) -> None:
        heapq.heappush(self._waiting, (due_ns, next(self._numbers), data))
