"""The jitter buffer: order, loss, wrap, restart."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from recorder.rtp.jitter import MAX_LATE, MAX_SPAN, NACK_LIMIT, JitterBuffer

MS = 1_000_000


def _buffer() -> JitterBuffer[int]:
    return JitterBuffer(patience_ns=500 * MS)


def _push(buffer: JitterBuffer[int], number: int, now: int = 0) -> list[tuple[int, bool]]:
    return list(buffer.push(number & 0xFFFF, number, now))


def test_in_order_passes_straight_through_the_wrap() -> None:
    buffer = _buffer()
    assert not buffer.passes(65530)  # the first one begins the stream
    assert _push(buffer, 65530) == [(65530, False)]
    for number in range(65531, 65550):
        assert buffer.passes(number & 0xFFFF)
    assert (buffer.highest, buffer.counters.received) == (65549, 20)


def test_nothing_passes_while_something_waits() -> None:
    buffer = _buffer()
    _push(buffer, 1)
    _push(buffer, 3)
    assert not buffer.passes(4)
    assert _push(buffer, 2) == [(2, False), (3, False)]
    assert buffer.passes(4)
    _push(buffer, 7)
    assert [packet for packet, _ in buffer.flush()] == [7]
    assert buffer.passes(8)


@given(st.permutations(range(40)), st.integers(0, 0xFFFF))
def test_any_order_within_the_patience_comes_out_sorted(order: list[int], start: int) -> None:
    buffer = _buffer()
    out = _push(buffer, start)
    for number in order:
        out += _push(buffer, start + 1 + number)
    assert [number for number, _ in out] == list(range(start, start + 41))
    assert not any(loss for _, loss in out)
    assert buffer.counters.lost == 0


def test_a_gap_is_given_up_after_the_patience_and_marked() -> None:
    buffer = _buffer()
    _push(buffer, 1)
    assert _push(buffer, 3, 10 * MS) == []
    assert list(buffer.expire(509 * MS)) == []
    assert list(buffer.expire(510 * MS)) == [(3, True)]
    assert _push(buffer, 4, 511 * MS) == [(4, False)]
    assert _push(buffer, 2, 512 * MS) == []
    assert (buffer.counters.lost, buffer.counters.late) == (1, 1)


def test_missing_packets_are_asked_for_with_pauses_and_a_limit() -> None:
    buffer = _buffer()
    _push(buffer, 1)
    _push(buffer, 4)
    assert buffer.wanted(5 * MS) == []  # they may merely have been overtaken
    assert buffer.wanted(10 * MS) == [2, 3]
    assert buffer.wanted(60 * MS) == []  # the answer may be on its way
    assert buffer.wanted(110 * MS) == [2, 3]
    asked = 4 + sum(len(buffer.wanted((210 + 30 * n) * MS)) for n in range(50))
    assert asked == 2 * NACK_LIMIT
    _push(buffer, 2)
    _push(buffer, 3)
    assert buffer.wanted(10_000 * MS) == []
    assert buffer.counters.repaired == 2


def test_the_pause_follows_the_round_trip() -> None:
    """On a short path there is time for many requests within the patience, on a long one not for the same twice."""
    for round_trip, again in ((5, 20), (300, 240)):
        buffer = _buffer()
        _push(buffer, 0)
        for number in range(2, 60, 2):
            now = number * 1000 * MS
            _push(buffer, number, now)
            assert buffer.wanted(now + 10 * MS) == [number - 1]
            _push(buffer, number - 1, now + (10 + round_trip) * MS)
        _push(buffer, 61, 0)
        assert buffer.wanted(10 * MS) == [59, 60]
        assert buffer.wanted((10 + again - 5) * MS) == []
        assert buffer.wanted((10 + max(again, round_trip) + 5) * MS) == [59, 60]


def test_a_round_trip_longer_than_the_patience_is_learnt_too() -> None:
    """Else every packet would be asked for again and again on a path that is poor already."""
    buffer = _buffer()
    _push(buffer, 0)
    asked = 0
    for number in range(2, 80, 2):
        begin = number * 1000 * MS
        _push(buffer, number, begin)
        asked = sum(bool(buffer.wanted(begin + at * MS)) for at in range(10, 500, 10))
        list(buffer.expire(begin + 500 * MS))
        _push(buffer, number - 1, begin + 810 * MS)
    assert asked == 1
    assert buffer.counters.lost == 39
    assert len(buffer._given_up) == 0
    for number in range(1000, 3000, 2):  # and what never comes is not remembered
        _push(buffer, number, number * 1000 * MS)
        buffer.wanted(number * 1000 * MS + 20 * MS)
        list(buffer.expire(number * 1000 * MS + 500 * MS))
    assert len(buffer._given_up) < 100


def test_a_restarted_sender_is_followed_and_one_stray_packet_is_not() -> None:
    buffer = _buffer()
    _push(buffer, 100)
    assert _push(buffer, 30000) == []
    assert _push(buffer, 101) == [(101, False)]
    assert _push(buffer, 40000) == []
    assert _push(buffer, 40001) == [(40001, True)]
    assert _push(buffer, 40002) == [(40002, False)]
    assert (buffer.counters.restarts, buffer.counters.strays) == (1, 2)


def test_memory_is_bounded() -> None:
    for step in (1, 2, 2999):  # behind one gap, every other one missing, as few packets as open the most gaps
        buffer = _buffer()
        _push(buffer, 0)
        out = 1
        for number in range(2, 30000, step):
            out += len(_push(buffer, number))
            assert len(buffer._held) <= MAX_SPAN
            assert len(buffer._missing) <= MAX_SPAN
        assert out > 30000 // step - 2 * MAX_SPAN // step


@given(st.lists(st.one_of(st.integers(0, 0xFFFF), st.integers(0, 200)), max_size=200), st.booleans())
def test_whatever_comes_leaves_in_order_and_once(numbers: list[int], expiring: bool) -> None:
    buffer = _buffer()
    out = []
    for tick, number in enumerate(numbers):
        if buffer.passes(number):
            out.append(number)
        else:
            out += [item for item, _ in buffer.push(number, number, tick * 20 * MS)]
        if expiring:
            out += [item for item, _ in buffer.expire(tick * 20 * MS)]
            buffer.wanted(tick * 20 * MS)
    out += [item for item, _ in buffer.flush()]
    assert len(out) <= len(numbers)
    assert not buffer.has_gap
    if not buffer.counters.restarts:
        steps = [(b - a + 0x8000 & 0xFFFF) - 0x8000 for a, b in pairwise(out)]
        assert all(step > 0 for step in steps)


def test_a_sender_that_begins_anew_a_little_further_back_is_followed() -> None:
    """Its packets look late, each of them: a run of them is no network."""
    buffer = _buffer()
    for number in range(1000, 1400):
        _push(buffer, number)
    out = [number for number in range(1100, 1200) for _ in _push(buffer, number)]
    assert out[0] == 1100 + MAX_LATE - 1
    assert out == list(range(out[0], 1200))
    assert buffer.counters.restarts == 1
    assert buffer.received == buffer.highest - buffer.first + 1


def test_late_packets_between_others_are_no_new_beginning() -> None:
    buffer = _buffer()
    for number in range(1000, 1400):
        _push(buffer, number)
    for number in range(1400, 1500):
        assert _push(buffer, number) == [(number, False)]
        assert _push(buffer, number - 300) == []
    assert buffer.counters.restarts == 0
