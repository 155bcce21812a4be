"""The rows of the fault matrix about the node's own disk, all points and counts."""

from pathlib import Path

import pytest

from tests.chaos import disk_rows as rows
from tests.chaos.disk_rows import Measured


@pytest.mark.row("K1", "K2")
@pytest.mark.parametrize("inodes", [False, True])
async def test_full_disk(tmp_path: Path, measured: Measured, inodes: bool) -> None:
    await rows.full_disk(tmp_path, measured, inodes=inodes)
