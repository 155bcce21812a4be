"""Whether a node takes one more recording, with a machine whose figures the tests set."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from recorder.agent.capacity import SHARE, Capacity, expected
from recorder.protocol import Load
from recorder.settings import Agent
from recorder.spec import Canvas

GIB = 1 << 30
AUDIO = Load(video=False)
SMALL = Load(canvas=Canvas(width=640, height=360))
LARGE = Load(canvas=Canvas(width=1280, height=720, fps=30, bitrate_kbps=1800))


@dataclass
class FakeMachine:
    processors: float = 2.0
    free_memory: int | None = 8 * GIB
    free_disk: int = 100 * GIB
    now: float = 0.0
    costs: dict[int, float] = field(default_factory=dict)  # pid → cores
    used: dict[int, float] = field(default_factory=dict)

    def cores(self) -> float:
        return self.processors

    def free_memory_bytes(self) -> int | None:
        return self.free_memory

    def cpu_seconds(self, pid: int) -> float | None:
        return self.used.get(pid, 0.0) if pid in self.costs else None

    def capacity(self, **settings: object) -> Capacity:
        return Capacity(Agent.model_validate(settings), self, free_spool_bytes=lambda: self.free_disk, now=lambda: self.now)

    def run(self, capacity: Capacity, live: Mapping[str, int | None], seconds: int) -> None:
        """Time goes by; each process takes what it costs."""
        for _ in range(seconds // 5):
            capacity.look(live)
            self.now += 5
            for pid, cores in self.costs.items():
                self.used[pid] = self.used.get(pid, 0.0) + 5 * cores
        capacity.look(live)


def filled(capacity: Capacity, load: Load, most: int = 1000) -> dict[str, int | None]:
    """Takes recordings of this load, all at once, until one is refused."""
    live: dict[str, int | None] = {}
    while len(live) < most and capacity.lacks(load, live) is None:
        sid, pid = f"{len(live):032x}", len(live) + 1
        capacity.take(sid, load)
        live[sid] = pid
    return live


@pytest.mark.parametrize(("load", "count"), [(AUDIO, 32), (SMALL, 6), (LARGE, 3)])
def test_as_many_at_once_as_are_expected_to_fit_on_two_cores(load: Load, count: int) -> None:
    capacity = FakeMachine().capacity()
    live = filled(capacity, load)
    assert len(live) == count
    assert capacity.lacks(load, live) == "the processors are full"
    assert count * expected(load).cores <= 2 * SHARE


def test_an_empty_node_takes_any_recording() -> None:
    capacity = FakeMachine(processors=0.1).capacity()
    assert len(filled(capacity, LARGE)) == 1


def test_the_operator_says_how_many_cores_and_how_many_recordings() -> None:
    assert len(filled(FakeMachine().capacity(cores=0.6), SMALL)) == 2
    capacity = FakeMachine().capacity(max_recordings=3)
    live = filled(capacity, AUDIO)
    assert len(live) == 3
    assert capacity.lacks(AUDIO, live) == "the node is full"


def test_recordings_that_cost_more_than_expected_leave_room_for_fewer() -> None:
    machine = FakeMachine()
    capacity = machine.capacity()
    live = filled(capacity, SMALL, 3)
    cost = expected(SMALL).cores
    machine.costs = dict.fromkeys((1, 2, 3), 1.9 * cost)
    assert capacity.lacks(SMALL, live) is None
    machine.run(capacity, live, 30)
    assert 3 * 1.9 * cost < 2 * SHARE  # as far as their own time goes, one of the expected cost would fit
    assert 3 * 1.9 * cost + cost < 2 * SHARE
    assert capacity.lacks(SMALL, live) == "the processors are full"
    assert capacity.lacks(AUDIO, live) is None


def test_recordings_that_cost_less_leave_room_for_more_but_keep_half_of_theirs() -> None:
    machine = FakeMachine()
    capacity = machine.capacity()
    live = filled(capacity, SMALL)
    machine.costs = dict.fromkeys(range(1, 100), 0.001)
    machine.run(capacity, live, 10)
    assert capacity.lacks(SMALL, live) == "the processors are full"  # ten seconds say nothing
    machine.run(capacity, live, 10)
    taken = len(live)
    while capacity.lacks(SMALL, live) is None:
        sid = f"{len(live):032x}"
        capacity.take(sid, SMALL)
        live[sid] = len(live) + 1
        machine.run(capacity, live, 20)
    assert (taken, len(live)) == (6, 12)


def test_only_the_newest_half_minute_counts() -> None:
    machine = FakeMachine()
    capacity = machine.capacity()
    live = filled(capacity, SMALL, 1)
    machine.costs = {1: 1.7}
    machine.run(capacity, live, 60)
    assert capacity.lacks(SMALL, live) == "the processors are full"
    machine.costs = {1: 0.1}
    machine.run(capacity, live, 30)
    assert capacity.lacks(SMALL, live) is None


def test_a_new_worker_of_a_recording_is_measured_anew() -> None:
    machine = FakeMachine()
    capacity = machine.capacity()
    live = filled(capacity, SMALL, 1)
    machine.costs = {1: 1.7, 2: 0.1}
    machine.run(capacity, live, 30)
    assert capacity.lacks(SMALL, live) == "the processors are full"
    live = dict.fromkeys(live, 2)
    machine.run(capacity, live, 5)
    assert capacity.lacks(SMALL, live) is None


def test_a_worker_that_is_gone_or_not_there_yet_counts_as_expected() -> None:
    machine = FakeMachine()
    capacity = machine.capacity()
    live = filled(capacity, SMALL)
    machine.run(capacity, live, 60)  # none of these pids exists
    assert capacity.lacks(SMALL, live) == "the processors are full"
    machine.run(capacity, dict.fromkeys(live), 60)
    assert capacity.lacks(SMALL, dict.fromkeys(live)) == "the processors are full"
    assert capacity.lacks(SMALL, {}) is None


def test_recordings_of_a_former_life_count_before_they_are_measured() -> None:
    capacity = FakeMachine().capacity()
    assert capacity.lacks(SMALL, {f"{number:032x}": None for number in range(7)}) == "the processors are full"


def test_memory() -> None:
    machine = FakeMachine(free_memory=GIB)
    capacity = machine.capacity(reserve_memory_megabytes=512, cores=100)
    live = filled(capacity, SMALL)
    assert len(live) == 512 * (1 << 20) // expected(SMALL).memory_bytes
    assert capacity.lacks(SMALL, live) == "memory is full"
    machine.costs = dict.fromkeys(range(1, 100), 0.2)
    machine.run(capacity, live, 30)  # now what is free is what they have left
    assert capacity.lacks(SMALL, live) is None
    machine.free_memory = 512 << 20
    assert capacity.lacks(SMALL, live) == "memory is full"
    machine.free_memory = None
    assert capacity.lacks(SMALL, live) is None


def test_disk() -> None:
    machine = FakeMachine(free_disk=2 * GIB)
    capacity = machine.capacity(reserve_disk_megabytes=1024, cores=100)
    live = filled(capacity, LARGE)
    assert len(live) == GIB // expected(LARGE).spool_bytes
    assert capacity.lacks(LARGE, live) == "the disk of the spool is full"
    assert expected(LARGE.model_copy(update={"mp4": True})).spool_bytes == 2 * expected(LARGE).spool_bytes


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (AUDIO, SMALL),
        (SMALL, LARGE),
        (LARGE, Load(canvas=Canvas(width=1920, height=1080, fps=30, bitrate_kbps=3000))),
        (Load(mode="individual", video=False), Load(mode="individual")),
    ],
)
def test_what_is_more_work_is_expected_to_cost_more(less: Load, more: Load) -> None:
    small, large = expected(less), expected(more)
    assert small.cores < large.cores
    assert small.memory_bytes < large.memory_bytes
    assert small.spool_bytes < large.spool_bytes
