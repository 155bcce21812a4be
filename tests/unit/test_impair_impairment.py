"""The bad network under a virtual clock."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.impair.impairment import Burst, Conditions, Counters, Impairment
from tests.impair.packets import sight

MS = 1_000_000
EVERY_MS = 8


def packet(number: int, size: int = 100) -> bytes:
    """RTP of payload type 97 with this sequence number."""
    return b"\x80\x61" + number.to_bytes(2, "big") + bytes(4) + b"\0\0\0\7" + bytes(size - 12)


def arrivals(
    conditions: Conditions, count: int = 2000, seed: str = "1", changes: Sequence[tuple[int, Conditions]] = ()
) -> tuple[list[tuple[int, int]], Counters]:
    """Packets 0 … count, one each 8 ms: (number, ms of arrival) in the order of arrival. `changes`: from which number on."""
    impairment = Impairment(conditions, seed=seed, start_ns=0)
    found = []
    for ms in range(count * EVERY_MS + 2000):
        number, rest = divmod(ms, EVERY_MS)
        if not rest and number < count:
            impairment.conditions = next((c for first, c in reversed(changes) if number >= first), conditions)
            impairment.push(packet(number), ms * MS)
        found += [(sight(data).sequence, ms) for data in impairment.take(ms * MS)]
    assert impairment.next_ns() is None
    return found, impairment.counters


def numbers(found: list[tuple[int, int]]) -> list[int]:
    return [number for number, _ in found]


def delays(found: list[tuple[int, int]]) -> list[int]:
    return [ms - number * EVERY_MS for number, ms in found]


def test_a_good_network_passes_everything_at_once() -> None:
    found, counters = arrivals(Conditions())
    assert found == [(number, number * EVERY_MS) for number in range(2000)]
    assert counters == Counters(taken=2000)


def test_the_same_seed_decides_the_same() -> None:
    bad = Conditions(loss=0.1, jitter_ms=50, keeps_order=False, reorder=0.05, duplicate=0.1, replay=0.1, burst=Burst(0.01, 0.3))
    assert arrivals(bad, seed="7") == arrivals(bad, seed="7")
    assert arrivals(bad, seed="7") != arrivals(bad, seed="8")


def test_the_same_packets_are_lost_whatever_else_is_set() -> None:
    alone, _ = arrivals(Conditions(loss=0.1))
    with_jitter, _ = arrivals(Conditions(loss=0.1, jitter_ms=100, keeps_order=False, duplicate=0.5))
    assert set(numbers(with_jitter)) == set(numbers(alone))
    later, _ = arrivals(Conditions(), changes=[(1000, Conditions(loss=0.1))])
    assert numbers(later)[:1000] == list(range(1000))
    assert numbers(later)[1000:] == [number for number in numbers(alone) if number >= 1000]


@pytest.mark.parametrize("chance", [0.02, 0.2])
def test_uniform_loss_has_its_rate(chance: float) -> None:
    found, counters = arrivals(Conditions(loss=chance), count=5000)
    assert len(found) == 5000 - counters.lost
    assert 0.8 * chance < counters.lost / 5000 < 1.2 * chance


def test_bursts_lose_packets_in_a_row() -> None:
    found, counters = arrivals(Conditions(burst=Burst(begin=0.0125, end=0.25)), count=20_000)
    runs = [later - earlier - 1 for earlier, later in pairwise(numbers(found)) if later - earlier > 1]
    assert 0.03 < counters.lost / 20_000 < 0.07
    assert 3 < sum(runs) / len(runs) < 5


def test_delay_and_jitter_stay_within_their_bounds() -> None:
    found, _ = arrivals(Conditions(delay_ms=40, jitter_ms=30))
    assert numbers(found) == list(range(2000))
    assert min(delays(found)) >= 40
    assert max(delays(found)) <= 71  # and the grid of 1 ms
    assert len(set(delays(found))) > 10


def test_jitter_reorders_when_it_may() -> None:
    found, _ = arrivals(Conditions(jitter_ms=200, keeps_order=False))
    assert numbers(found) != sorted(numbers(found))
    assert sorted(numbers(found)) == list(range(2000))
    assert max(delays(found)) <= 201


def test_a_reordered_packet_comes_after_fifty_others_or_a_second() -> None:
    found, counters = arrivals(Conditions(reorder=0.01, reorder_packets=50))
    order = numbers(found)
    late = [number for place, number in enumerate(order) if number < max(order[: place + 1])]
    assert len(late) >= counters.reordered - 1 > 10
    for number in late[:-1]:
        assert 40 <= order.index(number) - number <= 50  # others are held meanwhile too
    assert max(delays(found)) <= 1001


def test_repeats_are_copies() -> None:
    found, counters = arrivals(Conditions(duplicate=0.2, replay=0.1))
    assert len(found) == 2000 + counters.duplicated + counters.replayed
    assert 300 < counters.duplicated < 500
    assert 150 < counters.replayed < 250
    far_back = [number for place, number in enumerate(numbers(found)) if max(numbers(found)[: place + 1]) - number > 100]
    assert len(far_back) > 50


def test_blackouts_by_schedule_and_by_command() -> None:
    found, counters = arrivals(Conditions(blackouts=((1, 2), (3, 3.4))))
    lost = sorted(set(range(2000)) - set(numbers(found)))
    assert lost == [*range(125, 250), *range(375, 425)]
    assert counters.blacked_out == len(lost)
    commanded, _ = arrivals(Conditions(), changes=[(100, Conditions(blackout=True)), (300, Conditions())])
    assert sorted(set(range(2000)) - set(numbers(commanded))) == list(range(100, 300))


def test_the_rate_delays_and_its_queue_is_bounded() -> None:
    # 100 bytes each 8 ms are 100 kbit/s.
    slow, counters = arrivals(Conditions(rate_kbps=50, queue_ms=200))
    assert numbers(slow) == sorted(numbers(slow))
    assert 0.45 < counters.overflowed / 2000 < 0.55
    assert 195 < max(delays(slow)) <= 217
    quick, counters = arrivals(Conditions(rate_kbps=200, queue_ms=200))
    assert counters.overflowed == 0
    assert set(delays(quick)) == {4}


def test_a_predicate_drops_by_class() -> None:
    found, counters = arrivals(Conditions(drop=lambda sighting: sighting.kind == "rtp" and sighting.sequence in (5, 9)))
    assert sorted(set(range(2000)) - set(numbers(found))) == [5, 9]
    assert counters.dropped == 2
