"""Captures with known faults, replayed: what the rows of the fault table allow, seen in frames and in the recording."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.tools import measure
from recorder.tools.replay import replay
from tests.corpus import SCENARIOS, Scenario, write
from tests.corpus_senders import DELAY_NS, Network, Picture, Sender
from tests.fault_bounds import check
from tests.watching import SECOND, play

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
WITHOUT_LOSS = [name for name in BY_NAME if name != "video_late" and (not name.startswith("loss") or name.endswith("repaired"))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: f"{s.name}-{s.rows}")
def test_replay_of_a_fault_shows_no_more_than_its_row_allows(scenario: Scenario, tmp_path: Path) -> None:
    check(scenario, tmp_path)


@pytest.mark.parametrize("name", [name for name in WITHOUT_LOSS if not name.startswith("ssrc")])
def test_replay_gives_every_frame_at_its_capture_time(name: str, tmp_path: Path) -> None:
    """Where nothing is lost for good, each frame comes out, once, in order, at the time it was captured."""
    scenario = BY_NAME[name]
    heard, player = play(write(scenario, tmp_path / "capture"))
    for sender in scenario.senders:
        end = sender.end or scenario.seconds
        for kind, rate in (("video", sender.fps), ("audio", 50)):
            pause = sender.muted or (sender.silent if kind == "audio" else None) or (0, 0)
            expected = [n / rate for n in range(round(sender.start * rate), round(end * rate)) if not pause[0] <= n / rate < pause[1]]
            frames = heard.of(sender.uid, kind)  # type: ignore[arg-type]
            assert len(frames) == len(expected)
            late = [frame.time_ns - DELAY_NS - round(second * SECOND) for frame, second in zip(frames, expected, strict=True)]
            assert max(map(abs, late)) < 45_000_000, (kind, min(late), max(late))
    assert sum(counters.malformed for _, counters in player.counters) == 0


def test_replay_of_drifting_clocks_keeps_lips_and_voices_together(tmp_path: Path) -> None:
    """N21: five minutes of a sound card and a camera whose clocks are 200 ppm apart: 60 ms without the sender's reports."""
    sender = Sender(pictures=(Picture(width=160, height=90),), fps=15, audio_ppm=100, video_ppm=-100)
    heard, _ = play(write(Scenario("drift", "N21", (sender,), seconds=300), tmp_path / "capture"))
    video, audio = heard.of(101, "video"), heard.of(101, "audio")
    true_video = [round(n / 15 * SECOND / (1 - 100e-6)) for n in range(len(video))]
    true_audio = [round(n / 50 * SECOND / (1 + 100e-6)) for n in range(len(audio))]
    assert (len(video), len(audio)) == (300 * 15, 300 * 50)
    late_video = video[-1].time_ns - true_video[-1]
    late_audio = audio[-1].time_ns - true_audio[-1]
    assert abs(late_video - late_audio) < 10_000_000
    assert abs(late_video - DELAY_NS) < 20_000_000


def test_replay_of_wrapping_numbers_gives_what_others_give(tmp_path: Path) -> None:
    """N13: on a network whose jitter would show any new beginning."""
    network = Network(jitter_ms=30)
    wrapped, _ = play(write(replace(BY_NAME["wrap"], network=network), tmp_path / "wrap"))
    plain, _ = play(write(replace(BY_NAME["clean"], network=network), tmp_path / "clean"))
    assert [frame.payload for frame in wrapped.frames] == [frame.payload for frame in plain.frames]
    differences = [a.time_ns - b.time_ns for a, b in zip(wrapped.frames, plain.frames, strict=True)]
    assert max(map(abs, differences)) < 1000  # only rounding: the timestamps begin elsewhere


def test_replay_of_a_late_video_is_put_right_by_the_reports(tmp_path: Path) -> None:
    """N22: 80 ms are slewed within two seconds from the first reports on."""
    heard, _ = play(write(BY_NAME["video_late"], tmp_path / "capture"))
    video, audio = heard.of(101, "video")[90:], heard.of(101, "audio")[150:]
    assert all(abs(frame.time_ns - DELAY_NS - (90 + n) * SECOND // 30) < 5_000_000 for n, frame in enumerate(video))
    assert all(abs(frame.time_ns - DELAY_NS - (150 + n) * SECOND // 50) < 5_000_000 for n, frame in enumerate(audio))


@pytest.mark.parametrize("name", ["loss", "loss_burst"])
def test_replay_after_a_loss_goes_on_with_a_keyframe(name: str, tmp_path: Path) -> None:
    """N3: no picture is shown that refers to a missing one."""
    heard, player = play(write(BY_NAME[name], tmp_path / "capture"))
    numbers = [(round((frame.time_ns - DELAY_NS) * 30 / SECOND), frame.keyframe) for frame in heard.of(101, "video")]
    after_gaps = [keyframe for (before, _), (number, keyframe) in pairwise(numbers) if number != before + 1]
    assert after_gaps
    assert all(after_gaps)
    assert sum(counters.frames_undecodable for _, counters in player.counters) > 0


def test_replay_of_a_turned_camera_tells_the_rotation_from_its_frame_on(tmp_path: Path) -> None:
    """N18"""
    heard, _ = play(write(BY_NAME["rotation"], tmp_path / "capture"))
    rotations = [frame.rotation for frame in heard.of(101, "video")]
    assert rotations == [0] * 90 + [90] * 90 + [180] * 60


def test_replay_follows_the_newest_source_after_each_change(tmp_path: Path) -> None:
    """N15, N16: no sound is lost, and of the picture only what refers to frames of the former source."""
    heard, _ = play(write(BY_NAME["ssrc_changes_often"], tmp_path / "capture"))
    assert len(heard.of(101, "audio")) == 400
    video = heard.of(101, "video")
    assert [frame.time_ns // SECOND for frame in video if frame.keyframe] == [0, 2, 4, 6]
    assert all(a.time_ns < b.time_ns for a, b in pairwise(video))


def test_replay_of_a_late_guest_shows_them_while_they_are_there(tmp_path: Path) -> None:
    """N24"""
    replayed = replay(write(BY_NAME["join_leave"], tmp_path / "capture"), tmp_path / "out")
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join(path.read_bytes() for path in replayed.paths("capture_replay.m3u8")))
    frames = list(measure.video_frames(whole))
    right = measure.Rect(160, 0, 160, 180)
    seen = {second: measure.who(frames[round(second * 30)][1], [101, 102], right) for second in (1, 3, 4.5, 6)}
    assert seen == {1: 101, 3: 102, 4.5: 102, 6: 101}


def test_replay_ignores_the_padding_that_probes_the_network(tmp_path: Path) -> None:
    """N23: the same frames with and without it."""
    clean, _ = play(write(BY_NAME["clean"], tmp_path / "clean"))
    padded, _ = play(write(BY_NAME["padding"], tmp_path / "padded"))
    assert [frame.payload for frame in padded.of(101, "video")] == [frame.payload for frame in clean.of(101, "video")]
    assert [frame.payload for frame in padded.of(101, "audio")] == [frame.payload for frame in clean.of(101, "audio")]
