"""What the fault table allows a viewer to miss of the corpus's scenarios."""

from dataclasses import dataclass
from pathlib import Path

from recorder.frames import Kind
from recorder.tools.measure import Rect
from recorder.tools.replay import replay
from tests.corpus import Scenario, write
from tests.corpus_senders import Sender
from tests.watching import View, watch

ALL_BEEPS = frozenset(range(1, 8))
GOP_SECONDS = 2.0
JITTER_SECONDS = 0.5
THREE_PICTURES_SECONDS = 0.101
_EDGE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a viewer may miss."""

    missing: int = 1  # pictures
    still: float = 0.08  # seconds: two pictures of a 30 fps canvas, and the rounding of its times
    offset: float = 0.045  # p95 of flash against beep
    beeps: frozenset[int] = ALL_BEEPS
    settling: int = 0  # flashes at the start that may be three pictures off


# The replay answers no keyframe request: after a loss that nothing repairs, the picture waits for the next regular keyframe.
_KEYFRAME = Bounds(missing=62, still=GOP_SECONDS + 0.1)
# A beep whose beginning is lost begins late.
_LOSS = Bounds(missing=80, still=GOP_SECONDS + JITTER_SECONDS + 0.1, offset=0.1, beeps=frozenset())
BOUNDS = {
    "loss": _LOSS,  # N3
    "loss_burst": _LOSS,
    "jump_5_hours": Bounds(missing=30, still=1.0),  # N14: 1 s
    "jump_1_tick_back": Bounds(missing=30, still=1.0, offset=0.08),
    "ssrc_change": _KEYFRAME,  # N15: 1 GOP
    "ssrc_changes_often": Bounds(missing=150, still=GOP_SECONDS + 0.1),  # N16
    "video_late": Bounds(missing=6, still=0.12, settling=1),  # N22: 80 ms and jitter, until the reports have told
    "dtx": Bounds(beeps=frozenset({1, 2, 6, 7})),  # N19
    "mute": Bounds(missing=76, still=2.7, beeps=frozenset({1, 2, 6, 7})),  # N24
}


def check(scenario: Scenario, folder: Path) -> None:
    """Replay a scenario as a composite; see that no more is missing than its row allows."""
    bounds = BOUNDS.get(scenario.name, Bounds())
    replayed = replay(write(scenario, folder / "capture"), folder / "out")
    watched = watch(replayed.paths("capture_replay.m3u8"), folder / "whole.ts", views=_views(scenario))
    assert abs(watched.duration - scenario.seconds) < 0.1
    assert watched.sizes == {(scenario.canvas.width, scenario.canvas.height)}
    assert watched.missing <= bounds.missing
    assert watched.longest_still <= bounds.still
    heard = {round(beep) for beep in watched.beeps if abs(beep - round(beep)) <= bounds.offset}
    assert bounds.beeps <= heard
    offsets = [abs(offset) for offset in watched.offsets]
    assert max(offsets[: bounds.settling], default=0) <= THREE_PICTURES_SECONDS
    offsets = sorted(offsets[bounds.settling :])
    assert not offsets or offsets[int(len(offsets) * 0.95)] <= bounds.offset


def least_seconds(scenario: Scenario, sender: Sender, kind: Kind) -> float:
    """How long a participant's own recording of this kind lasts at least."""
    seconds = (sender.end or scenario.seconds) - sender.start - _EDGE_SECONDS
    if kind == "audio":  # silence stands for what is missing, but at the very end
        return seconds - (0 if scenario.network.repaired or not scenario.network.loss else scenario.network.burst / 50)
    return seconds - BOUNDS.get(scenario.name, Bounds()).still


def _views(scenario: Scenario) -> list[View]:
    """How the first sender is seen: alone on the canvas, or in the left half while there are two."""
    first, *others = scenario.senders
    views = [View(picture.at, None, picture.width / picture.height, picture.rotation) for picture in first.pictures]
    half = Rect(0, 0, scenario.canvas.width // 2, scenario.canvas.height)
    for other in others:
        views += [View(other.start, half), View(other.end or scenario.seconds)]
    return views
