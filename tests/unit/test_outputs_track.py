"""Where individual recording cuts, and what stands before its slices. The media is made up: muxers don't look into it."""

from pathlib import Path

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.outputs import Product
from recorder.outputs.track import AudioTrackOutput, VideoTrackOutput
from tests.outputs_media import SECOND_NS, files, shelf, slices

FRAME_NS = 40_000_000
KEY = b"\0\0\0\1\x67\x42\0\x1e\x80\0\0\0\1\x68\xce\x80\0\0\0\1\x65\x88\x80"
DELTA = b"\0\0\0\1\x41\x9a\x80"
ADTS = bytes((0xFF, 0xF1, 0x4C, 0x40, 0x01, 0x1F, 0xFC, 0x21))
START = "EVENT=START,TRACK_TYPE="


def frame(number: int, *, key: bool = False, codec: str = "h264") -> EncodedFrame:
    payload = (KEY if key else DELTA) if codec == "h264" else b"\x10\x02\0\x9d\x01\x2a" + bytes(20)
    shape = {"width": 640, "height": 480} if key else {}
    whole = EncodedFrame(Track(7, "video"), "h264", payload, key, number * FRAME_NS, **shape)
    return whole._replace(codec=codec)  # type: ignore[arg-type]  # a literal in every test


def feed(output: VideoTrackOutput, numbers: range, *, every: int = 50, **changes: object) -> list[Product]:
    """Frames at 25 per second, a keyframe at multiples of `every`."""
    products: list[Product] = []
    for number in numbers:
        codec = str(changes.get("codec", "h264"))
        made = frame(number, key=number % every == 0, codec=codec)
        products += output.write(made._replace(**changes))  # type: ignore[arg-type]  # fields of a frame
    return products


@pytest.fixture
def output(tmp_path: Path) -> VideoTrackOutput:
    return VideoTrackOutput(shelf(tmp_path / "spool")[0], 7)


def test_slices_end_at_the_first_keyframe_past_fifteen_seconds(output: VideoTrackOutput) -> None:
    products = feed(output, range(1000), every=50) + output.close()
    assert [(item.start_ns // FRAME_NS, item.duration_ns // FRAME_NS) for item in slices(products)] == [(0, 400), (400, 400), (800, 200)]
    assert [item.discontinuity for item in slices(products)] == [True, False, False]
    assert [item.sequence for item in slices(products)] == [0, 1, 2]
    assert slices(products)[0].tags == (
        "#EXT-X-AGORA-ROTATE:WIDTH=640,HEIGHT=480,ROTATE=0,TIME=20231114221320000",
        "#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=VIDEO,TIME=20231114221320000",
    )
    assert slices(products)[1].tags == slices(products)[2].tags == ()


def test_the_list_is_told_once_with_its_first_frame(output: VideoTrackOutput) -> None:
    assert output.write(frame(0)) == []
    (file,) = files(feed(output, range(1, 100)) + output.close())
    assert file.model_dump() == {
        "name": "0123456789abcdef0123456789abcdef_room__uid_s_7__uid_e_video.m3u8",
        "track": "video",
        "uid": 7,
        "mixed": False,
        "playable": True,
        "start_ms": 1_700_000_002_000,
    }
    assert output.dropped == 50


def test_keyframes_are_wanted_to_begin_and_when_the_slice_is_old(output: VideoTrackOutput) -> None:
    assert output.wants_keyframe
    feed(output, range(375), every=1000)
    assert not output.wants_keyframe
    output.write(frame(375))
    assert output.wants_keyframe
    output.write(frame(376, key=True))
    assert not output.wants_keyframe


def test_h264_is_cut_after_five_and_a_half_minutes_without_keyframe(output: VideoTrackOutput) -> None:
    products = feed(output, range(8300), every=10_000) + output.close()
    assert [item.duration_ns // FRAME_NS for item in slices(products)] == [8250, 50]
    assert slices(products)[1].discontinuity is False


def test_h264_is_cut_at_fifty_megabytes(output: VideoTrackOutput) -> None:
    big = frame(1)._replace(payload=DELTA + b"\x55" * 10_000_000)
    products = output.write(frame(0, key=True))
    for number in range(1, 8):
        products += output.write(big._replace(time_ns=number * FRAME_NS))
    products += output.close()
    assert [item.duration_ns // FRAME_NS for item in slices(products)] == [6, 2]


def test_webm_is_never_forced(output: VideoTrackOutput) -> None:
    products = feed(output, range(9000), every=100_000, codec="vp8") + output.close()
    assert [item.duration_ns // FRAME_NS for item in slices(products)] == [9000]
    assert slices(products)[0].name.endswith("_video_20231114221320000.webm")
    assert [file.playable for file in files(products)] == [False]


def test_a_size_change_cuts_at_its_keyframe(output: VideoTrackOutput) -> None:
    products = feed(output, range(100), every=1000)
    products += output.write(frame(100, key=True)._replace(width=1280, height=720))
    products += feed(output, range(101, 150), every=1000) + output.close()
    first, second = slices(products)
    assert first.duration_ns == 100 * FRAME_NS
    assert second.discontinuity
    assert second.tags == ("#EXT-X-AGORA-ROTATE:WIDTH=1280,HEIGHT=720,ROTATE=0,TIME=20231114221324000",)


def test_a_codec_change_cuts_and_waits_for_a_keyframe(output: VideoTrackOutput) -> None:
    products = feed(output, range(100), every=1000)
    products += feed(output, range(100, 150), every=120, codec="vp8") + output.close()
    first, second = slices(products)
    assert first.duration_ns == 100 * FRAME_NS
    assert (second.start_ns, second.duration_ns) == (120 * FRAME_NS, 30 * FRAME_NS)
    assert second.discontinuity
    assert second.name.endswith(".webm")
    assert second.tags == ("#EXT-X-AGORA-ROTATE:WIDTH=640,HEIGHT=480,ROTATE=0,TIME=20231114221324800",)
    assert output.dropped == 20


def test_a_return_within_fifteen_seconds_continues_the_segment(output: VideoTrackOutput) -> None:
    products = feed(output, range(100)) + output.interrupt()
    assert slices(products)[0].duration_ns == 100 * FRAME_NS
    products = feed(output, range(460, 520)) + output.interrupt()  # the keyframe of 500: not 15 s after the end
    assert output.dropped == 40
    products += output.close()
    (again,) = slices(products)
    assert again.start_ns == 500 * FRAME_NS
    assert again.discontinuity
    assert START in "".join(again.tags)  # 16 s: a new segment after all
    products = feed(output, range(800, 850), every=400) + output.close()
    (soon,) = slices(products)
    assert soon.discontinuity
    assert soon.tags == ()


def test_silence_of_the_stream_over_fifteen_seconds_is_an_interruption(output: VideoTrackOutput) -> None:
    products = feed(output, range(100)) + feed(output, range(600, 650)) + output.close()
    first, second = slices(products)
    assert first.duration_ns == 100 * FRAME_NS
    assert second.discontinuity
    assert [tag.split(":")[0] for tag in second.tags] == ["#EXT-X-AGORA-ROTATE", "#EXT-X-AGORA-TRACK-EVENT"]


def test_rotations_stand_before_the_slice_that_follows_them(output: VideoTrackOutput) -> None:
    products = feed(output, range(100)) + feed(output, range(100, 200), rotation=90) + feed(output, range(200, 450), rotation=180)
    products += feed(output, range(450, 500), rotation=270) + output.close()
    first, second = slices(products)
    assert len(first.tags) == 2
    assert [tag.partition("ROTATE=")[2] for tag in second.tags] == [
        "270,TIME=20231114221324000",
        "180,TIME=20231114221328000",
        "90,TIME=20231114221338000",  # nothing follows that could carry it
    ]


def test_a_clock_set_back_neither_repeats_a_name_nor_stops_the_recording(output: VideoTrackOutput) -> None:
    products: list[Product] = []
    for _ in range(3):
        products += feed(output, range(10)) + output.interrupt()
    names = [item.name for item in slices(products)]
    assert len(set(names)) == 3
    assert names == sorted(names)


def test_empty_frames_are_dropped(output: VideoTrackOutput) -> None:
    assert output.write(frame(0, key=True)._replace(payload=b"")) == []
    assert output.dropped == 1
    assert output.close() == []


def test_a_webm_slice_needs_a_size(output: VideoTrackOutput) -> None:
    unknown = frame(0, key=True, codec="vp8")._replace(width=0, height=0)
    assert output.write(unknown) == []
    assert len(files(output.write(frame(1, key=True, codec="vp8")))) == 1


def test_what_a_muxer_refuses_leaves_nothing(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelved, 7)
    output.write(frame(0, key=True)._replace(payload=b"\xff" * 40))  # no start code
    assert output.interrupt() == []
    assert output.dropped == 1
    assert spool.left_open() == []
    (item,) = slices(feed(output, range(50, 100)) + output.close())
    assert len(item.tags) == 2


def test_sound_is_cut_after_fifteen_seconds(tmp_path: Path) -> None:
    output = AudioTrackOutput(shelf(tmp_path / "spool")[0], 7)
    products: list[Product] = []
    for number in range(1000):
        products += output.write(ADTS, number * 1024 * SECOND_NS // 48_000)
    products += output.close()
    first, second = slices(products)
    assert first.duration_ns == 704 * 1024 * SECOND_NS // 48_000  # 15.019 s, as in playlists of the original
    assert second.start_ns == first.duration_ns
    assert second.duration_ns == pytest.approx(296 * 1024 * SECOND_NS // 48_000, abs=1)
    assert first.tags == ("#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=AUDIO,TIME=20231114221320000",)
    assert (second.tags, second.discontinuity) == ((), False)
    (file,) = files(products)
    assert (file.track, file.uid, file.playable, file.mixed) == ("audio", 7, True, False)


def test_sound_that_returns(tmp_path: Path) -> None:
    output = AudioTrackOutput(shelf(tmp_path / "spool")[0], 7)
    products: list[Product] = []
    for start in (0, 10, 26):
        products += output.write(ADTS, start * SECOND_NS) + output.interrupt()
    assert [START in "".join(item.tags) for item in slices(products)] == [True, False, True]
    assert [item.discontinuity for item in slices(products)] == [True, True, True]
