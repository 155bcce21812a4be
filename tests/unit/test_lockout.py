"""Who guesses is slowed down, and nobody else."""

import pytest

from api import lockout
from api.lockout import Lockout

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def locks(clock: Clock) -> Lockout:
    return Lockout(now=clock)


def fail(locks: Lockout, times: int, name: str = "a", address: str = HOME) -> None:
    for _ in range(times):
        locks.failed(name, address)


def test_ten_failures_in_a_minute_lock_and_each_lock_is_longer(locks: Lockout, clock: Clock) -> None:
    fail(locks, 9)
    assert locks.locked_for("a", HOME) == 0
    seen: list[float] = []
    for _ in range(7):
        fail(locks, 10 - (not seen))
        seen.append(locks.locked_for("a", HOME))
        clock.seconds += seen[-1]
        assert locks.locked_for("a", HOME) == 0
    assert seen == [30, 60, 120, 240, 480, 900, 900]


def test_a_lock_is_told_once_when_it_begins(locks: Lockout) -> None:
    assert [locks.failed("a", HOME) for _ in range(12)] == [{}] * 9 + [{"pair": 30, "id": 30}] + [{}] * 2
    told = [locks.failed(f"guess{number}", ELSEWHERE) for number in range(31)]
    assert told == [{}] * 29 + [{"address": 30}, {}]


def test_failures_far_apart_do_not_lock(locks: Lockout, clock: Clock) -> None:
    for _ in range(30):
        fail(locks, 1)
        clock.seconds += 7
    assert locks.locked_for("a", HOME) == 0


def test_an_hour_without_failures_is_forgiven(locks: Lockout, clock: Clock) -> None:
    fail(locks, 10)
    clock.seconds += 31
    fail(locks, 10)
    clock.seconds += 3601
    fail(locks, 10)
    assert locks.locked_for("a", HOME) == 30


def test_one_id_is_locked_for_strangers_but_not_where_it_signs_in(locks: Lockout) -> None:
    locks.succeeded("a", HOME)
    for number in range(10):
        fail(locks, 1, address=f"198.51.100.{number}")
    assert locks.locked_for("a", "203.0.113.1") == 30
    assert locks.locked_for("a", HOME) == 0
    assert locks.locked_for("b", ELSEWHERE) == 0


def test_one_address_is_locked_for_ids_that_never_signed_in_there(locks: Lockout) -> None:
    locks.succeeded("a", HOME)
    for number in range(30):
        fail(locks, 1, name=f"guess{number}")
    assert locks.locked_for("another", HOME) == 30
    assert locks.locked_for("a", HOME) == 0
    assert locks.locked_for("another", ELSEWHERE) == 0


def test_having_signed_in_gives_no_right_to_guess(locks: Lockout) -> None:
    locks.succeeded("a", HOME)
    fail(locks, 10)
    assert locks.locked_for("a", HOME) == 30


def test_success_forgets_mistakes(locks: Lockout) -> None:
    fail(locks, 9)
    locks.succeeded("a", HOME)
    fail(locks, 9)
    assert locks.locked_for("a", HOME) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(locks: Lockout, one: str, other: str, same: bool) -> None:
    fail(locks, 10, address=one)
    locks._names.clear()
    assert (locks.locked_for("a", other) > 0) == same


def test_memory_is_bounded(locks: Lockout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "REMEMBERED", 50)
    for number in range(500):
        locks.failed(f"name{number}", f"10.0.{number // 250}.{number % 250}")
        locks.succeeded(f"name{number}", HOME)
    kinds = (locks._pairs, locks._addresses, locks._names, locks._welcome)
    assert [len(kind) for kind in kinds] == [50] * 4
