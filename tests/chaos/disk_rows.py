"""Rows of the fault matrix about the node's own disk (K1–K10): a real agent and real workers, which record a capture in a loop."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from recorder.peer import PeerLost
from recorder.protocol import Done, Finished, Slice, SliceCommitted, Stop, Warned
from recorder.settings import Agent as AgentSettings
from recorder.settings import Recording as RecordingSettings
from recorder.settings import Settings
from recorder.spec import Canvas, Layout, Mode, RecordingSpec, Storage
from recorder.tools import measure
from storage.errors import SpoolError
from storage.journal import Journal
from storage.spool import RecordingSpool, Spool
from tests.chaos.disk_faults import VIOLATIONS, Fault, Plan, happened
from tests.corpus import nine, write
from tests.e2e.playlist import entries
from tests.integration.agent_control import Control
from tests.integration.test_agent_recording import AgentProcess, worker_pid

Measured = dict[str, Any]

_SLICE_SECONDS = 1.0
_LOST_SECONDS = 2.0  # of the media that a killed worker held


@dataclass
class Node:
    """An agent that may be killed and started again, on a spool that may be anywhere."""

    folder: Path
    faults: Sequence[Fault] = ()
    spool: Path | None = None
    slice_seconds: float = _SLICE_SECONDS
    agent_settings: dict[str, Any] = field(default_factory=dict)
    deaths: int = 0  # of the agent
    seen: set[str] = field(default_factory=set)  # files that were committed

    def __post_init__(self) -> None:
        capture = self.folder / "capture"
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        if self.spool and not (data / "spool").exists():
            (data / "spool").symlink_to(self.spool)
        (self.folder / "marks").mkdir(exist_ok=True)
        self.settings = Settings(
            data_dir=data,
            agent=AgentSettings(replay=capture, reserve_disk_megabytes=0, **self.agent_settings),
            recording=RecordingSettings(slice_seconds=self.slice_seconds, lease_seconds=6),
        )
        self.control = Control(self.settings.control_socket)
        plan = Plan(tuple(self.faults), str(self.folder / "marks"), str(self.settings.recordings_dir))
        self.agent = AgentProcess(self.settings, self.folder, module="tests.chaos.disk_agent", environment=plan.environment())

    @contextlib.asynccontextmanager
    async def kept_running(self) -> AsyncIterator[None]:
        """As `running`; an agent that dies is started again, and whatever is committed meanwhile is noted."""
        async with self.running(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._start_again()), group.create_task(self._note_commits())]
            yield
            for task in tasks:
                task.cancel()

    async def _start_again(self) -> None:
        while True:
            await self.agent.wait(3600)
            self.deaths += 1
            await self.agent.start()

    async def _note_commits(self) -> None:
        while True:
            for journal in self.settings.spool_dir.glob("*/journal"):
                with contextlib.suppress(OSError, SpoolError):
                    records = Journal(journal).read().records
                    self.seen |= {str(record["name"]) for record in records if record.get("type") == "slice"}
            await asyncio.sleep(0.02)

    def happened(self, fault: Fault) -> bool:
        return happened(self.folder / "marks", fault)

    async def spool_is_empty(self, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while any(path.is_dir() for path in self.settings.spool_dir.iterdir()):
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        capture = self.folder / "capture"
        if not capture.exists():
            await asyncio.to_thread(write, nine(seconds=8, people=1), capture)
        async with self.control.listening():
            await self.agent.start()
            try:
                yield
            finally:
                self.agent.send(signal.SIGTERM)
                try:
                    await self.agent.wait(60)
                finally:
                    self.agent.send(signal.SIGKILL)
                    print(self.agent.log())

    async def record(self, mode: Mode = "mix") -> str:
        """Start a recording; returns its sid when its first slice is there."""
        spec = RecordingSpec(
            sid=os.urandom(16).hex(),
            app_id="app",
            channel="room",
            uid=1,
            mode=mode,
            canvas=Canvas(width=160, height=90, fps=15, bitrate_kbps=200),
            layout=Layout(),
            max_idle_seconds=300,
            storage=Storage(vendor=100, bucket="rec", access_key=SecretStr(""), secret_key=SecretStr("")),
        )
        assert isinstance(await self.control.offer(spec), Done)
        return spec.sid

    async def commits(self, sid: str, count: int, seconds: float = 60) -> None:
        """Wait for so many slices more."""
        known = len(self.control.committed(sid))
        await self.control.until(lambda: len(self.control.committed(sid)) >= known + count, seconds)

    async def stop(self, sid: str) -> Finished:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(PeerLost):
                    await self.control.ask(Stop(sid=sid))
                    break
        await self.control.until(lambda: self.control.finished(sid) is not None, 90)
        return self.finished(sid)

    def finished(self, sid: str) -> Finished:
        found = self.control.finished(sid)
        assert found
        return found

    def slices(self, sid: str) -> list[Slice]:
        """As they were told, in the order of the playlist."""
        told = [event.body.slice for event in self.control.of(sid, "slice") if isinstance(event.body, SliceCommitted)]
        return sorted(told, key=lambda one: (one.epoch, one.sequence))

    def warnings(self, sid: str) -> list[Warned]:
        return [event.body for event in self.control.of(sid, "warning") if isinstance(event.body, Warned)]

    def bucket(self) -> Path:
        return self.settings.recordings_dir / "rec"

    def is_whole(self, sid: str, *, lost: Sequence[str] = ()) -> None:
        """Every slice that was committed is in the bucket to the byte, once in its playlist, and none went before that."""
        told = [one for one in self.slices(sid) if one.name not in lost]
        assert {name for name in self.seen if name.startswith(sid)} <= {one.name for one in told} | set(lost)
        assert told
        assert len({one.name for one in told}) == len(told)
        assert len({(one.epoch, one.sequence) for one in told}) == len(told)
        for one in told:
            assert hashlib.sha256((self.bucket() / one.name).read_bytes()).hexdigest() == one.sha256
        for playlist in {one.playlist for one in told if one.playlist}:
            assert [path.name for path in entries(self.bucket() / playlist)] == [one.name for one in told if one.playlist == playlist]
        assert not (self.folder / "marks" / VIOLATIONS).exists()


@contextlib.contextmanager
def tmpfs(folder: Path, *, size: str, inodes: int | None = None) -> Iterator[Path]:
    """A small disk in memory; the test is skipped where nothing may be mounted."""
    folder.mkdir()
    options = f"size={size},mode=700" + (f",nr_inodes={inodes}" if inodes else "")
    with _mounted(folder, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield folder


@contextlib.contextmanager
def ext4(folder: Path, megabytes: int) -> Iterator[tuple[Path, Path]]:
    """A file system in a file, and the file in sysfs that makes the kernel report an error of it and mount it read-only."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
    folder.mkdir()
    with _mounted(folder, "-o", "loop,errors=remount-ro", str(image)):
        device = subprocess.run(["findmnt", "-no", "SOURCE", str(folder)], check=True, capture_output=True, text=True).stdout.strip()
        trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("this kernel makes no error of a file system on demand (K4)")
        yield folder, trigger


@contextlib.contextmanager
def _mounted(folder: Path, *what: str) -> Iterator[None]:
    done = subprocess.run(["mount", *what, str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# ---- K1, K2: no space, no inodes ------------------------------------------------------------------------------------


async def full_disk(folder: Path, measured: Measured, *, inodes: bool) -> None:
    """K1, K2: nothing is taken at 80 %, rates go down at 90 %, the newest ends at 95 %; full: all end, and their end is told."""
    with tmpfs(folder / "disk", size="400m", inodes=2000 if inodes else None) as disk:
        (disk / "spool").mkdir()
        node = Node(folder, spool=disk / "spool")
        async with node.running():
            older, newer = await node.record(), ""
            await node.commits(older, 2)
            newer = await node.record()
            await node.commits(newer, 1)
            fill = _Filler(disk, inodes=inodes)
            fill.to(0.82)
            with pytest.raises(AssertionError):  # it is refused
                await node.record()
            fill.to(0.91)
            await node.control.until(lambda: bool(node.warnings(older)) and bool(node.warnings(newer)), 20)
            fill.to(0.952)
            await node.control.until(lambda: node.control.finished(newer) is not None, 40)
            assert (node.finished(newer).outcome, node.finished(newer).reason) == ("limit_reached", "spool_full")
            assert node.control.finished(older) is None
            await node.commits(older, 1)
            began = time.monotonic()
            fill.completely()
            await node.control.until(lambda: node.control.finished(older) is not None, 60)
            measured["end_seconds"] = round(time.monotonic() - began, 1)
            assert node.finished(older).reason == "spool_full"
            assert node.finished(older).uploading == "uploaded"
            for sid in (older, newer):
                node.is_whole(sid)
            fill.nothing()
            await node.control.until(lambda: True)
            async with asyncio.timeout(20):
                while not (disk / "spool" / ".reserve").exists():
                    await asyncio.sleep(0.2)
            again = await node.record()
            await node.commits(again, 1)
            assert (await node.stop(again)).uploading == "uploaded"


class _Filler:
    """Fills a disk by files of somebody else."""

    def __init__(self, disk: Path, *, inodes: bool) -> None:
        self._folder = disk / "filler"
        self._folder.mkdir()
        self._inodes = inodes
        self._count = 0

    def _level(self) -> float:
        disk = os.statvfs(self._folder)
        if self._inodes:
            return 1 - disk.f_favail / disk.f_files
        return 1 - disk.f_bavail / disk.f_blocks

    def _more(self) -> None:
        self._count += 1
        with (self._folder / str(self._count)).open("wb") as file:
            if not self._inodes:
                os.posix_fallocate(file.fileno(), 0, 1 << 20)

    def to(self, level: float) -> None:
        while self._level() < level:
            self._more()

    def completely(self) -> None:
        """Until nothing fits in. What is freed afterwards is for the service alone, as is its reserve."""
        try:
            if self._inodes:
                while True:
                    self._more()
            with (self._folder / "rest").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            return

    def nothing(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()


# ---- K6, K7, K10 and W1: death at every point where something becomes durable ----------------------------------------

# Of a worker: it notes what it begins, makes the media durable, names it, makes the name durable, records it.
WORKER_POINTS = (
    Fault("worker", "rename", "draft", nth=3),
    Fault("worker", "fsync", "media", nth=3),
    Fault("worker", "rename", "file", nth=3),
    Fault("worker", "fsync", "folder of files", nth=3),
    Fault("worker", "write", "journal", nth=4),
    Fault("worker", "write", "journal", "tear", nth=4),
    Fault("worker", "fsync", "journal", nth=4),
    Fault("worker", "remove", "draft", nth=3),
)
# Of the agent: it records what it hears and what it has uploaded, removes files, and the folder at the end.
AGENT_POINTS = (
    *(Fault("agent", "write", "events", action, nth=nth) for nth in (2, 3, 6, 9, 15) for action in ("kill", "tear")),
    *(Fault("agent", "fsync", "events", nth=nth) for nth in (1, 3, 7, 12)),
    Fault("agent", "remove", "file", nth=1),
    Fault("agent", "remove", "file", nth=3),
    Fault("agent", "rename", "recording", nth=1),
)


async def sudden_death(folder: Path, measured: Measured, *, fault: Fault) -> None:
    """Whatever was committed is in the bucket, once in its playlist; of what was not, two seconds are lost, and what comes meanwhile."""
    node = Node(folder, faults=(fault,))
    async with node.kept_running():
        sid = await node.record()
        await node.commits(sid, 3)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(6):
                while not node.happened(fault):
                    await asyncio.sleep(0.05)
        if node.happened(fault):
            await node.commits(sid, 3)
        finished = await node.stop(sid)
        assert finished.uploading == "uploaded"
        await node.spool_is_empty()
        assert node.happened(fault)
        assert node.deaths == (fault.process == "agent")
        node.is_whole(sid)
        gaps = [after.start_ms - before.start_ms - before.duration_ns / 1e6 for before, after in pairwise(_composite(node, sid))]
        measured |= {"slices": len(gaps) + 1, "gap_seconds": round(max(gaps) / 1000, 2), "agent_deaths": node.deaths}
        assert max(gaps) / 1000 <= (10.0 if fault.process == "worker" else 0.1)  # an agent's death costs no media at all


def _composite(node: Node, sid: str) -> list[Slice]:
    return [one for one in node.slices(sid) if one.playlist]


# ---- K3: an error of the disk, and a failed fsync --------------------------------------------------------------------


async def failed_fsync(folder: Path, measured: Measured, *, what: str) -> None:
    """K3: what was to be made durable is not committed, not even by another try; the recording goes on with another worker."""
    fault = Fault("worker", "fsync", what, "EIO", nth=3)
    node = Node(folder, faults=(fault,))
    async with node.kept_running():
        sid = await node.record()
        await node.commits(sid, 6)
        assert node.happened(fault)
        finished = await node.stop(sid)
        node.is_whole(sid)
    slices = _composite(node, sid)
    gaps = [after.start_ms - before.start_ms - before.duration_ns / 1e6 for before, after in pairwise(slices)]
    measured |= {"gap_seconds": round(max(gaps) / 1000, 2), "epochs": slices[-1].epoch}
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    assert slices[-1].epoch == 2
    assert max(gaps) / 1000 <= _SLICE_SECONDS + _LOST_SECONDS + 8


# ---- K4: a disk that becomes read-only ------------------------------------------------------------------------------


async def read_only(folder: Path, measured: Measured, *, second: bool) -> None:
    """K4: the kernel remounts the spool's file system read-only; the recording goes on in the second spool, or its end is told."""
    with ext4(folder / "disk", 256) as (disk, trigger):
        (disk / "spool").mkdir()
        node = Node(folder, spool=disk / "spool", agent_settings={"second_spool": folder / "second"} if second else {})
        async with node.kept_running():
            sid = await node.record()
            await node.commits(sid, 3)
            trigger.write_text("an error, for a test")
            if second:
                await node.commits(sid, 4)
                finished = await node.stop(sid)
                assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
                async with asyncio.timeout(10):
                    while any(path.is_dir() for path in (folder / "second").iterdir()):
                        await asyncio.sleep(0.1)
            else:
                await node.control.until(lambda: node.control.finished(sid) is not None, 60)
                assert (node.finished(sid).outcome, node.finished(sid).reason) == ("failed", "spool_full")
                assert {path.name for path in node.bucket().glob("*.ts")} >= {one.name for one in node.slices(sid)[:2]}
            assert node.deaths == 0
        if second:
            node.is_whole(sid)
            slices = _composite(node, sid)
            gaps = [after.start_ms - before.start_ms - before.duration_ns / 1e6 for before, after in pairwise(slices)]
            measured |= {"gap_seconds": round(max(gaps) / 1000, 2), "epochs": slices[-1].epoch}
            assert max(gaps) / 1000 <= _SLICE_SECONDS + _LOST_SECONDS + 8


# ---- K5: a disk that takes five seconds ------------------------------------------------------------------------------


async def slow_fsync(folder: Path, measured: Measured, *, seconds: float) -> None:
    """K5: nothing is lost and nothing stands still; what waits for the disk is committed afterwards."""
    fault = Fault("worker", "fsync", "media", "wait", nth=2, seconds=seconds)
    node = Node(folder, faults=(fault,))
    async with node.kept_running():
        sid = await node.record()
        await node.commits(sid, 4 + int(seconds / _SLICE_SECONDS))
        assert node.happened(fault)
        finished = await node.stop(sid)
        node.is_whole(sid)
    slices = _composite(node, sid)
    gaps = [abs(after.start_ns - before.start_ns - before.duration_ns) for before, after in pairwise(slices)]
    took = [event.body.seconds or 0.0 for event in node.control.of(sid, "slice") if isinstance(event.body, SliceCommitted)]
    measured |= {"slices": len(slices), "gap_seconds": round(max(gaps) / 1e9, 3), "commit_seconds": max(took)}
    assert max(took) >= seconds  # what the metric shows
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    assert slices[-1].epoch == 1
    assert max(gaps) <= 40_000_000
    whole = folder / "whole.ts"
    whole.write_bytes(b"".join((node.bucket() / one.name).read_bytes() for one in slices))
    assert measure.decode_errors([whole]) == []
    assert abs(measure.probe(whole).duration - sum(one.duration_ns for one in slices) / 1e9) < 0.15


# ---- K6, K7: what is torn, and what is flipped -----------------------------------------------------------------------


async def torn_webm(folder: Path, measured: Measured) -> None:
    """K6: of the individual recording's open slices two seconds at most are lost, and every frame that is there is whole."""
    node = Node(folder, slice_seconds=15)
    async with node.kept_running():
        sid = await node.record("individual")
        await asyncio.sleep(7)
        assert node.slices(sid) == []
        pid = worker_pid(node.settings, sid)
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        await node.commits(sid, 2)
        salvaged = {one.name.rpartition(".")[2]: one for one in node.slices(sid) if one.epoch == 1}
        lost = {suffix: killed - (one.start_ms + one.duration_ns / 1e6) / 1000 for suffix, one in salvaged.items()}
        measured |= {f"lost_{suffix}_seconds": round(seconds, 2) for suffix, seconds in lost.items()}
        assert salvaged.keys() == {"webm", "ts"}
        await asyncio.sleep(3)
        assert (await node.stop(sid)).uploading == "uploaded"
        node.is_whole(sid)
    for suffix, one in salvaged.items():
        assert 0 < lost[suffix] < _LOST_SECONDS
        path = node.bucket() / one.name
        assert measure.decode_errors([path]) == []
        assert measure.probe(path).duration == pytest.approx(one.duration_ns / 1e9, abs=0.15)


async def flipped_line(folder: Path, measured: Measured) -> None:
    """K7: agent and worker die, and a line of the worker's journal is damaged that nobody has read: its slice is found all the same."""
    node = Node(folder)
    async with node.running():
        sid = await node.record()
        await node.commits(sid, 2)
        await node.agent.kill()
        await asyncio.sleep(3)  # the worker goes on by itself
        os.kill(worker_pid(node.settings, sid), signal.SIGKILL)
        spool = RecordingSpool(node.settings.spool_dir / sid)
        unread = [record for record in spool.records() if record.get("type") == "slice" and spool.file(str(record["name"])).exists()]
        damaged = unread[-2]
        lines = (spool.folder / "journal").read_bytes().split(b"\n")
        number = next(n for n, line in enumerate(lines) if str(damaged["name"]).encode() in line)
        lines[number] = lines[number].replace(b'"slice"', b'"slicf"')
        (spool.folder / "journal").write_bytes(b"\n".join(lines))
        node.seen = {str(record["name"]) for record in unread}
        await node.agent.start()
        await node.commits(sid, 2 + len(unread))
        assert (await node.stop(sid)).uploading == "uploaded"
        node.is_whole(sid)
    again = next(one for one in node.slices(sid) if one.name == damaged["name"])
    measured["unread"] = len(unread)
    assert (again.epoch, again.sequence, again.sha256) == (damaged["epoch"], damaged["sequence"], damaged["sha256"])
    assert abs(again.start_ns - damaged["start_ns"]) < 2_000_000
    assert abs(again.duration_ns - damaged["duration_ns"]) < 100_000_000


# ---- K8: a spool on two disks ----------------------------------------------------------------------------------------


async def two_disks(folder: Path, measured: Measured) -> None:
    """K8: a folder of the spool is a mount of its own: the agent says so in one line and does not start."""
    data = folder / "data"
    recording = Spool(data / "spool").recording("0" * 32)
    recording.partial("open.ts").write_bytes(b"media")
    with _mounted(recording.folder / "files", "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "agent"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CLOUD_RECORDER_DATA_DIR": str(data)},
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    measured["exit_code"] = process.returncode
    assert process.returncode == 1
    assert "are not on one disk" in said.decode().splitlines()[-1]
    assert recording.partial("open.ts").read_bytes() == b"media"


# ---- K9, K10: files that go, files that stay -------------------------------------------------------------------------


async def removed_file(folder: Path, measured: Measured) -> None:
    """K9: a committed file is removed by somebody before it is uploaded: it is lost by name, and everything else is complete."""
    node = Node(folder)
    async with node.running():
        sid = await node.record()
        await node.commits(sid, 2)
        await node.agent.kill()
        await asyncio.sleep(3.5)
        waiting = sorted((node.settings.spool_dir / sid / "files").glob("*.ts"))
        waiting[1].unlink()
        await node.agent.start()
        await node.commits(sid, 2 + len(waiting))
        finished = await node.stop(sid)
        assert (finished.outcome, finished.uploading) == ("interrupted", "unknown")
        assert any(waiting[1].name in warning.detail for warning in node.warnings(sid))
        node.is_whole(sid, lost=[waiting[1].name])
    measured["lost"] = 1
    (playlist,) = node.bucket().glob("*.m3u8")
    assert playlist.read_text().count("#EXT-X-DISCONTINUITY\n") == 2  # at its begin, and where the file was


async def leftovers(folder: Path, measured: Measured) -> None:
    """K10: what nobody knows of is removed only when it holds no media."""
    node = Node(folder)
    spool = Spool(node.settings.spool_dir)
    unknown, empty = spool.recording("1" * 32), spool.recording("2" * 32)
    unknown.partial("x.ts").write_bytes(b"media")
    unknown.commit("x.ts", {"type": "slice"})
    unknown.close()
    half_gone = spool.root / f".{'3' * 32}.gone"
    (half_gone / "files").mkdir(parents=True)
    (half_gone / "files" / "uploaded.ts").touch()
    async with node.running():
        sid = await node.record()
        await node.commits(sid, 2)
        assert (await node.stop(sid)).uploading == "uploaded"
        await asyncio.sleep(0.5)
    assert not empty.folder.exists()
    assert not half_gone.exists()
    assert not (spool.root / sid).exists()
    assert unknown.file("x.ts").read_bytes() == b"media"
    measured["kept"] = 1
