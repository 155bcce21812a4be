"""What was measured of each track, over all sessions of a recording. Bounded however often people come and go."""

from recorder.frames import Figures, Track
from recorder.rtp.receiver import SessionReceiver

SESSIONS = 128  # whose receivers are asked; of older ones the last figures are kept
TRACKS = 2000  # that are remembered, the newest


class Meters:
    """`add` each receiver when its session begins; `read` may be called at any time."""

    def __init__(self) -> None:
        self._sessions: list[tuple[int, SessionReceiver]] = []
        self._past: dict[Track, Figures] = {}

    def add(self, uid: int, receiver: SessionReceiver) -> None:
        self._sessions.append((uid, receiver))
        if len(self._sessions) > SESSIONS:
            quietest = min(self._sessions[:-1], key=lambda session: _last_ns(session[1]))
            self._sessions.remove(quietest)
            _add(self._past, *quietest)
            while len(self._past) > TRACKS:
                del self._past[next(iter(self._past))]

    def read(self) -> dict[Track, Figures]:
        """Packets are those of all sessions, other figures of the one that was heard of last."""
        figures = dict(self._past)
        for uid, receiver in sorted(self._sessions, key=lambda session: _last_ns(session[1])):
            _add(figures, uid, receiver)
        return figures


def _last_ns(receiver: SessionReceiver) -> int:
    return max(receiver.last_packet_ns("audio"), receiver.last_packet_ns("video"))


def _add(figures: dict[Track, Figures], uid: int, receiver: SessionReceiver) -> None:
    for kind, new in receiver.measured().items():
        track = Track(uid, kind)
        old = figures.pop(track, Figures(0, 0))  # what changed last goes to the end
        figures[track] = Figures(
            old.received + new.received,
            old.lost + new.lost,
            old.drift_ppm if new.drift_ppm is None else new.drift_ppm,
            old.av_offset_ns if new.av_offset_ns is None else new.av_offset_ns,
        )
