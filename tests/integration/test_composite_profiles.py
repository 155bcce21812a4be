"""Audio profiles, kinds of streams, sizes and MP4 parts of the composite, judged by its files."""

from itertools import pairwise
from pathlib import Path

import pytest

from recorder.protocol import Slice, SliceCommitted
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.composite import Composite
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded, record

AAC_SECONDS = 1024 / 48_000


def _spec(**changes: object) -> RecordingSpec:
    spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=1, mode="mix", canvas=Canvas(width=320, height=180, fps=30))
    return spec.model_copy(update={"layout": Layout(number=1), **changes})


def _parts(recorded: Recorded) -> list[Slice]:
    return [report.slice for report in recorded.reports if isinstance(report, SliceCommitted) and report.slice.playlist is None]


def _files(recorded: Recorded, folder: Path) -> list[Path]:
    """The whole recording as HLS, and as MP4."""
    (part,) = _parts(recorded)
    mp4 = folder / "part.mp4"
    mp4.write_bytes(recorded.path(part).read_bytes())
    return [recorded.joined(folder), mp4]


@pytest.mark.parametrize(("profile", "channels"), [(0, 1), (1, 1), (2, 2)])
def test_an_audio_profile_has_its_channels_in_every_file(tmp_path: Path, profile: int, channels: int) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec(video=False, mp4=True, audio_profile=profile)), [Person(101, None)], until=10)
    for path in _files(recorded, tmp_path):
        audio = measure.probe(path).stream("audio")
        assert audio
        assert (audio.codec, audio.sample_rate, audio.channels) == ("aac", 48_000, channels)
        assert abs(audio.duration - 10) <= 3 * AAC_SECONDS  # one primes, the last is filled up
        assert len(measure.beep_onsets(path, tone_hz(101))) == 10


@pytest.mark.parametrize(("changes", "kinds"), [({"video": False}, {"audio"}), ({"audio": False}, {"video"}), ({}, {"audio", "video"})])
def test_every_kind_of_recording_is_as_long_as_it_took(tmp_path: Path, changes: dict[str, object], kinds: set[str]) -> None:
    """Somebody falls silent and dark for the last four seconds: silence and the last picture have their length."""
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec(mp4=True, **changes)), [Person(101, end=6)], until=10)
    assert abs(sum(item.duration_ns for item in recorded.slices) - 10 * SECOND) < 0.03 * SECOND
    for path in _files(recorded, tmp_path):
        assert measure.decode_errors([path]) == []
        streams = measure.probe(path).streams
        assert {stream.kind for stream in streams} == kinds
        for stream in streams:
            assert abs(stream.duration - 10) <= 3 * AAC_SECONDS
            if stream.kind == "video":
                assert stream.frames == 300


@pytest.mark.parametrize("fps", [1, 7, 10, 15, 24, 60])
def test_every_frame_rate_is_constant(tmp_path: Path, fps: int) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec(audio=False, canvas=Canvas(width=98, height=46, fps=fps))), [Person(101, sound=False)], until=10)
    times = [time for time, _ in measure.video_frames(recorded.joined(tmp_path))]
    assert len(times) == 10 * fps
    assert [b - a for a, b in pairwise(times)] == pytest.approx([1 / fps] * (10 * fps - 1), abs=2e-5)


def test_parts_play_one_after_the_other(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec(mp4=True), slice_seconds=2, mp4_part_seconds=2), [Person(101)], until=10)
    parts = _parts(recorded)
    assert [part.name.rpartition("_")[2] for part in parts] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert [part.start_ns for part in parts] == [number * 2 * SECOND for number in range(5)]
    counters: list[int | None] = []
    for part in parts:
        content = recorded.path(part).read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")
        assert measure.decode_errors([recorded.path(part)]) == []
        counters += [measure.read_counter(measure.luma_of(frame)) for _, frame in measure.video_frames(recorded.path(part))]
        assert [round(onset, 2) for onset in measure.beep_onsets(recorded.path(part), tone_hz(101))][-1:] == [1.0]
        audio = measure.probe(recorded.path(part)).stream("audio")
        assert audio
        assert abs(audio.duration - 2) <= 2 * AAC_SECONDS  # the packet that primes the decoder is before zero
    assert len(counters) == 300
    known = [(number, counter) for number, counter in enumerate(counters) if counter is not None]
    assert len(known) > 280
    assert len({(counter - number) % 240 for number, counter in known}) == 1  # no picture is lost or repeated


def test_a_slow_machine_leaves_pictures_out_and_nothing_else(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec(mp4=True), slice_seconds=3)
    assert isinstance(pipeline, Composite)
    for second, late in enumerate((1, 2)):
        pipeline.behind(late * SECOND, second * SECOND)
    record(pipeline, [Person(101)], until=10)
    for path in _files(recorded, tmp_path):
        assert measure.decode_errors([path]) == []
        times = [time for time, _ in measure.video_frames(path)]
        steps = [round((b - a) * 30) for a, b in pairwise(times)]
        # Every second one, all slices begin on time, and the last one of the grid is there.
        assert set(steps) <= {1, 2}
        assert steps.count(2) >= 140
        assert round((times[-1] - times[0]) * 30) == 299
        beeps = measure.beep_onsets(path, tone_hz(101))
        assert len(beeps) >= 9  # the one at the very beginning fades in
        assert all(abs(b - a - 1) < 0.01 for a, b in pairwise(beeps))
        assert len(measure.av_offsets(path, tone_hz(101))) >= 8
        assert max(abs(offset) for offset in measure.av_offsets(path, tone_hz(101))) < 0.067
    assert [item.duration_ns for item in recorded.slices] == pytest.approx([3 * SECOND, 3 * SECOND, 3 * SECOND, SECOND], abs=0.03 * SECOND)
    assert [report.code for report in recorded.reports if report.type == "warning"] == [10006]
