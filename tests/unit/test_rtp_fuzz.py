"""Mutated packets against the receive path (row M1 of the faults); `make fuzz` runs a million."""

import pytest

from tests.good_streams import good_streams
from tests.hostile import Attack


@pytest.mark.parametrize("seed", range(5))
def test_mutated_packets_cost_counters_and_nothing_else(seed: int) -> None:
    attack = Attack(good_streams(), seed)
    attack.run(4000)
    attack.check()
    counters = attack.receiver.counters
    assert attack.frames  # what was good is still read
    assert counters.malformed
    assert counters.unrouted


def test_the_attack_reaches_every_codec() -> None:
    attack = Attack(good_streams(), 99)
    attack.run(20_000)
    assert {frame.codec for frame in attack.frames} == set(good_streams())
