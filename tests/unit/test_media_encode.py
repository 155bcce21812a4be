"""Encoders: what players and the cutter of slices rely on, and sound that comes back exactly where it was put."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.codec.context import CodecContext
from av.packet import Packet as AvPacket

from mixer.audio import Sound
from mixer.canvas import Canvas
from mixer.fit import Size
from mixer.picture import Planes
from recorder.media.decode import VideoDecoder
from recorder.media.encode import (
    FRAME_SAMPLES,
    RATE,
    SOFTWARE_ENCODER,
    VIDEO_ENCODERS,
    AudioEncoder,
    Packet,
    VideoEncoder,
    open_encoder,
    why_unusable,
)
from recorder.media.pictures import frame_of, picture_of
from recorder.media.probe import FALLBACK

CHANNELS = {0: 1, 1: 1, 2: 2}


def nal_types(data: bytes) -> list[int]:
    return [unit[0] & 31 for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]


def encoded(encoder: VideoEncoder, canvas: Canvas, ticks: range, keyframes: tuple[int, ...] = ()) -> list[Packet]:
    rng = np.random.default_rng(1)
    frame = frame_of(canvas.planes)
    packets = []
    for tick in ticks:
        canvas.planes.copy_from(Planes.filled(canvas.size, (30 + 5 * (tick % 40), 100, 150)))
        canvas.planes.y[:16] = rng.integers(16, 235, (16, canvas.size.width), np.uint8)
        found = encoder.encode(frame, tick, force_keyframe=tick in keyframes)
        assert [packet.pts for packet in found] == [tick]  # no delay, nothing reordered
        packets += found
    return packets + encoder.flush()


@pytest.mark.parametrize(("width", "height"), [(360, 640), (426, 240), (98, 46), (160, 120)])
def test_every_frame_comes_out_at_once_and_shows_the_canvas(width: int, height: int) -> None:
    canvas = Canvas(width, height)
    packets = encoded(VideoEncoder(width=width, height=height, fps=15, bitrate_kbps=500), canvas, range(20))
    assert len(packets) == 20
    assert all(packet.dts == packet.pts and packet.duration == 1 for packet in packets)
    decoder = VideoDecoder("h264")
    for packet in packets:
        [(frame, _)] = decoder.decode(packet.data, packet.pts)
        found = picture_of(frame)
        assert found.planes.size == Size(width, height)
        for plane, value in zip(found.planes.cut(canvas.tile), (30 + 5 * (packet.pts % 40), 100, 150), strict=True):
            assert plane[-8:].mean() == pytest.approx(value, abs=3)


def test_keyframes_come_where_they_are_asked_for_and_each_can_start_a_file() -> None:
    encoder = VideoEncoder(width=160, height=90, fps=15, bitrate_kbps=500, gop=40)
    packets = encoded(encoder, Canvas(160, 90), range(130), keyframes=(7, 8, 60))
    assert [packet.pts for packet in packets if packet.keyframe] == [0, 7, 8, 48, 60, 100]
    for packet in packets:
        assert packet.data.startswith(b"\0\0\0\1")
        types = nal_types(packet.data)
        if packet.keyframe:
            assert types[:2] == [7, 8]
            assert types[-1] == 5
            assert len(VideoDecoder("h264").decode(packet.data, 0)) == 1
        else:
            assert set(types) == {1}


def test_ticks_may_be_left_out() -> None:
    encoder = VideoEncoder(width=64, height=36, fps=30, bitrate_kbps=100)
    frame = frame_of(Canvas(64, 36).planes)
    assert [encoder.encode(frame, tick)[0].pts for tick in (5, 6, 20, 21, 500)] == [5, 6, 20, 21, 500]


def test_a_burst_after_a_still_picture_is_bounded() -> None:
    encoder = VideoEncoder(width=320, height=180, fps=15, bitrate_kbps=600)
    canvas = Canvas(320, 180)
    frame = frame_of(canvas.planes)
    rng = np.random.default_rng(2)
    bits = []
    for tick in range(150):
        if tick >= 90:
            canvas.planes.y[:] = rng.integers(80, 160, canvas.planes.y.shape, np.uint8)
        bits.append(8 * sum(len(packet.data) for packet in encoder.encode(frame, tick)))
    noisy = bits[90:]
    assert sum(noisy) <= 600_000 * (4 + 2)  # four seconds, and the buffer that had time to fill
    assert max(sum(noisy[start : start + 30]) for start in range(31)) <= 600_000 * (2 + 2)
    assert sum(noisy) >= 600_000 * 4 * 0.8


@pytest.mark.parametrize(("width", "height", "fps", "kbps"), [(320, 180, 15, 300), (640, 360, 30, 900)])
def test_any_ten_seconds_are_at_most_a_fifth_larger_than_asked_for(width: int, height: int, fps: int, kbps: int) -> None:
    """Noise, then a still picture that leaves the buffer empty, then noise again; a keyframe every fifteen seconds."""
    encoder = VideoEncoder(width=width, height=height, fps=fps, bitrate_kbps=kbps, gop=15 * fps)
    canvas = Canvas(width, height)
    frame = frame_of(canvas.planes)
    rng = np.random.default_rng(3)
    noise = [rng.integers(60, 180, canvas.planes.y.shape, np.uint8) for _ in range(5)]
    bits = []
    for tick in range(45 * fps):
        if not 15 * fps <= tick < 28 * fps:
            canvas.planes.y[:] = noise[tick % 5]
        bits.append(8 * sum(len(packet.data) for packet in encoder.encode(frame, tick)))
    total = np.cumsum([0, *bits])
    assert (total[10 * fps :] - total[: -10 * fps]).max() <= 1.2 * 10_000 * kbps
    assert total[14 * fps] >= 0.9 * 14_000 * kbps
    assert total[27 * fps] - total[17 * fps] <= 0.5 * 10_000 * kbps


def test_an_encoder_that_does_not_work_here_is_refused_with_a_reason() -> None:
    assert why_unusable("libx264") is None
    assert "there are libx264, " in (why_unusable("libx265") or "")
    for name in VIDEO_ENCODERS:
        reason = why_unusable(name)
        assert reason is None or "\n" not in reason
    assert FALLBACK == SOFTWARE_ENCODER
    # No machine has all of them: some belong to other systems.
    assert any(why_unusable(name) for name in VIDEO_ENCODERS)


def test_hardware_that_takes_no_more_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    missing = next(name for name in VIDEO_ENCODERS if why_unusable(name))
    encoder = open_encoder(name=missing, width=64, height=36, fps=15, bitrate_kbps=100)
    assert encoder.encode(frame_of(Canvas(64, 36).planes), 0)[0].keyframe
    assert "encoding in software" in caplog.text


def test_the_stream_says_its_colours() -> None:
    [packet] = VideoEncoder(width=64, height=36, fps=15, bitrate_kbps=100).encode(frame_of(Canvas(64, 36).planes), 0)
    [(frame, _)] = VideoDecoder("h264").decode(packet.data, 0)
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (6, 1, 6, 6)


def beeps(seconds: int, channels: int) -> Sound:
    """10 ms of 1 kHz at the start of every second."""
    time = np.arange(seconds * RATE) % RATE
    wave = 0.5 * np.sin(2 * np.pi * 1000 * time / RATE) * (time < 480)
    return np.repeat(wave[np.newaxis], channels, axis=0).astype(np.float32)


def all_packets(encoder: AudioEncoder, sound: Sound, chunk: int) -> list[Packet]:
    packets = []
    for offset in range(0, sound.shape[1], chunk):
        packets += encoder.encode(sound[:, offset : offset + chunk])
    return packets + encoder.flush()


@pytest.mark.parametrize("profile", [0, 1, 2])
def test_sound_comes_back_at_its_sample(profile: int) -> None:
    sound = beeps(3, CHANNELS[profile])
    packets = all_packets(AudioEncoder(profile, start=96000), sound, 960)
    decoder = CodecContext.create("aac", "r")
    assert isinstance(decoder, AudioCodecContext)
    timeline = np.zeros((CHANNELS[profile], 4 * RATE), np.float32)
    for packet in packets:
        start = packet.pts - 96000 + RATE
        [frame] = decoder.decode(AvPacket(packet.data))
        assert (frame.sample_rate, frame.layout.nb_channels, frame.samples) == (RATE, CHANNELS[profile], FRAME_SAMPLES)
        timeline[:, start : start + FRAME_SAMPLES] = frame.to_ndarray()[:, : timeline.shape[1] - start]
    for channel in timeline:
        for second in (1, 2, 3):
            around = channel[second * RATE - 2400 : second * RATE + 2400] if second > 1 else channel[RATE : RATE + 2400]
            match = int(np.correlate(around, sound[0, :480], "valid").argmax()) - (2400 if second > 1 else 0)
            assert abs(match) <= 1


@pytest.mark.parametrize(("profile", "kbps"), [(0, 48), (1, 128), (2, 192)])
def test_a_profile_is_as_large_as_it_says(profile: int, kbps: int) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (CHANNELS[profile], 10 * RATE)).astype(np.float32)
    packets = all_packets(AudioEncoder(profile), sound, 960)
    assert sum(len(packet.data) - 7 for packet in packets) * 8 / 10 == pytest.approx(1000 * kbps, rel=0.05)


@pytest.mark.parametrize("chunk", [1, 441, 1024, 5000])
def test_any_chunks_give_the_same_frames(chunk: int) -> None:
    sound = beeps(1, 1)[:, : 4800 if chunk == 1 else None]
    assert all_packets(AudioEncoder(0), sound, chunk) == all_packets(AudioEncoder(0), sound, 960)


def test_packets_are_adts_frames_without_a_hole() -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 5 * RATE)).astype(np.float32)
    packets = all_packets(AudioEncoder(2), sound, 960)
    assert [packet.pts for packet in packets] == [FRAME_SAMPLES * index for index in range(-1, len(packets) - 1)]
    assert packets[-1].pts + FRAME_SAMPLES >= sound.shape[1]
    for packet in packets:
        assert packet.keyframe
        assert packet.data[:2] == b"\xff\xf1"
        assert (packet.data[3] & 3) << 11 | packet.data[4] << 3 | packet.data[5] >> 5 == len(packet.data)
    assert sum(len(packet.data) for packet in packets) * 8 / 5 == pytest.approx(192_000, rel=0.1)


def test_flash_and_beep_stay_together_through_a_transport_stream() -> None:
    """The whole way of a slice, judged by a demuxer and its clock."""
    shift_ns, canvas = 100_000_000, Canvas(64, 36)
    video, audio = VideoEncoder(width=64, height=36, fps=30, bitrate_kbps=200), AudioEncoder(0)
    frame = frame_of(canvas.planes)
    timed = []
    for tick in range(90):
        canvas.planes.y[:] = 235 if tick % 30 == 0 else 16
        timed += [(packet.pts * 1_000_000_000 // 30, packet, "video") for packet in video.encode(frame, tick)]
    timed += [(packet.pts * 1_000_000_000 // RATE, packet, "audio") for packet in all_packets(audio, beeps(3, 1), 960)]
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        streams = {"video": container.add_mux_stream("h264", width=64, height=36), "audio": container.add_mux_stream("aac", rate=RATE)}
        for time_ns, packet, kind in sorted(timed, key=lambda item: item[0]):
            muxed = AvPacket(packet.data)
            muxed.stream = streams[kind]
            muxed.pts = muxed.dts = (time_ns + shift_ns) * 9 // 100_000
            muxed.time_base = Fraction(1, 90_000)
            muxed.is_keyframe = packet.keyframe
            container.mux(muxed)
    file.seek(0)
    flashes: list[float] = []
    sound: list[Sound] = []
    sound_start: float | None = None
    with av.open(file, "r") as source:
        for decoded in source.decode():
            assert decoded.time is not None
            if isinstance(decoded, av.VideoFrame):
                if picture_of(decoded).planes.y.mean() > 128:
                    flashes.append(decoded.time)
            else:
                sound_start = decoded.time if sound_start is None else sound_start
                sound.append(decoded.to_ndarray()[0])
    assert sound_start is not None
    joined = np.concatenate(sound)
    assert len(flashes) == 3
    for flash in flashes:
        expected = round((flash - sound_start) * RATE)
        match = np.correlate(joined[expected - 480 : expected + 1000], beeps(1, 1)[0, :480], "valid").argmax()
        assert abs(int(match) - 480) <= 48  # 1 ms


def test_the_bitrate_may_be_changed_while_it_runs() -> None:
    rng = np.random.default_rng(3)
    canvas = Canvas(320, 180)
    frame = frame_of(canvas.planes)
    encoder = VideoEncoder(width=320, height=180, fps=15, bitrate_kbps=400)
    sizes = []
    for tick in range(600):
        if tick in (200, 400):
            encoder.set_bitrate(200 if tick == 200 else 400)
        canvas.planes.y[:] = rng.integers(16, 235, canvas.planes.y.shape, np.uint8)
        sizes.append(sum(len(packet.data) for packet in encoder.encode(frame, tick)))
    usual, saving, again = (sum(sizes[begin : begin + 150]) * 8 / 10_000 for begin in (50, 250, 450))
    assert saving == pytest.approx(200, rel=0.1)
    assert usual == pytest.approx(again, rel=0.1) == pytest.approx(400, rel=0.1)
