"""The composite's straight line under a virtual clock: encoded frames in, committed slices out."""

from itertools import pairwise
from pathlib import Path

from recorder.frames import Track
from recorder.protocol import EventBody, FileOpened, Slice, SliceCommitted
from recorder.settings import Recording
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.pipeline import Joined, Left, Pipeline, Started, Stopped, Surroundings, create
from storage.spool import RecordingSpool
from tests.integration.media import SECOND, Person

LATENCY_NS = 100_000_000


class Recorded:
    def __init__(self, folder: Path) -> None:
        self.spool = RecordingSpool(folder)
        self.reports: list[EventBody] = []
        self.keyframes: list[Track] = []

    def pipeline(self, spec: RecordingSpec, slice_seconds: float = 4) -> Pipeline:
        settings = Recording(latency_ms=LATENCY_NS // 1_000_000, slice_seconds=slice_seconds)
        around = Surroundings(spec, settings, self.spool, 0, 1_700_000_000 * SECOND, self.reports.append, self.keyframes.append)
        return create(around)

    @property
    def slices(self) -> list[Slice]:
        return [report.slice for report in self.reports if isinstance(report, SliceCommitted) and report.slice.playlist]

    def path(self, item: Slice) -> Path:
        return self.spool.file(item.name)

    def joined(self, folder: Path) -> Path:
        """All slices of the list as one file."""
        whole = folder / "whole.ts"
        whole.write_bytes(b"".join(self.path(item).read_bytes() for item in self.slices))
        return whole


def record(pipeline: Pipeline, people: list[Person], until: float) -> None:
    """Play what `people` send and do, each frame arriving 20 ms after its capture."""
    items: list[tuple[int, object]] = []
    for person in people:
        start, end = round(person.start * SECOND), round(person.end * SECOND)
        tracks = [Track(person.uid, kind) for kind, sent in (("video", person.codec), ("audio", person.sound)) if sent]  # type: ignore[arg-type]
        items += [(start, Joined(person.uid))] + [(start, Started(track)) for track in tracks]
        items += [(frame.time_ns + 20_000_000, frame) for frame in person.frames()]
        if person.end < until:
            items += [(end, Stopped(track)) for track in tracks] + [(end, Left(person.uid))]
    now = 0
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(round(until * SECOND))


def _spec(**changes: object) -> RecordingSpec:
    spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=1, mode="mix", canvas=Canvas(width=640, height=360, fps=30))
    return spec.model_copy(update={"layout": Layout(number=1), **changes})


def test_three_people_one_late_one_early(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    early, late, voice = Person(101, "h264", end=6), Person(102, "vp8", start=3), Person(103, None)
    record(recorded.pipeline(_spec()), [early, late, voice], until=10)
    assert [item.duration_ns for item in recorded.slices[:2]] == [4 * SECOND, 4 * SECOND]
    assert [report.file.name for report in recorded.reports if isinstance(report, FileOpened)] == [f"{'a' * 32}_room.m3u8"]
    assert all(measure.decode_errors([recorded.path(item)]) == [] for item in recorded.slices)
    whole = recorded.joined(tmp_path)
    assert measure.decode_errors([whole]) == []
    probe = measure.probe(whole)
    video, audio = probe.stream("video"), probe.stream("audio")
    assert video is not None
    assert audio is not None
    assert abs(video.frames - 300) <= 1
    assert abs(probe.duration - 10) < 0.1
    frames = list(measure.video_frames(whole))
    zero = frames[0][0]

    def seen(second: float) -> dict[str, int | None]:
        frame = min(frames, key=lambda pair: abs(pair[0] - zero - second))[1]
        tiles = {"left": measure.Rect(0, 0, 320, 180), "right": measure.Rect(320, 0, 320, 180), "below": measure.Rect(0, 180, 320, 180)}
        return {name: measure.who(frame, [101, 102, 103], rect) for name, rect in tiles.items()}

    # Best fit: 101 and 103 side by side in halves, then three in a grid of four, then 103 (dark) and 102 in halves.
    assert measure.who(frames[30][1], [101, 102], measure.Rect(0, 0, 320, 360)) == 101
    assert seen(4.5) == {"left": 101, "right": None, "below": 102}
    assert measure.who(frames[240][1], [101, 102], measure.Rect(320, 0, 320, 360)) == 102
    # Nobody is heard before joining or after leaving.
    assert [round(t - zero) for t in measure.beep_onsets(whole, tone_hz(101))] == [0, 1, 2, 3, 4, 5]
    assert [round(t - zero) for t in measure.beep_onsets(whole, tone_hz(102))] == [3, 4, 5, 6, 7, 8, 9]
    assert [round(t - zero) for t in measure.beep_onsets(whole, tone_hz(103))] == list(range(10))


def test_lips_match_voices_and_every_picture_is_shown_in_its_time(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec()), [Person(101)], until=10)
    whole = recorded.joined(tmp_path)
    offsets = measure.av_offsets(whole, tone_hz(101))
    assert len(offsets) >= 8
    assert max(abs(offset) for offset in offsets) < 0.02
    counters = [measure.read_counter(measure.luma_of(frame)) for _, frame in measure.video_frames(whole)]
    shown = [counter for counter in counters if counter is not None]
    assert len(shown) >= 295
    assert all((b - a) % 240 == 1 for a, b in pairwise(shown))


def test_mp4_has_the_same_media_and_its_index_in_front(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec(mp4=True)), [Person(101)], until=10)
    (mp4,) = [r.slice for r in recorded.reports if isinstance(r, SliceCommitted) and r.slice.playlist is None]
    data = recorded.path(mp4).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    path = tmp_path / "part.mp4"
    path.write_bytes(data)
    assert measure.decode_errors([path]) == []
    assert abs(measure.probe(path).duration - 10) < 0.1
    assert max(abs(offset) for offset in measure.av_offsets(path, tone_hz(101))) < 0.02


def test_audio_only_and_video_only(tmp_path: Path) -> None:
    for name, spec, kinds in (("audio", _spec(video=False), ["audio"]), ("video", _spec(audio=False), ["video"])):
        recorded = Recorded(tmp_path / name)
        record(recorded.pipeline(spec), [Person(101)], until=10)
        probe = measure.probe(recorded.joined(tmp_path / name))
        assert [stream.kind for stream in probe.streams] == kinds
        assert abs(probe.duration - 10) < 0.1
        assert len(recorded.slices) == 3


def test_nobody_sends_and_nothing_is_written(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(recorded.pipeline(_spec()), [Person(101, None, sound=False)], until=10)
    assert recorded.reports == []
    assert list((tmp_path / "spool").rglob("*.ts")) == []


def test_layout_changes_take_effect_at_their_time(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec(audio=False))
    people = [Person(101, sound=False), Person(102, "vp8", sound=False)]
    items: list[tuple[int, object]] = [(5 * SECOND, Layout(number=0, background_color="#00ff00"))]
    items += [(0, Joined(person.uid)) for person in people]
    items += [(frame.time_ns + 20_000_000, frame) for person in people for frame in person.frames()]
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(10 * SECOND)
    frames = [frame for _, frame in measure.video_frames(recorded.joined(tmp_path))]
    for number, uid in ((148, 102), (153, 101)):
        assert measure.who(frames[number], [101, 102], measure.Rect(400, 0, 200, 200)) == uid
    assert measure.who(frames[200], [101, 102], measure.Rect(8, 272, 150, 84)) == 102
