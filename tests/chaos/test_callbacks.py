"""The rows of the fault matrix about callbacks."""

from pathlib import Path

import pytest

from tests.chaos import callback_rows as rows
from tests.chaos.callback_rows import Measured

LIKES = ["500", "404", "301 Location: /canary", "429 Retry-After: 3", "204", "hang", "reset", "close", "garbage", "endless-head", "drip"]


@pytest.mark.row("H1", "H2", "H6")
@pytest.mark.parametrize("times", [1, 2])
async def test_misbehaving(tmp_path: Path, measured: Measured, times: int) -> None:
    await rows.misbehaving(tmp_path, measured, LIKES, times=times, seconds=20)


@pytest.mark.row("H1", "H2")
@pytest.mark.parametrize("seconds", [20, 600])
async def test_down(tmp_path: Path, measured: Measured, seconds: float) -> None:
    await rows.down(tmp_path, measured, seconds=seconds)


@pytest.mark.row("H3")
@pytest.mark.parametrize("like", ["500", "301 Location: /canary", "reset", "garbage"])
async def test_down_for_days(tmp_path: Path, measured: Measured, like: str) -> None:
    await rows.down_for_days(tmp_path, measured, like)


@pytest.mark.row("H4")
async def test_killed_before_sending(tmp_path: Path, measured: Measured) -> None:
    await rows.killed_before_sending(tmp_path, measured)


@pytest.mark.row("H4")
async def test_killed_after_sending(tmp_path: Path, measured: Measured) -> None:
    await rows.killed_after_sending(tmp_path, measured)


@pytest.mark.row("H5")
async def test_one_that_fails(tmp_path: Path, measured: Measured) -> None:
    await rows.one_that_fails(tmp_path, measured)


@pytest.mark.row("H6")
async def test_endless(tmp_path: Path, measured: Measured) -> None:
    await rows.endless(tmp_path, measured)


@pytest.mark.row("H7")
async def test_bad_certificate(tmp_path: Path, measured: Measured) -> None:
    await rows.bad_certificate(tmp_path, measured)


@pytest.mark.row("H8")
async def test_rotated(tmp_path: Path, measured: Measured) -> None:
    await rows.rotated(tmp_path, measured)


@pytest.mark.row("H9")
async def test_private_address(tmp_path: Path, measured: Measured) -> None:
    await rows.private_address(tmp_path, measured)


@pytest.mark.row("H10")
async def test_flood(tmp_path: Path, measured: Measured) -> None:
    await rows.flood(tmp_path, measured, queued=10_000)
