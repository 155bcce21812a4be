"""The individual mode's straight line under a virtual clock: encoded frames in, committed slices of each track out."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.protocol import FileOpened, Slice
from recorder.spec import RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.pipeline import Joined, Left, Started, Stopped
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded, record

SID = "a" * 32
VIDEO, AUDIO = Track(101, "video"), Track(101, "audio")


def _spec(**changes: object) -> RecordingSpec:
    return RecordingSpec(sid=SID, app_id="app", channel="room", uid=1, mode="individual").model_copy(update=changes)


def _list(recorded: Recorded, track: Track) -> list[Slice]:
    return [item for item in recorded.slices if item.playlist == f"{SID}_room__uid_s_{track.uid}__uid_e_{track.kind}.m3u8"]


def _whole(recorded: Recorded, track: Track, folder: Path) -> Path:
    path = folder / f"{track.uid}-{track.kind}.ts"
    path.write_bytes(b"".join(recorded.path(item).read_bytes() for item in _list(recorded, track)))
    return path


def _counters(path: Path) -> list[int | None]:
    return [measure.read_counter(measure.luma_of(frame)) for _, frame in measure.video_frames(path)]


class Room:
    """One pipeline, its clock turned by hand."""

    def __init__(self, folder: Path, spec: RecordingSpec | None = None, slice_seconds: float = 4) -> None:
        self.recorded = Recorded(folder)
        self.pipeline = self.recorded.pipeline(spec or _spec(), slice_seconds)

    def send(self, frames: Iterable[EncodedFrame]) -> None:
        for frame in sorted(frames, key=lambda f: f.time_ns):
            self.pipeline.take(frame, frame.time_ns + 20_000_000)
            self.pipeline.advance(frame.time_ns + 20_000_000)

    def until(self, second: float) -> None:
        self.pipeline.advance(round(second * SECOND))


def test_three_people_one_late_one_early(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec()), [Person(101, end=6), Person(102, "vp8", start=4), Person(103, None)], until=10)
    names = [report.file.name for report in recorded.reports if isinstance(report, FileOpened)]
    assert len(names) == len(set(names)) == 5
    expected = {Track(101, "video"): (0, 6), Track(102, "video"): (4, 10), Track(101, "audio"): (0, 6), Track(103, "audio"): (0, 10)}
    for track, (start, end) in expected.items():
        slices = _list(recorded, track)
        assert abs(slices[0].start_ns - start * SECOND) < 0.05 * SECOND
        assert abs(sum(item.duration_ns for item in slices) - (end - start) * SECOND) < 0.1 * SECOND
        assert [item.discontinuity for item in slices] == [True] + [False] * (len(slices) - 1)
        assert all(item.name.endswith(".webm" if track == Track(102, "video") else ".ts") for item in slices)
        assert measure.decode_errors([recorded.path(item) for item in slices]) == []
    sent = _counters(_whole(recorded, VIDEO, tmp_path))
    assert len(sent) == 180
    assert all(a is not None and b is not None and (b - a) % 240 == 1 for a, b in pairwise(sent))
    zero = measure.probe(_whole(recorded, Track(103, "audio"), tmp_path))
    assert abs(zero.duration - 10) < 0.1
    assert len(measure.beep_onsets(_whole(recorded, Track(103, "audio"), tmp_path), tone_hz(103))) == 10


def test_only_the_kinds_that_are_wanted(tmp_path: Path) -> None:
    for kind, changes in (("audio", {"video": False}), ("video", {"audio": False})):
        recorded = Recorded(tmp_path / kind)
        record(recorded.pipeline(_spec(**changes)), [Person(101, end=2)], until=2)
        assert {item.playlist for item in recorded.slices} == {f"{SID}_room__uid_s_101__uid_e_{kind}.m3u8"}


def test_a_keyframe_is_asked_for_when_a_slice_is_old_enough_and_ends_it(tmp_path: Path) -> None:
    """A sender like a browser, which sends keyframes only when asked."""
    room = Room(tmp_path / "spool", _spec(audio=False), slice_seconds=15)
    answered = 0
    for frame in Person(101, sound=False, end=50).frames():
        due = frame.keyframe and (frame.time_ns == 0 or len(room.recorded.keyframes) > answered)
        if due:
            answered = len(room.recorded.keyframes)
        if due or not frame.keyframe:
            room.send([frame])
    room.pipeline.close(50 * SECOND)
    durations = [item.duration_ns / SECOND for item in _list(room.recorded, VIDEO)]
    assert len(durations) == 4
    assert all(15 <= seconds < 17.1 for seconds in durations[:3])
    assert 3 <= len(room.recorded.keyframes) <= 9


@pytest.mark.parametrize(("away", "segments"), [(5, 1), (21, 2)])
def test_a_mute_shorter_than_15_seconds_continues_the_segment(tmp_path: Path, away: int, segments: int) -> None:
    room = Room(tmp_path / "spool")
    back = 3 + away
    room.pipeline.take(Joined(101), 0)
    room.send(Person(101, end=3).frames())
    for track in (VIDEO, AUDIO):
        room.pipeline.take(Stopped(track), 3 * SECOND)
    for tenth in range(30, back * 10):
        room.until(tenth / 10)
    for track in (VIDEO, AUDIO):
        room.pipeline.take(Started(track), back * SECOND)
    room.send(Person(101, start=back, end=back + 3).frames())
    room.pipeline.close((back + 3) * SECOND)
    for track in (VIDEO, AUDIO):
        slices = _list(room.recorded, track)
        starts = [tag for item in slices for tag in item.tags if "TRACK-EVENT" in tag]
        assert len(starts) == segments
        assert measure.decode_errors([room.recorded.path(item) for item in slices]) == []
    video, audio = _list(room.recorded, VIDEO), _list(room.recorded, AUDIO)
    assert [item.discontinuity for item in video if item.start_ns >= back * SECOND] == [True]
    assert abs(sum(item.duration_ns for item in video) - 6 * SECOND) < 0.1 * SECOND
    # Silence has the exact length of a short absence; a long one is not recorded.
    assert abs(sum(item.duration_ns for item in audio) - (6 + away if segments == 1 else 6) * SECOND) < 0.1 * SECOND
    if segments == 1:
        onsets = measure.beep_onsets(_whole(room.recorded, AUDIO, tmp_path), tone_hz(101))
        assert abs(onsets[-1] - onsets[0] - (back + 2)) < 0.01


def _mute(room: Room) -> None:
    for track in (VIDEO, AUDIO):
        room.pipeline.take(Stopped(track), 2 * SECOND)


def _leave(room: Room) -> None:
    _mute(room)
    room.pipeline.take(Left(101), 2 * SECOND)


@pytest.mark.parametrize("ends", [_mute, _leave, lambda room: None])
def test_a_slice_is_not_kept_open_by_somebody_who_is_gone(tmp_path: Path, ends: Callable[[Room], None]) -> None:
    """Not even when packets of theirs come after the news, a keyframe among them; or when no news come at all."""
    room = Room(tmp_path / "spool", slice_seconds=15)
    frames = sorted(Person(101, end=2.5).frames(), key=lambda f: f.time_ns)
    room.send(frame for frame in frames if frame.time_ns < 2 * SECOND)
    ends(room)
    room.send(frame for frame in frames if frame.time_ns >= 2 * SECOND)
    for second in range(3, 20):
        room.until(second)
    for track in (VIDEO, AUDIO):
        assert abs(sum(item.duration_ns for item in _list(room.recorded, track)) - 2.5 * SECOND) < 0.1 * SECOND
    assert not list((tmp_path / "spool" / "partial").iterdir())


def test_another_codec_and_another_size_begin_a_new_slice(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool", _spec(audio=False), slice_seconds=15)
    room.send(Person(101, "h264", sound=False, end=2).frames())
    room.send(Person(101, "h264", sound=False, start=2, end=4, width=320, height=180).frames())
    room.send(Person(101, "vp8", sound=False, start=4, end=6).frames())
    room.pipeline.close(6 * SECOND)
    slices = _list(room.recorded, VIDEO)
    assert [Path(item.name).suffix for item in slices] == [".ts", ".ts", ".webm"]
    assert all(item.discontinuity for item in slices)
    assert [sum("WIDTH=640" in tag for tag in item.tags) for item in slices] == [1, 0, 1]
    assert all(abs(item.duration_ns - 2 * SECOND) < 0.1 * SECOND for item in slices)
    assert measure.decode_errors([room.recorded.path(item) for item in slices]) == []
