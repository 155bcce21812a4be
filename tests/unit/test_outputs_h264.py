"""Parameter sets and decode times of H.264 streams."""

from itertools import pairwise

from recorder.outputs.h264 import DecodeClock, ParameterSets

START = b"\0\0\0\1"
DELIMITER, SPS, PPS, SEI = START + b"\x09\xf0", START + b"\x67\x42\0\x1e\x80", START + b"\x68\xce\x80", START + b"\x06\x01\x80"
IDR, DELTA = START + b"\x65\x88\x80", START + b"\x41\x9a\x80"
MS = 1_000_000


def test_a_first_access_unit_gets_the_parameter_sets_of_an_earlier_one() -> None:
    sets = ParameterSets()
    sets.observe(DELIMITER + SPS + PPS + SEI + IDR)
    sets.observe(DELTA)
    assert sets.complete(IDR) == SPS + PPS + IDR


def test_a_delimiter_stays_first() -> None:
    sets = ParameterSets()
    sets.observe(SPS + PPS + IDR)
    completed = sets.complete(DELIMITER + SEI + IDR)
    assert completed.replace(b"\0\0\0\0\1", START) == DELIMITER + SPS + PPS + b"\0\0\1" + SEI[4:] + IDR
    assert completed.startswith(DELIMITER)


def test_what_is_complete_or_cannot_be_completed_stays() -> None:
    sets = ParameterSets()
    assert sets.complete(IDR) == IDR
    sets.observe(SPS + PPS + IDR)
    assert sets.complete(SPS + IDR) == SPS + IDR
    for rubbish in (b"", b"\0\0\1", b"\xff" * 50):
        sets.observe(rubbish)
    assert sets.complete(IDR) == SPS + PPS + IDR


def test_three_byte_start_codes() -> None:
    sets = ParameterSets()
    sets.observe(b"\0\0\1" + SPS[4:] + b"\0\0\1" + PPS[4:] + b"\0\0\1" + IDR[4:])
    assert sets.complete(IDR) == SPS + PPS + IDR


def test_without_reordering_both_times_are_the_capture_time() -> None:
    clock = DecodeClock()
    times = [-5 * MS, 28 * MS, 61 * MS, 400 * MS]
    assert [clock.place(time) for time in times] == [(time, time) for time in times]


def test_reordered_pictures_keep_their_times_after_the_first_group() -> None:
    clock = DecodeClock()
    order = [0] + [frame * 33 * MS for group in range(0, 30, 3) for frame in (group + 3, group + 1, group + 2)]
    placed = [clock.place(time) for time in order]
    assert all(dts <= pts for pts, dts in placed)
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(placed))
    assert [pts for pts, _ in placed[4:]] == order[4:]


def test_whatever_comes_decode_times_rise() -> None:
    clock = DecodeClock()
    times = [0, 0, 0, *range(0, 10_000 * MS, 500 * MS), 9_990 * MS, 100 * MS, 133 * MS, 10_001 * MS, 10_000 * MS]
    placed = [clock.place(time) for time in times]
    assert all(dts <= pts for pts, dts in placed)
    assert all(later - earlier >= 11_112 for (_, earlier), (_, later) in pairwise(placed))
    assert clock.place(20_000 * MS)[1] > 9_000 * MS  # a clock set back by seconds is no reordering
