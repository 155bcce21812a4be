"""The rows of the fault matrix about people in a channel, all seeds and counts."""

from pathlib import Path

import pytest

from tests.chaos import life_rows as rows
from tests.chaos.life_rows import Measured


@pytest.mark.row("N9")
@pytest.mark.parametrize("seconds", [2, 45])
async def test_vanished_and_back(tmp_path: Path, measured: Measured, seconds: float) -> None:
    await rows.vanished_and_back(tmp_path, measured, seconds=seconds)


@pytest.mark.row("N24")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_coming_and_going(tmp_path: Path, measured: Measured, seed: int) -> None:
    await rows.coming_and_going(tmp_path, measured, seed=seed, cycles=100)


@pytest.mark.row("N25")
async def test_nobody_left(tmp_path: Path, measured: Measured) -> None:
    await rows.nobody_left(tmp_path, measured, idle_seconds=30)


@pytest.mark.row("N26")
async def test_nobody_sends(tmp_path: Path, measured: Measured) -> None:
    await rows.nobody_sends(tmp_path, measured)


@pytest.mark.row("N27")
async def test_token_expiry(tmp_path: Path, measured: Measured) -> None:
    await rows.token_expiry(tmp_path, measured, seconds=30)


@pytest.mark.row("N28")
async def test_duplicate_identity(tmp_path: Path, measured: Measured) -> None:
    await rows.duplicate_identity(tmp_path, measured, seconds=10)


@pytest.mark.row("N28")
async def test_duplicate_before_media(tmp_path: Path, measured: Measured) -> None:
    await rows.duplicate_before_media(tmp_path, measured)


@pytest.mark.row("T5")
@pytest.mark.parametrize("deaths", [1, 4])
async def test_idle_across_workers(tmp_path: Path, measured: Measured, deaths: int) -> None:
    await rows.idle_across_workers(tmp_path, measured, idle_seconds=30, deaths=deaths)


@pytest.mark.row("N29")
async def test_no_keyframe(tmp_path: Path, measured: Measured) -> None:
    await rows.no_keyframe(tmp_path, measured, seconds=30)


@pytest.mark.row("N30")
async def test_narrow_path(tmp_path: Path, measured: Measured) -> None:
    await rows.narrow_path(tmp_path, measured, seconds=30)


@pytest.mark.row("N32")
async def test_crowd(tmp_path: Path, measured: Measured) -> None:
    await rows.crowd(tmp_path, measured, people=50)
