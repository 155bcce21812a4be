"""Time that never goes back."""

from dataclasses import dataclass

from api.clock import Steady


@dataclass
class Clocks:
    wall: int = 1_700_000_000_000  # Unix ms
    monotonic: int = 5_000_000_000  # ns

    def steady(self) -> Steady:
        return Steady(lambda: self.wall, monotonic_ns=lambda: self.monotonic)

    def wait(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.monotonic += milliseconds * 1_000_000


def test_it_is_the_time_of_day() -> None:
    clocks = Clocks()
    now = clocks.steady()
    for _ in range(3):
        assert now() == clocks.wall
        clocks.wait(777)


def test_it_goes_on_where_the_clock_is_set_back() -> None:
    clocks = Clocks()
    now = clocks.steady()
    before = now()
    clocks.wall -= 3_600_000
    assert now() == before
    clocks.wait(5000)
    assert now() == before + 5000
    clocks.wait(3_600_000)
    assert now() == before + 3_605_000


def test_it_follows_a_clock_that_is_set_forward_and_does_not_come_back() -> None:
    clocks = Clocks()
    now = clocks.steady()
    clocks.wall += 3_600_000
    ahead = now()
    assert ahead == clocks.wall
    clocks.wall -= 3_600_000
    clocks.wait(1000)
    assert now() == ahead + 1000


def test_sleep_of_the_machine_counts() -> None:
    clocks = Clocks()
    now = clocks.steady()
    before = now()
    clocks.wall += 600_000  # the monotonic clock stands still meanwhile
    assert now() == before + 600_000


def test_fractions_do_not_add_up() -> None:
    clocks = Clocks()
    now = clocks.steady()
    begin = now()
    for _ in range(1000):
        clocks.monotonic += 999_999
        now()
    assert now() - begin == 999
