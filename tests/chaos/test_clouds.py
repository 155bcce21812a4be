"""The rows of the fault matrix about the vendors' dialects."""

from pathlib import Path

import pytest

from tests.chaos import cloud_rows as rows
from tests.chaos.storage_rows import Measured


@pytest.mark.row("S20")
@pytest.mark.parametrize("vendor", ["amazon", "s3", "ks3", "oss", "cos", "qiniu"])
async def test_signed(tmp_path: Path, vendor: str) -> None:
    await rows.signed(tmp_path, vendor)


@pytest.mark.row("S11")
@pytest.mark.parametrize(
    ("vendor", "hours"),  # Tencent's signatures are good for almost three hours, Qiniu's tokens until a moment, however far
    [("oss", -2), ("oss", 2), ("oss", 30), ("cos", -2), ("cos", 3), ("cos", 30), ("qiniu", 2), ("qiniu", 30)],
)
async def test_wrong_clock(tmp_path: Path, measured: Measured, vendor: str, hours: float) -> None:
    await rows.wrong_clock(tmp_path, measured, vendor, hours)


@pytest.mark.row("S2", "S3")
@pytest.mark.parametrize("vendor", ["oss", "cos"])
async def test_new_token(tmp_path: Path, vendor: str) -> None:
    await rows.new_token(tmp_path, vendor)


@pytest.mark.row("S16")
@pytest.mark.parametrize("vendor", ["s3", "oss", "cos"])
async def test_left_open(tmp_path: Path, measured: Measured, vendor: str) -> None:
    await rows.left_open(tmp_path, measured, vendor)
