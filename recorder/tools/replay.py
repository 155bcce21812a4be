"""Makes a recording from a capture under a virtual clock: as fast as the machine can, and the same bytes every time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recorder.channels import ChannelError
from recorder.outputs.playlist import render
from recorder.protocol import EventBody, Slice, SliceCommitted
from recorder.rtp.capture import Capture
from recorder.rtp.playback import Player
from recorder.rtp.receiver import Counters
from recorder.settings import Recording
from recorder.spec import RecordingSpec
from recorder.worker.audience import Audience
from recorder.worker.pipeline import Input, Surroundings, create
from storage.spool import RecordingSpool

_SPOOL = ".spool"
_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has left; the files are in `folder` under their names."""

    folder: Path
    slices: tuple[Slice, ...]
    seconds: float  # of the captured recording
    took_seconds: float
    receivers: tuple[tuple[int, Counters], ...]  # by uid, one per session

    @property
    def times_real_time(self) -> float:
        return self.seconds / self.took_seconds

    def playlists(self) -> dict[str, list[Slice]]:
        """The slices of each playlist, in order."""
        lists: dict[str, list[Slice]] = {}
        for item in self.slices:
            if item.playlist:
                lists.setdefault(item.playlist, []).append(item)
        return lists

    def paths(self, playlist: str) -> list[Path]:
        return [self.folder / item.name for item in self.playlists().get(playlist, [])]


def replay(capture: Capture, folder: Path, spec: RecordingSpec | None = None, settings: Recording | None = None) -> Replayed:
    """Record the capture into an empty or new folder; `spec` and `settings` replace those it was captured under.

    Raises:
        CaptureError: the capture is broken.
        FileExistsError: the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    spec = spec or capture.description.recording.spec()
    settings = settings or Recording(jitter_ms=capture.description.jitter_ms)
    spool = RecordingSpool(folder / _SPOOL)
    reports: list[EventBody] = []
    started = time.perf_counter()
    try:
        line = StraightLine(capture, spec, settings, spool, reports.append)
        end_ns = line.run()
        took = time.perf_counter() - started
        slices = tuple(report.slice for report in reports if isinstance(report, SliceCommitted))
        for item in slices:
            spool.file(item.name).rename(folder / item.name)
    finally:
        spool.destroy()
    replayed = Replayed(folder, slices, end_ns / 1e9, took, tuple(line.player.counters))
    for name, items in replayed.playlists().items():
        (folder / name).write_text(render(items, ended=True, correct_extinf=spec.correct_extinf))
    return replayed


class StraightLine:
    """Receivers, audience and pipeline of a worker, in one thread, with a clock that the capture turns."""

    def __init__(
        self, capture: Capture, spec: RecordingSpec, settings: Recording, spool: RecordingSpool, report: Callable[[EventBody], object]
    ) -> None:
        zero_utc_ns = capture.description.zero_utc_ns
        self._ended_ns = capture.description.ended_ns or 0
        self._pipeline = create(Surroundings(spec, settings, spool, _EPOCH, zero_utc_ns, report, lambda _track: None))
        self._now_ns = 0
        audience = Audience(
            spec,
            self,
            receive=lambda wanted: self.player.subscribe(wanted),  # noqa: PLW0108  # it is created below
            on_lost=_never,
        )
        self.player = Player(capture, audience, patience_ns=settings.jitter_ms * 1_000_000, pictures=spec.video)
        self.player.subscribe(audience.received)

    def run(self) -> int:
        """Play everything and close the files; returns the end of the recording, in ns on its timeline."""
        try:
            while (due_ns := self.player.next_ns()) is not None:
                self._now_ns = due_ns
                self.player.advance(due_ns)
                self._pipeline.advance(due_ns)
            self._now_ns = max(self._now_ns, self._ended_ns)
            self.player.flush()
        finally:
            self._pipeline.close(self._now_ns)
        return self._now_ns

    def put(self, item: Input) -> None:
        """Take what the audience lets through."""
        self._pipeline.take(item, self._now_ns)


def _never(error: ChannelError) -> None:
    raise error
