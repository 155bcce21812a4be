"""The uploader's promises, with a store that fails as told: order, playlists after their files, retries, refusals."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from storage import ObjectInfo, Stored
from storage.errors import AccessDenied, StorageError, TransientStorageError
from storage.sealed import Source
from storage.uploader import (
    Destination,
    Lost,
    MediaFile,
    Publication,
    Published,
    RefusedByStore,
    Retrying,
    Uploader,
    UploadReport,
    Verified,
    describe,
    wait_seconds,
)


class FakeStore:
    """Keeps objects in memory; `fails` holds the errors of the next calls by key, `gates` calls that must wait."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.started: list[str] = []
        self.versions: list[tuple[str, bytes]] = []
        self.headers: dict[str, tuple[str, str]] = {}
        self.fails: dict[str, list[StorageError]] = {}
        self.gates: dict[str, threading.Event] = {}
        self.running = 0
        self.most = 0
        self.closed = False
        self._lock = threading.Lock()

    def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        with source.open("rb") as file:
            data = file.read()
        assert hashlib.sha256(data).hexdigest() == sha256
        self.headers[key] = content_type, cache_control
        return self._store(key, data)

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored:
        self.headers[key] = content_type, cache_control
        return self._store(key, data)

    def _store(self, key: str, data: bytes) -> Stored:
        with self._lock:
            self.started.append(key)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if key in self.gates:
                assert self.gates[key].wait(10)
            if self.fails.get(key):
                raise self.fails[key].pop(0)
            with self._lock:
                self.objects[key] = data
                self.versions.append((key, data))
        finally:
            with self._lock:
                self.running -= 1
        return Stored(key, len(data), hashlib.sha256(data).hexdigest(), "head")

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), hashlib.sha256(data).hexdigest())

    def get(self, key: str, path: Path) -> None:
        raise NotImplementedError

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self, folder: Path, parallel: int = 2, verified: Sequence[str] = ()) -> None:
        self.store = FakeStore()
        self.reports: list[UploadReport] = []
        self.waits: list[float] = []
        self._folder = folder
        destination = Destination(lambda: self.store, lambda name: f"p/{name}")
        self.uploader = Uploader(destination, self._report, parallel=parallel, verified=verified, sleep=self._sleep)

    def file(self, name: str, data: bytes | None = None) -> MediaFile:
        data = data if data is not None else name.encode()
        path = self._folder / name
        path.write_bytes(data)
        return MediaFile(name, path, hashlib.sha256(data).hexdigest())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.uploader.run())
            yield
            task.cancel()

    async def until_quiet(self) -> None:
        while self.store.running:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)

    async def until_started(self, key: str) -> None:
        while key not in self.store.started:
            await asyncio.sleep(0.001)

    async def _report(self, report: UploadReport) -> None:
        if isinstance(report, Verified):
            assert (self._folder / report.name).exists(), "deleted before it was told"
        self.reports.append(report)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


def _playlist(*names: str, version: str = "") -> Publication:
    return Publication("list.m3u8", (version or " ".join(names)).encode(), frozenset(names))


async def test_storage_uploader_stores_in_order_and_deletes_after_the_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path, parallel=1)
    files = [bench.file(f"{n}.ts") for n in range(5)]
    async with bench.running():
        for file in files:
            bench.uploader.add(file)
        await bench.uploader.settled()
    assert bench.store.started == [f"p/{n}.ts" for n in range(5)]
    assert [report.name for report in bench.reports if isinstance(report, Verified)] == [file.name for file in files]
    assert not any(file.path.exists() for file in files)
    assert bench.store.closed


async def test_storage_uploader_works_in_parallel_up_to_its_bound(tmp_path: Path) -> None:
    bench = Bench(tmp_path, parallel=3)
    gate = threading.Event()
    files = [bench.file(f"{n}.ts") for n in range(8)]
    bench.store.gates = {f"p/{file.name}": gate for file in files}
    async with bench.running():
        for file in files:
            bench.uploader.add(file)
        await bench.until_started("p/2.ts")
        gate.set()
        await bench.uploader.settled()
    assert bench.store.most == 3
    assert len(bench.store.objects) == 8


async def test_storage_uploader_goes_on_with_the_store_that_is_opened_again(tmp_path: Path) -> None:
    bench, second = Bench(tmp_path), FakeStore()
    gate = bench.store.gates["p/1.ts"] = threading.Event()
    async with bench.running():
        bench.uploader.add(bench.file("1.ts"))
        await bench.until_started("p/1.ts")
        bench.uploader.reopen(lambda: second)  # while the first is on its way
        bench.uploader.add(bench.file("2.ts"))
        while "p/2.ts" not in second.objects:
            await asyncio.sleep(0.001)
        assert not bench.store.closed
        gate.set()
        await bench.uploader.settled()
    assert (list(bench.store.objects), list(second.objects)) == (["p/1.ts"], ["p/2.ts"])
    assert bench.store.closed
    assert second.closed


async def test_storage_uploader_publishes_after_what_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    gate = bench.store.gates["p/1.ts"] = threading.Event()
    async with bench.running():
        bench.uploader.publish(_playlist("1.ts", "2.ts"))
        bench.uploader.add(bench.file("1.ts"))
        bench.uploader.add(bench.file("2.ts"))
        await bench.until_started("p/2.ts")
        await asyncio.sleep(0.02)
        assert "p/list.m3u8" not in bench.store.started
        gate.set()
        await bench.uploader.settled()
    assert bench.store.started[-1] == "p/list.m3u8"
    assert bench.reports[-1] == Published("list.m3u8")


async def test_storage_uploader_forgets_versions_that_are_overtaken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, parallel=3)
    gate = bench.store.gates["p/list.m3u8"] = threading.Event()
    async with bench.running():
        bench.uploader.publish(_playlist(version="first"))
        await bench.until_started("p/list.m3u8")
        for version in ("second", "third"):  # while the first is on its way
            bench.uploader.publish(_playlist(version=version))
        await asyncio.sleep(0.02)
        assert bench.store.started == ["p/list.m3u8"]  # never two versions at once
        gate.set()
        await bench.uploader.settled()
    assert [data for _, data in bench.store.versions] == [b"first", b"third"]


async def test_storage_uploader_retries_a_playlist_in_its_newest_version(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    gate = bench.store.gates["p/list.m3u8"] = threading.Event()
    bench.store.fails["p/list.m3u8"] = [TransientStorageError("busy")]
    async with bench.running():
        bench.uploader.publish(_playlist(version="old"))
        await bench.until_started("p/list.m3u8")
        bench.uploader.publish(_playlist(version="new"))
        gate.set()
        await bench.uploader.settled()
    assert bench.store.versions == [("p/list.m3u8", b"new")]


async def test_storage_uploader_retries_what_passes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.store.fails["p/1.ts"] = [TransientStorageError("busy") for _ in range(3)]
    async with bench.running():
        bench.uploader.add(bench.file("1.ts"))
        await bench.uploader.settled()
    assert [report.attempt for report in bench.reports if isinstance(report, Retrying)] == [1, 2, 3]
    assert isinstance(bench.reports[-1], Verified)
    assert bench.reports[-1].retries == 3
    assert [base / 2 <= wait <= base for base, wait in zip((1, 2, 4), bench.waits, strict=True)] == [True] * 3


async def test_storage_uploader_stops_when_it_is_refused_and_goes_on_with_other_keys(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    refusal = AccessDenied("no")
    bench.store.fails["p/1.ts"] = [refusal]
    files = [bench.file(f"{n}.ts") for n in (1, 2, 3)]
    for file in files:
        bench.uploader.add(file)
    async with bench.running():
        await bench.uploader.settled()
        bench.uploader.add(bench.file("4.ts"))
        await bench.uploader.settled()  # nobody waits for what may never be done
        await bench.until_quiet()
        assert bench.uploader.refused is refusal
        assert files[0].path.exists()
        assert [report for report in bench.reports if isinstance(report, RefusedByStore)] == [RefusedByStore(refusal)]
        assert "p/4.ts" not in bench.store.started
        bench.uploader.reopen(lambda: bench.store)
        assert bench.uploader.refused is None
        await bench.uploader.settled()
    assert set(bench.store.objects) == {f"p/{n}.ts" for n in (1, 2, 3, 4)}
    assert not files[0].path.exists()


async def test_storage_uploader_is_refused_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    def fail() -> FakeStore:
        raise AccessDenied("no such vendor")

    bench = Bench(tmp_path)
    bench.uploader.reopen(fail)
    bench.uploader.add(bench.file("1.ts"))
    async with bench.running():
        await bench.uploader.settled()
    assert isinstance(bench.uploader.refused, AccessDenied)


async def test_storage_uploader_tells_a_file_that_is_gone_and_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    store = bench.store

    class Reading(FakeStore):
        def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
            from storage.errors import LocalFileError

            if isinstance(source, Path) and not source.exists():
                raise LocalFileError("gone")
            return store.put(key, source, content_type=content_type, cache_control=cache_control, sha256=sha256)

    bench.store = Reading()
    gone, there = bench.file("1.ts"), bench.file("2.ts")
    gone.path.unlink()
    async with bench.running():
        bench.uploader.add(gone)
        bench.uploader.add(there)
        await bench.uploader.settled()
    names = {type(report): report.name for report in bench.reports if isinstance(report, Lost | Verified)}
    assert names == {Lost: "1.ts", Verified: "2.ts"}


async def test_storage_uploader_knows_what_a_former_life_verified(tmp_path: Path) -> None:
    bench = Bench(tmp_path, verified=["1.ts"])
    async with bench.running():
        bench.uploader.publish(_playlist("1.ts"))
        await bench.uploader.settled()
    assert bench.store.started == ["p/list.m3u8"]


@pytest.mark.parametrize(
    ("name", "content_type", "cached"),
    [
        ("x.m3u8", "application/x-mpegURL", False),
        ("x.mpd", "application/dash+xml", False),
        ("x.y.ts", "video/MP2T", True),
        ("x.mp4", "video/mp4", True),
        ("x.webm", "video/webm", True),
        ("x.jpg", "image/jpeg", True),
        ("x.json", "application/json", True),
        ("x", "application/octet-stream", True),
    ],
)
def test_storage_uploader_describes_files_for_players(name: str, content_type: str, cached: bool) -> None:
    assert describe(name) == (content_type, "max-age=31536000, immutable" if cached else "max-age=3")


def test_storage_uploader_waits_longer_each_time_and_never_over_a_minute() -> None:
    assert [wait_seconds(attempt, 0) for attempt in (1, 2, 3, 4, 5, 6, 7, 8, 10_000)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert wait_seconds(3, 1) == 2


async def test_storage_uploader_counts_nothing_that_was_on_its_way_to_a_place_it_left(tmp_path: Path) -> None:
    bench, elsewhere = Bench(tmp_path), FakeStore()
    first = bench.store
    gate = first.gates["p/a.ts"] = first.gates["p/list.m3u8"] = threading.Event()
    file = bench.file("a.ts")
    async with bench.running():
        bench.uploader.add(file)
        bench.uploader.publish(_playlist())
        await bench.until_started("p/a.ts")
        await bench.until_started("p/list.m3u8")
        bench.uploader.leave()
        gate.set()
        await bench.until_quiet()
        assert sorted(first.objects) == ["p/a.ts", "p/list.m3u8"]
        assert bench.reports == []
        assert file.path.exists()
        bench.uploader.add(bench.file("b.ts"))
        await bench.until_quiet()
        assert "p/b.ts" not in first.started
        bench.uploader.reopen(lambda: elsewhere, lambda name: f"q/{name}")
        await bench.uploader.settled()
    assert sorted(elsewhere.objects) == ["q/a.ts", "q/b.ts", "q/list.m3u8"]
    assert sorted(report.stored.key for report in bench.reports if isinstance(report, Verified)) == ["q/a.ts", "q/b.ts"]
    assert first.closed


@pytest.mark.parametrize("error", [AccessDenied("no"), TransientStorageError("not now")])
async def test_storage_uploader_minds_no_failure_of_a_place_it_left(tmp_path: Path, error: StorageError) -> None:
    bench, elsewhere = Bench(tmp_path), FakeStore()
    gate = bench.store.gates["p/a.ts"] = threading.Event()
    bench.store.fails["p/a.ts"] = [error]
    async with bench.running():
        bench.uploader.add(bench.file("a.ts"))
        await bench.until_started("p/a.ts")
        bench.uploader.leave()
        bench.uploader.reopen(lambda: elsewhere, lambda name: f"q/{name}")
        gate.set()
        await bench.uploader.settled()
    assert [type(report) for report in bench.reports] == [Verified]
    assert list(elsewhere.objects) == ["q/a.ts"]
    assert bench.uploader.refused is None
