"""Gaps, repeats and the figures of receiver reports."""

import pytest

from recorder.hub.feedback import SenderInfo
from recorder.hub.reception import Reception

MS = 1_000_000


def received(*sequences: int, start: int | None = None) -> Reception:
    reception = Reception(7, 90_000, sequences[0] if start is None else start)
    for sequence in sequences:
        reception.arrived(sequence & 0xFFFF, 0, 0)
    return reception


def test_gap_is_asked_for_after_a_while_and_again() -> None:
    reception = received(10, 11, 14)
    assert reception.has_gaps
    assert reception.lost(5 * MS) == []
    assert reception.lost(20 * MS) == [12, 13]
    assert reception.lost(200 * MS) == []  # how long a repair takes is not known yet
    assert reception.arrived(13, 0, 210 * MS)
    assert reception.lost(240 * MS) == [12]
    assert reception.lost(470 * MS) == []
    assert reception.lost(480 * MS) == [12]  # it takes 190 ms


def test_reordered_packet_is_not_asked_for() -> None:
    reception = received(10, 12, 11)
    assert not reception.has_gaps
    assert reception.lost(1000 * MS) == []


def test_lost_packet_is_given_up() -> None:
    """After ten requests where repairs are quick, after a second at the latest."""
    for before, times in (((), 6), ((2,), 10)):
        reception = received(1, 3)
        assert reception.lost(20 * MS) == [2]
        for sequence in before:
            reception.arrived(sequence, 0, 30 * MS)  # a repair within 10 ms
        reception.arrived(5, 0, 40 * MS)
        asked = [now for now in range(40, 3000, 20) if 4 in reception.lost(now * MS)]
        assert len(asked) == times
        assert asked[-1] <= 1060
        assert not reception.has_gaps


def test_slow_repairs_are_not_asked_for_again_before_they_can_come() -> None:
    """With 200 ms on the way, asking every 60 ms would bring each packet four times."""
    reception = received(0)
    asked: list[tuple[int, int]] = []
    repairs: list[tuple[int, int]] = []
    for now in range(0, 10_000, 10):
        for sequence in [sequence for due, sequence in repairs if due == now]:
            reception.arrived(sequence, 0, now * MS)
        if now % 100 == 0:
            reception.arrived(now // 50 + 2, 0, now * MS)  # every other packet is lost
        wanted = reception.lost(now * MS)
        repairs += [(now + 200, sequence) for sequence in wanted]
        asked += [(now, sequence) for sequence in wanted]
    late = [sequence for now, sequence in asked if now > 5000]
    assert len(late) == len(set(late)) > 40


def test_gap_over_the_wrap_is_named_in_order() -> None:
    assert received(65533, 65537).lost(20 * MS) == [65534, 65535, 0]


def test_memory_is_bounded() -> None:
    reception = received(0, 5000)  # a jump
    assert not reception.has_gaps
    for sequence in range(5000, 15000, 2):
        reception.arrived(sequence, 0, 0)
    assert len(reception.lost(20 * MS)) == 512


@pytest.mark.parametrize(
    ("sequences", "restarted"), [((35000, 35001), True), ((35000, 35002), False), ((61999, 61998), False), ((35000,), False)]
)
def test_restart_is_believed_when_two_packets_agree(sequences: tuple[int, ...], restarted: bool) -> None:
    reception = received(62000)
    for sequence in sequences:
        reception.arrived(sequence, 0, 0)
    assert reception.restarted is restarted


def test_report_counts_loss() -> None:
    reception = received(*(sequence for sequence in range(65500, 65600) if sequence % 4), start=65500)
    block = reception.report_block(0)
    assert (block.ssrc, block.cumulative_lost, block.fraction_lost) == (7, 25, 64)
    assert block.highest_sequence == 65599
    for sequence in range(65600, 65650):
        reception.arrived(sequence & 0xFFFF, 0, 0)
    block = reception.report_block(0)
    assert (block.cumulative_lost, block.fraction_lost) == (25, 0)


def test_repaired_packets_are_not_lost() -> None:
    reception = received(1, 2, 4, 3)
    assert reception.report_block(0).cumulative_lost == 0


def test_report_answers_the_senders_report() -> None:
    reception = received(1)
    assert (reception.report_block(0).last_sr, reception.report_block(0).delay_since_last_sr) == (0, 0)
    reception.note_report(SenderInfo(7, bytes.fromhex("0011223344556677") + bytes(12)), 1000 * MS)
    block = reception.report_block(1500 * MS)
    assert (block.last_sr, block.delay_since_last_sr) == (0x22334455, 0x8000)


def test_jitter_is_measured_in_media_time() -> None:
    steady, shaky = Reception(7, 90_000, 0), Reception(7, 90_000, 0)
    for number in range(200):
        steady.arrived(number, number * 900 + 0xFFFFFFF0 & 0xFFFFFFFF, number * 10 * MS)
        shaky.arrived(number, number * 900, (number * 10 + number % 2 * 4) * MS)
    assert steady.report_block(0).jitter == 0
    assert 330 < shaky.report_block(0).jitter <= 360
