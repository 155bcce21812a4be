"""Capture times when paths change, reports lie, networks stall and timestamps leap (N7-N8, N13-N14, N21-N22, T6)."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.media.timeline import PICTURE_SETTLING_SLEW, SETTLING_NS, SLEW, SenderClock, StreamClock

MS = 1_000_000
SECOND = 1_000 * MS
WALL = 1_900_000_000 * SECOND
RATES = {"voice": 48000, "picture": 90000}
STEPS = {"voice": 20 * MS, "picture": 33 * MS}
NTP_ERA = (1 << 32) * SECOND

Report = Callable[[str, int, int], tuple[int, int] | None]  # kind, RTP time and true time in; RTP time and NTP in ns out


class Talk:
    """Both streams of one sender. `late[kind]` holds by how many ms the timeline is behind the truth, by true time."""

    def __init__(self, *, voice_ms: float = 30, picture_ms: float = 80, jitter_ms: float = 5, seed: int = 7) -> None:
        self.delay_ms = {"voice": voice_ms, "picture": picture_ms}
        self.jitter_ms = jitter_ms
        self.report: Report = lambda _, timestamp, now: (timestamp, WALL + now)
        self.report_from_s = {"voice": 2.5, "picture": 0.5}  # as browsers do
        self.report_every_s = {"voice": 5.0, "picture": 1.0}
        sender = SenderClock()
        self.clocks = {kind: StreamClock(rate, sender) for kind, rate in RATES.items()}
        self.late: dict[str, dict[int, float]] = {"voice": {}, "picture": {}}
        self.leap_ns = {"voice": 0, "picture": 0}  # of the timestamps
        self._chance = random.Random(seed)
        self._next = {"voice": 0, "picture": 0}
        self._reported = dict.fromkeys(RATES, -1)

    def timestamp(self, kind: str, true_ns: int) -> int:
        return (0xFFFFF000 + (true_ns + self.leap_ns[kind]) * RATES[kind] // SECOND) & 0xFFFFFFFF  # wraps at once

    def go(self, until_s: float, *, silent: bool = False, held: bool = False) -> None:
        """`silent`: nothing arrives until then; `held`: everything until then arrives then."""
        if silent:
            self._next = {kind: -(-round(until_s * SECOND) // step) * step for kind, step in STEPS.items()}
        due = sorted((true, kind) for kind in RATES for true in range(self._next[kind], round(until_s * SECOND), STEPS[kind]))
        for true, kind in due:
            self._next[kind] = true + STEPS[kind]
            arrival = round(until_s * SECOND) if held else true
            arrival += round((self.delay_ms[kind] + self._chance.uniform(0, self.jitter_ms)) * MS)
            self._packet(kind, true, arrival)

    def _packet(self, kind: str, true: int, arrival: int) -> None:
        clock, timestamp = self.clocks[kind], self.timestamp(kind, true)
        late = clock.capture_ns(timestamp, arrival) - true
        self.late[kind][true] = late / MS
        number = int((true / SECOND - self.report_from_s[kind]) // self.report_every_s[kind])
        if number > self._reported[kind]:
            self._reported[kind] = number
            told = self.report(kind, timestamp, true)
            if told:
                clock.report(*told)

    def apart_ms(self, from_s: float, to_s: float = 1e9) -> float:
        """How far lips and voice were apart at most."""
        part = {kind: [late for true, late in series.items() if from_s <= true / SECOND < to_s] for kind, series in self.late.items()}
        pairs = zip(part["voice"][::33], part["picture"][::20], strict=False)  # of the same moments
        return max(abs(voice - picture) for voice, picture in pairs)

    @property
    def steepest(self) -> float:
        """How fast a stream was slewed at most, as a part of the passing time, after its first seconds."""
        worst = 0.0
        for kind, series in self.late.items():
            each_second = list(series.items())[:: SECOND // STEPS[kind]]
            for (before, late), (true, later) in pairwise(each_second):
                if before > 2 * SETTLING_NS:
                    worst = max(worst, abs(later - late) * MS / (true - before))
        return worst

    def late_ms(self, kind: str, at_s: float) -> float:
        return next(late for true, late in self.late[kind].items() if true >= at_s * SECOND)


def test_the_picture_goes_to_the_voice_when_the_first_reports_show_how_far_they_are_apart() -> None:
    talk = Talk(picture_ms=280)
    talk.go(20)
    assert talk.apart_ms(0, 2) > 200  # nothing can be known yet
    assert talk.apart_ms(4.5) < 10  # the voice reports at 2.5 s
    voice = [late for true, late in talk.late["voice"].items() if true > SECOND // 2]
    assert max(voice) - min(voice) < 6
    assert talk.late_ms("voice", 19) == pytest.approx(30, abs=2)


def test_a_late_first_packet_is_forgotten_before_the_reports_come() -> None:
    talk = Talk(picture_ms=200, voice_ms=90)
    talk.go(0.02)
    talk.delay_ms = {"voice": 30, "picture": 50}
    talk.report = lambda _, __, ___: None
    talk.go(10)
    assert talk.apart_ms(2) < 25
    assert talk.late_ms("picture", 2) == pytest.approx(50, abs=3)
    assert talk.late_ms("voice", 2) == pytest.approx(30, abs=3)


@pytest.mark.parametrize("seconds", [0.15, 0.35])
def test_a_sender_that_begins_with_a_burst_has_its_lips_on_its_voice(seconds: float) -> None:
    """Before the first reports nothing but the arrivals tells where its streams belong, and the sound may not be hurried."""
    talk = Talk(voice_ms=30, picture_ms=30)
    talk.report_from_s = {"voice": 2.5, "picture": 1.0}
    talk.go(seconds, held=True)
    talk.go(20)
    assert talk.apart_ms(0) < 12
    assert talk.late_ms("voice", seconds) > seconds * 900


@pytest.mark.parametrize("at_s", [0.5, 33])
@pytest.mark.parametrize("kind", ["voice", "picture"])
def test_a_report_that_was_stamped_late_with_its_packet_moves_nothing(kind: str, at_s: float) -> None:
    """As aiortc's are after its process stood still: packets and report are stamped when they are sent."""
    talk = Talk(voice_ms=30, picture_ms=30)
    talk.report_from_s = {"voice": 0.9, "picture": 0.9} | {kind: 0.505}
    talk.report_every_s = {"voice": 1.0, "picture": 1.0}
    talk.go(at_s)
    sent = round((at_s + 0.4) * SECOND)
    talk.report = lambda of, timestamp, now: (timestamp, WALL + (sent if of == kind else now))
    talk.go(at_s + 0.4, held=True)
    talk.report = lambda _, timestamp, now: (timestamp, WALL + now)
    talk.go(at_s + 20)
    assert talk.apart_ms(0) < 12


@pytest.mark.parametrize("seed", range(5))
def test_on_a_path_where_most_packets_are_late_the_first_reports_are_believed(seed: int) -> None:
    talk = Talk(picture_ms=130, jitter_ms=120, seed=seed)
    talk.go(20)
    assert talk.apart_ms(4.5) < 12


def test_reports_of_the_picture_count_though_the_voice_has_none() -> None:
    talk = Talk(picture_ms=30)
    talk.report = lambda kind, timestamp, now: (timestamp, WALL + now) if kind == "picture" else None
    talk.go(30)
    talk.leap_ns["picture"] = -SECOND // 5  # its clock stood still
    talk.go(60)
    assert talk.apart_ms(38) < 12


@pytest.mark.parametrize("reports", [True, False])
def test_a_longer_and_again_shorter_path_is_followed_gradually_by_both(reports: bool) -> None:
    talk = Talk()
    if not reports:
        talk.report = lambda _, __, ___: None
    talk.go(60)
    apart = talk.apart_ms(30)
    for until_s, delay_ms in ((180, 230), (300, 30)):
        talk.delay_ms = {"voice": delay_ms, "picture": delay_ms + 50}
        talk.go(until_s)
        assert talk.late_ms("voice", until_s - 1) == pytest.approx(delay_ms, abs=5)
    assert apart < (5 if reports else 60)
    assert talk.apart_ms(30) < apart + 8
    assert talk.steepest < 0.005  # so that sound can be stretched along
    assert all(clock.jumps == 0 for clock in talk.clocks.values())


def _zero(_: str, timestamp: int, __: int) -> tuple[int, int]:
    return timestamp, -2_208_988_800 * SECOND


def _other_stream(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return (timestamp + 0x3456789A) & 0xFFFFFFFF, WALL + now


def _jumping(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now + random.Random(now).randrange(-7200, 7200) * SECOND


def _nervous(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now + random.Random(now).randrange(-900, 900) * MS


def _picture_years_off(kind: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now - (10**9 * SECOND if kind == "picture" else 0)


@pytest.mark.parametrize("report", [_zero, _other_stream, _jumping, _nervous, _picture_years_off, lambda _, __, ___: None])
def test_reports_that_mean_nothing_leave_both_streams_where_they_arrive(report: Report) -> None:
    talk = Talk()
    talk.report = report
    talk.go(120)
    assert talk.apart_ms(10) < (200 if report is _nervous else 60)  # a majority by chance moves a stream a little
    assert talk.late_ms("voice", 119) == pytest.approx(30, abs=8)
    assert all((clock.reports_refused > 20) is (report in (_zero, _other_stream)) for clock in talk.clocks.values())
    assert talk.steepest <= SLEW
    assert all(clock.jumps == 0 for clock in talk.clocks.values())


def _plus_an_hour(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now + (3600 * SECOND if now > 61 * SECOND else 0)


def _minus_an_hour(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now - (3600 * SECOND if now > 61 * SECOND else 0)


def _uptime(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, -2_208_988_800 * SECOND + SECOND + now


def _roll_over(_: str, timestamp: int, now: int) -> tuple[int, int]:
    era_begins = NTP_ERA - 2_208_988_800 * SECOND  # 2036-02-07 in Unix time, reached after 61 s
    return timestamp, era_begins + now - 61 * SECOND - (NTP_ERA if now >= 61 * SECOND else 0)


def _then_silent(_: str, timestamp: int, now: int) -> tuple[int, int] | None:
    return (timestamp, WALL + now) if now < 61 * SECOND else None


def _one_in_three_wrong(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now + (7000 * SECOND if now // SECOND % 3 == 0 and now > 10 * SECOND else 0)


def _first_wrong(_: str, timestamp: int, now: int) -> tuple[int, int]:
    return timestamp, WALL + now + (7000 * SECOND if now < 3 * SECOND else 0)


@pytest.mark.parametrize(
    "report", [_plus_an_hour, _minus_an_hour, _uptime, _roll_over, _then_silent, _one_in_three_wrong, _picture_years_off, _first_wrong]
)
def test_clocks_that_step_roll_over_or_count_from_elsewhere_keep_lips_on_voices(report: Report) -> None:
    talk = Talk(picture_ms=130)
    talk.report = report
    talk.go(240)
    if report is _picture_years_off:  # there is no way to know
        assert talk.apart_ms(10) == pytest.approx(100, abs=8)
    else:
        assert talk.apart_ms(30 if report is _first_wrong else 10) < 10
    assert talk.late_ms("voice", 239) == pytest.approx(30, abs=5)
    assert talk.steepest <= SLEW
    assert all(clock.jumps == 0 for clock in talk.clocks.values())


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 2, 10, 25, 45])
@pytest.mark.parametrize("reports", [True, False])
def test_a_blackout_shifts_nothing_whether_its_packets_are_lost_or_held_back(seconds: float, held: bool, reports: bool) -> None:
    talk = Talk()
    if not reports:
        talk.report = lambda _, __, ___: None
    talk.go(61)
    before = {kind: talk.late_ms(kind, 59) for kind in RATES}
    talk.go(61 + seconds, silent=not held, held=held)
    talk.go(120 + seconds)
    for kind in RATES:
        assert talk.clocks[kind].jumps == 0
        assert max(abs(late - before[kind]) for true, late in talk.late[kind].items() if true > 59 * SECOND) < 8


@pytest.mark.parametrize("leap_s", [18000, -18000, 9, -30, -3, 40000])
def test_a_leap_of_timestamps_begins_anew_at_once_and_in_step(leap_s: int) -> None:
    talk = Talk()
    talk.go(30)
    talk.leap_ns["voice"] = leap_s * SECOND
    talk.go(60)
    assert (talk.clocks["voice"].jumps, talk.clocks["picture"].jumps) == (1, 0)
    assert all(abs(late - 30) < 10 for true, late in talk.late["voice"].items() if true > 20 * SECOND)
    assert talk.apart_ms(37) < 10


def test_one_tick_back_is_one_tick_back() -> None:
    clock = StreamClock(90000, SenderClock())
    times = [clock.capture_ns((step * 3000 - (step == 50)) & 0xFFFFFFFF, step * 33_333_333) for step in range(100)]
    assert clock.jumps == 0
    assert times[50] - times[49] == pytest.approx(2999 * SECOND / 90000, abs=MS)
    assert clock.capture_ns((99 * 3000 - 1) & 0xFFFFFFFF, 99 * 33_333_333 + 1000) == pytest.approx(times[99] - SECOND / 90000, abs=2)


def test_a_sound_card_that_was_changed_is_believed_when_reports_and_arrivals_say_the_same() -> None:
    """Half a second without samples: the voice's timestamps stood still, and nobody told before the next report."""
    talk = Talk()
    talk.go(33)
    talk.leap_ns["voice"] = -SECOND // 2
    talk.go(120)
    assert talk.apart_ms(33, 37) > 400
    assert talk.apart_ms(38 + 10) < 10  # the report comes at 37.5 s, 50 ms a second from then on
    assert talk.clocks["voice"].jumps == 0


def test_after_a_pause_of_hours_a_stream_begins_anew_without_being_counted() -> None:
    talk = Talk()
    talk.go(60)
    talk.go(8 * 3600, silent=True)
    talk.delay_ms = {"voice": 130, "picture": 180}  # meanwhile the clocks have drifted apart
    talk.go(8 * 3600 + 10)
    assert abs(talk.late_ms("voice", 8 * 3600 + 1) - 130) < 10
    assert all(clock.jumps == 0 for clock in talk.clocks.values())


def test_the_drift_is_measured() -> None:
    clock = StreamClock(48000, SenderClock())
    assert clock.drift_ppm == 0
    for step in range(900 * 10):
        clock.capture_ns(round(step * 4800 * (1 + 80e-6)) & 0xFFFFFFFF, step * 100 * MS)
    assert clock.drift_ppm == pytest.approx(80, abs=5)


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[int, int, int | None]]:
    """Media time, arrival and what a report says there: pauses, jitter, stalls, reports with errors of any size."""
    media, packets, busy_until = 0, [], 0
    for _ in range(draw(st.integers(5, 60))):
        media += draw(st.sampled_from([1, 20, 20, 20, 33, 400, 5_000])) * MS
        delay = draw(st.sampled_from([0, 1, 5, 30, 150, 700]))
        busy_until = max(busy_until, media + delay * MS)  # packets arrive in order
        report = draw(
            st.sampled_from([None, None, None, 0, 3, -40, 250, 3_600_000, -(10**12)])
        )  # with the longest delay less than a second
        packets.append((media, busy_until, report))
    return packets


@given(_streams(), st.sampled_from([48000, 90000, 8000]), st.integers(0, 0xFFFFFFFF))
def test_any_plausible_stream_stays_near_its_arrivals_and_in_order_and_is_slewed_slowly(
    packets: list[tuple[int, int, int | None]], rate: int, first: int
) -> None:
    clock = StreamClock(rate, SenderClock())
    slew = PICTURE_SETTLING_SLEW if rate == 90000 else SLEW
    times: list[tuple[int, int]] = []
    for media, arrival, report in packets:
        timestamp = (first + media * rate // SECOND) & 0xFFFFFFFF
        time = clock.capture_ns(timestamp, arrival)
        assert arrival - 2 * SECOND <= time <= arrival + SECOND
        times.append((media, time))
        if report is not None:
            clock.report(timestamp, WALL + media + report * MS)
    assert clock.jumps == 0
    # A tick is lost at each end, and a correction may use what has passed since the one before, 200 ms ago.
    spare = 2 * SECOND // rate + 2
    for (media, time), (later_media, later_time) in pairwise(times):
        assert later_time - time >= (later_media - media) * (1 - slew) - 200 * MS * slew - spare
        assert later_time - time <= (later_media - media) * (1 + slew) + 200 * MS * slew + spare
        assert later_time >= time - spare
