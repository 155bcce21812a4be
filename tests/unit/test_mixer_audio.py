"""Mixing to the sample, and a limiter that can be trusted."""

import numpy as np
import pytest

from mixer.audio import AudioMixer, Limiter, Sound

RATE = 48000


def noise(seed: int, count: int, channels: int = 1, level: float = 0.1) -> Sound:
    return np.random.default_rng(seed).uniform(-level, level, (channels, count)).astype(np.float32)


def tone(frequency: float, count: int, level: float) -> Sound:
    return (level * np.sin(2 * np.pi * frequency * np.arange(count) / RATE)).astype(np.float32)[np.newaxis]


def test_speakers_are_summed_sample_by_sample_whatever_the_chunks() -> None:
    rng = np.random.default_rng(1)
    count = 3 * RATE
    speakers = {uid: noise(uid, count) for uid in range(5)}
    starts = {uid: 137 * uid for uid in speakers}
    mixer = AudioMixer(channels=1, ahead_seconds=0.5)  # the ring wraps six times
    written = dict.fromkeys(speakers, 0)
    mixed = []
    while mixer.position < count:
        for uid, sound in speakers.items():
            while starts[uid] + written[uid] < mixer.position + 3000 and written[uid] < count:
                length = int(rng.integers(1, 1500))
                mixer.write(uid, starts[uid] + written[uid], sound[:, written[uid] : written[uid] + length])
                written[uid] += length
        mixed.append(mixer.read(int(rng.integers(1, 2500))))
    found = np.concatenate(mixed, axis=1)[0, :count]
    expected = np.zeros(count)
    for uid, sound in speakers.items():
        expected[starts[uid] :] += sound[0, : count - starts[uid]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (mixer.late, mixer.early) == (0, 0)


@pytest.mark.parametrize("channels", [1, 2])
def test_fifty_speakers_land_on_their_samples(channels: int) -> None:
    count, rng = RATE, np.random.default_rng(8)
    mixer = AudioMixer(channels=channels)
    expected = np.zeros((channels, count))
    for uid in range(50):
        sound = noise(uid, 960, channels, level=0.2)
        start = 960 * (uid % 49) + int(rng.integers(0, 480))
        mixer.write(uid, start, sound)
        expected[:, start : start + 960] += sound
    found = np.concatenate([mixer.read(1024) for _ in range(count // 1024)], axis=1)
    loud = np.abs(expected).max(axis=0) > 0.89
    assert not loud.any()
    np.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-6)


def test_silence_where_nobody_wrote() -> None:
    mixer = AudioMixer(channels=2)
    mixer.write(1, 100, noise(1, 50, 2))
    mixed = mixer.read(RATE)
    assert mixed.shape == (2, RATE)
    assert mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed[:, 100:150], noise(1, 50, 2))
    assert not mixed[:, :100].any()
    assert not mixed[:, 150:].any()
    assert not mixer.read(10 * RATE).any()  # longer than the ring, which came back clean


def test_late_parts_are_dropped_and_counted() -> None:
    mixer = AudioMixer(channels=1)
    mixer.read(1000)
    mixer.write(1, 900, noise(1, 300))
    assert mixer.late == 100
    mixer.write(2, -50, noise(2, 30))
    assert mixer.late == 130
    np.testing.assert_array_equal(mixer.read(200), noise(1, 300)[:, 100:])


def test_parts_too_far_ahead_are_dropped_and_counted() -> None:
    mixer = AudioMixer(channels=1, ahead_seconds=0.01)
    mixer.write(1, 400, noise(1, 100))
    assert (mixer.late, mixer.early) == (0, 20)
    mixer.write(2, 10**9, noise(2, 100))
    assert mixer.early == 120
    mixed = mixer.read(600)
    np.testing.assert_array_equal(mixed[:, 400:480], noise(1, 100)[:, :80])
    assert not mixed[:, 480:].any()


def test_a_speaker_is_not_added_twice_but_others_are() -> None:
    mixer = AudioMixer(channels=1)
    sound = noise(1, 100)
    mixer.write(1, 0, sound)
    mixer.write(1, 50, sound)
    mixer.write(2, 0, sound)
    assert mixer.late == 50
    mixed = mixer.read(150)
    np.testing.assert_allclose(mixed[:, :100], 2 * sound)
    np.testing.assert_array_equal(mixed[:, 100:], sound[:, 50:])


def test_one_who_comes_back_on_a_new_clock_is_heard_once_forgotten() -> None:
    mixer = AudioMixer(channels=1)
    mixer.write(1, 5000, noise(1, 100))
    mixer.forget(1)
    mixer.write(1, 0, noise(2, 100))
    assert mixer.late == 0
    np.testing.assert_array_equal(mixer.read(100), noise(2, 100))


def test_channels_are_spread_and_averaged() -> None:
    stereo = AudioMixer(channels=2)
    stereo.write(1, 0, noise(1, 100))
    np.testing.assert_array_equal(stereo.read(100), np.repeat(noise(1, 100), 2, axis=0))
    mono = AudioMixer(channels=1)
    mono.write(1, 0, noise(1, 100, 2))
    np.testing.assert_allclose(mono.read(100)[0], noise(1, 100, 2).mean(axis=0), rtol=1e-6)


def test_int16_is_full_scale_at_its_ends() -> None:
    mixer = AudioMixer(channels=1)
    mixer.write(1, 0, np.array([[16384, -8192, 0]], np.int16))
    np.testing.assert_array_equal(mixer.read(3), np.array([[0.5, -0.25, 0]], np.float32))


@pytest.mark.parametrize("chunk", [1, 160, 1024, RATE])
@pytest.mark.parametrize("people", [2, 9, 50])
def test_however_many_shout_nothing_clips(people: int, chunk: int) -> None:
    count = RATE if chunk > 1 else 2000
    mixer = AudioMixer(channels=1)
    for uid in range(people):
        mixer.write(uid, 0, noise(uid, count, level=1))
    mixed = np.concatenate([mixer.read(chunk) for _ in range(count // chunk)], axis=1)
    assert np.abs(mixed).max() <= 0.892
    assert np.abs(mixed).max() > 0.85


def limited(sound: Sound, chunk: int = 1024) -> Sound:
    """The sound as the mixer's limiter gives it out, in chunks and with everything behind them known."""
    limiter = Limiter(RATE)
    starts = range(0, sound.shape[1], chunk)
    parts = [limiter.limit(sound[:, at : at + chunk + Limiter.AHEAD], min(chunk, sound.shape[1] - at)) for at in starts]
    return np.concatenate(parts, axis=1)


def gain_steps(sound: Sound, result: Sound) -> Sound:
    """By how many dB the gain changes from sample to sample, where it can be told."""
    audible = np.flatnonzero(np.abs(sound[0]) > 0.01)
    gain = 20 * np.log10(np.abs(result[0, audible] / sound[0, audible]))
    steps: Sound = np.diff(gain) / np.diff(audible)
    return steps


def distortion_db(sound: Sound, frequency: int) -> float:
    """Everything but the tone against the tone, over the last two seconds."""
    tail = sound[0, -2 * RATE :]
    power = np.abs(np.fft.rfft(tail * np.hanning(len(tail)))) ** 2
    wanted = power[2 * frequency - 3 : 2 * frequency + 4].sum()
    return float(10 * np.log10((power[3:].sum() - wanted) / wanted))


@pytest.mark.parametrize("chunk", [1, 7, 480, 960, 5000])
def test_the_limiter_does_not_depend_on_the_chunks(chunk: int) -> None:
    loud = noise(3, 9600, level=2)
    loud[:, 3000:7000] *= 0.1
    np.testing.assert_allclose(limited(loud, chunk), limited(loud, 9600), rtol=1e-5)


def test_below_the_threshold_the_limiter_is_transparent() -> None:
    sound = tone(440, RATE, 0.88)
    np.testing.assert_array_equal(limited(sound), sound)


def test_the_gain_moves_smoothly_and_comes_back() -> None:
    level = np.where(np.arange(3 * RATE) < RATE, 3.0, 0.5)
    sound = (level * np.sin(2 * np.pi * 997 * np.arange(3 * RATE) / RATE)).astype(np.float32)[np.newaxis]
    result = limited(sound)
    steps = gain_steps(sound, result)
    assert -0.08 < steps.min() < 0 < steps.max() < 0.001
    np.testing.assert_array_equal(result[:, -RATE // 2 :], sound[:, -RATE // 2 :])


def test_both_channels_get_the_same_gain() -> None:
    sound = np.concatenate((tone(300, 4800, 2), tone(300, 4800, 0.2)))
    result = limited(sound)
    np.testing.assert_allclose(result[1] * 10, result[0], atol=1e-5)


@pytest.mark.parametrize("frequency", [40, 100, 440, 997, 3000])
def test_fifty_speakers_at_full_scale_stay_a_clean_tone(frequency: int) -> None:
    mixer = AudioMixer(channels=1, ahead_seconds=5)
    for uid in range(50):
        mixer.write(uid, 0, tone(frequency, 4 * RATE, 1))
    mixed = np.concatenate([mixer.read(1024) for _ in range(4 * RATE // 1024)], axis=1)
    assert np.abs(mixed).max() <= 0.8911
    assert distortion_db(mixed, frequency) < -90


def test_transients_neither_click_nor_pump() -> None:
    """Drum-like strokes over a soft tone: the gain ramps down ahead of each, is still while it lasts and recovers slowly."""
    count = 4 * RATE
    soft, strokes = tone(220, count, 0.2), np.zeros((1, count), np.float32)
    for at in range(RATE // 2, count - RATE // 4, RATE // 2):
        strokes[:, at : at + RATE // 4] += tone(90, RATE // 4, 4) * np.exp(-np.arange(RATE // 4) / 2000).astype(np.float32)
    result = limited(soft + strokes)
    assert np.abs(result).max() <= 0.8911
    steps = gain_steps(soft + strokes, result)
    assert steps.min() > -0.08  # dB from sample to sample: a slope of milliseconds
    assert steps.max() < 0.001  # 35 dB a second
    quiet = slice(RATE // 2 - Limiter.AHEAD - 2400, RATE // 2 - Limiter.AHEAD)
    np.testing.assert_array_equal(result[:, quiet], (soft + strokes)[:, quiet])


def test_what_comes_too_late_to_be_seen_ahead_does_not_clip_either() -> None:
    loud = noise(5, 4800, level=3)
    limiter = Limiter(RATE)
    result = np.concatenate([limiter.limit(part, part.shape[1]) for part in np.split(loud, 10, axis=1)], axis=1)
    assert np.abs(result).max() <= 0.8911
