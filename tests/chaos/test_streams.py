"""Rows about streams whose packets, clocks and codecs misbehave, by replay under a virtual clock: all scenarios, five seeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from recorder.frames import Kind
from recorder.tools import measure
from recorder.tools.replay import replay
from tests.corpus import SCENARIOS, Scenario, write
from tests.fault_bounds import check, least_seconds
from tests.unit import test_hub_ingest as hub_tests
from tests.unit import test_rtp_receiver as receiver_tests
from tests.unit.test_hub_negotiation import test_browsers_are_answered_without_what_nobody_here_decodes as answered_without

KINDS: tuple[Kind, ...] = ("audio", "video")


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
@pytest.mark.parametrize("codec", ["vp8", "h264", "vp9", "av1"])
async def test_what_is_not_decoded_is_not_negotiated(codec: str) -> None:
    await answered_without(codec)


@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.name, marks=pytest.mark.row(s.rows)) for s in SCENARIOS])
def test_scenario_by_itself(tmp_path: Path, scenario: Scenario) -> None:
    """Each participant alone: whatever happens, every file can be decoded, and together they last as long as their sender was there."""
    capture = write(scenario, tmp_path / "capture")
    spec = capture.description.recording.spec().model_copy(update={"mode": "individual"})
    replayed = replay(capture, tmp_path / "out", spec)
    assert replayed.slices
    assert [error for item in replayed.slices for error in measure.decode_errors([replayed.folder / item.name])] == []
    for sender in scenario.senders:
        seconds = (sender.end or scenario.seconds) - sender.start
        for kind in KINDS:
            recorded = [item for item in replayed.slices if f"_s_{sender.uid}__uid_e_{kind}" in item.name]
            lasts = sum(item.duration_ns for item in recorded) / 1e9
            assert least_seconds(scenario, sender, kind) <= lasts <= seconds + 0.05, kind


@pytest.mark.row("N15", "N16")
def test_a_thousand_sources() -> None:
    receiver_tests.test_a_new_source_of_the_same_kind_takes_over()
    hub_tests.test_one_stray_packet_of_another_ssrc_does_not_end_the_track()
    hub_tests.test_late_packets_of_an_ssrc_that_was_replaced_are_dropped_however_many_there_were()


@pytest.mark.row("N15", "N16")
def test_one_source_for_picture_and_sound() -> None:
    receiver_tests.test_picture_and_sound_under_one_ssrc()
    hub_tests.test_picture_and_sound_under_one_ssrc_are_told_apart_by_payload_type()
