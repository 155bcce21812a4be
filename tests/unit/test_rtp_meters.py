"""Figures of tracks over the sessions of a recording."""

from typing import cast

from recorder.frames import Figures, Kind, Track
from recorder.rtp import meters
from recorder.rtp.meters import Meters
from recorder.rtp.receiver import SessionReceiver


class Session:
    """Of a receiver, what meters look at."""

    def __init__(self, last_ns: int, **figures: Figures) -> None:
        self.last_ns = last_ns
        self.figures = figures

    def measured(self) -> dict[Kind, Figures]:
        return cast(dict[Kind, Figures], self.figures)

    def last_packet_ns(self, kind: Kind) -> int:
        return self.last_ns if kind in self.figures else 0


def _meters(*sessions: tuple[int, Session]) -> Meters:
    made = Meters()
    for uid, session in sessions:
        made.add(uid, cast(SessionReceiver, session))
    return made


def test_packets_add_up_and_the_newest_word_counts() -> None:
    read = _meters(
        (1, Session(30, video=Figures(10, 1, None, 7), audio=Figures(5, 0))),
        (1, Session(20, video=Figures(100, 2, 3.5, 9))),
        (2, Session(10, audio=Figures(1, 1))),
    ).read()
    assert read == {
        Track(1, "video"): Figures(110, 3, 3.5, 7),
        Track(1, "audio"): Figures(5, 0),
        Track(2, "audio"): Figures(1, 1),
    }


def test_who_comes_and_goes_all_the_time_takes_no_memory_and_loses_no_packet() -> None:
    staying = Session(1, audio=Figures(0, 0))
    made = _meters((1, staying))
    for number in range(10_000):
        staying.last_ns = number + 1
        staying.figures = {"audio": Figures(number, 0)}
        made.add(2 + number % 3, cast(SessionReceiver, Session(number, audio=Figures(1, 1))))
    read = made.read()
    assert read[Track(1, "audio")] == Figures(9999, 0)
    assert sum(figures.lost for figures in read.values()) == 10_000
    assert len(made._sessions) == meters.SESSIONS


def test_of_too_many_people_the_newest_are_remembered() -> None:
    made = _meters(*((uid, Session(uid, audio=Figures(1, 0))) for uid in range(meters.TRACKS + 1000)))
    read = made.read()
    assert len(read) == meters.TRACKS + meters.SESSIONS
    assert Track(meters.TRACKS + 999, "audio") in read
    assert Track(0, "audio") not in read
