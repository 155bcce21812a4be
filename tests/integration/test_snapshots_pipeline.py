"""Screenshots under a virtual clock: encoded frames of several people in, JPG files of each at the interval out."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from recorder.frames import EncodedFrame, Track
from recorder.media.decode import VideoDecoder
from recorder.media.pictures import rgb_of
from recorder.outputs import jpeg
from recorder.outputs.names import utc
from recorder.protocol import FileOpened, Slice, SliceCommitted
from recorder.spec import RecordingSpec, Snapshots
from recorder.tools.content import Style
from recorder.worker.individual import Individual
from recorder.worker.pipeline import Joined, Left, Started, Stopped
from tests.integration.media import PERIOD_SECONDS, SECOND, Browser, Person
from tests.integration.straight_line import Recorded, record
from tests.shots import Rgb, pixels, psnr, sent

SID = "a" * 32
UTC_MS = 1_700_000_000_000


def _spec(interval: int = 2, **changes: object) -> RecordingSpec:
    spec = RecordingSpec(sid=SID, app_id="app", channel="room", uid=1, mode="individual", snapshots=Snapshots(interval_seconds=interval))
    return spec.model_copy(update={"files": False, **changes})


def _shots(recorded: Recorded, uid: int) -> list[Slice]:
    committed = [report.slice for report in recorded.reports if isinstance(report, SliceCommitted)]
    return [item for item in committed if item.name.startswith(f"{SID}_room__uid_s_{uid}__uid_e_video_") and item.name.endswith(".jpg")]


def _psnr(recorded: Recorded, shot: Slice, person: Person, rotation: int = 0) -> float:
    """How close it is to what the sender showed at its time."""
    style = Style(person.uid, person.width, person.height, person.fps, PERIOD_SECONDS)
    upright = np.rot90(sent(style, round(shot.start_ns * person.fps / SECOND)), -rotation // 90)
    return psnr(pixels(recorded.path(shot)), upright)


class Room:
    """One pipeline, its clock turned by hand; frames arrive 20 ms after their capture."""

    def __init__(self, folder: Path, spec: RecordingSpec) -> None:
        self.recorded = Recorded(folder)
        self.pipeline = self.recorded.pipeline(spec)

    def send(self, *people: Person) -> None:
        self.take(sorted((frame for person in people for frame in person.frames()), key=lambda frame: frame.time_ns))

    def take(self, frames: Iterable[EncodedFrame]) -> None:
        for frame in frames:
            self.pipeline.take(frame, frame.time_ns + 20_000_000)
            self.pipeline.advance(frame.time_ns + 20_000_000)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The capture time of each frame that is decoded: what that costs is the point of some tests."""
    times: list[int] = []
    real = VideoDecoder.decode

    def count(self: VideoDecoder, payload: bytes, time_ns: int) -> list[tuple[VideoFrame, int]]:
        times.append(time_ns)
        return real(self, payload, time_ns)

    monkeypatch.setattr(VideoDecoder, "decode", count)
    return times


def test_of_each_the_picture_at_each_interval_is_sharp_and_named_by_its_time(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "spool")
    people = [Person(101, end=11), Person(102, "vp8", start=3, end=9), Person(103, "vp9", end=11, width=320, height=180), Person(104, None)]
    record(recorded.pipeline(_spec(), slice_seconds=4), people, until=11)
    assert not [report for report in recorded.reports if isinstance(report, FileOpened)]
    for person, instants in ((people[0], [2, 4, 6, 8, 10]), (people[1], [4, 6, 8]), (people[2], [2, 4, 6, 8, 10])):
        shots = _shots(recorded, person.uid)
        assert len(shots) == len(instants)
        for shot, instant in zip(shots, instants, strict=True):
            assert (shot.content, shot.playlist, shot.duration_ns) == ("snapshot", None, 0)
            assert 0 <= instant * SECOND - shot.start_ns < SECOND / person.fps
            assert shot.start_ms == UTC_MS + shot.start_ns // 1_000_000
            assert shot.name.endswith(f"_video_{utc(shot.start_ms)}.jpg")
            assert pixels(recorded.path(shot)).shape == (person.height, person.width, 3)
            assert _psnr(recorded, shot, person) > 33
    assert _shots(recorded, 104) == []
    assert not list((tmp_path / "spool" / "partial").iterdir())


def test_beside_the_recording_they_change_nothing_of_it(tmp_path: Path) -> None:
    both, alone = Recorded(tmp_path / "both"), Recorded(tmp_path / "alone")
    record(both.pipeline(_spec(files=True)), [Person(101, end=9)], until=10)
    record(alone.pipeline(_spec(files=True, snapshots=None)), [Person(101, end=9)], until=10)
    assert len(_shots(both, 101)) == 4
    assert [item.model_dump(exclude={"sequence"}) for item in both.slices] == [
        item.model_dump(exclude={"sequence"}) for item in alone.slices
    ]
    numbers = [report.slice.sequence for report in both.reports if isinstance(report, SliceCommitted)]
    assert sorted(numbers) == list(range(len(numbers)))


def test_muted_or_away_means_no_picture_and_others_go_on(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool", _spec(1))
    track = Track(101, "video")
    room.pipeline.take(Joined(101), 0)
    room.send(Person(101, sound=False, end=3.5), Person(102, sound=False, end=3.5))
    room.pipeline.take(Stopped(track), round(3.52 * SECOND))
    straggler = next(frame for frame in Person(101, sound=False, start=4, end=5).frames() if frame.keyframe)
    room.take([straggler])
    room.send(Person(102, sound=False, start=4, end=6.4))
    room.pipeline.take(Started(track), round(6.4 * SECOND))
    room.send(Person(101, sound=False, start=6.4, end=9.4))
    room.pipeline.take(Stopped(track), round(9.42 * SECOND))
    room.pipeline.take(Left(101), round(9.42 * SECOND))
    room.pipeline.close(round(12.4 * SECOND))
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 101)] == [1, 2, 3, 8, 9]  # 7: the keyframe comes at 8
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 102)][:6] == [1, 2, 3, 4, 5, 6]


def test_who_says_nothing_and_sends_nothing_has_no_old_pictures_taken(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool", _spec(2))
    room.send(Person(101, sound=False, end=3))
    room.pipeline.advance(12 * SECOND)
    room.send(Person(101, sound=False, start=12, end=15))
    room.pipeline.close(15 * SECOND)
    # The picture of 2.97 is the latest at 4 and at 6 (a sender of one picture now and then looks the same), at 8 it is too old.
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 101)] == [2, 3, 3, 12, 14]
    names = [shot.name for shot in _shots(room.recorded, 101)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("interval", "asks"), [(10, True), (5, True), (4, False)])
def test_a_keyframe_is_asked_for_before_the_instant_when_that_saves_decoding(
    tmp_path: Path, decoded: list[int], interval: int, asks: bool
) -> None:
    room = Room(tmp_path / "spool", _spec(interval))
    browser = Browser(101, room.recorded.keyframes)
    room.take(browser.frame(number) for number in range(21 * 30))
    room.pipeline.close(21 * SECOND)
    shots = _shots(room.recorded, 101)
    assert [round(shot.start_ns / SECOND) for shot in shots] == list(range(interval, 21, interval))
    for shot in shots:
        assert _psnr(room.recorded, shot, browser.person) > 33
    if asks:
        assert len(room.recorded.keyframes) == len(shots)
        assert len(decoded) <= len(shots) * 46
    else:
        assert room.recorded.keyframes == []
        assert len(decoded) == 20 * 30 + 1


def test_a_sender_that_gives_no_keyframe_costs_more_and_has_its_pictures(tmp_path: Path, decoded: list[int]) -> None:
    room = Room(tmp_path / "spool", _spec(10))
    browser = Browser(101, room.recorded.keyframes, deaf=True)
    room.take(browser.frame(number) for number in range(21 * 30))
    room.pipeline.close(21 * SECOND)
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 101)] == [10, 20]
    assert len(decoded) == 20 * 30 + 1
    assert len(room.recorded.keyframes) == 2 * 3


def test_an_hour_between_two_pictures_keeps_nothing_until_shortly_before(tmp_path: Path, decoded: list[int]) -> None:
    room = Room(tmp_path / "spool", _spec(60))
    browser = Browser(101, room.recorded.keyframes)
    room.take(browser.frame(number) for number in range(40 * 30))
    assert isinstance(room.pipeline, Individual)
    assert room.pipeline._shots
    assert sum(len(series._waiting) for series in room.pipeline._shots._series.values()) == 0
    room.take(browser.frame(number) for number in range(40 * 30, 61 * 30))
    room.pipeline.close(61 * SECOND)
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 101)] == [60]
    assert len(decoded) <= 46


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_camera_gives_an_upright_picture(tmp_path: Path, rotation: int) -> None:
    room = Room(tmp_path / "spool", _spec(1))
    person = Person(101, sound=False, end=2)
    room.take(frame._replace(rotation=rotation) for frame in person.frames())
    room.pipeline.close(2 * SECOND)
    (shot, _) = _shots(room.recorded, 101)
    assert _psnr(room.recorded, shot, person, rotation) > 33


def test_the_size_is_that_of_the_moment_and_another_codec_goes_on(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool", _spec(2))
    room.send(Person(101, sound=False, end=3))
    room.send(Person(101, sound=False, start=4, end=5, width=320, height=180))
    room.send(Person(101, "vp8", sound=False, start=6, end=7))
    room.pipeline.close(7 * SECOND)
    assert [pixels(room.recorded.path(shot)).shape[:2] for shot in _shots(room.recorded, 101)] == [(360, 640), (180, 320), (360, 640)]


def test_a_failing_compressor_is_counted_and_costs_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, pixels: Rgb) -> None:
        path.write_bytes(b"half a pic")
        raise OSError("no space left")

    monkeypatch.setattr(jpeg, "write", fail)  # a disk that is full for pictures alone cannot be had
    room = Room(tmp_path / "spool", _spec(1, files=True))
    room.send(Person(101, end=4))
    room.pipeline.close(4 * SECOND)
    assert isinstance(room.pipeline, Individual)
    shots = room.pipeline._shots
    assert shots
    assert (shots.taken, shots.failed) == (0, 4)
    assert sum(item.duration_ns for item in room.recorded.slices if "video" in item.name) == pytest.approx(4 * SECOND, abs=SECOND // 10)
    assert not list((tmp_path / "spool" / "partial").iterdir())


def test_broken_frames_are_counted_and_the_next_keyframe_helps(tmp_path: Path) -> None:
    room = Room(tmp_path / "spool", _spec(1))
    frames = list(Person(101, "vp8", sound=False, end=6).frames())  # keyframes at 0, 2 and 4
    room.take(frame._replace(payload=b"\x01\x02") if 2 * SECOND < frame.time_ns < 3 * SECOND else frame for frame in frames)
    room.pipeline.close(6 * SECOND)
    assert [round(shot.start_ns / SECOND) for shot in _shots(room.recorded, 101)] == [1, 2, 4, 5, 6]


@pytest.mark.parametrize("slow", ["aside", "defer"])
def test_a_slow_machine_or_disk_leaves_pictures_out_and_nothing_piles_up(tmp_path: Path, slow: str) -> None:
    jobs: list[Callable[[], object]] = []
    recorded = Recorded(tmp_path / "spool")
    around = recorded.around(_spec(1))
    pipeline = Individual(replace(around, aside=jobs.append) if slow == "aside" else replace(around, defer=jobs.append))
    for frame in Person(101, sound=False, end=9).frames():
        pipeline.take(frame, frame.time_ns + 20_000_000)
        pipeline.advance(frame.time_ns + 20_000_000)
        assert len(jobs) <= 1
        if frame.time_ns == 5 * SECOND + SECOND // 2:
            jobs.pop(0)()
    assert pipeline._shots
    assert pipeline._shots.skipped >= 5
    for job in jobs:
        job()
    times = [round(shot.start_ns / SECOND) for shot in _shots(recorded, 101)]
    assert len(times) == 2
    assert times[0] == 1


@pytest.mark.parametrize(("colourspace", "colour_range"), [(5, 1), (1, 1), (5, 2), (2, 0)])
def test_colours_are_those_of_the_sender(tmp_path: Path, colourspace: int, colour_range: int) -> None:
    """Matrix and range as told; BT.601 in limited range when nothing is."""
    rgb = np.empty((90, 160, 3), np.uint8)
    for index, colour in enumerate([(200, 30, 40), (20, 180, 60), (40, 60, 210), (250, 250, 250)]):
        rgb[:, 40 * index : 40 * (index + 1)] = colour
    frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709 if colourspace == 1 else Colorspace.ITU601,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if colour_range == 2 else ColorRange.MPEG,
    )
    frame.colorspace, frame.color_range = colourspace, colour_range
    jpeg.write(tmp_path / "a.jpg", rgb_of(frame))
    seen = pixels(tmp_path / "a.jpg")
    for x in (20, 60, 100, 140):
        assert np.abs(seen[45, x].astype(int) - rgb[45, x].astype(int)).max() <= 6
