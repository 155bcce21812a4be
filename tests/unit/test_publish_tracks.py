"""Tracks under a clock of the test: what is sent when."""

from fractions import Fraction

import pytest

from recorder.tools.publish import local_addresses
from recorder.tools.publish_media import AudioLoop, VideoLoop
from recorder.tools.publish_tracks import AudioTrack, LoopedVideo, MediaClock, VideoTrack

AUDIO = AudioLoop(packets=tuple(b"a%d" % i for i in range(100)), delay=312)
VIDEO = VideoLoop(fps=10, frames=40, gop=20, runs={s: tuple(b"%d:%d" % (s, i) for i in range(s, s - s % 20 + 20)) for s in range(0, 40, 5)})


class Clock(MediaClock):
    """Time passes only when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.time = -0.02

    def now(self) -> float:
        return self.time

    async def until(self, seconds: float) -> None:
        self.time = max(self.time, seconds)


async def test_sound_is_sent_at_its_capture_time() -> None:
    clock = Clock()
    track = AudioTrack(clock, AUDIO)
    for number in range(250):
        packet = await track.recv()
        assert bytes(packet) == AUDIO.packets[number % 100]
        assert packet.pts is not None
        assert (packet.pts, packet.time_base) == (number * 960, Fraction(1, 48000))
        assert clock.time == pytest.approx(max(-0.02, packet.pts / 48000))


async def test_picture_is_sent_at_its_capture_time() -> None:
    clock = Clock()
    track = VideoTrack(clock, LoopedVideo(VIDEO))
    for index in range(60):
        packet = await track.recv()
        assert (packet.pts, packet.time_base) == (index * 9000, Fraction(1, 90000))
        assert clock.time == pytest.approx(max(0, index / 10))
    assert track.keyframe_requests == 0


async def test_request_changes_to_the_next_run() -> None:
    track = VideoTrack(Clock(), LoopedVideo(VIDEO))
    sent = [bytes(await track.recv()) for _ in range(7)]
    track.request_keyframe()
    sent += [bytes(await track.recv()) for _ in range(15)]
    assert sent == [b"0:%d" % i for i in range(10)] + [b"10:%d" % i for i in range(10, 20)] + [b"20:20", b"20:21"]
    assert track.keyframe_requests == 1


async def test_late_media_is_dropped_and_video_goes_on_with_a_keyframe() -> None:
    clock = Clock()
    sound, picture = AudioTrack(clock, AUDIO), VideoTrack(clock, LoopedVideo(VIDEO))
    await sound.recv()
    await picture.recv()
    clock.time = 2.25
    packet = await sound.recv()
    assert packet.pts is not None
    assert 1.7 < packet.pts / 48000 < 1.8
    assert bytes(await picture.recv()) == b"20:20"


async def test_muted_tracks_send_nothing_and_come_back_in_time() -> None:
    clock = Clock()
    track = VideoTrack(clock, LoopedVideo(VIDEO))
    await track.recv()
    track.muted = True

    async def until(seconds: float) -> None:
        clock.time = max(clock.time, seconds)
        track.muted = clock.time < 1.25

    clock.until = until  # type: ignore[method-assign]  # unmutes while the track waits
    packet = await track.recv()
    assert (bytes(packet), packet.pts) == (b"15:15", 15 * 9000)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://127.0.0.1:8083", ("127.0.0.1",)),
        ("http://localhost:8083/", ("127.0.0.1",)),
        ("http://[::1]:8083", ("::1",)),
        ("https://hub.example.org", ()),
        ("http://192.0.2.7:8083", ()),
    ],
)
def test_loopback_is_offered_to_a_hub_on_this_machine_only(url: str, addresses: tuple[str, ...]) -> None:
    assert local_addresses(url) == addresses
