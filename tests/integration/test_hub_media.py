"""Real publishers and subscribers through the hub over loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from statistics import median

import pytest

from recorder.frames import Kind
from recorder.rtp.packet import nack, picture_loss_indication
from recorder.tools.publish import PublishError
from recorder.tools.publish_media import AudioCodec, Library
from tests.integration.hub_room import Roster, Subscriber, publishing, running_hub, starts_h264_keyframe, until


@pytest.fixture
async def hub() -> AsyncIterator[str]:
    async with running_hub() as url:
        yield url


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.mark.parametrize(("codec", "audio"), [("h264", "opus"), ("vp8", "pcmu"), ("vp9", "pcma"), ("av1", "g722")])
async def test_media_reaches_a_subscriber_whole(hub: str, codec: str, audio: AudioCodec) -> None:
    library = Library()
    async with publishing(hub, 101, library, video=codec, audio=audio), Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 100 and len(subscriber.of("video")) > 30)
        for kind in ("audio", "video"):
            numbers = [header.sequence for header, _ in subscriber.of(kind)]
            assert [(later - first) & 0xFFFF for first, later in pairwise(numbers)] == [1] * (len(numbers) - 1)
            assert len({header.ssrc for header, _ in subscriber.of(kind)}) == 1
        loop = await library.audio(101, codec=audio)
        sent = set(loop.packets)
        assert all(payload in sent for _, payload in subscriber.of("audio"))
        assert subscriber.keyframes(codec) >= 1


@pytest.mark.alone  # publisher, hub and subscriber share one loop here: what holds it up shows as a difference of the clocks
async def test_audio_and_video_reports_lie_on_one_clock(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library), Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 20 and len(subscriber.of("video")) > 20)
        await until(lambda: all(len(subscriber.reports[subscriber.ssrc(kind)]) > 1 for kind in ("audio", "video")))
        now = time.time()
        for kind, clock in (("audio", 48_000), ("video", 90_000)):
            first, *_, last = subscriber.reports[subscriber.ssrc("audio" if kind == "audio" else "video")]
            times = [int.from_bytes(report.info[:8], "big") / 2**32 - 2_208_988_800 for report in (first, last)]
            media = [int.from_bytes(report.info[8:12], "big") / clock for report in (first, last)]
            assert abs(times[1] - now) < 5
            assert abs((times[1] - times[0]) - (media[1] - media[0])) < 0.05


async def test_keyframe_request_reaches_the_publisher(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library, live=True) as publisher, Subscriber(hub, 101) as subscriber:
        await until(lambda: subscriber.keyframes("h264") >= 1)
        assert publisher.video
        await asyncio.sleep(0.6)  # the request made on joining is answered
        before, asked = subscriber.keyframes("h264"), publisher.video.keyframe_requests
        for _ in range(20):
            subscriber.tap.send_rtcp(picture_loss_indication(1, subscriber.ssrc("video")))
        await until(lambda: subscriber.keyframes("h264") > before, 2)
        assert publisher.video.keyframe_requests <= asked + 2


async def test_every_new_subscriber_gets_a_keyframe(hub: str, library: Library) -> None:
    """The publisher encodes live: it makes no keyframe that nobody asked for."""
    async with publishing(hub, 101, library, live=True), Subscriber(hub, 101) as first:
        await until(lambda: first.keyframes("h264") >= 1)
        for _ in range(2):
            async with Subscriber(hub, 101) as later:
                await until(lambda later=later: later.keyframes("h264") >= 1)  # type: ignore[misc]  # a loop variable bound early


async def test_subscriber_gets_lost_packets_again(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library), Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("video")) > 30)
        wanted = [header.sequence for header, _ in subscriber.of("video")[10:15]]
        rejected = subscriber.tap.packets_rejected
        subscriber.tap.send_rtcp(nack(1, subscriber.ssrc("video"), wanted))
        # They were received before, so SRTP's replay protection refuses the copies: that is how they are seen here.
        await until(lambda: subscriber.tap.packets_rejected >= rejected + len(wanted), 3)


async def test_kinds_are_subscribed_one_by_one(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library), Subscriber(hub, 101, ("audio",)) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 20)
        assert list(subscriber.payload_types) == ["audio"]
    async with publishing(hub, 102, library, video=None), Subscriber(hub, 102) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 20)
        assert list(subscriber.payload_types) == ["audio"]


async def test_roster_follows_the_publishers(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library), Roster().watching(hub) as roster:
        await until(lambda: 101 in roster.people)
        assert (roster.people[101].audio, roster.people[101].video, roster.people[101].host) == ("opus", "h264", True)
        async with publishing(hub, 102, library, video=None) as second:
            await until(lambda: 102 in roster.people)
            assert (roster.people[102].audio, roster.people[102].video) == ("opus", None)
            await second.mute(audio=True)
            await until(lambda: roster.people[102].audio_muted)
            await second.mute(audio=False)
            await until(lambda: not roster.people[102].audio_muted)
        await until(lambda: 102 not in roster.people)
        assert 101 in roster.people


async def test_track_without_packets_counts_as_muted(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library) as publisher, Roster().watching(hub) as roster:
        assert publisher.audio
        assert publisher.video
        await until(lambda: 101 in roster.people)
        publisher.video.muted = True  # the hub is not told
        await until(lambda: roster.people[101].video_muted, 6)
        assert not roster.people[101].audio_muted
        publisher.video.muted = False
        await until(lambda: not roster.people[101].video_muted, 3)


async def test_mute_and_unmute_leave_no_hole(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library) as publisher, Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("video")) > 10)
        await publisher.mute(video=True)
        await asyncio.sleep(0.3)
        count = len(subscriber.of("video"))
        await asyncio.sleep(0.5)
        assert len(subscriber.of("video")) == count
        await publisher.mute(video=False)
        await until(lambda: len(subscriber.of("video")) > count + 10)
        numbers = [header.sequence for header, _ in subscriber.of("video")]
        assert all((later - first) & 0xFFFF == 1 for first, later in pairwise(numbers))


async def test_later_session_of_a_uid_replaces_the_earlier_one(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library) as first, Roster().watching(hub) as roster:
        await until(lambda: 101 in roster.people)
        async with publishing(hub, 101, library, video="vp8"):
            async with asyncio.timeout(5):
                await first.closed.wait()
            await until(lambda: roster.history[-2:] == ["left", "joined"])
            assert roster.people[101].video == "vp8"
            async with Subscriber(hub, 101) as subscriber:
                await until(lambda: subscriber.keyframes("vp8") >= 1)


async def test_subscribers_end_with_their_publisher(hub: str, library: Library) -> None:
    async with publishing(hub, 101, library) as publisher, Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 10)
        await publisher.stop()
        async with asyncio.timeout(5):
            await subscriber.tap.closed.wait()


async def test_recorders_with_one_uid_replace_each_other(hub: str, library: Library) -> None:
    async with Roster().watching(hub, 900) as first, Roster().watching(hub, 900) as second:
        await until(lambda: first.close_code == 4001)
        assert second.close_code is None
        async with publishing(hub, 900, library, video=None):
            await until(lambda: second.close_code == 4001)


async def test_publisher_learns_why_it_is_refused(hub: str, library: Library) -> None:
    with pytest.raises(PublishError, match=r"400.*app id"):
        async with publishing(hub, 1, library, app_id="no app", video=None):
            pass


async def test_two_hundred_packets_a_second_cost_little(hub: str, library: Library) -> None:
    """Not a benchmark: only that nothing piles up when ten subscribers pull one publisher."""
    async with publishing(hub, 101, library):
        async with asyncio.TaskGroup() as group:
            subscribers = [Subscriber(hub, 101) for _ in range(10)]
            for subscriber in subscribers:
                group.create_task(subscriber.start())
        await until(lambda: all(len(subscriber.of("audio")) > 50 for subscriber in subscribers), 20)
        for subscriber in subscribers:
            numbers = [header.sequence for header, _ in subscriber.of("audio")]
            assert all((later - first) & 0xFFFF == 1 for first, later in pairwise(numbers))
            await subscriber.stop()


async def test_capture_times_of_picture_and_sound_correspond(hub: str, library: Library) -> None:
    """By the sender reports alone, a flash and the beep of the same full second were captured at the same moment."""
    async with publishing(hub, 101, library) as publisher, Subscriber(hub, 101) as subscriber:
        await until(lambda: len(subscriber.of("audio")) > 20 and len(subscriber.of("video")) > 20)
        await until(lambda: all(len(subscriber.reports[subscriber.ssrc(kind)]) >= 4 for kind in ("audio", "video")))
        assert publisher.audio
        loop = await library.audio(101)
        places = {packet: number for number, packet in enumerate(loop.packets)}
        sound_zeros = [
            captured(subscriber, "audio", header.timestamp) - places[payload] * 0.02 for header, payload in subscriber.of("audio")
        ]
        keyframes = [header.timestamp for header, payload in subscriber.of("video") if starts_h264_keyframe(payload)]
        picture_zero = captured(subscriber, "video", keyframes[-1])  # a regular one: the 2 s of a GOP divide the loop
        assert abs(median((picture_zero - zero + 1) % 2 - 1 for zero in sound_zeros)) < 0.02


def captured(subscriber: Subscriber, kind: Kind, timestamp: int) -> float:
    """Unix time of an RTP time: the median of what each sender report says."""
    clock = 48_000 if kind == "audio" else 90_000
    times = []
    for report in subscriber.reports[subscriber.ssrc(kind)]:
        ntp = int.from_bytes(report.info[:8], "big") / 2**32
        distance = (timestamp - int.from_bytes(report.info[8:12], "big") + 0x80000000) % 0x100000000 - 0x80000000
        times.append(ntp + distance / clock)
    return median(times)
