"""What the offline tools read out of playlists, MPDs and options, the hostile ones included."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.convert import command as convert_command
from cli.merge import command as merge_command
from recorder.tools.offline import OfflineError
from recorder.tools.offline.lists import Shape, composites, individuals, unix_ns
from recorder.tools.offline.merge import Options
from recorder.tools.offline.timeline import Axis, Span, segments

STEM = "sid713476478245_cnameagora"
SECOND = 1_000_000_000


def stamp(second: int) -> str:
    return f"201909201251{second:02d}289"


def name(kind: str, second: int, suffix: str = "ts", uid: int = 123) -> str:
    return f"{STEM}__uid_s_{uid}__uid_e_{kind}_{stamp(second)}.{suffix}"


def lay(folder: Path, text: str, listed: str = f"{STEM}__uid_s_123__uid_e_audio.m3u8", *, files: bool = True) -> Path:
    """Write a list and the slices that it names."""
    (folder / listed).write_text(text)
    for line in text.splitlines():
        for found in re.findall(r'media="([^"]+)"', line) or ([line] if line and not line.startswith(("#", "<")) else []):
            if files and "/" not in found:
                (folder / found).write_bytes(b"x")
    return folder


def test_the_documented_example(tmp_path: Path) -> None:
    text = f"""#EXTM3U
#EXT-X-VERSION:3
#EXT-X-DISCONTINUITY
#EXT-X-AGORA-ROTATE:WIDTH=640,HEIGHT=480,ROTATE=0,TIME={stamp(0)}
#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=VIDEO,TIME={stamp(0)}
#EXTINF:6.332000
{name("video", 0)}
#EXT-X-AGORA-ROTATE:WIDTH=1280,HEIGHT=720,ROTATE=90,TIME={stamp(6)}
#EXT-X-DISCONTINUITY
#EXTINF:9.442000,
{name("video", 6)}
#EXTINF:2.0
{name("video", 15)}
#EXT-X-ENDLIST
"""
    (source,) = individuals(lay(tmp_path, text, f"{STEM}__uid_s_123__uid_e_video.m3u8"))
    assert (source.name, source.uid, source.audio) == ("123", 123, ())
    assert [piece.duration_ns for piece in source.video] == [6_332_000_000, 9_442_000_000, 2 * SECOND]
    start = unix_ns(stamp(0))
    assert [piece.start_ns - start for piece in source.video] == [0, 6 * SECOND, 15 * SECOND]
    turned = Shape(start + 6 * SECOND, 1280, 720, 270)  # clockwise
    assert source.video[0].shapes == (Shape(start, 640, 480, 0),)
    assert source.video[1].shapes == (turned,)
    assert [(s.width, s.rotation) for s in source.video[2].shapes] == [(1280, 270)]  # it goes on


def test_lists_after_failovers_are_joined_and_the_largest_version_counts(tmp_path: Path) -> None:
    lay(tmp_path, f"#EXTINF:15.0\n{name('audio', 0)}\n")
    lay(tmp_path, f"#EXTINF:15.0\nbak0_{name('audio', 15)}\n", f"bak0_{STEM}__uid_s_123__uid_e_audio.m3u8")
    for index, seconds in ((0, [0]), (1, [0, 5, 9])):
        text = "".join(f"#EXTINF:5.0\n{name('video', second)}\n" for second in seconds)
        lay(tmp_path, text, f"{STEM}__uid_s_123__uid_e_video_77_{index}.m3u8")
    lay(tmp_path, f"#EXTINF:5.0\n{name('video', 0)}\n#EXTINF:5.0\n{name('video', 5)}\n", f"{STEM}__uid_s_123__uid_e_video.m3u8")
    (source,) = individuals(tmp_path)
    assert [piece.path.name[:4] for piece in source.audio] == ["sid7", "bak0"]
    assert len(source.video) == 3


def test_an_mpd_gives_the_slices_that_no_list_names(tmp_path: Path) -> None:
    text = f"""<MPD>
<AdaptationSet contentType="video">
  <ExtRotate width="640" height="360" rotate="90" time="{stamp(0)}"/>
  <ExtDiscontinuity time="{stamp(0)}"/>
  <SegmentURL media="{name("video", 0, "webm")}"/>
</AdaptationSet>
<AdaptationSet contentType="audio"><Representation>
  <SegmentURL media="{name("audio", 1, "webm")}"/>
</MPD>"""
    (source,) = individuals(lay(tmp_path, text, f"{STEM}__uid_s_123__uid_e_av.mpd"))
    assert [piece.path.suffix for piece in (*source.video, *source.audio)] == [".webm", ".webm"]
    assert source.video[0].shapes[0].rotation == 270


def test_composites_are_not_taken_for_participants(tmp_path: Path) -> None:
    lay(tmp_path, f"#EXTINF:15.0\n{STEM}_{stamp(0)}.ts\n", f"{STEM}.m3u8")
    lay(tmp_path, f"#EXTINF:15.0\nbak0_{STEM}_{stamp(20)}.ts\n", f"bak0_{STEM}.m3u8")
    (source,) = composites(tmp_path)
    assert (source.name, source.uid, len(source.video)) == ("sid713476478245", None, 2)
    with pytest.raises(OfflineError, match="no list of an individual recording"):
        individuals(tmp_path)


@pytest.mark.parametrize(
    "line", ["../secret_20190920125100289.ts", "http://x/a_20190920125100289.ts", "%2e%2e%2fa_20190920125100289.ts", "/etc/passwd"]
)
def test_a_list_may_only_name_files_beside_it(tmp_path: Path, line: str) -> None:
    with pytest.raises(OfflineError, match="names what is not a file beside it"):
        individuals(lay(tmp_path, f"#EXTINF:1.0\n{line}\n"))


@pytest.mark.parametrize("line", ["a.ts", "#EXTINF:x\na_20190920125100289.ts", "a_20191320125100289.ts"])
def test_what_makes_no_sense_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(OfflineError):
        individuals(lay(tmp_path, f"{line}\n"))


def test_every_missing_slice_is_named(tmp_path: Path) -> None:
    text = f"#EXTINF:15.0\n{name('audio', 0)}\n#EXTINF:15.0\n{name('audio', 15)}\n"
    with pytest.raises(OfflineError, match=r"2 slices are missing: .*100289\.ts, .*115289\.ts"):
        individuals(lay(tmp_path, text, files=False))
    (tmp_path / name("audio", 0)).write_bytes(b"x")
    assert len(individuals(tmp_path, ignore_missing=True)[0].audio) == 1


def test_segments_end_after_fifteen_seconds_of_absence() -> None:
    class _Piece:
        def __init__(self, start: int, end: int) -> None:
            self.start_ns, self.end_ns = start * SECOND, end * SECOND

    pieces = [_Piece(0, 15), _Piece(1, 16), _Piece(30, 40), _Piece(56, 60)]
    spans = segments(pieces)  # type: ignore[arg-type]  # as much of a piece as is looked at
    assert spans == [Span(0, 40 * SECOND), Span(56 * SECOND, 60 * SECOND)]
    whole, dropped = Axis(spans, drop_absences=False), Axis(spans, drop_absences=True)
    assert (whole.length_ns, dropped.length_ns) == (60 * SECOND, 44 * SECOND)
    assert (whole.place(57 * SECOND), dropped.place(57 * SECOND), whole.place(-1)) == (57 * SECOND, 41 * SECOND, None)
    assert whole.absences() == [Span(40 * SECOND, 56 * SECOND)]
    assert dropped.absences() == []


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["-t", "5"], ["-t needs -b"]),
        (["-o", "x.mp4", "-m", "1"], ["-o needs -u"]),
        (["-o", "../x.mp4", "-u", "1", "-s", "-m", "0"], ["without a folder", "-o needs -m", "-s does not go with -m 0"]),
        (["-m", "1", "--avtype", "auto", "--width", "640"], ["-m and --avtype", "--width and --height"]),
        (["-r", "640", "360", "--width", "640", "--height", "360"], ["-r and --width"]),
        (["--recording_mode", "mix", "-m", "0", "-u", "5"], ["-m 0 is for individual", "-u is for individual"]),
        (["-r", "641", "360"], ["even"]),
        (["-p", "200"], ["at most 120"]),
    ],
)
def test_every_wrong_option_is_named_at_once(tmp_path: Path, options: list[str], wrong: list[str]) -> None:
    answer = CliRunner().invoke(merge_command, ["-f", str(tmp_path), *options])
    assert answer.exit_code == 2
    assert all(words in answer.output for words in wrong), answer.output


def test_a_window_makes_one_file() -> None:
    assert not list(Options(mode=0, begin_s=5, output="a.mp4", uid=1, drop_absences=True).problems())


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["mp9"], ["a folder needs FROM and TO", "TO must be one of"]),
        (["exe", "mp4", "-o", "x"], ["FROM must be one of", "-o is for a single file"]),
    ],
)
def test_every_wrong_word_of_convert_is_named_at_once(tmp_path: Path, words: list[str], wrong: list[str]) -> None:
    answer = CliRunner().invoke(convert_command, [str(tmp_path), *words])
    assert answer.exit_code == 2
    assert all(text in answer.output for text in wrong), answer.output
