"""A participant's picture: what is decoded, and when a keyframe is asked for."""

import weakref
from collections.abc import Sequence

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.worker.sight import Sight
from tests.outputs_media import video

TRACK = Track(101, "video")
SECOND = 1_000_000_000


def _frames(numbers: Sequence[int]) -> list[EncodedFrame]:
    encoded = video("h264", 60)
    return [EncodedFrame(TRACK, "h264", encoded[n].data, encoded[n].keyframe, encoded[n].time_ns, 160, 120) for n in numbers]


def _sight() -> tuple[Sight, list[Track]]:
    asked: list[Track] = []
    return Sight(TRACK, asked.append), asked


def test_a_keyframe_is_asked_for_until_it_comes() -> None:
    sight, asked = _sight()
    sight.show(True)
    assert asked == [TRACK]
    for frame in _frames([*range(1, 15), *range(16, 30), *range(31, 45)]):  # three seconds without one
        sight.take(frame)
        assert sight.latest(frame.time_ns) is None
    assert 3 <= len(asked) <= 5
    (keyframe,) = _frames([45])
    sight.take(keyframe)
    assert sight.latest(keyframe.time_ns) is not None
    before = len(asked)
    (following,) = _frames([46])
    sight.take(following)
    assert sight.latest(following.time_ns) is not None
    assert len(asked) == before


def test_frames_that_came_before_the_place_are_shown() -> None:
    sight, asked = _sight()
    for frame in _frames([0, 1, 2]):
        sight.take(frame)
    sight.show(True)
    assert sight.latest(SECOND) is not None
    assert asked == []


def test_who_has_no_place_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[weakref.ref[VideoDecoder]]()

    class Noted(VideoDecoder):
        def __init__(self, codec: VideoCodec) -> None:
            super().__init__(codec)
            opened.append(weakref.ref(self))

    monkeypatch.setattr("recorder.worker.sight.VideoDecoder", Noted)
    sight, asked = _sight()
    before, during, after = _frames(range(15)), _frames(range(15, 30)), _frames(range(30, 60))
    for frame in before:
        sight.take(frame)
        assert sight.latest(frame.time_ns) is None
    assert (opened, asked, sight.is_empty) == ([], [], True)
    sight.show(True)
    for frame in during:
        sight.take(frame)
        assert sight.latest(frame.time_ns) is not None
    sight.show(False)
    for frame in after:
        sight.take(frame)
        assert sight.latest(frame.time_ns) is None
    assert [decoder() for decoder in opened] == [None]
    assert asked == [TRACK]


def test_after_an_interruption_nothing_is_decoded_without_a_keyframe() -> None:
    sight, _ = _sight()
    sight.show(True)
    for frame in _frames([0, 1]):
        sight.take(frame)
    assert sight.latest(SECOND) is not None
    sight.interrupt(SECOND)
    for frame in _frames([7, 8]):  # they continue what was not sent
        sight.take(frame)
    assert sight.latest(SECOND) is None
    for frame in _frames([15, 16]):
        sight.take(frame)
    assert sight.latest(2 * SECOND) is not None


def test_a_decoder_that_gives_nothing_is_replaced() -> None:
    """Row W9 of the faults: without it one damaged keyframe would freeze the picture for ever."""
    sight, asked = _sight()
    sight.show(True)
    first, *others = _frames(range(60))
    sight.take(first)
    assert sight.latest(first.time_ns) is not None
    before = len(asked)
    for frame in others[:35]:
        sight.take(frame._replace(payload=b"\x00\x00\x00\x01\x61garbage", keyframe=False))
        assert sight.latest(frame.time_ns) is None
    assert len(asked) > before
    for frame in others[35:]:
        sight.take(frame)
    assert sight.latest(10 * SECOND) is not None


def test_a_frame_whose_time_ran_ahead_does_not_hold_up_those_that_follow() -> None:
    """A stream that began anew: its times go back, but what was sent first is decoded first."""
    sight, _ = _sight()
    sight.show(True)
    ahead = [frame._replace(time_ns=frame.time_ns + SECOND) for frame in _frames([0, 1, 2])]
    following = _frames([3, 4])
    for frame in [*ahead, *following]:
        sight.take(frame)
    assert sight.latest(following[0].time_ns - 1) is None
    assert sight.latest(following[0].time_ns) is not None
    assert not sight.is_empty
    assert sight.latest(following[1].time_ns) is not None
    assert sight.is_empty


def test_frames_that_are_far_too_late_are_decoded_and_the_last_is_shown() -> None:
    sight, asked = _sight()
    sight.show(True)
    for frame in _frames([0, 1, 2, 3]):
        sight.take(frame._replace(time_ns=frame.time_ns - 5 * SECOND))
    assert sight.latest(0) is not None
    assert sight.is_empty
    assert len(asked) == 1
