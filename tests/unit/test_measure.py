"""The measuring tools on media made by the content generator with known faults."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from recorder.tools import measure
from recorder.tools.content import SAMPLE_RATE, Picture, Plane, Style, sound, tone_hz

UID = 101
STYLE = Style(UID, 320, 180, 30)
SECONDS = 4


def encoded(picture: Plane, width: int, height: int, bitrate_kbps: int) -> VideoFrame:
    """The picture as a viewer gets it."""
    codec = av.CodecContext.create("libx264", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuv420p", Fraction(1, 30)
    codec.bit_rate = bitrate_kbps * 1000
    codec.options = {"preset": "superfast", "tune": "zerolatency"}
    packets = [*codec.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p").reformat(width, height)), *codec.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    return frames[0]


def write(path: Path, *, audio_late: float = 0.0, audio_uid: int = UID, silent: bool = False) -> Path:
    """A file of SECONDS with the content of UID; its sound comes `audio_late` seconds after the picture."""
    picture = Picture(STYLE)
    samples = np.zeros(SECONDS * SAMPLE_RATE, np.int16) if silent else sound(audio_uid, SECONDS)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = STYLE.width, STYLE.height, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(SECONDS * 30):
            frame = av.VideoFrame.from_ndarray(picture.draw(index), format="yuv420p")
            frame.pts, frame.time_base = index + 15, Fraction(1, 30)  # room before zero for sound that comes early
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(samples), 1024):
            piece = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            piece.sample_rate = SAMPLE_RATE
            piece.pts = start + round((0.5 + audio_late) * SAMPLE_RATE)
            piece.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("width", "height"), [(640, 360), (320, 180), (128, 72), (96, 54)])
def test_counter_is_read_after_scaling_and_compression(width: int, height: int) -> None:
    picture = Picture(Style(UID, 640, 360))
    for counter in (0, 1, 77, 239, 2047, 4095):
        frame = encoded(picture.draw(counter), width, height, max(50, width * height // 900))
        assert measure.read_counter(measure.luma_of(frame)) == counter


@pytest.mark.parametrize(("left", "top", "width", "height"), [(219, 0, 202, 360), (0, 80, 640, 200), (140, 0, 360, 360)])
def test_counter_is_read_in_a_tile_cropped_to_fill(left: int, top: int, width: int, height: int) -> None:
    luma = Picture(Style(UID, 640, 360)).draw(1234)[:360]
    assert measure.read_counter(luma[top : top + height, left : left + width]) == 1234


def test_counter_is_not_seen_where_there_is_none() -> None:
    generator = np.random.default_rng(1)
    assert measure.read_counter(np.full((180, 320), 128, np.uint8)) is None
    for _ in range(50):
        assert measure.read_counter(generator.integers(0, 255, (180, 320), dtype=np.uint8)) is None
    picture = Picture(STYLE).draw(5)[:180]
    assert measure.read_counter(np.roll(picture, 40, axis=1)) is None


def test_flash_is_white_for_a_tenth_of_each_second() -> None:
    picture = Picture(STYLE)
    bright = [index for index in range(90) if measure.flash_level(picture.draw(index)[:180]) > 128]
    assert bright == [0, 1, 2, 30, 31, 32, 60, 61, 62]


def test_everybody_is_told_by_colour() -> None:
    uids = [*range(101, 118)]
    for uid in uids:
        frame = encoded(Picture(Style(uid, 320, 180)).draw(7), 128, 72, 100)
        assert measure.who(frame, uids) == uid
    assert measure.who(av.VideoFrame.from_ndarray(np.full((108, 128), 128, np.uint8), format="yuv420p"), uids) is None


def test_tile_is_judged_by_its_own_pixels() -> None:
    canvas = np.full((270, 320), 128, np.uint8)
    canvas[:180, 160:] = 20
    luma, chroma = Picture(Style(7, 160, 90)).draw(9)[:90], Picture(Style(7, 160, 90)).draw(9)[90:].reshape(2, 45, 80)
    canvas[90:180, 160:] = luma
    canvas[180:].reshape(2, 90, 160)[:, 45:, 80:] = chroma
    frame = av.VideoFrame.from_ndarray(canvas, format="yuv420p")
    tile = measure.Rect(160, 90, 160, 90)
    assert measure.who(frame, [5, 6, 7], tile) == 7
    assert measure.who(frame, [5, 6, 7], measure.Rect(0, 0, 160, 90)) is None
    assert measure.read_counter(measure.crop(measure.luma_of(frame), tile)) == 9


@pytest.mark.parametrize("audio_late", [-0.08, 0.0, 0.08])
def test_offset_of_picture_and_sound_is_measured(tmp_path: Path, audio_late: float) -> None:
    path = write(tmp_path / "shifted.mp4", audio_late=audio_late)
    offsets = measure.av_offsets(path, tone_hz(UID))
    assert len(offsets) == SECONDS - 1  # the first flash is no onset: nothing dark came before it
    assert all(abs(offset + audio_late) < 0.005 for offset in offsets)


def test_transport_stream_is_measured_too(tmp_path: Path) -> None:
    path = write(tmp_path / "file.ts", audio_late=0.04)
    assert [round(offset, 2) for offset in measure.av_offsets(path, tone_hz(UID))] == [-0.04] * (SECONDS - 1)


def test_tone_is_told_from_others(tmp_path: Path) -> None:
    path = write(tmp_path / "other.mp4", audio_uid=102)
    assert measure.tone_present(path, tone_hz(102))
    assert not measure.tone_present(path, tone_hz(102), end=0.2)
    assert not measure.tone_present(path, tone_hz(101))
    assert not measure.tone_present(write(tmp_path / "silent.mp4", silent=True), tone_hz(UID))


def test_beeps_are_found_to_the_millisecond_among_others() -> None:
    """All speak at the same time, one of them 40 ms later."""
    mixed = sum(sound(uid, SECONDS).astype(np.float32) / 32768 for uid in (101, 103, 104))
    late = np.roll(sound(102, SECONDS).astype(np.float32) / 32768, round(0.04 * SAMPLE_RATE))
    onsets = measure.onsets(mixed + late, tone_hz(102))
    assert len(onsets) == SECONDS
    assert all(abs(onset - second - 0.04) < 0.001 for second, onset in enumerate(onsets))


def test_probe_tells_what_is_inside(tmp_path: Path) -> None:
    probe = measure.probe(write(tmp_path / "file.mp4"))
    video, audio = probe.stream("video"), probe.stream("audio")
    assert video is not None
    assert audio is not None
    assert (video.codec, video.width, video.height, round(video.fps), video.frames) == ("h264", 320, 180, 30, SECONDS * 30)
    assert (audio.codec, audio.sample_rate, audio.channels) == ("aac", SAMPLE_RATE, 1)
    assert abs(video.duration - SECONDS) < 0.01
    assert abs(video.start - 0.5) < 0.01
    assert "mp4" in probe.container


def test_damage_in_slices_is_found(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.ts").read_bytes()
    half = len(whole) // 188 // 2 * 188
    first, second, broken = tmp_path / "1.ts", tmp_path / "2.ts", tmp_path / "3.ts"
    first.write_bytes(whole[:half])
    second.write_bytes(whole[half:])
    assert measure.decode_errors([first, second]) == []
    damaged = bytearray(whole)
    for position in random.Random(1).sample(range(188 * 20, len(damaged)), 300):
        damaged[position] ^= 0xFF
    broken.write_bytes(damaged)
    assert measure.decode_errors([broken])
    assert measure.decode_errors([second, first])
