"""Six hours of clocks that are 100 ppm wrong, in virtual time (N21). `make chaos` does the same with every packet and sample."""

from tests.drift import Habits, judge, simulate

HOURS_6 = 6 * 3600


def test_six_hours_of_drift_leave_lips_on_voices() -> None:
    people = [Habits(100, 100, 30, 70), Habits(-100, -100, 45, 160)]
    room = simulate(
        people,
        seconds=HOURS_6,
        piece_ms=100,
        fps=2,
        jitter_ms=8,
        seed=21,
        is_mixed=lambda second: second < 20 or second >= HOURS_6 - 40,
    )
    judge(room, HOURS_6, between_ms=40)
