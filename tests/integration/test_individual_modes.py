"""`streamMode` standard and original: which files there are, and that sound stands in them as it was sent."""

from pathlib import Path
from statistics import median

import av
import pytest

from recorder.frames import EncodedFrame, Track
from recorder.outputs import TS_ZERO_NS
from recorder.protocol import FileOpened, Slice
from recorder.spec import RecordingSpec, Subscription, UidRule
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.pipeline import Input, Joined, Started, Stopped
from tests.integration.media import SECOND, Person, audio_loop
from tests.integration.straight_line import Recorded, record

SID = "a" * 32
AUDIO = Track(101, "audio")


def _spec(stream_mode: str, **changes: object) -> RecordingSpec:
    spec = RecordingSpec(sid=SID, app_id="app", channel="room", uid=1, mode="individual", stream_mode=stream_mode)
    return spec.model_copy(update=changes)


def _of(recorded: Recorded, uid: int, kind: str) -> list[Slice]:
    return [item for item in recorded.slices if item.playlist == f"{SID}_room__uid_s_{uid}__uid_e_{kind}.m3u8"]


def _suffixes(slices: list[Slice]) -> list[str]:
    return [item.name.rpartition(".")[2] for item in slices]


def _lists(recorded: Recorded) -> dict[str, bool]:
    """What was told of merged lists, and whether it can be played."""
    told = [report.file for report in recorded.reports if isinstance(report, FileOpened)]
    assert all(file.track == "audio_and_video" for file in told if "_av." in file.name)
    return {file.name.removeprefix(f"{SID}_room__uid_s_"): file.playable for file in told if "_av." in file.name}


def _packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def _beeps(recorded: Recorded, uid: int) -> list[float]:
    """On the recording's timeline: a WebM file counts from the start of its slice."""
    found = []
    for item in _of(recorded, uid, "audio"):
        zero = item.start_ns / SECOND if item.name.endswith(".webm") else -TS_ZERO_NS / SECOND
        found += [zero + onset for onset in measure.beep_onsets(recorded.path(item), tone_hz(uid))]
    return found


def test_standard_merges_each_ones_tracks(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    record(
        recorded.pipeline(_spec("standard")),
        [Person(101), Person(102, "vp8"), Person(103, None), Person(104, "vp9", sound=False)],
        until=10,
    )
    assert _lists(recorded) == {
        "101__uid_e_av.m3u8": True,
        "102__uid_e_av.mpd": False,
        "103__uid_e_av.m3u8": True,
        "104__uid_e_av.mpd": False,
    }
    assert {uid: set(_suffixes(_of(recorded, uid, "audio"))) for uid in (101, 102, 103)} == {101: {"ts"}, 102: {"webm"}, 103: {"ts"}}
    assert {uid: set(_suffixes(_of(recorded, uid, "video"))) for uid in (101, 102, 104)} == {101: {"ts"}, 102: {"webm"}, 104: {"webm"}}
    for uid in (101, 102, 103):
        beeps = [onset for onset in _beeps(recorded, uid) if onset > 0.5]
        assert [round(beep) for beep in beeps] == [*range(1, 10)]
        # Those at the seams are heard late: each slice is decoded by itself here.
        assert median(abs(beep - round(beep)) for beep in beeps) < 0.001
    sound = [packet for item in _of(recorded, 102, "audio") for packet in _packets(recorded.path(item))]
    assert sound == [audio_loop(102).packets[number % 400] for number in range(500)]


def test_standard_follows_a_sender_who_changes_to_webm(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("standard"), slice_seconds=60)
    native, browser = Person(101, end=4), Person(101, "vp8", start=4, end=8)
    frames = sorted([*native.frames(), *browser.frames()], key=lambda frame: frame.time_ns)
    for frame in frames:
        pipeline.take(frame, frame.time_ns + 20_000_000)
    pipeline.close(8 * SECOND)
    assert _lists(recorded) == {"101__uid_e_av.m3u8": True, "101__uid_e_av.mpd": False}
    audio = _of(recorded, 101, "audio")
    assert _suffixes(audio) == _suffixes(_of(recorded, 101, "video")) == ["ts", "webm"]
    assert [item.discontinuity for item in audio] == [True, True]
    assert audio[1].start_ns - audio[0].start_ns == pytest.approx(4 * SECOND, abs=0.05 * SECOND)


def test_standard_does_not_wait_long_for_a_picture(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("standard"), slice_seconds=60)
    for frame in Person(101, None, end=1).frames():  # silent afterwards
        pipeline.take(frame, frame.time_ns + 20_000_000)
    assert not _lists(recorded)
    for tenth in range(10, 60):
        pipeline.advance(tenth * SECOND // 10)
    assert _lists(recorded) == {"101__uid_e_av.m3u8": True}
    pipeline.close(6 * SECOND)
    assert _of(recorded, 101, "audio")[0].duration_ns == pytest.approx(SECOND, abs=0.03 * SECOND)


def test_original_keeps_what_was_sent_and_nothing_of_muted_time(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("original", video=False), slice_seconds=4)
    sent: list[EncodedFrame] = [*Person(101, None, end=6).frames(), *Person(101, None, start=8, end=10).frames()]
    pipeline.take(Joined(101), 0)
    for frame in sent:
        if frame.time_ns == 8 * SECOND:
            pipeline.take(Started(AUDIO), 8 * SECOND - 10_000_000)
        pipeline.take(frame, frame.time_ns + 60_000_000)
        if frame.time_ns == 6 * SECOND - 40_000_000:  # two packets are still on their way
            pipeline.take(Stopped(AUDIO), 6 * SECOND)
        if frame.time_ns == 6 * SECOND - 20_000_000:
            for tenth in range(61, 80):
                pipeline.advance(tenth * SECOND // 10)
                assert len(recorded.slices) == (2 if tenth > 70 else 1)  # the slice ends for the mute
    pipeline.close(10 * SECOND)
    slices = _of(recorded, 101, "audio")
    assert _suffixes(slices) == ["ts"] * 3
    assert [round(item.start_ns / SECOND, 1) for item in slices] == [0.0, 4.0, 8.0]
    assert [round(item.duration_ns / SECOND, 2) for item in slices] == [4.0, 2.0, 2.0]
    assert [item.discontinuity for item in slices] == [True, False, True]
    assert [packet for item in slices for packet in _packets(recorded.path(item))] == [frame.payload for frame in sent]
    assert measure.decode_errors([recorded.path(item) for item in slices]) == []
    assert not _lists(recorded)


def test_original_ends_the_slice_although_the_sender_is_back_at_once(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("original", video=False), slice_seconds=60)
    for frame in [*Person(101, None, end=3).frames(), *Person(101, None, start=3.2, end=5).frames()]:
        pipeline.take(frame, frame.time_ns + 20_000_000)
        if frame.time_ns == 3 * SECOND - 20_000_000:
            pipeline.take(Stopped(AUDIO), 3 * SECOND)
            pipeline.take(Started(AUDIO), 3 * SECOND + 100_000_000)
    pipeline.close(5 * SECOND)
    assert [round(item.start_ns / SECOND, 1) for item in _of(recorded, 101, "audio")] == [0.0, 3.2]


def test_original_makes_aac_of_what_no_transport_stream_can_hold(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("original", video=False), slice_seconds=60)
    for number in range(100):
        pipeline.take(EncodedFrame(AUDIO, "pcmu", b"\xff" * 160, True, number * SECOND // 50), number * SECOND // 50)
    pipeline.close(2 * SECOND)
    (only,) = _of(recorded, 101, "audio")
    assert measure.probe(recorded.path(only)).streams[0].codec == "aac"


def test_nothing_is_written_that_was_captured_after_its_subscription_ended(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    pipeline = recorded.pipeline(_spec("default"), slice_seconds=60)
    nobody, tracks = UidRule(kind="none"), (AUDIO, Track(101, "video"))
    ends: list[Input] = [Subscription(audio=nobody, video=nobody), *map(Stopped, tracks)]
    begins: list[Input] = [Subscription(), *map(Started, tracks)]
    items: list[tuple[int, Input]] = [(2 * SECOND, item) for item in ends] + [(4 * SECOND - 1, item) for item in begins]
    items += [(frame.time_ns, frame) for frame in Person(101, end=6).frames()]
    for time_ns, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, time_ns)
    pipeline.close(6 * SECOND)
    assert [round(onset) for onset in _beeps(recorded, 101) if onset > 0.5] == [1, 4, 5]
    before, after = _of(recorded, 101, "video")
    assert (before.start_ns + before.duration_ns) / SECOND == pytest.approx(2, abs=0.04)
    assert (after.start_ns / SECOND, after.duration_ns / SECOND) == pytest.approx((4, 2), abs=0.04)
    assert after.discontinuity
