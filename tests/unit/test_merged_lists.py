"""The merged list of one participant, as players and the original's offline tools read it."""

import re
import xml.etree.ElementTree as ET

from recorder.frames import Track
from recorder.outputs import merged
from recorder.outputs.names import Names
from recorder.outputs.playlist import rotate, track_event
from recorder.protocol import Slice

NAMES = Names("0" * 32, 'a "b" & <c>')
MS = 1_700_000_000_000
MPD = "{urn:mpeg:dash:schema:mpd:2011}"


def part(kind: str, index: int, suffix: str, *tags: str, size: int = 1_000_000) -> Slice:
    track = Track(7, kind)  # type: ignore[arg-type]  # a literal in every test
    start_ms = MS + index * 15_000
    return Slice(
        name=NAMES.track_slice(track, start_ms, suffix),  # type: ignore[arg-type]  # the same
        playlist=NAMES.track_playlist(track),
        epoch=1,
        sequence=index,
        size=size,
        sha256="",
        start_ms=start_ms,
        start_ns=index * 15_000_000_000,
        duration_ns=15_000_000_000,
        discontinuity=index == 0,
        tags=tags,
    )


def test_players_find_both_tracks_of_transport_streams() -> None:
    video, audio = [part("video", i, "ts") for i in range(2)], [part("audio", i, "ts", size=200_000) for i in range(2)]
    stem = f"{'0' * 32}_a%20%22b%22%20&%20%3Cc%3E__uid_s_7__uid_e_"
    assert merged.multivariant(video, audio).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:3",
        f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",DEFAULT=YES,AUTOSELECT=YES,URI="{stem}audio.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=800000,AUDIO="audio"',
        f"{stem}video.m3u8",
    ]
    assert merged.multivariant([], audio).splitlines()[2:] == ["#EXT-X-STREAM-INF:BANDWIDTH=200000", f"{stem}audio.m3u8"]
    assert merged.multivariant(video, []).splitlines()[2:] == ["#EXT-X-STREAM-INF:BANDWIDTH=600000", f"{stem}video.m3u8"]


def test_the_mpd_names_each_slice_on_a_line_of_its_own() -> None:
    tags = (rotate(640, 360, 90, MS), track_event("video", MS))
    video, audio = [part("video", 0, "webm", *tags), part("video", 1, "webm")], [part("audio", 0, "webm")]
    text = merged.mpd(video, audio, ended=True)
    assert re.findall(r'width="(\d+)" height="(\d+)" rotate="(\d+)" time="(\d+)"', text) == [("640", "360", "270", "20231114221320000")]
    assert len(re.findall(r'ExtDiscontinuity time="\d{17}"', text)) == 2
    lines = [line for line in text.splitlines() if 'media="' in line]
    assert [re.search(r"_(audio|video)_(\d{17})\.webm", line)[0] for line in lines] == [  # type: ignore[index]
        "_video_20231114221320000.webm",
        "_video_20231114221335000.webm",
        "_audio_20231114221320000.webm",
    ]
    root = ET.fromstring(text)
    assert (root.get("type"), root.get("mediaPresentationDuration")) == ("static", "PT30.000S")
    assert [found.get("contentType") for found in root.iter(f"{MPD}AdaptationSet")] == ["video", "audio"]
    assert [(s.get("t"), s.get("d")) for s in root.iter(f"{MPD}S")] == [("0", "15000"), ("15000", "15000"), ("0", "15000")]


def test_what_the_mpd_says_of_a_slice_stands_before_it_where_the_schema_lets_it() -> None:
    """ISO/IEC 23009-1: elements of other namespaces may end the head of a representation, and not stand between its segments."""
    video = [part("video", number, "webm") for number in range(4)]
    video[2] = part("video", 2, "webm", rotate(640, 360, 0, MS), rotate(640, 360, 90, MS + 1))
    root = ET.fromstring(merged.mpd(video, [], ended=True))
    stretches = list(root.iter(f"{MPD}Representation"))
    assert [stretch.get("id") for stretch in stretches] == ["video0", "video1"]
    heads = [[child.tag.rpartition("}")[2] for child in stretch] for stretch in stretches]
    assert heads == [["ExtDiscontinuity", "SegmentList"], ["ExtRotate", "ExtRotate", "SegmentList"]]
    for stretch, numbers in zip(stretches, ((0, 1), (2, 3)), strict=True):
        (segments,) = stretch.iter(f"{MPD}SegmentList")
        assert [child.tag for child in segments] == [f"{MPD}SegmentTimeline", f"{MPD}SegmentURL", f"{MPD}SegmentURL"]
        assert [s.get("t") for s in segments.iter(f"{MPD}S")] == [str(number * 15_000) for number in numbers]


def test_the_mpd_of_a_running_recording_says_so() -> None:
    root = ET.fromstring(merged.mpd([part("video", 0, "webm")], [], ended=False))
    assert (root.get("type"), root.get("availabilityStartTime")) == ("dynamic", "2023-11-14T22:13:20.000+00:00")
    assert root.get("publishTime") == "2023-11-14T22:13:35.000+00:00"


def test_only_playlists_of_tracks_are_taken_for_those() -> None:
    assert NAMES.track_of(NAMES.track_playlist(Track(7, "audio"))) == Track(7, "audio")
    assert NAMES.track_of(NAMES.track_playlist(Track(2**32 - 1, "video"))) == Track(2**32 - 1, "video")
    for name in (NAMES.playlist(), NAMES.merged_playlist(7, "m3u8"), NAMES.mp4(0), NAMES.track_slice(Track(7, "audio"), MS, "ts")):
        assert NAMES.track_of(name) is None
