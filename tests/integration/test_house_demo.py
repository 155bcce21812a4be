"""The demo's judge must say no: composites drawn here are right, or wrong in one way each."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from cli import demo
from cli.demo.files import begins_with_keyframe, index_in_front, read_playlist, started_at
from cli.demo.judge import judge
from cli.demo.processes import DemoError
from cli.demo.session import AUDIO_ONLY, FPS, HEIGHT, LATE, LEAVER, WIDTH, Recording, Take
from recorder.tools.content import SAMPLE_RATE, Picture, Style, sound

SECONDS, JOINS, LEAVES = 16, 3.2, 12.0
ZERO_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
SLICE = "s_demo_20231114221320000.ts"

Plane = npt.NDArray[np.uint8]


def _tile(picture: Plane, *, half: bool) -> tuple[Plane, Plane]:
    """Luma and chroma of a picture in a tile: the middle of it, or all of it at half the size."""
    luma, chroma = picture[:HEIGHT], picture[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    if half:
        return luma[:, WIDTH // 4 : WIDTH * 3 // 4], chroma[:, :, WIDTH // 8 : WIDTH * 3 // 8]
    return luma[::2, ::2], chroma[:, ::2, ::2]


def _canvas(first: Picture, late: Picture, index: int, joins: float) -> Plane:
    frame = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    luma, chroma = frame[:HEIGHT], frame[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    luma[:] = 16
    x, y, time = WIDTH // 2, HEIGHT // 2, index / FPS
    if time < joins and time < LEAVES:
        luma[:, :x], chroma[:, :, : x // 2] = _tile(first.draw(index), half=True)
    elif time < LEAVES:
        luma[:y, :x], chroma[:, : y // 2, : x // 2] = _tile(first.draw(index), half=False)
        luma[y:, :x], chroma[:, y // 2 :, : x // 2] = _tile(late.draw(index), half=False)
    else:
        luma[:, x:], chroma[:, :, x // 2 :] = _tile(late.draw(index), half=True)
    return frame


def _sound(joins: float, leaves: float, shift_seconds: float) -> npt.NDArray[np.int16]:
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    voices = {uid: np.tile(sound(uid, 8), 2).astype(np.int32) for uid in (LEAVER, LATE, AUDIO_ONLY)}
    mixed = voices[AUDIO_ONLY] + voices[LEAVER] * (time < leaves) + voices[LATE] * (time >= joins)
    return np.roll(mixed, round(shift_seconds * SAMPLE_RATE)).astype(np.int16)


def composite(path: Path, *, joins: float = JOINS, heard_until: float = LEAVES, shift_seconds: float = 0, skip: int = 0) -> None:
    """The story of the demo in one TS slice; every `skip`th frame is left out."""
    first, late = (Picture(Style(uid, WIDTH, HEIGHT, FPS)) for uid in (LEAVER, LATE))
    samples = _sound(JOINS, heard_until, shift_seconds)
    step = SAMPLE_RATE // FPS
    with av.open(str(path), "w", format="mpegts") as file:
        video = file.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(SECONDS * FPS):
            if not (skip and index % skip == 0):
                frame = av.VideoFrame.from_ndarray(_canvas(first, late, index, joins), "yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                file.mux(video.encode(frame))
            part = av.AudioFrame.from_ndarray(samples[None, index * step : (index + 1) * step], "s16", "mono")
            part.sample_rate, part.pts, part.time_base = SAMPLE_RATE, index * step, Fraction(1, SAMPLE_RATE)
            file.mux(audio.encode(part))
        file.mux(video.encode())
        file.mux(audio.encode())


def remux(source: Path, target: Path, *, front: bool = True) -> None:
    with av.open(str(source)) as read, av.open(str(target), "w", options={"movflags": "faststart"} if front else {}) as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                write.mux(packet)


def playlist(folder: Path, *, ended: bool = True) -> None:
    lines = ["#EXTM3U", f"#EXTINF:{SECONDS}.000000", SLICE, *(["#EXT-X-ENDLIST"] if ended else [])]
    (folder / "s_demo.m3u8").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "mix"
    folder.mkdir()
    composite(folder / SLICE)
    remux(folder / SLICE, folder / "s_demo_0.mp4")
    playlist(folder)
    return folder


def take(root: Path) -> Take:
    def at(seconds: float) -> int:
        return ZERO_MS + round(seconds * 1000)

    recording = Recording(
        mode="mix",
        sid="s",
        folder=root,
        asked_ms=at(-1),
        started_ms=ZERO_MS,
        statuses=frozenset({4, 5}),
        files=("mix/s_demo.m3u8", "mix/s_demo_0.mp4"),
    )
    joined = {LEAVER: at(-3), AUDIO_ONLY: at(-2), LATE: at(JOINS)}
    return Take([recording], joined, {LEAVER: at(LEAVES)}, at(SECONDS))


def failed(story: Take) -> list[str]:
    return [check.name for check in judge(story).checks if not check.ok]


def test_a_good_composite_passes(good: Path) -> None:
    verdict = judge(take(good.parent))
    assert [check for check in verdict.checks if not check.ok] == []
    assert [(file.kind, file.codecs) for file in verdict.files] == [(k, ("h264", "aac")) for k in ("playlist", "slice", "mp4")]
    assert all(abs(file.av_offset_ms or 99) < 10 for file in verdict.files)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda path: composite(path, shift_seconds=0.08), {"mix HLS: picture and sound within 40 ms"}),
        (
            lambda path: composite(path, joins=99),
            {
                "mix HLS: each in its tile, the late one appears, the early one goes",
                "mix HLS: the picture follows the channel when 102 joins",
            },
        ),
        (lambda path: composite(path, heard_until=99), {"mix HLS: 101 is heard while it is there"}),
        (lambda path: composite(path, skip=10), {"mix HLS: frames are complete"}),
    ],
    ids=["late-sound", "no-late-picture", "ghost-sound", "missing-frames"],
)
def test_a_wrong_composite_fails_where_it_is_wrong(good: Path, tmp_path: Path, change: Callable[[Path], None], names: set[str]) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "mix"))
    change(folder / SLICE)
    assert set(failed(take(tmp_path))) == names


def test_wrong_files_fail(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "mix"))
    playlist(folder, ended=False)
    remux(folder / SLICE, folder / "s_demo_0.mp4", front=False)
    (folder / "stray.ts").touch()
    assert set(failed(take(tmp_path))) == {
        "mix: playlists list exactly the files that are stored",
        "mix: playlists are closed",
        "mix: the MP4 has its index in front",
    }


def test_a_wrong_course_fails(good: Path) -> None:
    story = take(good.parent)
    story.recordings[0] = replace(story.recordings[0], statuses=frozenset({4}), asked_ms=ZERO_MS - 9000, files=("mix/s_demo.m3u8",))
    story.stopped_ms += 1000
    assert set(failed(story)) == {
        "mix: recording begins soon after start",
        "mix: query says that it is recording",
        "mix: the answer to stop names what is stored",
        "mix HLS: as long as the recording",
        "mix MP4: as long as the recording",
        "mix HLS: frames are complete",
        "mix MP4: frames are complete",
        "mix: the playlist is as long as the recording",
    }


def test_a_slice_without_a_keyframe_in_front_is_noticed(good: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ts"
    with av.open(str(good / SLICE)) as read, av.open(str(cut), "w", format="mpegts") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(read.streams.video[0])):
            if number and packet.dts is not None:
                packet.stream = stream
                write.mux(packet)
    assert begins_with_keyframe(good / SLICE)
    assert not begins_with_keyframe(cut)


def test_garbage_is_no_mp4_with_its_index_in_front(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    for data in (b"", b"\0\0\0\0junk", b"\0\0\0\x01wide\0\0\0\0\0\0\0\x18", b"\0\0\0\x10mdat12345678\0\0\0\x08moov"):
        path.write_bytes(data)
        assert not index_in_front(path)


def test_names_of_slices_carry_their_start(tmp_path: Path) -> None:
    assert started_at(Path(SLICE)) * 1000 == ZERO_MS
    with pytest.raises(ValueError, match="no time"):
        started_at(Path("s_demo_0.mp4"))
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1.5,\nroom%20%23_1.ts\n#EXTINF:2.0\nb.ts\n#EXT-X-ENDLIST\n")
    found = read_playlist(tmp_path / "a.m3u8")
    assert (found.seconds, found.ended, [path.name for path in found.slices]) == (3.5, True, ["room #_1.ts", "b.ts"])


def test_a_demo_that_stops_leaves_no_summary_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: object) -> Take:
        raise DemoError("no service")

    monkeypatch.setattr("cli.demo.run", run)
    (tmp_path / "demo.json").write_text('{"ok": true}')
    result = CliRunner().invoke(demo.command, ["--folder", str(tmp_path)])
    assert (result.exit_code, result.output) == (1, "Error: no service\n")
    assert not (tmp_path / "demo.json").exists()
