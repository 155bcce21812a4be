"""Capture times: before and after sender reports, drift, jumps, wraps."""

import random
from itertools import pairwise

from recorder.media.timeline import SLEW, SenderClock, StreamClock

MS = 1_000_000
SECOND = 1_000 * MS


def test_before_any_report_the_least_delayed_arrival_counts() -> None:
    clock = StreamClock(90000, SenderClock())
    assert clock.capture_ns(1000, 50 * MS) == 50 * MS
    assert clock.capture_ns(1000 + 3000, 200 * MS) == 50 * MS + 3000 * SECOND // 90000  # late packets don't push it


def test_wrap_and_one_tick_back_are_ordinary_and_five_hours_are_a_jump() -> None:
    clock = StreamClock(90000, SenderClock())
    start = 0xFFFFFFFF - 1000
    first = clock.capture_ns(start, 0)
    assert clock.capture_ns((start + 9000) & 0xFFFFFFFF, 100 * MS) - first == 100 * MS
    assert abs(clock.capture_ns((start + 8999) & 0xFFFFFFFF, 101 * MS) - first - 8999 * SECOND // 90000) <= 1
    assert clock.jumps == 0
    assert clock.capture_ns((start + 5 * 3600 * 90000) & 0xFFFFFFFF, 200 * MS) == 200 * MS
    assert clock.jumps == 1


def test_a_pause_of_a_day_is_no_jump() -> None:
    clock = StreamClock(90000, SenderClock())
    clock.capture_ns(0, 0)
    day = 86_400
    assert abs(clock.capture_ns(day * 90000 & 0xFFFFFFFF, day * SECOND) - day * SECOND) < MS
    assert clock.jumps == 0


def _run(*, video_delay_ms: int, seconds: int, ppm: float = 0.0, seed: int = 1) -> list[int]:
    """Both streams of one sender; returns by how many ns the same instant differs between them, once a second."""
    chance = random.Random(seed)
    sender = SenderClock()
    audio, video = StreamClock(48000, sender), StreamClock(90000, sender)
    wall = 1_700_000_000 * SECOND
    differences = []
    last = {"audio": 0, "video": 0}
    for step in range(seconds * 50):
        true = step * 20 * MS
        own = int(true * (1 + ppm / 1e6))  # the sender's clock
        a = audio.capture_ns((777 + own * 48000 // SECOND) & 0xFFFFFFFF, true + 5 * MS + chance.randrange(10 * MS))
        last["audio"] = a
        v = video.capture_ns((999 + own * 90000 // SECOND) & 0xFFFFFFFF, true + video_delay_ms * MS + chance.randrange(10 * MS))
        last["video"] = v
        if step % 50 == 25:
            audio.report((777 + own * 48000 // SECOND) & 0xFFFFFFFF, wall + own)
            video.report((999 + own * 90000 // SECOND) & 0xFFFFFFFF, wall + own)
            differences.append(last["video"] - last["audio"])
    return differences


def test_reports_take_away_a_constant_difference_of_the_paths_by_slewing() -> None:
    differences = _run(video_delay_ms=105, seconds=20)
    assert differences[0] > 90 * MS
    steps = [b - a for a, b in pairwise(differences)]
    assert min(steps) >= -2 * SLEW * SECOND
    assert all(abs(d) < MS for d in differences[6:])


def test_a_drifting_sender_is_followed() -> None:
    sender = SenderClock()
    clock = StreamClock(90000, sender)
    error = 0
    for step in range(3600 * 5):
        true = step * 200 * MS
        own = int(true * (1 + 100 / 1e6))
        got = clock.capture_ns(own * 90000 // SECOND & 0xFFFFFFFF, true + 5 * MS)
        if step % 5 == 0:
            clock.report(own * 90000 // SECOND & 0xFFFFFFFF, 10**18 + own)
        error = got - (true + 5 * MS)
    assert abs(error) < 5 * MS
    assert clock.jumps == 0


def test_nonsense_reports_change_nothing() -> None:
    clock = StreamClock(90000, SenderClock())
    clock.report(5, 10**18)
    clock.capture_ns(1000, 0)
    clock.report(1000, 0)
    clock.report((1000 + 3600 * 90000) & 0xFFFFFFFF, 10**18)
    assert clock.capture_ns(1000 + 90000, SECOND) == SECOND


def test_timestamps_that_stood_still_in_a_pause_are_believed_for_two_seconds_only() -> None:
    """Browsers stop the clock of a track they do not send; its reports tell so much later."""
    sender = SenderClock()
    clock = StreamClock(48000, sender)
    for step in range(500):
        clock.capture_ns(step * 960, step * 20 * MS)
        if step % 50 == 0:
            clock.report(step * 960, 10**18 + step * 20 * MS)
    late = [step * 20 * MS - clock.capture_ns(step * 960, step * 20 * MS + 5 * SECOND) + 5 * SECOND for step in range(500, 700)]
    assert late[0] > 4 * SECOND
    assert max(late[105:]) < 10 * MS
    clock.report(699 * 960, 10**18 + 699 * 20 * MS + 5 * SECOND)
    assert abs(clock.capture_ns(700 * 960, 700 * 20 * MS + 5 * SECOND) - (700 * 20 * MS + 5 * SECOND)) < 10 * MS


def test_a_leap_of_timestamps_is_not_believed_and_does_not_touch_the_other_streams() -> None:
    sender = SenderClock()
    audio, video = StreamClock(48000, sender), StreamClock(90000, sender)
    for step in range(100):
        audio.capture_ns(step * 960, step * 20 * MS)
        video.capture_ns(step * 1800, step * 20 * MS)
        if step == 50:
            audio.report(step * 960, 10**18 + step * 20 * MS)
            video.report(step * 1800, 10**18 + step * 20 * MS)
    for step in range(100, 300):
        assert abs(audio.capture_ns(step * 960 + 9 * 48000, step * 20 * MS) - step * 20 * MS) < 10 * MS
        assert abs(video.capture_ns(step * 1800, step * 20 * MS) - step * 20 * MS) < 10 * MS


def test_a_burst_after_a_stall_of_the_network_keeps_its_capture_times() -> None:
    clock = StreamClock(48000, SenderClock())
    for step in range(100):
        clock.capture_ns(step * 960, step * 20 * MS)
    for step in range(100, 175):  # held back for 1.5 s, then delivered at once
        assert abs(clock.capture_ns(step * 960, 175 * 20 * MS) - step * 20 * MS) < MS
    assert clock.jumps == 0
