"""The network rows of the fault matrix, all seeds and counts."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.chaos import network_rows as rows
from tests.chaos.live_room import Leg
from tests.chaos.network_rows import Measured
from tests.impair.impairment import Conditions

both_legs = pytest.mark.parametrize("leg", ["publisher", "recorder"])
five_seeds = pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])


@pytest.mark.row("N1", "N2")
@both_legs
@five_seeds
@pytest.mark.parametrize("percent", [2, 5, 10, 20])
async def test_loss(tmp_path: Path, measured: Measured, seed: int, leg: Leg, percent: int) -> None:
    await rows.loss(tmp_path, measured, seed=seed, leg=leg, percent=percent, seconds=20)


@pytest.mark.row("N1", "N2")
@both_legs
@five_seeds
async def test_burst_loss(tmp_path: Path, measured: Measured, seed: int, leg: Leg) -> None:
    await rows.loss(tmp_path, measured, seed=seed, leg=leg, percent=5, seconds=20, bursts=True)


@pytest.mark.row("N1", "N2")
@five_seeds
@pytest.mark.parametrize("percent", [2, 5, 10, 20])
async def test_loss_of_sound(tmp_path: Path, measured: Measured, seed: int, percent: int) -> None:
    await rows.loss_of_sound(tmp_path, measured, seed=seed, percent=percent, seconds=20)


@pytest.mark.row("N1", "N2")
@five_seeds
async def test_three_bad_publishers(tmp_path: Path, measured: Measured, seed: int) -> None:
    await rows.three_bad_publishers(tmp_path, measured, seed=seed, seconds=60)


@pytest.mark.row("N1", "N2")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="N1-N2: namespaces and nft need root")
@pytest.mark.parametrize("percent", [2, 5, 10])
async def test_loss_by_the_kernel(tmp_path: Path, measured: Measured, percent: int) -> None:
    """Every datagram between hub, publisher and recorder may be lost: twice on its way into the recording."""
    inside = (
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "tests.chaos.kernel_loss",
        str(tmp_path),
        str(percent),
    )
    process = await asyncio.create_subprocess_exec("unshare", "--net", "--kill-child", *inside, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    measured |= json.loads(said.splitlines()[-1])
    assert abs(measured["seconds"] - measured["expected_seconds"]) <= 0.3
    assert measured["backward_steps"] == 0
    assert measured["dropped"] > 0
    assert measured["frozen_seconds"] <= 2 * rows.GAP_SECONDS[percent]
    assert measured["silent_seconds"] <= 2 * rows.GAP_SECONDS[percent]


@pytest.mark.row("N3")
@both_legs
async def test_unrepaired_loss(tmp_path: Path, measured: Measured, leg: Leg) -> None:
    await rows.unrepaired_loss(tmp_path, measured, seed=1, leg=leg, times=5)


@pytest.mark.row("N4")
@both_legs
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("types", [(205,), (206,), (205, 206)], ids=["nack", "pli", "both"])
async def test_feedback_lost(tmp_path: Path, measured: Measured, seed: int, leg: Leg, types: tuple[int, ...]) -> None:
    await rows.feedback_lost(tmp_path, measured, seed=seed, leg=leg, types=types)


@pytest.mark.row("N5", "N6")
@both_legs
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("media", [rows.REORDERED, rows.JITTERED, rows.REPEATED], ids=["reorder", "jitter", "repeat"])
async def test_disorder(tmp_path: Path, measured: Measured, seed: int, leg: Leg, media: Conditions) -> None:
    await rows.disorder(tmp_path, measured, seed=seed, leg=leg, media=(media,), seconds=20)


@pytest.mark.row("N7", "N8")
@both_legs
@pytest.mark.parametrize("seconds", [0.5, 2, 10, 25])
async def test_blackout(tmp_path: Path, measured: Measured, leg: Leg, seconds: float) -> None:
    await rows.blackout(tmp_path, measured, seed=1, leg=leg, seconds=seconds, extra=2)


@pytest.mark.row("N9")
async def test_long_blackout(tmp_path: Path, measured: Measured) -> None:
    await rows.blackout(tmp_path, measured, seed=1, leg="recorder", seconds=45, extra=5)
    assert measured["new_sessions"] >= 1


@pytest.mark.row("N10")
@pytest.mark.parametrize(("leg", "gone"), [("recorder", False), ("recorder", True), ("publisher", False)])
async def test_path_change(tmp_path: Path, measured: Measured, leg: Leg, gone: bool) -> None:
    await rows.path_change(tmp_path, measured, seed=1, leg=leg, gone=gone, after=45)  # longer than ICE consent
    assert measured["new_sessions"] >= gone
