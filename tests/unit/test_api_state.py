"""Limits, waiting, and the states of a recording."""

import asyncio

import pytest

from api import lifecycle
from api.changes import Changes
from api.lifecycle import Status
from api.limits import Buckets
from api.tables import Recording
from recorder.protocol import Outcome, Phase


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_bucket_refills_at_its_rate_and_no_further() -> None:
    clock = Clock()
    buckets = Buckets(per_second=2, burst=3, now=clock)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.empty("a")
    assert buckets.take("b")
    clock.seconds = 0.4
    assert not buckets.take("a")
    clock.seconds = 0.5
    assert buckets.take("a")
    clock.seconds = 100
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_buckets_are_bounded() -> None:
    buckets = Buckets(per_second=1, burst=1, keys=2, now=Clock())
    assert [buckets.take(key) for key in "abca"] == [True] * 4  # a was forgotten for c
    assert not buckets.take("c")


async def test_waiting_ends_with_the_change_or_the_time() -> None:
    changes = Changes()
    seen = [0]

    async def look() -> int:
        return seen[0]

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(changes.until("sid", look, lambda value: value == 2, 10))
        for value in (1, 2):
            await asyncio.sleep(0)
            seen[0] = value
            changes.tell("sid")
            changes.tell("another")
    assert waiting.result() == 2
    assert await changes.until("sid", look, lambda value: value == 3, 0) == 2


def a_row(status: Status) -> Recording:
    return Recording(status=status, live=True, finished=False, sealed_spec=b"secret")


@pytest.mark.parametrize("before", [Status.STOPPING, Status.STOPPED, Status.EXITED, Status.FAILED])
@pytest.mark.parametrize("phase", ["starting", "ready", "recording"])
def test_nothing_leads_back_from_stopping(before: Status, phase: Phase) -> None:
    row = a_row(before)
    lifecycle.advance(row, phase)
    lifecycle.accept(row)
    assert row.status == before


def test_a_new_worker_begins_again() -> None:
    row = a_row(Status.RECORDING)
    lifecycle.advance(row, "starting")
    assert row.status == Status.STARTING


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("complete", 8), ("aborted", 8), ("limit_reached", 8), ("failed", 20), ("interrupted", 20)],
)
def test_the_end(outcome: Outcome, status: int) -> None:
    row = a_row(Status.RECORDING)
    lifecycle.end(row, outcome, "stopped", at_ms=4)
    assert (row.status, row.live, row.finished, row.sealed_spec) == (7, False, False, b"secret")
    lifecycle.finish(row, outcome=outcome, reason="stopped", uploading="uploaded", now_ms=5)
    assert (row.status, row.live, row.finished, row.sealed_spec, row.ended_ms, row.finished_ms) == (status, False, True, None, 4, 5)
    lifecycle.end(row, "complete", "stopped", at_ms=6)
    assert (row.status, row.ended_ms) == (status, 4)
