"""The rows of the fault matrix about the node's own disk, all points and counts."""

from pathlib import Path

import pytest

from tests.chaos import disk_rows as rows
from tests.chaos.disk_faults import Fault
from tests.chaos.disk_rows import Measured


@pytest.mark.row("K1", "K2")
@pytest.mark.parametrize("inodes", [False, True])
async def test_full_disk(tmp_path: Path, measured: Measured, inodes: bool) -> None:
    await rows.full_disk(tmp_path, measured, inodes=inodes)


@pytest.mark.row("K6", "K7", "K10", "W1", "W2")
@pytest.mark.parametrize("fault", [*rows.WORKER_POINTS, *rows.AGENT_POINTS], ids=lambda fault: fault.name)
async def test_sudden_death(tmp_path: Path, measured: Measured, fault: Fault) -> None:
    await rows.sudden_death(tmp_path, measured, fault=fault)


@pytest.mark.row("K3")
@pytest.mark.parametrize("what", ["media", "folder of files", "journal"])
async def test_failed_fsync(tmp_path: Path, measured: Measured, what: str) -> None:
    await rows.failed_fsync(tmp_path, measured, what=what)


@pytest.mark.row("K5")
@pytest.mark.parametrize("seconds", [5, 20])
async def test_slow_fsync(tmp_path: Path, measured: Measured, seconds: float) -> None:
    await rows.slow_fsync(tmp_path, measured, seconds=seconds)


@pytest.mark.row("K4")
@pytest.mark.parametrize("second", [True, False])
async def test_read_only(tmp_path: Path, measured: Measured, second: bool) -> None:
    await rows.read_only(tmp_path, measured, second=second)


@pytest.mark.row("K6")
async def test_torn_webm(tmp_path: Path, measured: Measured) -> None:
    await rows.torn_webm(tmp_path, measured)


@pytest.mark.row("K7")
async def test_flipped_line(tmp_path: Path, measured: Measured) -> None:
    await rows.flipped_line(tmp_path, measured)


@pytest.mark.row("K8")
async def test_two_disks(tmp_path: Path, measured: Measured) -> None:
    await rows.two_disks(tmp_path, measured)


@pytest.mark.row("K9")
async def test_removed_file(tmp_path: Path, measured: Measured) -> None:
    await rows.removed_file(tmp_path, measured)


@pytest.mark.row("K10")
async def test_leftovers(tmp_path: Path, measured: Measured) -> None:
    await rows.leftovers(tmp_path, measured)
