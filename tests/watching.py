"""What tests of replays look at: the frames that receivers give, and what a viewer of the recording sees and hears."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from recorder.frames import EncodedFrame, Kind, Track
from recorder.rtp.capture import Capture
from recorder.rtp.playback import Player
from recorder.tools import measure
from recorder.tools.content import tone_hz

SECOND = 1_000_000_000


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


def watch(paths: list[Path], whole: Path, uid: int = 101) -> Watched:
    """Look at slices joined into the file `whole`; they must decode without complaint."""
    whole.write_bytes(b"".join(path.read_bytes() for path in paths))
    assert measure.decode_errors([whole]) == []
    counters: list[tuple[float, int]] = []
    sizes, flashes, times = set(), [], []
    for time, frame in measure.video_frames(whole):
        luma = measure.luma_of(frame)
        sizes.add((frame.width, frame.height))
        flashes.append((time, luma))
        times.append(time)
        counter = measure.read_counter(luma)
        if counter is not None and (not counters or counters[-1][1] != counter):
            counters.append((time, counter))
    beeps = measure.beep_onsets(whole, tone_hz(uid))
    return Watched(
        duration=measure.probe(whole).duration,
        sizes=sizes,
        counters=counters,
        longest_still=max(b - a for a, b in pairwise([time for time, _ in counters] + times[-1:])),
        offsets=measure.offsets(measure.flash_onsets(flashes), beeps),
        beeps=[beep - times[0] for beep in beeps],
    )
