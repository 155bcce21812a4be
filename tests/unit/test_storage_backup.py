"""A store that is away for long: files go to the backup store and come back, on a clock of the test's own."""

import asyncio
import hashlib
import heapq
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import ObjectInfo, Stored
from storage.errors import AccessDenied, ChecksumMismatch, LocalFileError, PermanentStorageError, StorageError, TransientStorageError
from storage.pace import Pace
from storage.sealed import Seal, Source
from storage.uploader import (
    BackedUp,
    Backup,
    Destination,
    Diverted,
    Lost,
    MediaFile,
    Publication,
    RefusedByStore,
    Uploader,
    UploadReport,
    Verified,
)

AFTER_SECONDS = 300.0


class Clock:
    """Time passes when the test says so, and stops at every sleeper on the way."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._number = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.seconds + seconds, next(self._number), woken))
        await woken

    async def advance(self, seconds: float, quiet: Callable[[], bool] = lambda: True) -> None:
        """Let `seconds` pass; `quiet()` says that nothing runs in a thread."""
        until = self.seconds + seconds
        await _rest(quiet)
        while self._sleepers and self._sleepers[0][0] <= until:
            self.seconds, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await _rest(quiet)
        self.seconds = until


async def _rest(quiet: Callable[[], bool]) -> None:
    calm = 0
    while calm < 10:
        await asyncio.sleep(0 if quiet() else 0.0002)
        calm = calm + 1 if quiet() else 0


class _Calls:
    """Counts what runs in threads. The loop is the one place that all of it goes through."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.open = 0
        self._run = loop.run_in_executor
        loop.run_in_executor = self._counted  # type: ignore[method-assign, assignment]  # there is no seam for it, and it is worth none

    def _counted(self, executor: Executor | None, call: Callable[..., object], *args: object) -> asyncio.Future[Any]:
        self.open += 1
        future: asyncio.Future[Any] = self._run(executor, call, *args)
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: asyncio.Future[Any]) -> None:
        self.open -= 1


class Bucket:
    """In memory; fails with `fault`, and notices a playlist that names what is not there."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.order: list[str] = []
        self.fault: StorageError | None = None
        self.lands = False  # although it fails
        self.dangling: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        with source.open("rb") as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise LocalFileError("other bytes")
        return self._take(key, data)

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored:
        return self._take(key, data)

    def _take(self, key: str, data: bytes) -> Stored:
        with self._lock:
            if self.fault and not self.lands:
                raise self.fault
            if key.endswith(".m3u8"):
                self.dangling += [(key, name) for name in data.decode().split() if name not in self.objects]
            self.objects[key] = data
            self.order.append(key)
            if self.fault:
                raise self.fault
        return Stored(key, len(data), hashlib.sha256(data).hexdigest(), "head")

    def head(self, key: str) -> ObjectInfo | None:
        self._may()
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), hashlib.sha256(data).hexdigest())

    def get(self, key: str, path: Path) -> None:
        self._may()
        if key not in self.objects:
            raise PermanentStorageError("there is no such object")
        path.write_bytes(self.objects[key])

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        self._may()
        return [ObjectInfo(key, len(data)) for key, data in sorted(self.objects.items()) if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        self._may()
        self.objects.pop(key, None)

    def close(self) -> None:
        pass

    def _may(self) -> None:
        if self.fault:
            raise self.fault


class World:
    """A recording whose uploader may die and be made again; what was reported outlives it, as the journal does."""

    def __init__(self, folder: Path, *, with_backup: bool = True, seal: Seal | None = None) -> None:
        self.folder = folder / "files"
        self.folder.mkdir()
        self.clock = Clock()
        self._calls = _Calls(asyncio.get_running_loop())
        self.customer, self.backup = Bucket(), Bucket()
        self.reports: list[UploadReport] = []
        self.files: dict[str, MediaFile] = {}
        self.content: dict[str, bytes] = {}
        self.uploader: Uploader
        self._seal = seal
        self._with_backup = with_backup
        self._returning = folder / "returning"

    @property
    def stored(self) -> set[str]:
        return {report.name for report in self.reports if isinstance(report, Verified)}

    @property
    def backed_up(self) -> set[str]:
        return {report.name for report in self.reports if isinstance(report, BackedUp)} - self.stored

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A life of the uploader."""
        backup = Backup(Destination(lambda: self.backup, lambda name: f"sid/{name}"), self._returning, AFTER_SECONDS)
        self.uploader = Uploader(
            Destination(lambda: self.customer, str),
            self._report,
            parallel=3,
            verified=self.stored,
            backup=backup if self._with_backup else None,
            now=self.clock.now,
            sleep=self.clock.sleep,
        )
        for name, file in self.files.items():
            if name in self.backed_up:
                self.uploader.add_copy(file)
            elif name not in self.stored:
                self.uploader.add(file)
        self._publish()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.uploader.run())
            yield
            task.cancel()

    def commit(self) -> str:
        name = f"{len(self.files):04}.ts"
        data = random.Random(name).randbytes(1000 + len(self.files))
        path = self.folder / name
        path.write_bytes(self._seal.write_bytes(data, name) if self._seal else data)
        self.content[name] = data
        self.files[name] = MediaFile(name, path, hashlib.sha256(data).hexdigest(), len(data), self._seal)
        self.uploader.add(self.files[name])
        return name

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds, lambda: self._calls.open == 0)

    async def record(self, seconds: float) -> None:
        """A slice each 15 s."""
        for _ in range(int(seconds // 15)):
            self.commit()
            await self.advance(15)

    async def _report(self, report: UploadReport) -> None:
        if isinstance(report, Verified | BackedUp):
            customers = isinstance(report, Verified)
            there = self.customer.objects[report.name] if customers else self.backup.objects[f"sid/{report.name}"]
            assert (there == self.content[report.name]) == (customers or not self._seal), "told before it was there"
            assert customers or not self._seal or self.content[report.name] not in there, "in clear in the backup store"
        self.reports.append(report)
        if isinstance(report, Verified):
            self._publish()

    def _publish(self) -> None:
        shown = list(itertools.takewhile(lambda name: name in self.stored, self.files))
        if shown:
            self.uploader.publish(Publication("list.m3u8", "\n".join(shown).encode(), frozenset(shown)))

    def of(self, kind: type) -> list[str]:
        return [getattr(report, "name", "") for report in self.reports if isinstance(report, kind)]


@pytest.mark.parametrize("seal", [None, Seal(bytes(32))], ids=["plain", "sealed"])
async def test_s13_outage_of_twenty_minutes_with_a_restart_in_the_middle(tmp_path: Path, seal: Seal | None) -> None:
    world = World(tmp_path, seal=seal)
    async with world.running():
        await world.record(60)
        world.customer.fault = TransientStorageError("503")
        await world.record(10 * 60)
        assert world.backed_up
    assert all(world.files[name].path.exists() for name in world.files.keys() - world.stored - world.backed_up)
    async with world.running():  # the agent was killed and is back
        await world.record(10 * 60)
        held = {name for name, file in world.files.items() if file.path.exists()}
        assert len(held) <= 2 + AFTER_SECONDS // 15  # a restart begins to count anew: never more than five minutes wait on our disk
        world.customer.fault = None
        await world.record(120)
        await world.advance(120)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert {name: data for name, data in world.customer.objects.items() if name.endswith(".ts")} == world.content
    assert world.customer.objects["list.m3u8"].decode().split() == sorted(world.content)
    assert world.customer.dangling == []
    assert world.backup.objects == {}
    assert not any(world.folder.iterdir())
    assert not any((tmp_path / "returning").iterdir())
    assert world.of(Lost) == []
    assert world.of(Diverted)


async def test_s1_files_wait_five_minutes_before_they_are_diverted(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        world.commit()
        await world.advance(AFTER_SECONDS - 1)
        assert not world.of(Diverted)
        await world.advance(62)
        assert world.of(Diverted) == world.of(BackedUp) == ["0000.ts"]
        await world.uploader.settled()
        assert world.uploader.behind
        world.commit()
        await world.advance(0)
        assert world.of(BackedUp) == ["0000.ts", "0001.ts"]  # the store is known to be away
        world.customer.fault = None
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert [key for key in world.customer.order if key.endswith(".ts")] == ["0000.ts", "0001.ts"]  # the oldest first
    assert world.customer.order[-1] == "list.m3u8"


async def test_s1_without_backup_store_files_wait_in_the_spool(tmp_path: Path) -> None:
    world = World(tmp_path, with_backup=False)
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        await world.record(900)
        assert len(list(world.folder.iterdir())) == len(world.files) == 60
        world.customer.fault = None
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert set(world.customer.objects) == {*world.content, "list.m3u8"}


async def test_s1_both_stores_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.customer.fault = TransientStorageError("503")
    world.backup.fault = AccessDenied("the operator's keys are old")
    async with world.running():
        await world.record(900)
        assert world.uploader.refused is None  # no fault of the customer's
        assert len(list(world.folder.iterdir())) == 60
        world.backup.fault = None
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.settled()
        assert not any(world.folder.iterdir())
        world.customer.fault = None
        await world.advance(120)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert {name: data for name, data in world.customer.objects.items() if name.endswith(".ts")} == world.content


async def test_s2_a_refusal_gets_no_backup_and_other_keys_bring_everything(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        await world.record(60)
        world.customer.fault = AccessDenied("403")
        await world.record(1200)
        assert len([report for report in world.reports if isinstance(report, RefusedByStore)]) == 1
        assert world.backup.order == []
        assert len(list(world.folder.iterdir())) == 80
        world.customer.fault = None
        world.uploader.reopen(lambda: world.customer)
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert {name: data for name, data in world.customer.objects.items() if name.endswith(".ts")} == world.content


async def test_s2_a_refusal_while_copies_wait_in_the_backup_store(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        await world.record(600)
        world.customer.fault = AccessDenied("403")
        await world.advance(61)
        assert world.uploader.refused
        async with asyncio.timeout(5):
            await world.uploader.settled()
        world.customer.fault = None
        world.uploader.reopen(lambda: world.customer)
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert {name: data for name, data in world.customer.objects.items() if name.endswith(".ts")} == world.content
    assert world.backup.objects == {}


async def test_s6_what_the_store_got_wrong_is_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        world.customer.fault = ChecksumMismatch("other bytes")
        name = world.commit()
        await world.advance(10)
        assert world.files[name].path.exists()
        world.customer.fault = None
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert world.customer.objects[name] == world.content[name]


async def test_s5_what_arrived_although_it_failed_is_not_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        world.customer.fault, world.customer.lands = TransientStorageError("reset"), True
        same, other = world.commit(), world.commit()
        await world.advance(0)
        world.customer.objects[other] = b"somebody else's"
        world.customer.fault = None
        await world.advance(2)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert (world.customer.order.count(same), world.customer.order.count(other)) == (1, 2)
    assert world.customer.objects[other] == world.content[other]


@pytest.mark.parametrize("seal", [None, Seal(bytes(32))], ids=["plain", "sealed"])
async def test_a_copy_that_the_backup_store_lost_is_told_by_name(tmp_path: Path, seal: Seal | None) -> None:
    world = World(tmp_path, seal=seal)
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        await world.record(600)
        await world.advance(61)  # the first is fetched by now
        gone, corrupt = sorted(world.backed_up)[-2:]
        del world.backup.objects[f"sid/{gone}"]
        world.backup.objects[f"sid/{corrupt}"] = b"flipped"
        world.customer.fault = None
        await world.advance(120)
        assert sorted(world.of(Lost)) == [gone, corrupt]
    assert set(world.customer.objects) - {"list.m3u8"} == world.content.keys() - {gone, corrupt}


async def test_a_sealed_file_that_was_changed_goes_to_no_store(tmp_path: Path) -> None:
    world = World(tmp_path, seal=Seal(bytes(32)))
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        flipped, swapped, other = (world.commit() for _ in range(3))
        for name, data in {flipped: _flipped(world.files[flipped].path), swapped: world.files[other].path.read_bytes()}.items():
            world.files[name].path.write_bytes(data)
        await world.advance(AFTER_SECONDS + 70)  # the backup store's turn
        assert sorted(world.of(Lost)) == [flipped, swapped]
        assert list(world.backup.objects) == [f"sid/{other}"]
        world.customer.fault = None
        await world.advance(120)
        late = _flipped(world.files[world.commit()].path)  # the customer's turn
        world.files["0003.ts"].path.write_bytes(late)
        await world.advance(60)
    assert world.of(Lost)[2:] == ["0003.ts"]
    assert set(world.customer.objects) - {"list.m3u8"} == {other}
    assert world.backup.objects == {}


def _flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return bytes(data)


async def test_a_list_alone_that_waits_is_published_when_the_store_is_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        world.customer.fault = TransientStorageError("503")
        world.uploader.publish(Publication("end.m3u8", b"", frozenset()))
        await world.advance(AFTER_SECONDS + 61)
        async with asyncio.timeout(5):
            await world.uploader.settled()
        assert world.uploader.behind
        world.uploader.keep("end.m3u8", b"")
        async with asyncio.timeout(5):
            await world.uploader.settled()
        assert world.backup.order == ["sid/end.m3u8"]
        world.customer.fault = None
        await world.advance(61)
        async with asyncio.timeout(5):
            await world.uploader.caught_up()
    assert world.customer.order == ["end.m3u8"]


async def test_the_pace_caps_what_goes_out_in_the_order_of_asking() -> None:
    clock = Clock()
    pace = Pace(1000, now=clock.now, sleep=clock.sleep)
    passed: list[tuple[int, float]] = []

    async def send(number: int, size: int) -> None:
        await pace.take(size)
        passed.append((number, clock.now()))

    async with asyncio.TaskGroup() as group:
        for number, size in enumerate((2000, 500, 1000)):
            group.create_task(send(number, size))
        await clock.advance(10)
    assert passed == [(0, 0), (1, 2), (2, 2.5)]


async def test_without_a_cap_nothing_waits() -> None:
    async with asyncio.timeout(1):
        await Pace().take(10**12)
