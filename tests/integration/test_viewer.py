"""The judge of chaos recordings sees what it has to see: it is shown a recording that is broken on purpose."""

from pathlib import Path

import pytest

from recorder.frames import EncodedFrame
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.worker.pipeline import Joined
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded
from tests.viewer import Seen, watch

UID = 101


def _frames(*, missing: tuple[float, float] = (0, 0), late_from: float = 99, late_ns: int = 0) -> list[EncodedFrame]:
    """What somebody sends; without a span of seconds, or with another capture time from some second on."""
    frames = [frame for frame in Person(UID).frames() if not missing[0] <= frame.time_ns / SECOND < missing[1]]
    moved = [
        EncodedFrame(f.track, f.codec, f.payload, f.keyframe, f.time_ns + late_ns * (f.time_ns / SECOND >= late_from), f.width, f.height)
        for f in frames
    ]
    return sorted(moved, key=lambda frame: frame.time_ns)


def _watched(folder: Path, frames: list[EncodedFrame]) -> Seen:
    spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=1, mode="mix", canvas=Canvas(width=640, height=360, fps=30))
    recorded = Recorded(folder / "spool")
    pipeline = recorded.pipeline(spec.model_copy(update={"layout": Layout(number=1)}))
    pipeline.take(Joined(UID), 0)
    for frame in frames:
        pipeline.take(frame, frame.time_ns + 20_000_000)
        pipeline.advance(frame.time_ns + 20_000_000)
    pipeline.close(10 * SECOND)
    return watch(recorded.joined(folder), [(UID, None)], live=False)[UID]


def test_a_good_recording_has_no_fault(tmp_path: Path) -> None:
    seen = _watched(tmp_path, _frames())
    assert abs(seen.length - 10) < 0.05
    assert abs(seen.sound_length - 10) < 0.1
    assert (seen.frozen, seen.silent, seen.backward_steps, seen.unreadable) == ((), (), 0, 0)
    assert len(seen.beeps) == 10
    assert seen.offset_p95() < 0.02
    assert abs(seen.shift_between((0, 4), (6, 10))) < 0.001


def test_freeze_and_silence_are_measured(tmp_path: Path) -> None:
    seen = _watched(tmp_path, _frames(missing=(4, 6)))
    (frozen,), (silent,) = seen.frozen, seen.silent
    assert frozen.start == pytest.approx(4, abs=0.05)
    assert frozen.seconds == pytest.approx(2, abs=0.05)
    assert silent.start == pytest.approx(4, abs=0.1)
    assert silent.seconds == pytest.approx(2, abs=0.15)
    assert abs(seen.shift_between((0, 4), (6, 10))) < 0.001


def test_a_shift_of_time_is_measured(tmp_path: Path) -> None:
    seen = _watched(tmp_path, _frames(late_from=4, late_ns=300_000_000))
    assert seen.shift_between((0, 4), (6, 9)) == pytest.approx(0.3, abs=0.02)


def test_pictures_in_wrong_order_are_noticed(tmp_path: Path) -> None:
    assert _watched(tmp_path, _frames(late_from=4, late_ns=-2 * SECOND)).backward_steps > 0
