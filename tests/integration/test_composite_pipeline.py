"""The composite's straight line under a virtual clock: encoded frames in, committed slices out."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame

from recorder.frames import EncodedFrame, Track
from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.media.encode import FRAME_SAMPLES, RATE
from recorder.protocol import FileOpened, SliceCommitted
from recorder.rtp.tap import RECORDING_TICK_SECONDS, SOUND_ALONE_TICK_SECONDS
from recorder.settings import Recording
from recorder.spec import Canvas, Layout, RecordingSpec, Region
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.composite import SOUND_BLOCKS, Composite
from recorder.worker.pipeline import Joined, Left, Stopped
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded, record


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
    pipeline = recorded.pipeline(_spec())
    record(pipeline, [Person(101)], until=10)
    assert isinstance(pipeline, Composite)
    assert 0 < pipeline.mixing_ns < 10 * SECOND
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


def test_of_a_crowd_only_those_with_a_place_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row N32 of the faults."""
    opened, decoded = list[str](), list[int]()

    class Noted(VideoDecoder):
        def __init__(self, codec: VideoCodec) -> None:
            opened.append(codec)
            super().__init__(codec)

        def decode(self, payload: bytes, time_ns: int) -> list[tuple[VideoFrame, int]]:
            decoded.append(time_ns)
            return super().decode(payload, time_ns)

    def of(*uids: int) -> Layout:
        return Layout(number=3, regions=tuple(Region(uid=uid, x=n / 2, y=0, width=0.5, height=0.5) for n, uid in enumerate(uids)))

    monkeypatch.setattr("recorder.worker.sight.VideoDecoder", Noted)
    pipeline = Recorded(tmp_path / "spool").pipeline(_spec(audio=False, layout=of(101, 102)))
    people = range(101, 150)
    one = list(Person(101, sound=False, end=4).frames())
    items: list[tuple[int, object]] = [(0, Joined(uid)) for uid in people] + [(SECOND, of(103, 104))]
    items += [(frame.time_ns + 20_000_000, frame._replace(track=Track(uid, "video"))) for frame in one for uid in people]
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(4 * SECOND)
    assert len(opened) == 4
    # Those who get a place wait for the keyframe at 2 s.
    expected = [frame.time_ns for frame in one if frame.time_ns < SECOND or frame.time_ns >= 2 * SECOND for _ in range(2)]
    assert abs(len(decoded) - len(expected)) <= 4
    assert set(decoded) <= {frame.time_ns for frame in one}


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


def test_first_pictures_wait_for_the_joining_and_a_quick_return_keeps_its_first_pictures(tmp_path: Path) -> None:
    """A keyframe that came already is not thrown away when something else happens in the channel: there may be no other."""
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec(audio=False))
    again = [
        frame for frame in Person(102, "vp8", sound=False, start=2, end=4).frames() if not frame.keyframe or frame.time_ns == 2 * SECOND
    ]
    frames = [*Person(101, sound=False, end=4).frames(), *Person(102, "vp8", sound=False, end=1.96).frames(), *again]
    items: list[tuple[int, object]] = [(0, Joined(101)), (0, Joined(102))]
    items += [(frame.time_ns + 20_000_000, frame) for frame in frames]
    # Both are applied when the first frame of the second stay is waiting; so is what somebody else does.
    items += [(round(1.97 * SECOND), Left(102)), (round(1.98 * SECOND), Stopped(Track(101, "audio"))), (round(1.99 * SECOND), Joined(102))]
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(4 * SECOND)
    shown = [frame for _, frame in measure.video_frames(recorded.joined(tmp_path))]
    right = measure.Rect(320, 0, 320, 360)
    assert [measure.who(shown[number], [101, 102], right) for number in (50, 63, 110)] == [102, 102, 102]


def test_media_that_starts_minutes_after_joining_starts_the_files(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec())
    pipeline.take(Joined(101), 0)
    for second in range(300):
        pipeline.advance(second * SECOND)
    for frame in sorted(Person(101, start=300, end=304).frames(), key=lambda f: f.time_ns):
        pipeline.take(frame, frame.time_ns + 20_000_000)
        pipeline.advance(frame.time_ns + 20_000_000)
    pipeline.close(304 * SECOND)
    assert recorded.slices[0].start_ns == 300 * SECOND
    assert abs(sum(item.duration_ns for item in recorded.slices) - 4 * SECOND) < 0.1 * SECOND
    assert len(measure.av_offsets(recorded.joined(tmp_path), tone_hz(101))) >= 3


@pytest.mark.parametrize(
    ("video", "complete_ns", "tick_seconds"),
    [(True, 0, RECORDING_TICK_SECONDS), (False, SOUND_BLOCKS * FRAME_SAMPLES * SECOND // RATE, SOUND_ALONE_TICK_SECONDS)],
)
def test_a_packet_that_was_waited_for_as_long_as_any_is_in_the_mix(
    tmp_path: Path, video: bool, complete_ns: int, tick_seconds: float
) -> None:
    """It is read one tick after it has come, at the latest."""
    defaults = Recording()
    pipeline = Recorded(tmp_path).pipeline(_spec(video=video), latency_ms=defaults.latency_ms)
    pipeline.take(EncodedFrame(Track(101, "audio"), "opus", b"\xfc\xff\xfe", True, 0), 0)
    assert pipeline.due_ns() - complete_ns >= defaults.jitter_ms * 1_000_000 + round(tick_seconds * SECOND)
    pipeline.close(SECOND)


def test_the_last_sound_before_a_gap_is_heard_though_nothing_follows(tmp_path: Path) -> None:
    """The end of each packet waits for the next one, to be joined or faded: it must not wait for ever."""
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec(video=False))
    items: list[tuple[int, object]] = [(0, Joined(101)), (0, Joined(102)), (4 * SECOND - 2_000_000, Left(101))]
    loud = bytes(([0x8F] * 4 + [0x0F] * 4) * 20)  # half of full scale in G.711, at 1 kHz
    for number in [*range(100), *range(150, 200)]:
        time_ns = number * SECOND // 50
        items.append((time_ns + 20_000_000, EncodedFrame(Track(101, "audio"), "pcmu", loud, True, time_ns)))
    for now, item in sorted(items, key=lambda pair: pair[0]):
        while pipeline.due_ns() < now:
            pipeline.advance(pipeline.due_ns())
        pipeline.take(item, now)  # type: ignore[arg-type]
    pipeline.close(6 * SECOND)
    _, sound = measure.samples_of(recorded.joined(tmp_path))
    begin = np.flatnonzero(np.abs(sound) > np.abs(sound[24000:48000]).max() / 2)[0] - 120  # soft, over 5 ms
    for end in (2, 4):
        last = begin + round((end - 0.0045) * 48000)
        before, heard, after = sound[last - 4800 : last], sound[last : last + 96], sound[last + 1000 : last + 5000]
        assert np.std(heard) > 0.5 * np.std(before) > 0.05
        assert np.std(after) < 0.01
