"""What tests of replays look at: the frames that receivers give, and what a viewer of the recording sees and hears."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from recorder.frames import EncodedFrame, Kind, Track
from recorder.rtp.capture import Capture
from recorder.rtp.playback import Player
from recorder.tools import measure
from recorder.tools.content import Plane, tone_hz

SECOND = 1_000_000_000
_EARLY_SECONDS = 0.02  # a picture is shown that much before its time at most


class Heard:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.happened: list[str] = []

    def participant_joined(self, uid: int, *, host: bool) -> None:
        self.happened.append(f"{uid} joined{'' if host else ' as audience'}")

    def participant_left(self, uid: int) -> None:
        self.happened.append(f"{uid} left")

    def track_started(self, track: Track) -> None:
        self.happened.append(f"{track.uid} {track.kind} started")

    def track_stopped(self, track: Track) -> None:
        self.happened.append(f"{track.uid} {track.kind} stopped")

    def frame(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    def of(self, uid: int, kind: Kind) -> list[EncodedFrame]:
        return [frame for frame in self.frames if frame.track == Track(uid, kind)]


def play(capture: Capture, seconds: float | None = None) -> tuple[Heard, Player]:
    """Play a capture under a virtual clock, without decoding; in a loop when it is told how long."""
    heard = Heard()
    player = Player(capture, heard, patience_ns=500_000_000, loop=seconds is not None)
    while (due := player.next_ns()) is not None and (seconds is None or due < seconds * SECOND):
        player.advance(due)
    player.flush()
    return heard, player


@dataclass(frozen=True, slots=True)
class Watched:
    """A recording with one participant on the whole canvas."""

    duration: float
    sizes: set[tuple[int, int]]
    counters: list[tuple[float, int]]  # when each picture was shown first
    longest_still: float  # seconds without a new picture
    offsets: list[float]  # flash minus beep
    beeps: list[float]  # seconds since the first picture

    @property
    def missing(self) -> int:
        """Pictures sent and never shown, of those between the first and the last one."""
        return sum((b - a) % 240 - 1 for (_, a), (_, b) in pairwise(self.counters))


@dataclass(frozen=True, slots=True)
class View:
    """How a participant is seen from a moment on: in which tile (None: the whole canvas), of what shape, and how far it is turned."""

    at: float = 0.0  # seconds
    tile: measure.Rect | None = None
    aspect: float = 16 / 9
    rotation: int = 0  # degrees clockwise

    def upright(self, luma: Plane) -> Plane:
        return np.rot90(measure.crop(luma, self.tile), self.rotation // 90)


def watch(paths: list[Path], whole: Path, uid: int = 101, views: Sequence[View] = (View(),)) -> Watched:
    """Look at slices joined into the file `whole`; they must decode without complaint."""
    whole.write_bytes(b"".join(path.read_bytes() for path in paths))
    assert measure.decode_errors([whole]) == []
    counters: list[tuple[float, int]] = []
    sizes, levels, times = set(), [], []
    for time, frame in measure.video_frames(whole):
        sizes.add((frame.width, frame.height))
        times.append(time)
        luma, aspect, counter = _seen(measure.luma_of(frame), [view for view in views if view.at <= time - times[0] + _EARLY_SECONDS])
        levels.append((time, measure.flash_level(luma, aspect)))
        if counter is not None and (not counters or counters[-1][1] != counter):
            counters.append((time, counter))
    beeps = measure.beep_onsets(whole, tone_hz(uid))
    return Watched(
        duration=measure.probe(whole).duration,
        sizes=sizes,
        counters=counters,
        longest_still=max(b - a for a, b in pairwise([time for time, _ in counters] + times[-1:])),
        offsets=measure.offsets([time for (_, before), (time, level) in pairwise(levels) if before < 128 <= level], beeps),
        beeps=[beep - times[0] for beep in beeps],
    )


def _seen(luma: Plane, views: Sequence[View]) -> tuple[Plane, float, int | None]:
    """The picture upright, its shape, and its counter, as the latest view has it; at a change it may still be the view before."""
    latest, *before = reversed(views)
    for view in (latest, *before[:1]):
        upright = view.upright(luma)
        counter = measure.read_counter(upright, view.aspect)
        if counter is not None:
            return upright, view.aspect, counter
    return latest.upright(luma), latest.aspect, None
