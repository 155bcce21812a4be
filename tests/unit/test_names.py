"""The names of everything a recording stores."""

from recorder.frames import Track
from recorder.outputs.names import Names, utc

NAMES = Names("38f8e3", "room1")
START_MS = 1_560_238_386_046


def test_seventeen_digits() -> None:
    assert utc(START_MS) == "20190611073306046"
    assert utc(0) == "19700101000000000"


def test_composite() -> None:
    assert NAMES.playlist() == "38f8e3_room1.m3u8"
    assert NAMES.slice(START_MS) == "38f8e3_room1_20190611073306046.ts"
    assert NAMES.mp4(0) == "38f8e3_room1_0.mp4"


def test_individual() -> None:
    audio, video = Track(123, "audio"), Track(4294967295, "video")
    assert NAMES.track_playlist(audio) == "38f8e3_room1__uid_s_123__uid_e_audio.m3u8"
    assert NAMES.track_slice(audio, START_MS, "ts") == "38f8e3_room1__uid_s_123__uid_e_audio_20190611073306046.ts"
    assert NAMES.track_slice(video, START_MS, "webm") == "38f8e3_room1__uid_s_4294967295__uid_e_video_20190611073306046.webm"
    assert NAMES.merged_playlist(123, "mpd") == "38f8e3_room1__uid_s_123__uid_e_av.mpd"
    assert NAMES.snapshot(123, START_MS) == "38f8e3_room1__uid_s_123__uid_e_video_20190611073306046.jpg"


def test_a_channel_name_stays_as_it_is_but_for_what_no_file_name_can_hold() -> None:
    channel = "a/b\0c !#$%&()+-:;<=.>?@[]^_{}|~,中"
    assert Names("sid", channel).playlist() == "sid_a-b-c !#$%&()+-:;<=.>?@[]^_{}|~,中.m3u8"
    assert Names("sid", "../../etc/passwd").playlist() == "sid_..-..-etc-passwd.m3u8"
