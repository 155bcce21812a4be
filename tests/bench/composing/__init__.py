"""What the composite benches measure on: a room in a capture, and its encoded media for those who do without the recorder."""

import hashlib
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from recorder.frames import EncodedFrame, Track
from recorder.rtp.capture import DESCRIPTION, Capture, CaptureError, load
from recorder.rtp.playback import Player
from recorder.spec import Canvas, Layout, RecordingSpec
from tests import corpus
from tests.corpus_senders import Picture, Sender
from tests.live import ROOT

CAPTURES = ROOT / "build" / "captures"
FIRST_UID = 101
LAYOUT = 1
SMALL = Canvas(width=640, height=360, fps=15, bitrate_kbps=500)
SECONDS = 16
_PATIENCE_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """People who all send the same kind of media, and what is made of it."""

    people: int
    canvas: Canvas
    source: tuple[int, int, int] | None = (640, 360, 15)  # of each one's video: width, height, fps; None: sound only
    source_kbps: int = 500
    seconds: int = SECONDS

    @property
    def uids(self) -> range:
        return range(FIRST_UID, FIRST_UID + self.people)

    def spec(self, sid: str = "b" * 32) -> RecordingSpec:
        return RecordingSpec(
            sid=sid,
            app_id="app",
            channel="room",
            uid=900,
            mode="mix",
            video=self.source is not None,
            canvas=self.canvas,
            layout=Layout(number=LAYOUT),
        )

    def capture(self) -> Capture:
        """Its capture, made at the first time and kept in build/captures."""
        width, height, fps = self.source or (0, 0, 15)
        pictures = (Picture(width=width, height=height),) if self.source else ()
        senders = tuple(Sender(uid, pictures, fps=fps, bitrate_kbps=self.source_kbps) for uid in self.uids)
        scenario = corpus.Scenario("room", "", senders, seconds=self.seconds, canvas=self.canvas, layout=LAYOUT, looped=True)
        folder = CAPTURES / f"{self.people}-{hashlib.sha256(repr(scenario).encode()).hexdigest()[:16]}"
        if (folder / DESCRIPTION).exists():
            return load(folder)
        shutil.rmtree(folder, ignore_errors=True)  # one that was not finished
        return corpus.write(scenario, folder)


class _Collected:
    def __init__(self) -> None:
        self.frames: dict[Track, list[EncodedFrame]] = defaultdict(list)

    def participant_joined(self, uid: int, *, host: bool) -> None: ...

    def participant_left(self, uid: int) -> None: ...

    def track_started(self, track: Track) -> None: ...

    def track_stopped(self, track: Track) -> None: ...

    def frame(self, frame: EncodedFrame) -> None:
        self.frames[frame.track].append(frame)


def media(room: Room) -> dict[Track, list[EncodedFrame]]:
    """The encoded media of everybody, as it reaches the recording.

    Raises:
        CaptureError: not everything did.
    """
    collected = _Collected()
    player = Player(room.capture(), collected, patience_ns=_PATIENCE_NS)
    while (due_ns := player.next_ns()) is not None:
        player.advance(due_ns)
    player.flush()
    per_second = 50 + (room.source[2] if room.source else 0)
    if sum(map(len, collected.frames.values())) != room.people * per_second * room.seconds:
        raise CaptureError("frames are missing")
    return collected.frames


def written(folder: Path, frames: dict[Track, list[EncodedFrame]]) -> dict[Track, Path]:
    """Each track as a WebM file."""
    from recorder.outputs.mux import WebmFile

    paths = {}
    for track, sent in frames.items():
        path = paths[track] = folder / f"{track.uid}-{track.kind}.webm"
        first = sent[0]
        file = WebmFile(path, first.codec, width=first.width, height=first.height)  # type: ignore[arg-type]  # VP8 and Opus
        for frame, after in zip(sent, [*sent[1:], None], strict=True):
            lasts_ns = after.time_ns - frame.time_ns if after else 20_000_000
            file.write(frame.payload, frame.time_ns - first.time_ns, keyframe=frame.keyframe, duration_ns=lasts_ns)
        file.close()
    return paths
