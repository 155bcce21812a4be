"""The jitter buffer: order, loss, wrap, restart."""

from hypothesis import given
from hypothesis import strategies as st

from recorder.rtp.jitter import NACK_LIMIT, JitterBuffer

MS = 1_000_000


def _buffer() -> JitterBuffer[int]:
    return JitterBuffer(patience_ns=500 * MS)


def _push(buffer: JitterBuffer[int], number: int, now: int = 0) -> list[tuple[int, bool]]:
    return list(buffer.push(number & 0xFFFF, number, now))


def test_in_order_passes_straight_through_the_wrap() -> None:
    buffer = _buffer()
    for number in range(65530, 65550):
        assert _push(buffer, number) == [(number, False)]
    assert buffer.highest == 65549


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
    assert buffer.wanted(5 * MS, 0) == []  # they may merely have been overtaken
    assert buffer.wanted(10 * MS, 0) == [2, 3]
    assert buffer.wanted(20 * MS, 0) == []
    assert buffer.wanted(30 * MS, 0) == [2, 3]
    assert buffer.wanted(60 * MS, 100 * MS) == []  # a slow path is given the time of a round trip
    asked = 2 + sum(bool(buffer.wanted((100 + 30 * n) * MS, 0)) for n in range(50))
    assert asked == NACK_LIMIT
    _push(buffer, 2)
    _push(buffer, 3)
    assert buffer.wanted(10_000 * MS, 0) == []


def test_a_restarted_sender_is_followed_and_one_stray_packet_is_not() -> None:
    buffer = _buffer()
    _push(buffer, 100)
    assert _push(buffer, 30000) == []
    assert _push(buffer, 101) == [(101, False)]
    assert _push(buffer, 40000) == []
    assert _push(buffer, 40001) == [(40001, True)]
    assert _push(buffer, 40002) == [(40002, False)]
    assert buffer.counters.restarts == 1


def test_memory_is_bounded() -> None:
    buffer = _buffer()
    _push(buffer, 0)
    for number in range(2, 30000):
        _push(buffer, number)
    assert len(buffer._held) <= 4096
    assert len(buffer._missing) <= 4096
