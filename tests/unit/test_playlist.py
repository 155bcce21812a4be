"""The exact text of playlists."""

from recorder.outputs.playlist import render, rotate, track_event
from recorder.protocol import Slice

START_MS = 1_568_983_902_289  # 2019-09-20 12:51:42.289


def item(name: str, duration_ns: int, *, discontinuity: bool = False, tags: tuple[str, ...] = ()) -> Slice:
    return Slice(
        name=name,
        playlist="list.m3u8",
        epoch=1,
        sequence=0,
        size=1,
        sha256="",
        start_ms=START_MS,
        start_ns=0,
        duration_ns=duration_ns,
        discontinuity=discontinuity,
        tags=tags,
    )


def test_the_audio_example_of_the_original() -> None:
    slices = [
        item("sid_cnameagora__uid_s_123__uid_e_audio_20190920125142289.ts", 15_019_000_000, tags=(track_event("audio", START_MS),)),
        item("sid_cnameagora__uid_s_123__uid_e_audio_20190920125157307.ts", 12_523_000_000),
    ]
    assert render(slices, ended=True, correct_extinf=False) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-ALLOW-CACHE:YES\n"
        "#EXT-X-TARGETDURATION:18\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=AUDIO,TIME=20190920125142289\n"
        "#EXTINF:15.019000\n"
        "sid_cnameagora__uid_s_123__uid_e_audio_20190920125142289.ts\n"
        "#EXTINF:12.523000\n"
        "sid_cnameagora__uid_s_123__uid_e_audio_20190920125157307.ts\n"
        "#EXT-X-ENDLIST\n"
    )


def test_a_size_change_and_a_long_slice_while_it_grows() -> None:
    tags = (rotate(640, 480, 0, START_MS), track_event("video", START_MS))
    slices = [
        item("a.ts", 6_332_000_000, tags=tags),
        item("b.ts", 33_326_000_000, discontinuity=True, tags=(rotate(1280, 720, 90, START_MS + 6_332),)),
    ]
    assert render(slices, ended=False, correct_extinf=True) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-ALLOW-CACHE:YES\n"
        "#EXT-X-TARGETDURATION:34\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXT-X-AGORA-ROTATE:WIDTH=640,HEIGHT=480,ROTATE=0,TIME=20190920125142289\n"
        "#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=VIDEO,TIME=20190920125142289\n"
        "#EXTINF:6.332000,\n"
        "a.ts\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXT-X-AGORA-ROTATE:WIDTH=1280,HEIGHT=720,ROTATE=270,TIME=20190920125148621\n"
        "#EXTINF:33.326000,\n"
        "b.ts\n"
    )


def test_nothing_recorded() -> None:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-ALLOW-CACHE:YES\n#EXT-X-TARGETDURATION:18\n"
    assert render([], ended=True, correct_extinf=False) == head + "#EXT-X-ENDLIST\n"


def test_names_of_users_cannot_break_the_list() -> None:
    text = render([item("s_a b%#?:/\n中&=@,[x].ts", 1)], ended=False, correct_extinf=False)
    assert text.splitlines()[-2:] == ["#EXTINF:0.000000", "s_a%20b%25%23%3F%3A%2F%0A%E4%B8%AD&=@,%5Bx%5D.ts"]


def test_durations_are_rounded_to_microseconds() -> None:
    assert "#EXTINF:1.000000\n" in render([item("a.ts", 999_999_500)], ended=False, correct_extinf=False)
    assert "#EXTINF:0.066667\n" in render([item("a.ts", 66_666_667)], ended=False, correct_extinf=False)
