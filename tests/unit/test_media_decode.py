"""Decoders: every codec, at the right time, and whatever is thrown at them."""

import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.context import CodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from mixer.audio import Sound
from recorder.media.decode import RATE, AudioCodec, AudioDecoder, VideoCodec, VideoDecoder
from recorder.media.opus import is_stereo_speech, joinable
from recorder.media.pictures import picture_of
from recorder.tools import content
from tests.coded import carries_fec, opus_with_fec, video_payloads

VIDEO: list[VideoCodec] = ["h264", "vp8", "vp9", "av1"]


def brightness(frame: VideoFrame) -> float:
    return float(picture_of(frame).planes.y.mean())


@pytest.mark.parametrize("codec", VIDEO)
def test_each_payload_gives_its_picture_at_once_and_at_its_time(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    payloads = video_payloads(codec)
    assert len(payloads) == 8
    for tick, payload in enumerate(payloads):
        [(frame, time_ns)] = decoder.decode(payload, tick * 66_666_667 - 100)
        assert time_ns == tick * 66_666_667 - 100
        assert (frame.width, frame.height) == (128, 72)
        assert brightness(frame) == pytest.approx(40 + 20 * tick, abs=4)
    assert decoder.errors == 0


@pytest.mark.parametrize("kbps", [24, 32])  # SILK, and SILK below CELT
def test_what_opus_repeats_for_a_loss_is_passed_over(kbps: int) -> None:
    samples = content.sound(101, 3)
    packets = list(opus_with_fec(samples, kbps=kbps))
    assert sum(map(carries_fec, packets)) > 10
    together, alone = AudioDecoder("opus", 1), AudioDecoder("opus", 1)
    timed = [(packet, number * 20_000_000) for number, packet in enumerate(packets)]
    heard = [piece for packet, at_ns in timed for piece in alone.decode(packet, at_ns)]
    assert alone.errors == 0
    assert [sound.shape[-1] for sound, _ in heard] == [960] * len(packets)
    waves = np.concatenate([sound[0] for sound, _ in heard])
    assert np.array_equal(waves, np.concatenate([sound[0] for sound, _ in together.decode_all(timed)], axis=-1))
    assert together.errors == 0
    delay = -heard[0][1] * RATE // 1_000_000_000
    assert np.corrcoef(waves[delay:], samples[: len(waves) - delay])[0, 1] > 0.9


@pytest.mark.parametrize("codec", VIDEO)
def test_an_empty_payload_does_not_end_the_stream(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    first, second, *_ = video_payloads(codec)
    decoder.decode(first, 0)
    assert decoder.decode(b"", 1) == []
    assert len(decoder.decode(second, 2)) == 1


@pytest.mark.parametrize("codec", VIDEO)
def test_garbage_is_counted_and_a_keyframe_mends_it(codec: VideoCodec) -> None:
    rng = np.random.default_rng(11)
    decoder = VideoDecoder(codec)
    payloads = video_payloads(codec)
    for _ in range(50):
        decoder.decode(rng.bytes(int(rng.integers(1, 400))), 0)
        broken = bytearray(payloads[int(rng.integers(len(payloads)))])
        broken[int(rng.integers(len(broken)))] ^= 1 << int(rng.integers(8))
        decoder.decode(bytes(broken[: int(rng.integers(1, len(broken) + 1))]), 0)
    assert decoder.errors > 0
    decoder.reset()
    [(frame, _)] = decoder.decode(payloads[0], 5)
    assert brightness(frame) == pytest.approx(40, abs=4)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9"])
def test_a_change_of_size_inside_the_stream_is_followed(codec: VideoCodec) -> None:
    decoder = VideoDecoder(codec)
    sizes = []
    for width, height in ((128, 72), (64, 96), (161, 91) if codec != "h264" else (160, 90)):
        [(frame, _)] = decoder.decode(video_payloads(codec, width, height, 1)[0], 0)
        sizes.append((frame.width, frame.height))
    assert sizes == [(128, 72), (64, 96), (161, 91) if codec != "h264" else (160, 90)]


def vp8_keyframe(width: int, height: int) -> bytes:
    payload = bytearray(video_payloads("vp8", count=1)[0])
    payload[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(payload)


@pytest.mark.parametrize("size", [(16383, 16383), (4098, 64), (64, 4098), (1, 1)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    decoder = VideoDecoder("vp8")
    assert decoder.decode(vp8_keyframe(*size), 0) == []
    assert decoder.errors == 1


def test_vp8_is_limited_range_whatever_its_clamping_bit_says() -> None:
    payload = bytearray(video_payloads("vp8", count=1)[0])
    payload[10] = payload[10] & 0x3F | 0x40  # the second symbol of the first partition, arithmetically coded at even odds
    [(frame, _)] = VideoDecoder("vp8").decode(bytes(payload), 0)
    assert frame.color_range == ColorRange.MPEG


def tone(count: int, rate: int, channels: int = 1) -> Sound:
    wave = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(count) / rate)
    return np.repeat(wave[np.newaxis], channels, axis=0).astype(np.float32)


def chirp(rate: int) -> Sound:
    """A tenth of a second from 500 Hz up to 2.5 kHz: unlike a beep it matches itself in one place only."""
    time = np.arange(rate // 10) / rate
    return (0.5 * np.sin(2 * np.pi * (500 + 10_000 * time) * time)).astype(np.float32)[np.newaxis]


NARROWBAND, WIDEBAND = {"application": "voip", "b": "6000"}, {"application": "voip", "b": "12000"}
CELT = {"application": "lowdelay"}
HYBRID = {"application": "voip", "b": "32000"}


def audio_payloads(codec: AudioCodec, sound: Sound, rate: int, options: dict[str, str] | None = None) -> list[bytes]:
    """Packets of 20 ms."""
    name = {"opus": "libopus", "pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "g722": "g722"}[codec]
    context = CodecContext.create(name, "w")
    assert isinstance(context, AudioCodecContext)
    layout = "mono" if sound.shape[0] == 1 else "stereo"
    context.sample_rate, context.layout, context.format = rate, layout, "s16"
    context.options = options or {}
    context.open()
    samples = (sound * 32767).astype(np.int16)
    payloads = []
    for offset in range(0, sound.shape[1], rate // 50):
        part = samples[:, offset : offset + rate // 50].T.reshape(1, -1)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(part), "s16", layout)
        frame.sample_rate, frame.pts = rate, offset
        payloads += [bytes(packet) for packet in context.encode(frame)]
    return payloads


RATES: dict[AudioCodec, int] = {"opus": 48000, "pcmu": 8000, "pcma": 8000, "g722": 16000}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", RATES)
def test_a_chirp_is_heard_when_it_was_said(codec: AudioCodec, channels: int) -> None:
    rate = RATES[codec]
    decoder = AudioDecoder(codec, channels)
    timeline = np.zeros((channels, RATE + 1000), np.float32)
    said = np.pad(chirp(rate), ((0, 0), (rate // 5, rate // 2)))
    for index, payload in enumerate(audio_payloads(codec, said, rate)):
        for sound, time_ns in decoder.decode(payload, index * 20_000_000):
            assert sound.shape == (channels, 960)
            assert sound.dtype == np.float32
            start = round(time_ns * RATE / 1e9) + 500
            timeline[:, start : start + 960] = sound
    assert decoder.errors == 0
    expected = chirp(RATE)[0]
    for channel in timeline:
        match = np.correlate(channel[500:], expected, "valid")
        assert abs(int(match.argmax()) - RATE // 5) <= 24  # half a millisecond
        assert match.max() == pytest.approx(float(expected @ expected), rel=0.1)


@pytest.mark.parametrize("options", [NARROWBAND, WIDEBAND])
def test_opus_in_speech_mode_is_on_time_too(options: dict[str, str]) -> None:
    decoder = AudioDecoder("opus", 1)
    timeline = np.zeros(RATE + 1000, np.float32)
    payloads = audio_payloads("opus", np.pad(chirp(RATE), ((0, 0), (RATE // 5, RATE // 2))), RATE, options)
    assert {payload[0] >> 3 for payload in payloads} <= set(range(12))  # RFC 6716 table 2
    for index, payload in enumerate(payloads):
        for sound, time_ns in decoder.decode(payload, index * 20_000_000):
            start = round(time_ns * RATE / 1e9) + 500
            timeline[start : start + sound.shape[1]] = sound
    match = np.correlate(timeline[500:], chirp(RATE)[0], "valid")
    assert abs(int(match.argmax()) - RATE // 5) <= 48


def test_opus_changes_its_mode_without_hole_or_overlap() -> None:
    sound = tone(RATE, RATE)
    speech, music = (audio_payloads("opus", sound, RATE, options) for options in (NARROWBAND, CELT))
    decoder = AudioDecoder("opus", 1)
    end_ns = None
    counts = set()
    for index in range(48):
        payload = (speech if index // 8 % 2 else music)[index]
        for part, time_ns in decoder.decode(payload, index * 20_000_000):
            assert end_ns is None or abs(time_ns - end_ns) <= 100
            end_ns = time_ns + part.shape[1] * 1_000_000_000 // RATE
            counts.add(part.shape[1])
    assert counts == {936, 960, 984}


@pytest.mark.parametrize("rest", [b"", b"\0"])
@pytest.mark.parametrize("channels", [1, 2])
def test_packets_of_opus_that_are_decoded_together_give_what_each_gives_alone(channels: int, rest: bytes) -> None:
    kinds = [audio_payloads("opus", tone(RATE, RATE), RATE, options) for options in (NARROWBAND, CELT, WIDEBAND, HYBRID)]
    assert {payloads[9][0] >> 3 for payloads in kinds} & set(range(12, 16))  # hybrid: RFC 6716 table 2
    sent = [kinds[index // 9 % 4][index] for index in range(36)]
    sent[20:23] = [payload[:1] + rest for payload in sent[20:23]]
    packets = [(payload, index * 20_000_000 + index**2) for index, payload in enumerate(sent)]
    alone, together = AudioDecoder("opus", channels), AudioDecoder("opus", channels)
    expected = [piece for packet in packets for piece in alone.decode(*packet)]
    found = [piece for begin in (0, 1, 13) for piece in together.decode_all(packets[begin : {0: 1, 1: 13, 13: 36}[begin]])]
    assert [time_ns for _, time_ns in found] == [time_ns for _, time_ns in expected]
    for (samples, _), (same, _) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(samples, same)
    assert together.errors == alone.errors == 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("options", [{"b": str(rate), "vbr": vbr} for rate in (24_000, 40_000, 128_000) for vbr in ("on", "off")])
def test_noise_in_opus_is_the_same_noise_when_decoded_together(channels: int, options: dict[str, str]) -> None:
    noise = np.random.default_rng(7).normal(0, 0.2, (channels, RATE)).clip(-1, 1).astype(np.float32)
    packets = [(payload, index) for index, payload in enumerate(audio_payloads("opus", noise, RATE, options))]
    assert joinable([payload for payload, _ in packets]) == 6  # 120 ms
    alone, together = AudioDecoder("opus", 2), AudioDecoder("opus", 2)
    for (samples, time_ns), packet in zip(together.decode_all(packets), packets, strict=True):
        [(expected, expected_ns)] = alone.decode(*packet)
        assert time_ns == expected_ns
        np.testing.assert_array_equal(samples, expected)


def test_bytes_without_sense_in_packets_of_opus_that_are_decoded_together_are_never_louder_than_full_scale() -> None:
    rng = np.random.default_rng(7)
    decoder = AudioDecoder("opus", 2)
    for configuration in range(32):  # RFC 6716 table 2
        packets = [(bytes([configuration << 3]) + rng.bytes(int(rng.integers(0, 400))), index) for index in range(60)]
        decoded = decoder.decode_all(packets)
        assert len(decoded) == len(packets)
        assert all(np.isfinite(samples).all() and np.abs(samples).max() <= 1 for samples, _ in decoded)


def test_both_channels_of_opus_arrive_and_are_averaged() -> None:
    sound = tone(9600, RATE, channels=2)
    sound[1] *= 0.5
    payloads = audio_payloads("opus", sound, RATE)
    levels = {}
    for channels in (1, 2):
        decoder = AudioDecoder("opus", channels)
        decoded = [decoder.decode(payload, 0)[0][0] for payload in payloads][-1]
        levels[channels] = np.sqrt(2 * np.mean(decoded**2, axis=1))
    assert levels[2] == pytest.approx([0.5, 0.25], abs=0.03)
    assert levels[1] == pytest.approx([0.375], abs=0.03)


def _decoded(payloads: list[bytes], channels: int) -> np.ndarray:
    decoder = AudioDecoder("opus", channels)
    return np.stack([decoder.decode(payload, index * 20_000_000)[0][0].mean(axis=0) for index, payload in enumerate(payloads)])


def test_one_channel_is_decoded_from_any_packets_as_the_mean_of_two() -> None:
    """Music and speech, in one channel and in two, by turns: 25 packets each; stereo speech begins near the 150th."""
    one, two = tone(RATE, RATE), tone(RATE, RATE, channels=2)
    two[1] = 0.5 * two[1][::3].repeat(3)[:RATE]  # something else
    stereo_speech = {"application": "voip", "b": "24000"}
    kinds = [(one, CELT), (two, CELT), (one, WIDEBAND), (two, CELT), (one, HYBRID), (two, CELT), (two, stereo_speech), (one, CELT)]
    payloads = [p for sound, options in kinds for p in audio_payloads("opus", sound, RATE, options)[10:35]]
    first = next(index for index, payload in enumerate(payloads) if is_stereo_speech(payload))
    assert 150 <= first < 160
    difference = np.abs(_decoded(payloads, 2) - _decoded(payloads, 1)).max(axis=1)
    joint = np.arange(len(payloads)) % 25 < 3  # no encoder joins its packets like this
    assert difference[:first][~joint[:first]].max() < 1e-6
    assert difference[first + 3 :].max() < 0.01  # the decoder that was opened has found its way
    assert difference.max() < 0.4


@pytest.mark.parametrize("rest", [b"", b"\0"])
@pytest.mark.parametrize("options", [NARROWBAND, CELT])
def test_opus_keeps_time_in_discontinuous_transmission(options: dict[str, str], rest: bytes) -> None:
    payloads = audio_payloads("opus", tone(RATE, RATE), RATE, options)
    absent = payloads[20][:1] + rest  # RFC 6716 section 3.1: the table of contents, and nothing or next to nothing
    decoder = AudioDecoder("opus", 1)
    sent = [*payloads[:20], *[absent] * 10, *payloads[20:40]]
    decoded = [(number, decoder.decode(payload, number * 20_000_000)) for number, payload in enumerate(sent)]
    assert decoder.errors == 0
    for number, [(sound, time_ns)] in decoded[1:]:
        assert sound.shape[1] == 960
        assert abs(time_ns - number * 20_000_000) < 10_000_000
        assert np.abs(sound).max() > 0.1 or 19 < number < 32
    quiet = [sound for number, [(sound, _)] in decoded if 22 < number < 30]
    assert max(float(np.abs(sound).max()) for sound in quiet) < 0.1


@pytest.mark.parametrize("codec", RATES)
def test_broken_sound_is_never_louder_than_full_scale(codec: AudioCodec) -> None:
    rng = np.random.default_rng(5)
    decoder = AudioDecoder(codec, 2)
    assert decoder.decode(b"", 0) == []
    for index in range(300):
        for sound, _ in decoder.decode(rng.bytes(int(rng.integers(1, 200))), index * 20_000_000):
            assert np.isfinite(sound).all()
            assert np.abs(sound).max() <= 1
            assert sound.shape[0] == 2
    payloads = audio_payloads(codec, tone(9600, RATES[codec]), RATES[codec])
    assert sum(len(decoder.decode(payload, index)) for index, payload in enumerate(payloads)) == len(payloads)
    assert codec != "opus" or decoder.errors > 0


def test_a_gap_does_not_smear_into_what_follows() -> None:
    loud, silent = audio_payloads("pcmu", tone(160, 8000), 8000)[0], b"\xff" * 160
    decoder = AudioDecoder("pcmu", 1)
    decoder.decode(loud, 0)
    [(after_gap, _)] = decoder.decode(silent, 500_000_000)
    assert not after_gap.any()
    decoder.decode(loud, 520_000_000)
    [(without_gap, _)] = decoder.decode(silent, 540_000_000)
    assert without_gap[:, :96].any()
