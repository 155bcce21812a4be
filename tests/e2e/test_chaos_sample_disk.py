"""A short case of each row about the node's own disk (K1–K10); `make chaos` runs all points and counts."""

from pathlib import Path

import pytest

from tests.chaos import disk_rows as rows
from tests.chaos.disk_faults import Fault


@pytest.mark.timeout(180)
async def test_k1_no_space(tmp_path: Path) -> None:
    await rows.full_disk(tmp_path, {}, inodes=False)


async def test_k3_failed_fsync(tmp_path: Path) -> None:
    await rows.failed_fsync(tmp_path, {}, what="media")


async def test_k4_read_only(tmp_path: Path) -> None:
    await rows.read_only(tmp_path, {}, second=True)


async def test_k5_slow_fsync(tmp_path: Path) -> None:
    await rows.slow_fsync(tmp_path, {}, seconds=5)


async def test_k6_torn_webm(tmp_path: Path) -> None:
    await rows.torn_webm(tmp_path, {})


@pytest.mark.parametrize(
    "fault",
    [
        Fault("worker", "rename", "file", nth=3),
        Fault("worker", "write", "journal", "tear", nth=4),
        Fault("agent", "write", "events", "tear", nth=6),
        Fault("agent", "remove", "file", nth=1),
    ],
    ids=lambda fault: fault.name,
)
async def test_k6_k7_k10_sudden_death(tmp_path: Path, fault: Fault) -> None:
    await rows.sudden_death(tmp_path, {}, fault=fault)


async def test_k7_flipped_line(tmp_path: Path) -> None:
    await rows.flipped_line(tmp_path, {})


async def test_k8_two_disks(tmp_path: Path) -> None:
    await rows.two_disks(tmp_path, {})


async def test_k9_removed_file(tmp_path: Path) -> None:
    await rows.removed_file(tmp_path, {})


async def test_k10_leftovers(tmp_path: Path) -> None:
    await rows.leftovers(tmp_path, {})
