"""`merge` and `convert` on recordings of the real pipeline: lengths, pictures, and lips against voices in each mode."""

import shutil
from pathlib import Path
from statistics import median

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.convert import command as convert_command
from cli.merge import command as merge_command
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.tools.offline.convert import convert
from recorder.tools.replay import replay
from tests.corpus import Scenario, write
from tests.corpus_senders import Picture, Sender
from tests.offline_media import brightness

SID = "a" * 32
NATIVE, WEBM, HEARD, AWAY, TURNING = range(101, 106)
SECONDS = 24
LOOP = 240  # frames until what senders show begins anew
SPEC = RecordingSpec(sid=SID, app_id="app", channel="room", uid=900, mode="individual")


def _senders() -> tuple[Sender, ...]:
    h264 = (Picture(codec="h264"),)
    turning = (Picture(codec="h264", width=160, height=90), Picture(8.0, codec="h264"), Picture(16.0, codec="h264", rotation=90))
    return (Sender(NATIVE, h264), Sender(WEBM), Sender(HEARD, ()), Sender(AWAY, h264, muted=(4.0, 20.5)), Sender(TURNING, turning))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same people in the modes of individual recording, and as a composite."""
    folder = tmp_path_factory.mktemp("recorded")
    capture = write(Scenario("five", "", _senders(), seconds=SECONDS), folder / "capture")
    specs = {
        "default": SPEC,
        "standard": SPEC.model_copy(update={"stream_mode": "standard"}),
        "original": SPEC.model_copy(update={"stream_mode": "original", "video": False}),
        "mix": SPEC.model_copy(update={"mode": "mix", "canvas": Canvas(width=320, height=180, fps=30), "layout": Layout(number=1)}),
    }
    return {name: replay(capture, folder / name, spec).folder for name, spec in specs.items()}


@pytest.fixture
def folder(recordings: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(recordings[getattr(request, "param", "default")], tmp_path / "recording"))


def _merged(folder: Path, *options: object) -> list[str]:
    before = {path.name for path in folder.iterdir()}
    answer: Result = CliRunner().invoke(merge_command, ["-f", str(folder), *map(str, options)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    made = {path.name for path in folder.iterdir()} - before - {"convert.log", "convert-done.txt"}
    assert (folder / "convert-done.txt").read_text().split() == [Path(line).name for line in answer.stdout.split()]
    assert made == set((folder / "convert-done.txt").read_text().split())
    assert not [name for name in made if name.startswith(".")]
    return sorted(made)


def _check(path: Path, uid: int, *, lasts: float = SECONDS, size: tuple[int, int] = (320, 180), offset_ms: float = 20) -> measure.Probe:
    """Both streams from the begin to the end, and lips with voices at the start, in the middle and at the end."""
    assert measure.decode_errors([path]) == []
    probe = measure.probe(path)
    video, audio = probe.stream("video"), probe.stream("audio")
    assert video
    assert audio
    assert (video.width, video.height, video.codec, audio.codec) == (*size, "h264", "aac")
    for stream in (video, audio):
        assert stream.start + stream.duration == pytest.approx(lasts, abs=0.1)
        assert stream.start < 0.1
    offsets = measure.av_offsets(path, tone_hz(uid))
    third = len(offsets) // 3
    assert third
    for part in (offsets[:third], offsets[third : 2 * third], offsets[2 * third :]):
        assert abs(median(part)) * 1000 <= offset_ms
    return probe


def _frames(path: Path) -> int:
    video = measure.probe(path).stream("video")
    assert video
    return video.frames


def test_each_segment_by_itself(folder: Path) -> None:
    made = _merged(folder)
    by_uid = {uid: [name for name in made if name.startswith(f"{uid}_")] for uid in range(NATIVE, TURNING + 1)}
    assert [len(names) for names in by_uid.values()] == [1, 1, 1, 2, 1]  # one was away for longer than 15 s
    assert all(name.endswith("_av.mp4") for uid, names in by_uid.items() for name in names if uid != HEARD)
    assert by_uid[HEARD][0].endswith(".m4a")
    _check(folder / by_uid[NATIVE][0], NATIVE)
    assert _frames(folder / by_uid[NATIVE][0]) == SECONDS * 30  # copied, each
    assert [round(measure.probe(folder / name).duration, 1) for name in by_uid[AWAY]] == [4.0, 3.5]


def test_everything_of_a_participant(folder: Path) -> None:
    assert _merged(folder, "-m", 1) == [
        "101_0_merge_av.mp4",
        "102_0_merge_av.mp4",
        "103_0_merge.m4a",
        "104_0_merge_av.mp4",
        "105_0_merge_av.mp4",
    ]
    _check(folder / "101_0_merge_av.mp4", NATIVE)
    _check(folder / "102_0_merge_av.mp4", WEBM)
    _check(folder / "104_0_merge_av.mp4", AWAY)  # the absence is in it
    _check(folder / "105_0_merge_av.mp4", TURNING, size=(320, 320))  # what holds each picture
    assert measure.probe(folder / "103_0_merge.m4a").duration == pytest.approx(SECONDS, abs=0.05)
    silent = measure.beep_onsets(folder / "104_0_merge_av.mp4", tone_hz(AWAY))
    assert not [onset for onset in silent if 4.5 < onset < 20]
    whole = {
        round(at, 2): measure.read_counter(measure.luma_of(frame)) for at, frame in measure.video_frames(folder / "104_0_merge_av.mp4")
    }
    assert len(whole) == pytest.approx(7.5 * 30, abs=3)  # the last picture lasts through it


@pytest.mark.parametrize("folder", ["standard"], indirect=True)
def test_webm_sound(folder: Path) -> None:
    _merged(folder, "-m", 1, "-u", WEBM)
    _check(folder / "102_0_merge_av.mp4", WEBM)


def test_without_the_absence(folder: Path) -> None:
    _merged(folder, "-m", 1, "-s", "-u", AWAY)
    _check(folder / "104_0_merge_av.mp4", AWAY, lasts=7.5)


def test_sound_alone_and_pictures_alone(folder: Path) -> None:
    assert _merged(folder, "-m", 2, "-u", NATIVE) == ["101_0_merge.m4a"]
    assert _merged(folder, "-m", 3, "-u", NATIVE) == ["101_0_merge.mp4"]
    assert [stream.kind for stream in measure.probe(folder / "101_0_merge.m4a").streams] == ["audio"]
    assert [(s.kind, s.frames) for s in measure.probe(folder / "101_0_merge.mp4").streams] == [("video", SECONDS * 30)]


@pytest.mark.parametrize("folder", ["original"], indirect=True)
def test_sound_as_it_was_sent_becomes_aac(folder: Path) -> None:
    _merged(folder, "-m", 2, "-u", NATIVE)
    beeps = measure.beep_onsets(folder / "101_0_merge.m4a", tone_hz(NATIVE))
    assert len(beeps) >= SECONDS - 2
    assert median(abs(beep - round(beep, 0) - (beeps[5] - round(beeps[5]))) for beep in beeps) < 0.002


def test_size_rate_and_bitrate(folder: Path) -> None:
    _merged(folder, "-m", 1, "-u", NATIVE, "-p", 10, "-r", 160, 120, "--video_bitrate", 80, "-o", "small.mp4")
    probe = _check(folder / "small.mp4", NATIVE, size=(160, 120), offset_ms=51)  # half a picture
    video = probe.stream("video")
    assert video
    assert video.frames == pytest.approx(SECONDS * 10, abs=1)
    assert (folder / "small.mp4").stat().st_size * 8 / SECONDS < 1.3 * (80_000 + 48_000)
    _, frame = next(measure.video_frames(folder / "small.mp4"))
    assert measure.luma_of(frame)[:10].max() <= 18  # bars


def test_the_original_tools_defaults(folder: Path) -> None:
    _merged(folder, "--compat", "-m", 1, "-u", NATIVE)
    assert _frames(folder / "101_0_merge_av.mp4") == pytest.approx(SECONDS * 15, abs=1)


@pytest.mark.parametrize("rate", [(), ("-p", 30)])
def test_a_window(folder: Path, rate: tuple[object, ...]) -> None:
    """Copied, the keyframe before it is in the file, but hidden; encoded, it is not."""
    assert _merged(folder, "-u", NATIVE, "-b", 5.5, "-t", 10, *rate) == ["101_0_merge_5.500_10.000_av.mp4"]
    path = folder / "101_0_merge_5.500_10.000_av.mp4"
    assert measure.decode_errors([path]) == []
    assert [round(lasting, 1) for lasting in _shown(path)] == [10.0, 10.0]
    frames = [(at, measure.read_counter(measure.luma_of(frame))) for at, frame in measure.video_frames(path)]
    assert frames[0][0] < 0.04
    first = frames[0][1]
    assert first is not None
    assert first == pytest.approx(5.5 * 30, abs=1)
    assert [counter for _, counter in frames] == [number % LOOP for number in range(first, first + len(frames))]
    assert len(frames) == pytest.approx(300, abs=2)
    offsets = measure.av_offsets(path, tone_hz(NATIVE))
    assert len(offsets) >= 9
    assert max(map(abs, offsets)) < 0.02


def _shown(path: Path) -> list[float]:
    """For how long each stream plays: a player starts at zero."""
    with av.open(str(path)) as container:
        ends = []
        for stream in (container.streams.video[0], container.streams.audio[0]):
            assert stream.duration
            assert stream.time_base
            ends.append(float((max(0, stream.start_time or 0) + stream.duration) * stream.time_base))
        return ends


def test_a_window_in_an_absence_shows_the_last_picture(folder: Path) -> None:
    _merged(folder, "-m", 3, "-u", AWAY, "-b", 10, "-t", 3)
    path = folder / "104_0_merge_10.000_3.000.mp4"
    ((at, frame),) = measure.video_frames(path)
    assert at == 0
    assert measure.read_counter(measure.luma_of(frame)) == pytest.approx(4 * 30, abs=4)


def test_a_window_behind_the_end(folder: Path) -> None:
    answer = CliRunner().invoke(merge_command, ["-f", str(folder), "-b", "100"])
    assert answer.exit_code == 1
    assert "nothing to make" in answer.output
    assert "100 s after its begin" in answer.output


def test_black_while_away(folder: Path) -> None:
    _merged(folder, "--avtype", "audio_video", "--fill_strategy", "black_frame", "--uid", AWAY)
    path = folder / "104_0_merge_av.mp4"
    _check(path, AWAY)
    assert max(brightness(path, (4.2, 10, 19.8))) < 20
    assert min(brightness(path, (0.1, 3.8, 21, 23.9))) > 30


def test_a_turned_camera_is_upright(folder: Path) -> None:
    _merged(folder, "-m", 1, "-u", TURNING)
    frames = [(at, measure.luma_of(frame)) for at, frame in measure.video_frames(folder / "105_0_merge_av.mp4")]
    lying = next(luma for at, luma in frames if at > 10)
    standing = next(luma for at, luma in frames if at > 18)
    assert lying[:50].max() <= 18  # bars above and below
    assert standing[:, :50].max() <= 18  # left and right
    assert standing[:50, 100:220].max() > 18
    # Turned clockwise: turned back, the counter can be read.
    counter = measure.read_counter(np.rot90(standing)[70:250])
    assert counter == pytest.approx(18 * 30 % LOOP, abs=15)


def test_screenshots_sound_and_slices_beside_it(folder: Path) -> None:
    made = _merged(folder, "-u", NATIVE, "-a", "-c", 5000, "-e")
    assert [name.rpartition("_")[2] for name in made if name.endswith(".jpg")] == [f"{index}.jpg" for index in range(5)]
    assert sum(name.endswith(".m4a") and "_audio_" not in name for name in made) == 1
    slices = list(folder.glob(f"*uid_s_{NATIVE}__uid_e_*.ts"))
    assert {path.with_suffix(".mp4" if "_video_" in path.name else ".m4a").name for path in slices} <= set(made)


def test_what_a_failover_left_is_joined(folder: Path) -> None:
    playlist = next(folder.glob(f"*uid_s_{NATIVE}__uid_e_video.m3u8"))
    lines = playlist.read_text().splitlines()
    last = lines[-2]
    (folder / last).rename(folder / f"bak0_{last}")
    playlist.write_text("\n".join(lines[:-3]) + "\n")
    (folder / f"bak0_{playlist.name}").write_text(f"#EXTM3U\n#EXT-X-DISCONTINUITY\n{lines[-3]}\nbak0_{last}\n#EXT-X-ENDLIST\n")
    _merged(folder, "-m", 1, "-u", NATIVE)
    _check(folder / "101_0_merge_av.mp4", NATIVE)


def test_missing_slices(folder: Path) -> None:
    sound, video = (sorted(folder.glob(f"*uid_s_{NATIVE}__uid_e_{kind}_*.ts"))[0] for kind in ("audio", "video"))
    sound.unlink()
    video.write_bytes(b"")
    (folder / "convert-done.txt").touch()
    answer = CliRunner().invoke(merge_command, ["-f", str(folder), "-m", "1"])
    assert answer.exit_code == 1
    assert f"2 slices are missing or empty: {sound.name}, {video.name}" in answer.output
    assert not list(folder.glob("*.mp4"))
    assert not (folder / "convert-done.txt").exists()
    assert "failed: 2 slices" in (folder / "convert.log").read_text()
    assert _merged(folder, "-m", 1, "-u", WEBM) == ["102_0_merge_av.mp4"]  # nothing of this one is missing
    _merged(folder, "-m", 1, "-u", NATIVE, "--ignore-missing")
    path = folder / "101_0_merge_av.mp4"
    assert measure.probe(path).duration == pytest.approx(SECONDS, abs=0.1)
    first = min(at for at, _ in measure.video_frames(path))
    assert 14 < first < 18  # the second slice
    assert min(measure.beep_onsets(path, tone_hz(NATIVE))) > 14
    assert max(map(abs, measure.av_offsets(path, tone_hz(NATIVE)))) < 0.02


def test_a_broken_slice_leaves_no_file(folder: Path) -> None:
    sorted(folder.glob(f"*uid_s_{NATIVE}__uid_e_video_*.ts"))[-1].write_bytes(b"not a transport stream" * 100)
    answer = CliRunner().invoke(merge_command, ["-f", str(folder), "-m", "1", "-u", str(NATIVE)])
    assert answer.exit_code == 1
    assert "cannot be read" in answer.output
    assert not [path for path in folder.iterdir() if path.suffix == ".mp4" or path.name.startswith(".101")]
    _merged(folder, "-m", 3, "-u", NATIVE, "--ignore-missing")
    assert measure.probe(folder / "101_0_merge.mp4").duration == pytest.approx(SECONDS, abs=0.1)  # the picture before stands


@pytest.mark.parametrize("folder", ["mix"], indirect=True)
def test_a_composite(folder: Path) -> None:
    assert _merged(folder, "--recording_mode", "mix") == [f"{SID}_0_merge_av.mp4"]
    probe = measure.probe(folder / f"{SID}_0_merge_av.mp4")
    assert {stream.kind: round(stream.duration) for stream in probe.streams} == {"video": SECONDS, "audio": SECONDS}
    assert _frames(folder / f"{SID}_0_merge_av.mp4") == pytest.approx(SECONDS * 30, abs=2)
    beeps = measure.beep_onsets(folder / f"{SID}_0_merge_av.mp4", tone_hz(NATIVE))
    assert len(beeps) >= SECONDS - 2


@pytest.mark.parametrize(
    ("source", "target", "codec"),
    [
        ("video.ts", "mp4", "h264"),
        ("audio.ts", "mp3", "mp3float"),
        ("audio.ts", "wav", "pcm_s16le"),
        ("audio.ts", "aac", "aac"),
        ("audio.ts", "m4a", "aac"),
    ],
)
def test_a_slice_in_another_format(folder: Path, source: str, target: str, codec: str) -> None:
    kind, suffix = source.split(".")
    path = sorted(folder.glob(f"*uid_s_{NATIVE}__uid_e_{kind}_*.{suffix}"))[0]
    answer = CliRunner().invoke(convert_command, [str(path), target], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    made = measure.probe(path.with_suffix(f".{target}"))
    before = measure.probe(path)
    assert [stream.codec for stream in made.streams] == [codec]
    assert made.duration == pytest.approx(before.duration, abs=0.06)
    assert not list(folder.glob(".*"))


def test_a_folder_of_webm(folder: Path) -> None:
    answer = CliRunner().invoke(convert_command, [str(folder), "webm", "mp4"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    for path in folder.glob("*.webm"):
        video = measure.probe(path.with_suffix(".mp4")).stream("video")
        assert video
        assert (video.codec, video.frames) == ("h264", _frames(path))


@pytest.mark.parametrize("folder", ["mix"], indirect=True)
def test_a_playlist_as_mp4(folder: Path) -> None:
    playlist = next(folder.glob("*.m3u8"))
    made = convert(playlist, "mp4")
    assert measure.probe(made).duration == pytest.approx(SECONDS, abs=0.1)
    assert {stream.kind for stream in measure.probe(made).streams} == {"audio", "video"}


def test_what_cannot_be_converted(folder: Path) -> None:
    picture = sorted(folder.glob(f"*uid_s_{NATIVE}__uid_e_video_*.ts"))[0]
    for words, wrong in (([str(picture), "mp3"], "holds no sound"), ([str(folder), "aac", "mp3"], "there is no .aac file")):
        answer = CliRunner().invoke(convert_command, words)
        assert answer.exit_code == 1
        assert wrong in answer.output
    assert not list(folder.glob(".*.part"))
