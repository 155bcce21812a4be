"""Rows about streams whose packets, clocks and codecs misbehave, by replay under a virtual clock: all scenarios, five seeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpus import SCENARIOS, Scenario
from tests.fault_bounds import check
from tests.unit.test_hub_negotiation import test_browsers_are_answered_without_what_nobody_here_decodes as answered_without


def _cases() -> list[object]:
    return [
        pytest.param(scenario, seed, id=f"{scenario.name}-{seed}", marks=pytest.mark.row(scenario.rows))
        for scenario in SCENARIOS
        for seed in range(1, 6)
    ]


@pytest.mark.parametrize(("scenario", "seed"), _cases())
def test_scenario(tmp_path: Path, scenario: Scenario, seed: int) -> None:
    network = replace(scenario.network, seed=scenario.network.seed + seed - 1, jitter_ms=scenario.network.jitter_ms + 3 * (seed - 1))
    check(replace(scenario, network=network), tmp_path)


@pytest.mark.row("N20")
@pytest.mark.parametrize("codec", ["VP8", "H264", "VP9", "AV1"])
async def test_what_is_not_decoded_is_not_negotiated(codec: str) -> None:
    await answered_without(codec)
