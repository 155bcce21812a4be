"""The recorder's composite on a capture, in this process and under a virtual clock."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from recorder.protocol import EventBody, SliceCommitted
from recorder.rtp.capture import Capture
from recorder.rtp.playback import Player
from recorder.settings import Recording
from recorder.worker.audience import Audience
from recorder.worker.composite import Composite
from recorder.worker.pipeline import Input, Surroundings
from storage.spool import RecordingSpool
from tests.bench.composing import Room

_TURN_NS = 100_000_000  # of the clock: as much as the pipeline makes together. What waking more often costs is in the loopback benches


class ReplayFailed(Exception):
    """What was recorded is not what the bench is about."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """CPU in ms per second of media."""

    all: float
    mixing: float


class _Line:
    def __init__(self, room: Room, capture: Capture, folder: Path) -> None:
        self.reports: list[EventBody] = []
        self._now_ns = 0
        self._end_ns = room.seconds * 1_000_000_000
        settings = Recording()
        zero_utc_ns = capture.description.zero_utc_ns
        around = Surroundings(room.spec(), settings, RecordingSpool(folder), 1, zero_utc_ns, self.reports.append, lambda _track: None)
        self.composite = Composite(around)
        audience = Audience(
            around.spec,
            self,
            receive=lambda wanted: self._player.subscribe(wanted),  # noqa: PLW0108  # it is created below
            on_lost=_fail,
        )
        self._player = Player(capture, audience, patience_ns=settings.jitter_ms * 1_000_000, pictures=around.spec.video)

    def put(self, item: Input) -> None:
        self.composite.take(item, self._now_ns)

    def run(self) -> None:
        while self._player.next_ns() is not None:
            self._now_ns += _TURN_NS
            self._player.advance(self._now_ns)
            if self.composite.due_ns() <= self._now_ns:
                self.composite.advance(self._now_ns)
        self._player.flush()
        self.composite.close(self._end_ns)


def replayed(room: Room) -> Replayed:
    """Record the room's capture once.

    Raises:
        ReplayFailed: not all of it was recorded.
    """
    capture = room.capture()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        line = _Line(room, capture, Path(folder))
        line.run()
        spent_ms = (time.process_time() - started) * 1000
    recorded = sum(report.slice.duration_ns for report in line.reports if isinstance(report, SliceCommitted)) / 1e9
    if abs(recorded - room.seconds) > 0.2:
        raise ReplayFailed(f"{recorded:.2f} s of {room.seconds} s were recorded")
    return Replayed(spent_ms / room.seconds, line.composite.mixing_ns / 1e6 / room.seconds)


def _fail(error: Exception) -> None:
    raise error
