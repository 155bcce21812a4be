"""One seed and a short recording of each network row (N1–N10); `make chaos` runs all of them."""

from pathlib import Path
from typing import Any

from tests.chaos import network_rows as rows


async def test_n1_n2_loss_between_hub_and_recorder(tmp_path: Path) -> None:
    await rows.loss(tmp_path, {}, seed=1, leg="recorder", percent=10, seconds=8)


async def test_n1_n2_loss_of_sound_alone(tmp_path: Path) -> None:
    await rows.loss_of_sound(tmp_path, {}, seed=1, percent=5, seconds=5)


async def test_n1_n2_three_bad_publishers(tmp_path: Path) -> None:
    await rows.three_bad_publishers(tmp_path, {}, seed=1, seconds=12)


async def test_n3_one_unrepaired_loss(tmp_path: Path) -> None:
    await rows.unrepaired_loss(tmp_path, {}, seed=1, leg="recorder", times=1)


async def test_n4_all_feedback_lost(tmp_path: Path) -> None:
    await rows.feedback_lost(tmp_path, {}, seed=1, leg="recorder")


async def test_n5_n6_disorder(tmp_path: Path) -> None:
    await rows.disorder(tmp_path, {}, seed=1, leg="recorder", media=(rows.REPEATED, rows.REORDERED, rows.JITTERED), seconds=4)


async def test_n7_n8_blackout(tmp_path: Path) -> None:
    await rows.blackout(tmp_path, {}, seed=1, leg="recorder", seconds=2, extra=2)


async def test_n9_blackout_long_enough_for_a_new_session(tmp_path: Path) -> None:
    measured: dict[str, Any] = {}
    await rows.blackout(tmp_path, measured, seed=1, leg="recorder", seconds=6.5, extra=5)
    assert measured["new_sessions"] >= 1


async def test_n10_path_change(tmp_path: Path) -> None:
    await rows.path_change(tmp_path, {}, seed=1, leg="recorder", gone=True, after=9)
