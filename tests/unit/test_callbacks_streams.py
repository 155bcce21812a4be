"""Which streams are told to come in, and the alarms about media that is not worth to be recorded."""

from collections.abc import Callable

import numpy as np
import pytest

from mixer.fit import Size
from mixer.picture import Picture, Planes
from recorder.frames import Track
from recorder.worker.looks import Hearing, Looks
from recorder.worker.streams import Streams
from recorder.worker.vigil import BLACK, FROZEN, HOLD_NS, SILENT, Vigil

SECOND = 1_000_000_000
VOICE, FACE, OTHER = Track(1, "audio"), Track(1, "video"), Track(2, "video")


class Told:
    def __init__(self, *, mixed: bool) -> None:
        self.changes: list[tuple[int, str, bool]] = []
        self.missed = 0
        self.streams = Streams(mixed=mixed, changed=self._change, missed=self._miss)

    def _change(self, uid: int, kind: str, receiving: bool, _at_ns: int) -> None:
        self.changes.append((uid, kind, receiving))

    def _miss(self) -> None:
        self.missed += 1

    def new(self) -> list[tuple[int, str, bool]]:
        changes, self.changes = self.changes, []
        return changes


def test_a_stream_comes_in_with_its_first_frame_and_until_it_is_stopped() -> None:
    told = Told(mixed=False)
    told.streams.started(FACE)
    assert told.new() == []
    for now in range(3):
        told.streams.frame(FACE, now)
    assert told.new() == [(1, "video", True)]
    told.streams.stopped(FACE, 5)
    told.streams.frame(FACE, 6)  # was on its way
    assert told.new() == [(1, "video", False)]
    told.streams.started(FACE)
    told.streams.frame(FACE, 9)
    told.streams.left(1, 10)
    assert told.new() == [(1, "video", True), (1, "video", False)]
    told.streams.end(11)
    assert told.new() == []


def test_a_stream_without_frames_does_not_come_in() -> None:
    told = Told(mixed=False)
    told.streams.started(FACE)
    told.streams.frame(FACE, 0)
    told.streams.look(5 * SECOND)
    assert told.new() == [(1, "video", True)]
    told.streams.look(5 * SECOND + 1)
    told.streams.look(6 * SECOND)
    assert told.new() == [(1, "video", False)]
    told.streams.frame(FACE, 7 * SECOND)
    assert told.new() == [(1, "video", True)]


def test_the_mixed_stream_comes_in_while_any_does() -> None:
    told = Told(mixed=True)
    for track in (FACE, OTHER, VOICE):
        told.streams.started(track)
        told.streams.frame(track, 0)
    assert told.new() == [(1, "video", True), (0, "video", True), (2, "video", True), (1, "audio", True), (0, "audio", True)]
    told.streams.stopped(FACE, 1)
    assert told.new() == [(1, "video", False)]
    told.streams.end(2)
    assert sorted(told.new()) == [(0, "audio", False), (0, "video", False), (1, "audio", False), (2, "video", False)]


def _watch(told: Told, seconds: range) -> None:
    for second in seconds:
        told.streams.look(second * SECOND)


def test_nothing_from_people_who_are_there_is_an_alarm() -> None:
    told = Told(mixed=True)
    _watch(told, range(20))
    assert told.missed == 0  # nobody is there
    told.streams.joined(1)
    _watch(told, range(20, 26))
    assert told.missed == 0
    _watch(told, range(26, 60))
    assert told.missed == 1
    told.streams.started(FACE)
    for second in range(60, 80):
        told.streams.frame(FACE, second * SECOND)
        told.streams.look(second * SECOND)
    _watch(told, range(80, 88))
    assert told.missed == 2


def test_who_vanishes_has_not_muted() -> None:
    told = Told(mixed=True)
    told.streams.started(FACE)
    told.streams.frame(FACE, 0)
    _watch(told, range(4))
    told.streams.stopped(FACE, 4 * SECOND)
    assert told.new()[-1] == (0, "video", False)
    _watch(told, range(4, 10))
    assert told.missed == 1
    told.streams.left(1, 10 * SECOND)
    told.streams.joined(1)
    _watch(told, range(10, 60))
    assert told.missed == 1


def test_who_mutes_everything_is_no_alarm() -> None:
    told = Told(mixed=True)
    told.streams.joined(1)
    told.streams.started(FACE)
    told.streams.frame(FACE, 0)
    told.streams.stopped(FACE, 1)
    _watch(told, range(1, 60))
    assert told.missed == 0


def test_a_vigil_says_it_once_and_again_only_after_it_was_well() -> None:
    vigil = Vigil()
    half = HOLD_NS // 2
    assert [vigil.see(True, number * half) for number in range(5)] == [False, False, True, False, False]
    assert [vigil.see(False, (5 + number) * half) for number in range(3)] == [False] * 3
    assert [vigil.see(True, (8 + number) * half) for number in range(3)] == [False, False, True]
    assert [vigil.see(number % 2 == 0, (11 + number) * half) for number in range(20)] == [False] * 20  # never well for long


def _noise(seed: int) -> Picture:
    planes = Planes.filled(Size(320, 180), (120, 128, 128))
    planes.y[:] += np.random.default_rng(seed).integers(0, 3, planes.y.shape, np.uint8)
    return Picture(planes)


def _dark(number: int) -> Picture:
    return Picture(Planes.filled(Size(320, 180), (16 + number % 2, 128, 128)))


_STILL_PICTURE = _noise(0)


@pytest.mark.parametrize(
    ("picture", "alarms"),
    [
        (_noise, []),  # a camera before a wall
        (_dark, [BLACK]),
        (lambda _number: _STILL_PICTURE, [FROZEN]),
        (lambda _number: _noise(0), [FROZEN]),  # decoded anew each time
        (lambda _number: None, []),
        (lambda number: _noise(number // 4), []),  # a slide each four seconds
    ],
)
def test_how_pictures_look(picture: Callable[[int], Picture | None], alarms: list[int]) -> None:
    raised: list[tuple[int, int]] = []
    looks = Looks(7, lambda code, uid: raised.append((code, uid)))
    for number in range(30):
        looks.see(picture(number), number * SECOND)
        if number == 8:
            assert raised == [(code, 7) for code in alarms]  # in time
    assert raised == [(code, 7) for code in alarms]


@pytest.mark.parametrize(("level", "alarms"), [(0.0, [SILENT]), (1e-4, [SILENT]), (1e-3, []), (0.5, [])])
def test_how_it_sounds(level: float, alarms: list[int]) -> None:
    raised: list[int] = []
    hearing = Hearing(lambda code, _uid: raised.append(code))
    samples = np.full((1, 960), level, np.float32)
    for number in range(1500):
        hearing.hear(samples, number * SECOND // 50)
        if number == 400:
            assert raised == alarms
    assert raised == alarms


def test_one_who_is_heard_is_enough_and_pauses_do_not_count() -> None:
    raised: list[int] = []
    hearing = Hearing(lambda code, _uid: raised.append(code))
    silent, loud = np.zeros((1, 960), np.float32), np.full((1, 960), 0.1, np.float32)
    for number in range(1500):
        hearing.hear(silent, number * SECOND // 50)
        if number % 250 == 0:
            hearing.hear(loud, number * SECOND // 50)
    for number in range(100):  # one packet in two seconds
        hearing.hear(silent, 30 * SECOND + number * 2 * SECOND)
    assert raised == []
