"""Puts the packets of one stream in order, knows which are missing, and gives up on them after a bounded time.

Pure: sequence numbers and times in, packets in order out. Packets in order never enter the buffer (`passes`); only what comes
after a gap waits (`push`). Memory is bounded whatever arrives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Packet = TypeVar("Packet")

MAX_JUMP = 3000  # sequence numbers; a larger step is a new start of the sender, not a loss (RFC 3550 appendix A.1)
MAX_SPAN = 4096  # sequence numbers between the oldest missing and the newest; 30 Mbit/s for a second
MAX_LATE = 30  # packets that came late one after the other, in order and nothing else between: the sender began anew a little further back
NACK_LIMIT = 10
_MOST_GIVEN_UP = 64  # that may still come
NACK_SLACK_NS = 10_000_000  # packets that merely overtook each other are not asked for
_FIRST_ROUND_TRIP_NS = 100_000_000  # assumed until the first repair is seen
_ROUND_TRIP_NS = (20_000_000, 1_000_000_000)  # bounds


@dataclass(slots=True)
class _Missing:
    since_ns: int
    asked: int = 0
    first_asked_ns: int = 0
    asked_ns: int = 0


@dataclass(slots=True)
class Counters:
    received: int = 0
    lost: int = 0  # given up
    late: int = 0  # came after they were given up, or a second time
    duplicates: int = 0  # of packets still held
    repaired: int = 0  # came after they were asked for
    restarts: int = 0  # implausible jumps of the sequence number
    strays: int = 0  # dropped: a packet far from all others


class JitterBuffer(Generic[Packet]):
    """`push` and `expire` yield `(packet, after_loss)` in order; `after_loss` marks a packet before which some were given up."""

    def __init__(self, *, patience_ns: int) -> None:
        self._patience_ns = patience_ns
        self._next: int | None = None  # extended sequence number wanted next
        self._held: dict[int, Packet] = {}
        self._missing: dict[int, _Missing] = {}  # all of them below the newest packet held
        self._given_up: dict[int, int] = {}  # when each was first asked for
        self._loss = False
        self._odd: int | None = None  # where a restarted sender would go on
        self._late_next = -1, -1  # number and count of the packet that would go on with a run of late ones, and how long it is
        self._late_run = 0
        self._received_before = 0  # until the last start
        self._round_trip_ns = _FIRST_ROUND_TRIP_NS
        self.highest = 0  # extended
        self.first = 0
        self.counters = Counters()

    @property
    def has_gap(self) -> bool:
        """Packets wait for a missing one: `expire` and `wanted` have something to do."""
        return bool(self._held)

    @property
    def asks_in_vain(self) -> bool:
        """A packet is still missing that was asked for more than once."""
        return any(missing.asked > 1 for missing in self._missing.values())

    @property
    def received(self) -> int:
        """Packets since the sender last began anew; `highest - first + 1` were expected."""
        return self.counters.received - self._received_before

    def passes(self, sequence: int) -> bool:
        """Count a packet that is the next one while nothing waits, so that it can be used at once; False: `push` it."""
        wanted = self._next
        if wanted is None or self._held or self._loss or sequence != wanted & 0xFFFF:
            return False
        self.highest = wanted
        self._next = wanted + 1
        self.counters.received += 1
        return True

    def push(self, sequence: int, packet: Packet, now_ns: int) -> Iterator[tuple[Packet, bool]]:
        """Take a packet with its 16-bit sequence number."""
        self.counters.received += 1
        if self._next is None:
            self._start(sequence)
        assert self._next is not None
        step = ((sequence - self.highest + 0x8000) & 0xFFFF) - 0x8000
        extended = self.highest + step
        if abs(step) > MAX_JUMP:
            if sequence != self._odd:  # one stray packet proves nothing; its successor does
                self._odd = (sequence + 1) & 0xFFFF
                self.counters.strays += 1
                return
            yield from self._restart(sequence)
            extended = sequence
        elif extended < self._next:
            self.counters.late += 1
            if asked_ns := self._given_up.pop(extended, 0):  # a round trip longer than the patience: later ones are asked for less often
                self._learn_round_trip(now_ns - asked_ns)
            self._late_run = self._late_run + 1 if (sequence, self.counters.received) == self._late_next else 1
            self._late_next = (sequence + 1) & 0xFFFF, self.counters.received + 1
            if self._late_run < MAX_LATE:
                return
            yield from self._restart(sequence)
            extended = sequence
        self._odd = None
        if extended in self._held:
            self.counters.duplicates += 1
            return
        self._note(extended, now_ns)
        self._held[extended] = packet
        yield from self._run()
        while extended - self._next >= MAX_SPAN:
            yield from self._skip()

    def expire(self, now_ns: int) -> Iterator[tuple[Packet, bool]]:
        """Give up on packets missing for longer than the patience."""
        while self._held:
            oldest = self._missing.get(self._next or 0)
            if oldest is not None and now_ns - oldest.since_ns < self._patience_ns:
                return
            yield from self._skip()

    def flush(self) -> Iterator[tuple[Packet, bool]]:
        """Hand over everything held, as at the end of a stream."""
        while self._held:
            yield from self._skip()

    def wanted(self, now_ns: int) -> list[int]:
        """Extended sequence numbers to ask for again now; each at most ten times, and not more often than the round trip."""
        found = []
        for number, missing in self._missing.items():
            if missing.asked >= NACK_LIMIT or now_ns - missing.since_ns < NACK_SLACK_NS:
                continue
            if missing.asked and now_ns - missing.asked_ns < self._round_trip_ns:
                continue
            missing.asked += 1
            missing.asked_ns = now_ns
            if missing.asked == 1:
                missing.first_asked_ns = now_ns
            found.append(number)
        return found

    # ---- inside ----

    def _restart(self, sequence: int) -> Iterator[tuple[Packet, bool]]:
        self.counters.restarts += 1
        yield from self.flush()
        self._start(sequence)
        self._loss = True

    def _start(self, sequence: int) -> None:
        self._received_before = self.counters.received - 1  # this one is counted already
        self._next = self.first = sequence
        self.highest = sequence - 1
        self._missing.clear()
        self._held.clear()
        self._given_up.clear()

    def _note(self, extended: int, now_ns: int) -> None:
        """What the arrival of this packet says about missing ones."""
        for number in range(self.highest + 1, extended):
            self._missing[number] = _Missing(now_ns)
        self.highest = max(self.highest, extended)
        repaired = self._missing.pop(extended, None)
        if repaired and repaired.asked:
            self.counters.repaired += 1
            if repaired.asked == 1:  # asked twice, it can't be told which request was answered (Karn's algorithm)
                self._learn_round_trip(now_ns - repaired.asked_ns)

    def _learn_round_trip(self, sample_ns: int) -> None:
        low, high = _ROUND_TRIP_NS
        self._round_trip_ns += (min(max(sample_ns, low), high) - self._round_trip_ns) // 4

    def _run(self) -> Iterator[tuple[Packet, bool]]:
        assert self._next is not None
        while (packet := self._held.pop(self._next, None)) is not None:
            self._next += 1
            loss, self._loss = self._loss, False
            yield packet, loss

    def _skip(self) -> Iterator[tuple[Packet, bool]]:
        """Give up on what is missing before the first packet held."""
        assert self._next is not None
        while self._next not in self._held:
            missing = self._missing.pop(self._next, None)
            if missing and missing.asked:
                self._given_up[self._next] = missing.first_asked_ns
                if len(self._given_up) > _MOST_GIVEN_UP:
                    del self._given_up[next(iter(self._given_up))]
            self.counters.lost += 1
            self._next += 1
        self._loss = True
        yield from self._run()
