"""Whether this node can carry one more recording: processors, memory, and disk for the spool.

What a recording will cost is estimated from what it is to make, what it does cost is measured while it runs. Where the
measured ones cost more than was estimated, a slower machine or larger rooms, more is expected of the next one too.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from recorder.protocol import Load
from recorder.settings import Agent

LOOK_SECONDS: Final = 5.0
SHARE: Final = 0.9  # of the processors, for recordings; the rest is for uploads, the hub and the control plane
ROOM_SECONDS: Final = 600  # of media for which the spool must have room: stores that fail for longer are bypassed

_MEASURED_SECONDS: Final = 30.0  # the newest so many count
_ENOUGH_SECONDS: Final = 15.0  # less says little: it may only just have joined
_IDLE_SHARE: Final = 0.5  # of what was expected is kept for who costs less, because more people may come
_LARGEST_CORRECTION: Final = 4.0
_PEOPLE: Final = 9  # in a room, as long as nothing is measured


@dataclass(frozen=True, slots=True)
class Cost:
    """What a recording takes of a node."""

    cores: float  # CPU seconds in a second
    memory_bytes: int
    spool_bytes: int  # in ROOM_SECONDS


def expected(load: Load) -> Cost:
    """What a recording costs with nine people in 360p, or three voices, by the benchmarks in `tests/bench`."""
    pixels = load.canvas.width * load.canvas.height
    if not load.video:
        cores, megabytes, kilobits = 0.055, 60, 128 if load.mode == "mix" else 48 * _PEOPLE
    elif load.mode == "individual":
        cores, megabytes, kilobits = 0.03 * _PEOPLE, 100, 600 * _PEOPLE
    else:
        cores = 0.22 + 0.011e-6 * pixels * load.canvas.fps
        megabytes, kilobits = 110 + pixels // 20_000, load.canvas.bitrate_kbps + 128
    written = 2 if load.mp4 else 1  # the same media goes into slices and MP4
    return Cost(cores, megabytes << 20, written * kilobits * 1000 // 8 * ROOM_SECONDS)


class Machine(Protocol):
    """`recorder.agent.machine.Machine`, or another one in tests."""

    def cores(self) -> float: ...

    def free_memory_bytes(self) -> int | None: ...

    def cpu_seconds(self, pid: int) -> float | None: ...


class Capacity:
    """`live` is always who records now: sid → pid of its worker, None while it has none."""

    def __init__(
        self, settings: Agent, machine: Machine, *, free_spool_bytes: Callable[[], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._free_spool_bytes = free_spool_bytes
        self._now = now
        self._costs: dict[str, Cost] = {}
        self._samples: dict[tuple[str, int], deque[tuple[float, float]]] = {}  # of each worker: when, and its CPU seconds

    def take(self, sid: str, load: Load) -> None:
        """It is going to be one of the live ones."""
        self._costs[sid] = expected(load)

    def look(self, live: Mapping[str, int | None]) -> None:
        """Measure the live ones; to be called every LOOK_SECONDS. Those that are over are forgotten."""
        self._costs = {sid: cost for sid, cost in self._costs.items() if sid in live}
        workers = {(sid, pid) for sid, pid in live.items() if pid is not None}
        self._samples = {worker: samples for worker, samples in self._samples.items() if worker in workers}
        now = self._now()
        for worker in workers:
            seconds = self._machine.cpu_seconds(worker[1])
            if seconds is not None:
                samples = self._samples.setdefault(worker, deque())
                samples.append((now, seconds))
                while samples[0][0] < now - _MEASURED_SECONDS:
                    samples.popleft()

    def lacks(self, load: Load, live: Mapping[str, int | None]) -> str | None:
        """What there is too little of for a recording beside the live ones; None: it can be taken."""
        cost = expected(load)
        if self._settings.max_recordings is not None and len(live) >= self._settings.max_recordings:
            return "the node is full"
        if self._left_on_disk(live) < cost.spool_bytes:
            return "the disk of the spool is full"
        if self._left_in_memory(live) < cost.memory_bytes:
            return "memory is full"
        if live and self._left_of_processors(live) < cost.cores * self._correction(live):  # else nothing would ever be recorded
            return "the processors are full"
        return None

    def _left_on_disk(self, live: Mapping[str, int | None]) -> int:
        kept = sum(self._cost(sid).spool_bytes for sid in live) + (self._settings.reserve_disk_megabytes << 20)
        return self._free_spool_bytes() - kept

    def _left_in_memory(self, live: Mapping[str, int | None]) -> float:
        free = self._machine.free_memory_bytes()
        if free is None:
            return math.inf
        growing = [self._cost(sid).memory_bytes for sid in live if self._cores(sid, live) is None]  # the others have taken theirs
        return free - sum(growing) - (self._settings.reserve_memory_megabytes << 20)

    def _left_of_processors(self, live: Mapping[str, int | None]) -> float:
        correction = self._correction(live)
        taken = 0.0
        for sid in live:
            measured, wanted = self._cores(sid, live), self._cost(sid).cores * correction
            taken += wanted if measured is None else max(measured, wanted * _IDLE_SHARE)
        return (self._settings.cores or self._machine.cores() * SHARE) - taken

    def _correction(self, live: Mapping[str, int | None]) -> float:
        """How many times more than expected the live ones cost. Those that cost less may be waiting for their people."""
        measured = [(self._cores(sid, live), self._cost(sid).cores) for sid in live]
        ratios = [cores / wanted for cores, wanted in measured if cores is not None]
        return min(max(1.0, statistics.median(ratios)), _LARGEST_CORRECTION) if ratios else 1.0

    def _cores(self, sid: str, live: Mapping[str, int | None]) -> float | None:
        """As measured; None while that says nothing."""
        pid = live[sid]
        samples = self._samples.get((sid, pid)) if pid is not None else None
        if not samples or samples[-1][0] - samples[0][0] < _ENOUGH_SECONDS:
            return None
        (first, before), (last, after) = samples[0], samples[-1]
        return (after - before) / (last - first)

    def _cost(self, sid: str) -> Cost:
        return self._costs.get(sid, _TYPICAL)  # of a former life's recordings nothing is known


_TYPICAL: Final = expected(Load())
