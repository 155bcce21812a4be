"""Puts the packets of one stream in order, knows which are missing, and gives up on them after a bounded time.

Pure: sequence numbers and times in, packets in order out. Packets in order pass straight through; only what comes after a gap waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Packet = TypeVar("Packet")

_MAX_JUMP = 3000  # sequence numbers; a larger step is a new start of the sender, not a loss (RFC 3550 appendix A.1)
_MAX_HELD = 4096  # packets; 30 Mbit/s for half a second
NACK_LIMIT = 10
NACK_SLACK_NS = 10_000_000  # packets that merely overtook each other are not asked for


@dataclass(slots=True)
class _Missing:
    since_ns: int
    asked: int = 0
    asked_ns: int = 0


@dataclass(slots=True)
class Counters:
    received: int = 0
    lost: int = 0  # given up
    late: int = 0  # came after they were given up, or a second time
    duplicates: int = 0  # of packets still held
    restarts: int = 0  # implausible jumps of the sequence number


class JitterBuffer(Generic[Packet]):
    """`push` and `expire` yield `(packet, after_loss)` in order; `after_loss` marks a packet before which some were given up."""

    def __init__(self, *, patience_ns: int) -> None:
        self._patience_ns = patience_ns
        self._next: int | None = None  # extended sequence number wanted next
        self._held: dict[int, Packet] = {}
        self._missing: dict[int, _Missing] = {}
        self._loss = False
        self._odd: int | None = None  # where a restarted sender would go on
        self.highest = 0
        self.first = 0
        self.counters = Counters()

    def push(self, sequence: int, packet: Packet, now_ns: int) -> Iterator[tuple[Packet, bool]]:
        """Take a packet with its 16-bit sequence number."""
        self.counters.received += 1
        if self._next is None:
            self._start(sequence)
        assert self._next is not None
        step = ((sequence - self.highest + 0x8000) & 0xFFFF) - 0x8000
        extended = self.highest + step
        if abs(step) > _MAX_JUMP:
            if sequence != self._odd:  # one stray packet proves nothing; its successor does
                self._odd = (sequence + 1) & 0xFFFF
                return
            self.counters.restarts += 1
            yield from self.flush()
            self._start(sequence)
            self._loss = True
            extended = sequence
        self._odd = None
        if extended < self._next:
            self.counters.late += 1
            return
        if extended in self._held:
            self.counters.duplicates += 1
            return
        for number in range(max(self.highest + 1, self._next), extended):
            self._missing[number] = _Missing(now_ns)
        self.highest = max(self.highest, extended)
        self._missing.pop(extended, None)
        if extended != self._next:
            self._held[extended] = packet
            if len(self._held) > _MAX_HELD:
                yield from self._skip()
            return
        self._next += 1
        yield packet, self._take_loss()
        if self._held:
            yield from self._run()

    def expire(self, now_ns: int) -> Iterator[tuple[Packet, bool]]:
        """Give up on packets missing for longer than the patience."""
        while self._held and self._missing:
            oldest = self._missing.get(self._next or 0)
            if oldest is not None and now_ns - oldest.since_ns < self._patience_ns:
                return
            yield from self._skip()

    def flush(self) -> Iterator[tuple[Packet, bool]]:
        """Hand over everything held, as at the end of a stream."""
        while self._held:
            yield from self._skip()

    def wanted(self, now_ns: int, round_trip_ns: int) -> list[int]:
        """Extended sequence numbers to ask for again now; each at most ten times, and not more often than the round trip."""
        pause = max(20_000_000, round_trip_ns)
        found = []
        for number, missing in self._missing.items():
            if missing.asked >= NACK_LIMIT or now_ns - missing.since_ns < NACK_SLACK_NS:
                continue
            if missing.asked and now_ns - missing.asked_ns < pause:
                continue
            missing.asked += 1
            missing.asked_ns = now_ns
            found.append(number)
        return found

    def _start(self, sequence: int) -> None:
        self._next = self.highest = self.first = sequence
        self._missing.clear()
        self._held.clear()

    def _take_loss(self) -> bool:
        loss, self._loss = self._loss, False
        return loss

    def _run(self) -> Iterator[tuple[Packet, bool]]:
        assert self._next is not None
        while (packet := self._held.pop(self._next, None)) is not None:
            self._next += 1
            yield packet, self._take_loss()

    def _skip(self) -> Iterator[tuple[Packet, bool]]:
        """Give up on what is missing before the first packet held."""
        assert self._next is not None
        following = min(self._held)
        for number in range(self._next, following):
            self._missing.pop(number, None)
            self.counters.lost += 1
        self._next = following
        self._loss = True
        yield from self._run()
