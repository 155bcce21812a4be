"""Encoded loops: every way through them shows the same pictures, and decoders never miss a reference."""

import asyncio
import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from recorder.media.decode import AudioDecoder
from recorder.tools import measure
from recorder.tools.content import SAMPLE_RATE, Style, tone_hz
from recorder.tools.publish_media import (
    AUDIO_FRAME,
    AudioCodec,
    Library,
    VideoCodec,
    VideoLoop,
    encode_audio,
    encode_video,
    encode_video_apart,
)
from recorder.tools.publish_tracks import LoopedVideo

STYLE = Style(uid=42, width=160, height=90, fps=15, period_seconds=4)
CODECS: list[VideoCodec] = ["h264", "vp8", "vp9", "av1"]


@pytest.fixture(scope="module", params=CODECS)
def loop(request: pytest.FixtureRequest) -> tuple[VideoCodec, VideoLoop]:
    encode = encode_video_apart if request.param == "av1" else encode_video
    media = encode(STYLE, request.param, 300)
    assert os.sched_getscheduler(0) in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
    return request.param, media


class Viewer:
    """Decodes frame by frame and reads the counter."""

    def __init__(self, codec: VideoCodec) -> None:
        context = av.CodecContext.create("libdav1d" if codec == "av1" else codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count = 1
        context.flags |= av.codec.context.Flags.low_delay
        context.options = {"err_detect": "explode"}
        self._context = context

    def see(self, data: bytes) -> int | None:
        frames = self._context.decode(av.Packet(data))
        assert len(frames) == 1
        return measure.read_counter(measure.luma_of(frames[0]))


async def test_loop_is_decodable_over_its_seam(loop: tuple[VideoCodec, VideoLoop]) -> None:
    codec, media = loop
    viewer, video = Viewer(codec), LoopedVideo(media)
    for index in range(media.frames + 40):
        frame = await video.frame(index, keyframe=False)
        assert frame is not None
        assert frame[1] == (index % media.gop == 0)
        assert viewer.see(frame[0]) == index % media.frames


async def test_requests_are_answered_within_half_a_second_and_nothing_else_changes(loop: tuple[VideoCodec, VideoLoop]) -> None:
    codec, media = loop
    generator = random.Random(3)
    viewer, video = Viewer(codec), LoopedVideo(media)
    asked_at: int | None = None
    answers = 0
    for index in range(3 * media.frames):
        if asked_at is None and generator.random() < 0.15:
            asked_at = index
        frame = await video.frame(index, keyframe=asked_at is not None)
        assert frame is not None
        assert viewer.see(frame[0]) == index % media.frames
        if asked_at is not None and frame[1]:
            assert (index - asked_at) / media.fps <= 0.5
            asked_at, answers = None, answers + 1
    assert answers > 10


async def test_nothing_is_sent_after_an_interruption_before_a_keyframe(loop: tuple[VideoCodec, VideoLoop]) -> None:
    codec, media = loop
    video = LoopedVideo(media)
    assert await video.frame(0, keyframe=False)
    later = [await video.frame(index, keyframe=False) for index in range(7, 20)]
    first = next(frame for frame in later if frame)
    assert later[0] is None
    assert first[1]
    assert Viewer(codec).see(first[0]) == 7 + later.index(first)


def test_keyframes_of_h264_carry_their_parameter_sets() -> None:
    media = encode_video(STYLE, "h264", 300)
    for run in media.runs.values():
        types = [nal[0] & 0x1F for nal in run[0].replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]
        assert types[:2] == [7, 8]
        assert 5 in types
        assert all(b"\0\0\1\x67" not in frame for frame in run[1:])


@pytest.mark.parametrize("codec", ["opus", "pcmu", "pcma", "g722"])
def test_beeps_are_heard_at_full_seconds(codec: AudioCodec) -> None:
    media = encode_audio(42, 4, codec)
    assert len(media.packets) == 200
    decoder = AudioDecoder(codec, 1)
    samples = np.zeros(10 * SAMPLE_RATE, np.float32)
    for number in range(2 * len(media.packets)):
        for part, time_ns in decoder.decode(media.packets[number % 200], number * 20_000_000):
            start = round((time_ns / 1e9 + 1) * SAMPLE_RATE)
            samples[start : start + part.shape[1]] = part[0]
    onsets = measure.onsets(samples, tone_hz(42))
    assert len(onsets) >= 7
    assert all(abs(onset - round(onset)) < 0.002 for onset in onsets[1:]), onsets  # the first finds a decoder that is not settled


def test_beeps_come_out_of_the_decoder_at_full_seconds() -> None:
    media = encode_audio(42, 4)
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", SAMPLE_RATE
    pieces = []
    for number in range(2 * len(media.packets)):
        packet = av.Packet(media.packets[number % len(media.packets)])
        packet.pts, packet.time_base = number * AUDIO_FRAME, Fraction(1, SAMPLE_RATE)
        pieces += [frame.to_ndarray()[0] for frame in decoder.decode(packet)]
    samples = np.concatenate(pieces).astype(np.float32) / 32768
    onsets = [onset - media.delay / SAMPLE_RATE for onset in measure.onsets(samples, tone_hz(42))]
    assert len(media.packets) == 200
    assert len(onsets) >= 7
    assert all(abs(onset - round(onset)) < 0.002 for onset in onsets)


async def test_library_encodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = encode_video

    def counting(style: Style, codec: VideoCodec, bitrate_kbps: int) -> VideoLoop:
        calls.append(style)
        return real(style, codec, bitrate_kbps)

    monkeypatch.setattr("recorder.tools.publish_media.encode_video", counting)
    library = Library()
    first, second = await asyncio.gather(library.video(STYLE, "h264", 200), library.video(STYLE, "h264", 200))
    assert first is second
    assert len(calls) == 1


async def test_library_keeps_media_on_disk(tmp_path: Path) -> None:
    video = await Library(tmp_path).video(STYLE, "vp8", 200)
    audio = await Library(tmp_path).audio(42, 2)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    before = [file.stat().st_mtime_ns for file in files]
    assert await Library(tmp_path).video(STYLE, "vp8", 200) == video
    assert await Library(tmp_path).audio(42, 2) == audio
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == before


def test_period_must_hold_whole_gops() -> None:
    with pytest.raises(ValueError, match="multiple"):
        encode_video(Style(uid=1, width=64, height=64, fps=10, period_seconds=3), "h264", 100)
