"""A real browser publishes through the hub."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.rtp.depacketisers import AccessUnit, create
from recorder.rtp.packet import picture_loss_indication
from tests.e2e.browser import chromium, needs_chromium, publishing_page, served
from tests.integration.hub_room import APP, CHANNEL, Roster, Subscriber, running_hub, until

pytestmark = [needs_chromium, pytest.mark.timeout(120)]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.mark.parametrize(("codec", "name"), [("VP8", "vp8"), ("H264", "h264"), ("VP9", "vp9"), ("AV1", "av1")])
async def test_browser_reaches_a_subscriber(browser: Browser, codec: str, name: str) -> None:
    async with (
        running_hub() as hub,
        Roster().watching(hub) as roster,
        publishing_page(browser, hub=hub, app_id=APP, channel=CHANNEL, uid=55, video=codec) as page,
    ):
        await until(lambda: 55 in roster.people)
        assert (roster.people[55].audio, roster.people[55].video) == ("opus", name)
        async with Subscriber(hub, 55) as subscriber:
            await until(lambda: len(subscriber.of("audio")) > 100 and len(subscriber.of("video")) > 60, 20)
            await until(lambda: subscriber.keyframes(name) >= 1)
            await until(lambda: all(subscriber.reports[subscriber.ssrc(kind)] for kind in ("audio", "video")))
            await asyncio.sleep(0.6)
            before = subscriber.keyframes(name)
            subscriber.tap.send_rtcp(picture_loss_indication(1, subscriber.ssrc("video")))
            await until(lambda: subscriber.keyframes(name) > before, 5)
        assert await page.evaluate("window.mute(true, false)") == 204
        await until(lambda: roster.people[55].audio_muted)
        await page.evaluate("window.stop()")
        await until(lambda: 55 not in roster.people)


@pytest.mark.parametrize(("codec", "name", "layers"), [("VP9", "vp9", "L3T3"), ("VP9", "vp9", "L3T3_KEY"), ("AV1", "av1", "L2T2")])
async def test_all_layers_of_a_browser_are_one_picture(browser: Browser, codec: str, name: VideoCodec, layers: str) -> None:
    async with (
        running_hub() as hub,
        publishing_page(browser, hub=hub, app_id=APP, channel=CHANNEL, uid=55, video=codec, layers=layers),
        Subscriber(hub, 55) as subscriber,
    ):
        async with asyncio.timeout(40):  # all layers are sent once there seems to be room for them
            while not _has_layers(pictures := _pictures(subscriber, name), name):
                await asyncio.sleep(1)
    assert all(errors == 0 for _, _, errors in pictures)


def _has_layers(pictures: list[tuple[AccessUnit, tuple[int, int] | None, int]], codec: VideoCodec) -> bool:
    """Whether the largest layer was shown, and after it at least one picture of several layers."""
    full = [unit for unit, size, _ in pictures if size == (640, 360)]
    if codec == "av1":
        return len(full) > 30 and any(b"\x36\x28" in unit.payload or b"\x36\x08" in unit.payload for unit in full)
    superframes = [unit for unit in full if unit.payload[-1] >> 5 == 0b110]
    return len(superframes) > 30 and (superframes[-1].width, superframes[-1].height) == (640, 360)


def _pictures(subscriber: Subscriber, codec: VideoCodec) -> list[tuple[AccessUnit, tuple[int, int] | None, int]]:
    """Everything up to the first loss: access units from the first keyframe on, the size shown, and decoding errors so far."""
    depacketiser, decoder = create(codec), VideoDecoder(codec)
    pictures: list[tuple[AccessUnit, tuple[int, int] | None, int]] = []
    packets = subscriber.of("video")
    first = packets[0][0].sequence if packets else 0
    in_order = sorted(packets, key=lambda packet: (packet[0].sequence - first + 0x8000) & 0xFFFF)
    for (header, payload), (before, _) in zip(in_order, [*in_order[:1], *in_order], strict=False):
        step = (header.sequence - before.sequence) & 0xFFFF
        if step > 1:
            break
        if step == 0 and header is not before:  # the same once more
            continue
        unit = depacketiser.push(payload, timestamp=header.timestamp, marker=bool(header.marker))
        if unit and (pictures or unit.keyframe):
            shown = decoder.decode(unit.payload, 0)
            pictures.append((unit, (shown[-1][0].width, shown[-1][0].height) if shown else None, decoder.errors))
    return pictures


async def test_a_page_that_cannot_publish_says_why(browser: Browser) -> None:
    with served() as pages:
        page = await browser.new_page()
        await page.goto(f"{pages}/publish.html?hub=http://127.0.0.1:9")
        await page.wait_for_function("window.publication?.state === 'failed'", timeout=20_000)
        assert 'no parameter "app"' in (await page.text_content("#state") or "")
