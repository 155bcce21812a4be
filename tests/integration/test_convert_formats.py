"""`convert` between formats: what is in the new file, how long, and where the beeps are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli.convert import command
from recorder.outputs.mux import TsFile
from recorder.spec import Canvas
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.tools.offline import OfflineError
from recorder.tools.offline.convert import SOURCES, TARGETS, Target, convert, convert_folder
from tests import outputs_media
from tests.offline_media import SID, person, recording

NATIVE, WEBM = 101, 102
SECONDS = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A composite, and two participants with merged lists, in one folder."""
    where = tmp_path_factory.mktemp("recorded")
    canvas = Canvas(width=320, height=180, fps=30, bitrate_kbps=300)
    whole = recording(where / "mix", [person(end=SECONDS)], SECONDS, canvas=canvas, audio_profile=2)
    people = [person(end=SECONDS), person(WEBM, "vp8", end=SECONDS)]
    apart = recording(where / "individual", people, SECONDS, stream_mode="standard")
    for path in apart.path.iterdir():
        if path.is_file():
            shutil.copy(path, whole.path / path.name)
    return whole.path


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def of(uid: int, kind: str, suffix: str) -> str:
    return f"{SID}_room__uid_s_{uid}__uid_e_{kind}.{suffix}"


def first(folder: Path, uid: int, kind: str, suffix: str) -> Path:
    return sorted(folder.glob(f"*uid_s_{uid}__uid_e_{kind}_*.{suffix}"))[0]


def check(path: Path, uid: int, codecs: list[str], *, lasts: float = SECONDS, shift: float = 0) -> None:
    """`shift`: seconds by which sound is later than in the recording."""
    assert measure.decode_errors([path]) == []
    probe = measure.probe(path)
    assert [stream.codec for stream in probe.streams] == codecs
    assert probe.duration == pytest.approx(lasts, abs=0.08)
    if len(codecs) > 1:
        offsets = measure.av_offsets(path, tone_hz(uid))
        assert len(offsets) >= 4
        assert max(map(abs, offsets)) < 0.02
    elif codecs != ["h264"]:
        onsets = [onset - shift for onset in measure.beep_onsets(path, tone_hz(uid)) if onset > 0.5]
        assert len(onsets) >= lasts - 2
        assert onsets == pytest.approx(range(1, len(onsets) + 1), abs=0.006)


@pytest.mark.parametrize(
    ("target", "codecs"), [("mp4", ["h264", "aac"]), ("m4a", ["aac"]), ("mp3", ["mp3float"]), ("wav", ["pcm_s16le"]), ("aac", ["aac"])]
)
def test_a_composite(folder: Path, target: Target, codecs: list[str]) -> None:
    path = convert(folder / f"{SID}_room.m3u8", target)
    assert path == folder / f"{SID}_room.{target}"
    check(path, NATIVE, codecs, shift=1105 / 48_000 if target == "mp3" else 0)  # players leave out the encoder's delay
    audio = measure.probe(path).stream("audio")
    assert audio
    assert (audio.channels, audio.sample_rate) == (2, 48_000)  # as it is


@pytest.mark.parametrize(("uid", "suffix"), [(NATIVE, "m3u8"), (WEBM, "mpd")])
def test_a_merged_list(folder: Path, uid: int, suffix: str) -> None:
    check(convert(folder / of(uid, "av", suffix), "mp4"), uid, ["h264", "aac"])


def test_slices(folder: Path) -> None:
    check(convert(first(folder, NATIVE, "video", "ts"), "mp4"), NATIVE, ["h264"], lasts=4)
    webm = first(folder, WEBM, "video", "webm")
    check(convert(webm, "mp4"), WEBM, ["h264"], lasts=4)
    before, after = (measure.probe(path).stream("video") for path in (webm, webm.with_suffix(".mp4")))
    assert before
    assert after
    assert before.frames == after.frames
    assert (before.width, before.height) == (after.width, after.height)
    for target in ("m4a", "wav"):
        check(convert(first(folder, WEBM, "audio", "webm"), target), WEBM, ["aac" if target == "m4a" else "pcm_s16le"], lasts=4)


def test_finished_files(folder: Path) -> None:
    mp4 = convert(folder / f"{SID}_room.m3u8", "mp4")
    transport = convert(mp4, "ts", folder / "again.ts")
    check(transport, NATIVE, ["h264", "aac"])
    video = measure.probe(mp4).stream("video"), measure.probe(transport).stream("video")
    assert video[0]
    assert video[1]
    assert video[0].frames == video[1].frames
    check(convert(mp4, "m4a"), NATIVE, ["aac"])
    check(convert(mp4, "aac"), NATIVE, ["aac"])
    wav = convert(mp4, "wav")
    check(wav, NATIVE, ["pcm_s16le"])
    check(convert(wav, "m4a", folder / "of_wav.m4a"), NATIVE, ["aac"])
    mp3 = convert(wav, "mp3")
    check(convert(mp3, "wav", folder / "of_mp3.wav"), NATIVE, ["pcm_s16le"])
    check(convert(mp4.with_suffix(".aac"), "mp4", folder / "of_aac.mp4"), NATIVE, ["aac"])


def test_a_folder_goes_on_after_what_cannot_be_converted(folder: Path) -> None:
    broken = first(folder, NATIVE, "audio", "ts")
    broken.write_bytes(b"#EXTM3U\n#EXTINF:1.0,\nfile:///etc/passwd\n" * 100)
    with pytest.raises(OfflineError) as caught:
        convert_folder(folder, "ts", "mp3")
    assert broken.name in str(caught.value)
    videos = set(folder.glob("*_video_*.ts"))
    assert all(path.name in str(caught.value) for path in videos)  # they hold no sound
    made = {path.with_suffix(".ts") for path in folder.glob("*.mp3")}
    assert made == set(folder.glob("*.ts")) - videos - {broken}
    assert len(made) > 1
    assert not list(folder.glob(".*"))


def test_a_folder_by_command(folder: Path) -> None:
    answer = CliRunner().invoke(command, [str(folder), "webm", "m4a"])
    sound = sorted(folder.glob("*_audio_*.webm"))
    assert answer.exit_code == 1  # for the videos
    assert all(path.with_suffix(".m4a").exists() for path in sound)
    answer = CliRunner().invoke(command, [str(sound[0]), "wav", "-o", str(folder / "x.wav")], catch_exceptions=False)
    assert (answer.exit_code, answer.stdout) == (0, f"{folder / 'x.wav'}\n")


@pytest.mark.parametrize("first", ["video", "audio"])
def test_what_begins_later_comes_later(tmp_path: Path, first: str) -> None:
    file = TsFile(tmp_path / "one.ts", video=True, audio="aac")
    late = {"video": 0, "audio": 0} | {"audio" if first == "video" else "video": outputs_media.SECOND_NS}
    for item in outputs_media.video("h264", 30):
        file.write_video(item.data, item.time_ns + late["video"], item.time_ns + late["video"], keyframe=item.keyframe)
    for item in outputs_media.aac(96):
        file.write_audio(item.data, item.time_ns + late["audio"])
    file.close()
    streams = {stream.kind: stream for stream in measure.probe(convert(tmp_path / "one.ts", "mp4")).streams}
    assert streams["video"].start == pytest.approx(1 if first == "audio" else 0, abs=0.03)
    onset = np.flatnonzero(np.abs(measure.samples_of(tmp_path / "one.mp4")[1]) > 0.1)[0] / 48_000
    assert streams["audio"].start + onset == pytest.approx(1 if first == "video" else 0, abs=0.03)


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        ("list.m3u8", "ts", "holds nothing that a .ts could be made of"),
        ("list.m3u8", "mp3", "missing or empty"),
        ("list.m3u8", "mp4", "missing or empty"),
        ("text.ts", "mp4", "cannot be read"),
        ("text.mp4", "ts", "cannot be read"),
        ("text.mp4", "mp4", "has this format already"),
        ("text.txt", "mp4", "has none of the formats"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, source: str, target: Target, wrong: str) -> None:
    path = tmp_path / source
    path.write_text("#EXTM3U\n#EXTINF:1.0\nx_20231114221320000.ts\n")
    with pytest.raises(OfflineError, match=wrong):
        convert(path, target)
    assert list(tmp_path.iterdir()) == [path]


def test_every_format_has_a_way_in(tmp_path: Path) -> None:
    for source in SOURCES:
        path = tmp_path / f"empty.{source}"
        path.touch()
        for target in TARGETS:
            with pytest.raises(OfflineError):
                convert(path, target)
    assert {path.suffix[1:] for path in tmp_path.iterdir()} == set(SOURCES)
