"""Watches a composite as a viewer would: who is where and when, when it flashes, when it beeps.

The channel's story gives three layouts (best fit): 101 beside 103; then a grid of four with 102 below 101; then 103 beside 102.
103 sends no picture, so its place stays black.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import median

from cli.demo.session import AUDIO_ONLY, HEIGHT, LATE, LEAVER, WIDTH
from recorder.tools.content import tone_hz
from recorder.tools.measure import Rect, beep_onsets, crop, flash_level, luma_of, offsets, video_frames, who

UIDS = (LEAVER, LATE, AUDIO_ONLY)
_W, _H = WIDTH // 2, HEIGHT // 2
_QUARTERS = (Rect(0, 0, _W, _H), Rect(_W, 0, _W, _H), Rect(0, _H, _W, _H), Rect(_W, _H, _W, _H))
_LOOK_EVERY = 3  # frames; who is seen changes seldom, flashes do not
_WHITE = 128

# Who is seen in each quarter → the scene.
_SCENES: dict[tuple[int | None, ...], str] = {
    (LEAVER, None, LEAVER, None): "before",
    (LEAVER, None, LATE, None): "all",
    (None, LATE, None, LATE): "after",
}
_TILES = {
    "before": {LEAVER: Rect(0, 0, _W, HEIGHT)},
    "all": {LEAVER: _QUARTERS[0], LATE: _QUARTERS[2]},
    "after": {LATE: Rect(_W, 0, _W, HEIGHT)},
}
SCENES = tuple(_TILES)


@dataclass(slots=True)
class Screening:
    """Times are presentation times of the file, seconds."""

    start: float = 0.0
    scenes: list[tuple[float, str | None]] = field(default_factory=list)  # samples; None: none of the three
    flashes: dict[int, list[float]] = field(default_factory=dict)
    beeps: dict[int, list[float]] = field(default_factory=dict)

    def story(self) -> list[tuple[str, float, float]]:
        """The scenes in order, each from its first to its last sample."""
        known = [(scene, time) for time, scene in self.scenes if scene]
        runs = [(scene, [time for _, time in run]) for scene, run in groupby(known, key=lambda sample: sample[0])]
        return [(scene, times[0], times[-1]) for scene, times in runs]

    def unexplained(self) -> float:
        """The share of samples that show none of the three scenes."""
        return sum(scene is None for _, scene in self.scenes) / max(1, len(self.scenes))

    def av_offsets(self, uids: Iterable[int], start: float = 0.0, end: float = float("inf")) -> list[float]:
        """Flash minus beep of these participants, over all flashes between the two times."""
        found: list[float] = []
        for uid in uids:
            found += offsets([flash for flash in self.flashes.get(uid, ()) if start <= flash < end], self.beeps.get(uid, ()))
        return found


def screen(path: Path) -> Screening:
    """Watch the whole file once."""
    seen = Screening(beeps={uid: beep_onsets(path, tone_hz(uid)) for uid in UIDS})
    scene: str | None = None
    before: dict[tuple[int, Rect], float] = {}
    for number, (time, frame) in enumerate(video_frames(path)):
        if number == 0:
            seen.start = time
        if number % _LOOK_EVERY == 0:
            scene = _SCENES.get(tuple(who(frame, UIDS, quarter) for quarter in _QUARTERS))
            seen.scenes.append((time, scene))
        luma = luma_of(frame)
        levels = {(uid, tile): flash_level(crop(luma, tile)) for uid, tile in _TILES.get(scene or "", {}).items()}
        for (uid, tile), level in levels.items():
            if before.get((uid, tile), _WHITE) < _WHITE <= level:
                seen.flashes.setdefault(uid, []).append(time)
        before = levels
    return seen


def middle_ms(found: list[float]) -> float | None:
    """The median in milliseconds."""
    return round(median(found) * 1000, 1) if found else None
