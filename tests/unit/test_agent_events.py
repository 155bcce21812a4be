"""The agent's event log: numbered without holes, in order, nothing lost or renumbered over a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from recorder.agent.events import EventLog, restore
from recorder.protocol import Claimed, Event, Refused, SliceStored, WorkerLost
from storage.journal import Journal


class Receiver:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.open = asyncio.Event()
        self.open.set()

    async def deliver(self, event: Event) -> None:
        await self.open.wait()
        self.events.append(event)

    @property
    def numbers(self) -> list[tuple[int, int]]:
        return [(event.epoch, event.sequence) for event in self.events]


async def _claim(log: EventLog, epoch: int) -> None:
    async def ask() -> Claimed | Refused:
        return Claimed(sid="sid", epoch=epoch, spec={})

    assert isinstance(await log.claim(ask), Claimed)


def _log(path: Path) -> tuple[EventLog, Journal]:
    journal = Journal(path)
    return EventLog("sid", journal, restore(journal.read().records)), journal


@asynccontextmanager
async def delivering(log: EventLog, receiver: Receiver) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(log.run(receiver.deliver))
        yield
        task.cancel()


async def test_agent_events_are_numbered_per_epoch(tmp_path: Path) -> None:
    log, journal = _log(tmp_path / "uploads")
    receiver = Receiver()
    async with delivering(log, receiver):
        await _claim(log, 4)
        await asyncio.gather(*(log.emit(SliceStored(name=f"{n}.ts")) for n in range(3)))
        await _claim(log, 5)
        await log.emit(WorkerLost())
        await log.flushed()
    assert receiver.numbers == [(4, 0), (4, 1), (4, 2), (5, 0)]
    assert [event.body.name for event in receiver.events[:3]] == ["0.ts", "1.ts", "2.ts"]  # type: ignore[union-attr]  # SliceStored
    journal.close()


async def test_agent_events_change_epoch_only_with_nothing_left_to_deliver(tmp_path: Path) -> None:
    log, journal = _log(tmp_path / "uploads")
    receiver = Receiver()
    async with delivering(log, receiver):
        await _claim(log, 1)
        receiver.open.clear()
        await log.emit(WorkerLost())
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(_claim(log, 2))
            await asyncio.sleep(0.02)
            assert log.epoch == 1
            await log.emit(SliceStored(name="late.ts"))  # uploads go on meanwhile
            receiver.open.set()
            await claiming
        await log.emit(SliceStored(name="new.ts"))
        await log.flushed()
    assert receiver.numbers == [(1, 0), (1, 1), (2, 0)]
    journal.close()


async def test_agent_events_survive_a_restart(tmp_path: Path) -> None:
    log, journal = _log(tmp_path / "uploads")
    receiver = Receiver()
    await _claim(log, 1)
    async with delivering(log, receiver):
        await log.emit(SliceStored(name="0.ts"))
        await log.flushed()
    await log.emit(SliceStored(name="1.ts"))  # nobody takes it
    await log.note_worker(42, "42@7")
    journal.close()

    history = restore(Journal(tmp_path / "uploads").read().records)
    assert (history.epoch, history.worker, history.stored, history.restarts) == (1, (42, "42@7"), {"0.ts", "1.ts"}, 0)
    log, journal = _log(tmp_path / "uploads")
    await log.emit(WorkerLost())
    async with delivering(log, receiver):
        await log.flushed()
    assert receiver.numbers == [(1, 0), (1, 1), (1, 2)]
    journal.close()


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_agent_events_are_delivered_again_when_the_delivery_was_not_noted(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "uploads"
    log, journal = _log(path)
    await _claim(log, 1)
    for name in ("0.ts", "1.ts"):
        await log.emit(SliceStored(name=name))
    async with delivering(log, Receiver()):
        await log.flushed()
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) - 2 + keep]))
    log, journal = _log(path)
    receiver = Receiver()
    async with delivering(log, receiver):
        await log.flushed()
    assert receiver.numbers == [(1, 0), (1, 1)][keep:]
    journal.close()


def test_agent_events_forget_the_worker_of_an_older_epoch() -> None:
    records = [{"type": "epoch", "epoch": 1}, {"type": "worker", "pid": 1, "identity": "1@1"}, {"type": "epoch", "epoch": 2}]
    assert restore(records[:2]).worker == (1, "1@1")
    assert restore(records).worker is None
