"""What the offline tools read out of playlists and MPDs, the hostile ones included."""

import re
from pathlib import Path

import pytest

from recorder.outputs import merged
from recorder.protocol import Slice
from recorder.tools.offline import OfflineError
from recorder.tools.offline.lists import Source, composites, individuals, source_of
from recorder.tools.offline.playlist import Piece, Turn, unix_ns

STEM = "sid713476478245_cnameagora"
SECOND = 1_000_000_000


def stamp(second: int) -> str:
    return f"201909201251{second:02d}289"


def name(kind: str, second: int, suffix: str = "ts", uid: int = 123) -> str:
    return f"{STEM}__uid_s_{uid}__uid_e_{kind}_{stamp(second)}.{suffix}"


def listed(kind: str, suffix: str = "m3u8", uid: int = 123) -> str:
    return f"{STEM}__uid_s_{uid}__uid_e_{kind}.{suffix}"


def lay(folder: Path, text: str, list_name: str = listed("audio"), *, files: bool = True) -> Path:
    """Write a list and the slices that it names."""
    (folder / list_name).write_text(text)
    for line in text.splitlines():
        for found in re.findall(r'media="([^"]+)"', line) or ([line] if line and not line.startswith(("#", "<")) else []):
            if files and "/" not in found:
                (folder / found).write_bytes(b"x")
    return folder


def slices(*names: str, seconds: float = 5) -> str:
    return "".join(f"#EXTINF:{seconds:.6f}\n{name}\n" for name in names)


def names(pieces: tuple[Piece, ...]) -> list[str]:
    return [piece.path.name for piece in pieces]


def only(folder: Path) -> Source:
    (source,) = individuals(folder)
    return source


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
    source = only(lay(tmp_path, text, listed("video")))
    assert (source.sid, source.uid, source.audio) == ("sid713476478245", 123, ())
    assert [piece.duration_ns for piece in source.video] == [6_332_000_000, 9_442_000_000, 2 * SECOND]
    start = unix_ns(stamp(0))
    assert [piece.start_ns - start for piece in source.video] == [0, 6 * SECOND, 15 * SECOND]
    assert [piece.turns for piece in source.video] == [
        (Turn(start, 0),),
        (Turn(start + 6 * SECOND, 270),),  # clockwise
        (Turn(start + 15 * SECOND, 270),),  # it goes on
    ]


def test_rotations_inside_of_a_slice_count_from_their_moments(tmp_path: Path) -> None:
    rotations = "".join(f"#EXT-X-AGORA-ROTATE:WIDTH=64,HEIGHT=48,ROTATE={turn},TIME={time}\n" for turn, time in ((90, 2), (180, 4)))
    late = rotations.replace("TIME=2", f"TIME={unix_ns(stamp(2)) // 1_000_000}").replace("TIME=4", f"TIME={stamp(4)}")
    source = only(lay(tmp_path, late + slices(name("video", 0), name("video", 5)), listed("video")))
    start = unix_ns(stamp(0))
    assert source.video[0].turns == (Turn(start, 0), Turn(start + 2 * SECOND, 270), Turn(start + 4 * SECOND, 180))
    assert source.video[1].turns == (Turn(start + 5 * SECOND, 180),)


def test_of_several_versions_the_last_one_sent_again_or_the_plain_one_counts(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("video", 0), name("video", 5)), listed("video"))
    lay(
        tmp_path,
        slices(name("video", 0), name("video", 5), name("video", 10), name("video", 15)),
        f"{STEM}__uid_s_123__uid_e_video_9_0.m3u8",
    )
    lay(tmp_path, slices(name("video", 0)), f"{STEM}__uid_s_123__uid_e_video_7_1.m3u8")
    assert len(only(tmp_path).video) == 2  # the newest is smaller than the plain one; the older one does not count
    lay(tmp_path, slices(name("video", 0), name("video", 5), name("video", 10)), f"{STEM}__uid_s_123__uid_e_video_7_10.m3u8")
    assert len(only(tmp_path).video) == 3  # ten is newer than one


def test_failovers_are_joined_and_replace_what_they_overlap(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("audio", 0), name("audio", 5), name("audio", 10), name("audio", 30)))
    lay(tmp_path, slices(f"bak0_{name('audio', 8)}"), f"bak0_{listed('audio')}")
    assert names(only(tmp_path).audio) == [name("audio", 0), name("audio", 5), f"bak0_{name('audio', 8)}", name("audio", 30)]


def test_recordings_are_kept_apart(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("audio", 0)))
    lay(tmp_path, slices(name("audio", 0).replace("sid7", "sid8")), listed("audio").replace("sid7", "sid8"))
    lay(tmp_path, slices(name("audio", 0, uid=9)), listed("audio", uid=9))
    assert [(source.sid[:4], source.uid) for source in individuals(tmp_path)] == [("sid7", 9), ("sid7", 123), ("sid8", 123)]


MPD_TEXT = f"""<?xml version='1.0' encoding='us-ascii'?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>
<AdaptationSet contentType="video"><Representation>
  <ExtRotate width="640" height="360" rotate="90" time="{stamp(0)}"/>
  <ExtDiscontinuity time="{stamp(0)}"/>
  <SegmentList><SegmentTimeline><S t="0" d="2500"/><S t="5000" d="2000"/></SegmentTimeline>
  <SegmentURL media="{name("video", 0, "webm")}"/>
  <SegmentURL media="{name("video", 5, "webm")}"/></SegmentList>
</Representation></AdaptationSet>
<AdaptationSet contentType="audio"><Representation><SegmentList>
  <SegmentURL media="{name("audio", 1, "webm")}"/></SegmentList>
</Representation></AdaptationSet></Period></MPD>"""


@pytest.mark.parametrize(
    "text",
    [
        MPD_TEXT,
        MPD_TEXT.replace("</MPD>", ""),  # no XML: read line by line
        MPD_TEXT.replace("<MPD", '<!DOCTYPE m [<!ENTITY a "b">]><MPD'),  # declarations are not looked at
    ],
)
def test_an_mpd_gives_the_slices_that_no_list_names(tmp_path: Path, text: str) -> None:
    lay(tmp_path, slices(name("video", 0, "webm")), listed("video"))
    source = only(lay(tmp_path, text, listed("av", "mpd")))
    assert names(source.video) == [name("video", 0, "webm"), name("video", 5, "webm")]
    assert names(source.audio) == [name("audio", 1, "webm")]
    assert source.video[0].duration_ns == 5 * SECOND  # the list of the kind counts
    assert source.video[1].turns[0].rotation == 270
    if text == MPD_TEXT:
        assert source.video[1].duration_ns == 2 * SECOND
    assert source.audio[0].duration_ns == 0


def test_our_own_mpd(tmp_path: Path) -> None:
    def part(kind: str, second: int, **changes: object) -> Slice:
        item = name(kind, second, "webm").replace("cnameagora", "a&b '1'")
        start_ms = unix_ns(stamp(second)) // 1_000_000
        common = {"name": item, "playlist": "x.m3u8", "epoch": 1, "sequence": 0, "size": 1, "sha256": "", "start_ns": 0}
        (tmp_path / item).write_bytes(b"x")
        return Slice.model_validate({**common, "start_ms": start_ms, "duration_ns": 4 * SECOND, **changes})

    turned = f"#EXT-X-AGORA-ROTATE:WIDTH=64,HEIGHT=48,ROTATE=90,TIME={stamp(4)}"
    video = [part("video", 0), part("video", 4, tags=(turned,), discontinuity=True), part("video", 8)]
    path = tmp_path / listed("av", "mpd").replace("cnameagora", "a&b '1'")
    path.write_text(merged.mpd(video, [part("audio", 0)], ended=True))
    source = only(tmp_path)
    assert names(source.video) == [item.name for item in video]
    assert [piece.duration_ns for piece in source.video] == [4 * SECOND] * 3
    assert [piece.turns[0].rotation for piece in source.video] == [0, 270, 270]
    assert len(source.audio) == 1


def test_merged_lists_of_both_kinds(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("video", 0), name("audio", 1), name("av", 5)), listed("av"))
    source = only(tmp_path)
    assert names(source.video) == [name("video", 0), name("av", 5)]
    assert names(source.audio) == [name("audio", 1), name("av", 5)]


def test_a_multivariant_playlist_is_what_its_lists_are(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("video", 0)), listed("video"))
    lay(tmp_path, slices(name("audio", 1)), listed("audio"))
    path = tmp_path / listed("av")
    path.write_text(
        f'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",URI="{listed("audio")}"\n'
        f'#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="audio"\n{listed("video")}\n'
    )
    for source in (only(tmp_path), source_of(path)):
        assert (names(source.video), names(source.audio)) == ([name("video", 0)], [name("audio", 1)])
    path.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://host/list.m3u8\n")
    with pytest.raises(OfflineError, match="not a file beside it"):
        source_of(path)


def test_composites_are_not_taken_for_participants(tmp_path: Path) -> None:
    lay(tmp_path, slices(f"{STEM}_{stamp(0)}.ts"), f"{STEM}.m3u8")
    lay(tmp_path, slices(f"bak0_{STEM}_{stamp(20)}.ts"), f"bak0_{STEM}.m3u8")
    lay(tmp_path, slices(f"{STEM}_{stamp(0)}.ts", f"{STEM}_{stamp(5)}.ts"), f"{STEM}_88_3.m3u8")
    lay(tmp_path, slices(f"sid9_room_1_2_{stamp(0)}.ts"), "sid9_room_1_2.m3u8")  # the channel is called room_1_2
    first, second = composites(tmp_path)
    assert (first.sid, first.uid, names(first.video)) == (
        "sid713476478245",
        None,
        [f"{STEM}_{stamp(0)}.ts", f"{STEM}_{stamp(5)}.ts", f"bak0_{STEM}_{stamp(20)}.ts"],
    )
    assert first.audio == first.video
    assert second.sid == "sid9"
    with pytest.raises(OfflineError, match="no list of an individual recording"):
        individuals(tmp_path)


@pytest.mark.parametrize("wanted", ["room 1é_", "a%41b_"])
def test_names_may_be_percent_encoded(tmp_path: Path, wanted: str) -> None:
    real = f"sid_{wanted}{stamp(0)}.ts"
    (tmp_path / real).write_bytes(b"x")
    for line in (real, real.replace("%", "%25").replace(" ", "%20").replace("é", "%C3%A9")):
        (tmp_path / "sid_list.m3u8").write_text(slices(line))
        assert not source_of(tmp_path / "sid_list.m3u8").missing


@pytest.mark.parametrize(
    "line",
    [
        "../secret_20190920125100289.ts",
        "http://x/a_20190920125100289.ts",
        "%2e%2e%2fa_20190920125100289.ts",
        "..\\a_20190920125100289.ts",
        "a%00_20190920125100289.ts",
        "a%1b[2J_20190920125100289.ts",
        "/etc/passwd",
        "..",
    ],
)
def test_a_list_may_only_name_files_beside_it(tmp_path: Path, line: str) -> None:
    (tmp_path.parent / "secret_20190920125100289.ts").write_bytes(b"x")
    with pytest.raises(OfflineError, match=r"names .* which is not a file beside it"):
        individuals(lay(tmp_path, f"#EXTINF:1.0\n{line}\n", files=False))


@pytest.mark.parametrize(
    "line",
    [
        "a.ts",  # no time
        "a_20191320125100289.ts",  # month 13
        "a_20190920125100289.mp4",
        "#EXTINF:x\na_20190920125100289.ts",
        "#EXTINF:999999999\na_20190920125100289.ts",
        f"#EXTINF:{'9' * 5000}\na_20190920125100289.ts",
        f"#EXT-X-AGORA-ROTATE:WIDTH=1,HEIGHT=1,ROTATE={'9' * 5000}\na_20190920125100289.ts",
        "#EXT-X-AGORA-ROTATE:WIDTH=1,HEIGHT=1,ROTATE=0,TIME=12\na_20190920125100289.ts",
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(OfflineError, match=r"e_audio\.m3u8 "):
        individuals(lay(tmp_path, f"{line}\n", files=False))


def test_missing_and_empty_slices_are_known(tmp_path: Path) -> None:
    lay(tmp_path, slices(name("audio", 0), name("audio", 5), name("audio", 10)), files=False)
    (tmp_path / name("audio", 5)).write_bytes(b"x")
    (tmp_path / name("audio", 10)).touch()
    assert only(tmp_path).missing == [name("audio", 0), name("audio", 10)]
