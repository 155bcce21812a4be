"""Rows of the fault matrix about the node's own disk (K1–K10): a real agent and real workers, which record a capture in a loop."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from recorder.protocol import Done, Finished, Slice, SliceCommitted, Stop, Warned
from recorder.settings import Agent as AgentSettings
from recorder.settings import Recording as RecordingSettings
from recorder.settings import Settings
from recorder.spec import Canvas, Layout, Mode, RecordingSpec, Storage
from tests.chaos.disk_faults import VIOLATIONS, Fault, Plan
from tests.corpus import nine, write
from tests.e2e.playlist import entries
from tests.integration.agent_control import Control
from tests.integration.test_agent_recording import AgentProcess

Measured = dict[str, Any]

_SLICE_SECONDS = 1.0
_LOST_SECONDS = 2.0  # of the media that a killed worker held


@dataclass
class Node:
    """An agent that may be killed and started again, on a spool that may be anywhere."""

    folder: Path
    faults: Sequence[Fault] = ()
    spool: Path | None = None
    agent_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        capture = self.folder / "capture"
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        if self.spool and not (data / "spool").exists():
            (data / "spool").symlink_to(self.spool)
        (self.folder / "marks").mkdir(exist_ok=True)
        self.settings = Settings(
            data_dir=data,
            agent=AgentSettings(replay=capture, **self.agent_settings),
            recording=RecordingSettings(slice_seconds=_SLICE_SECONDS, lease_seconds=6),
        )
        self.control = Control(self.settings.control_socket)
        plan = Plan(tuple(self.faults), str(self.folder / "marks"), str(self.settings.recordings_dir))
        self.agent = AgentProcess(self.settings, self.folder, module="tests.chaos.disk_agent", environment=plan.environment())

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
        await self.control.ask(Stop(sid=sid))
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
        yield folder, Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"


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
