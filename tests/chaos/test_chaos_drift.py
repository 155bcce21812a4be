"""N21 with every packet, picture and sample of six hours, and sound cards that differ from the clocks of their computers."""

import pytest

from tests.drift import Habits, judge, simulate


@pytest.mark.row("N21")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("people", "seed"),
    [
        ([Habits(100, 100, 30, 70), Habits(-100, -100, 45, 160)], 21),
        ([Habits(100, 40, 60, 30), Habits(-60, -100, 25, 110)], 22),
    ],
)
def test_six_hours_of_drift_with_everything_in_them(people: list[Habits], seed: int) -> None:
    seconds = 6 * 3600
    room = simulate(people, seconds=seconds, piece_ms=20, fps=30, jitter_ms=12, seed=seed, is_mixed=lambda _: True)
    judge(room, seconds, between_ms=40)
