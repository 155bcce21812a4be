"""The media thread: what a stall does, and what is left when the media path fails."""

import asyncio
import threading
from pathlib import Path

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.protocol import EventBody, SliceCommitted
from recorder.settings import Recording
from recorder.spec import RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.media_thread import MediaThread
from recorder.worker.pipeline import Joined, Surroundings
from storage.spool import RecordingSpool
from tests.integration.media import SECOND, Person


class Fixture:
    def __init__(self, folder: Path, mode: str) -> None:
        self.now_ns = 0
        self.reports: list[EventBody] = []
        self.failures: list[Exception] = []
        self.spool = RecordingSpool(folder)
        spec = RecordingSpec.model_validate({"sid": "a" * 32, "app_id": "app", "channel": "room", "uid": 1, "mode": mode, "video": False})
        around = Surroundings(spec, Recording(), self.spool, 0, 1_700_000_000 * SECOND, self.reports.append, lambda track: None)
        self.thread = MediaThread(around, clock=lambda: self.now_ns, failed=self.failures.append)

    def put_sound(self, seconds: float) -> None:
        """As it arrives, each packet 20 ms after its capture."""
        self.thread.put(Joined(101))
        for frame in Person(101, None, end=seconds).frames():
            self.now_ns = frame.time_ns + 20_000_000
            self.thread.put(frame)

    def whole(self, folder: Path) -> Path:
        path = folder / "whole.ts"
        slices = [report.slice for report in self.reports if isinstance(report, SliceCommitted)]
        path.write_bytes(b"".join(self.spool.file(item.name).read_bytes() for item in slices))
        return path


async def test_a_stall_of_ten_seconds_loses_no_sound(tmp_path: Path) -> None:
    recorded = Fixture(tmp_path / "spool", "mix")
    recorded.put_sound(10)  # the thread does nothing meanwhile, as in an fsync that takes so long
    recorded.thread.start()
    await asyncio.to_thread(recorded.thread.close)
    whole = recorded.whole(tmp_path)
    assert abs(measure.probe(whole).duration - 10) < 0.1
    assert len(measure.beep_onsets(whole, tone_hz(101))) == 10
    assert recorded.failures == []


@pytest.mark.parametrize("mode", ["mix", "individual"])
async def test_what_was_recorded_before_a_failure_is_committed(tmp_path: Path, mode: str) -> None:
    recorded = Fixture(tmp_path / "spool", mode)
    recorded.put_sound(6)
    recorded.thread.put(EncodedFrame(Track(102, "audio"), "opus", b"\0", True, None))  # type: ignore[arg-type]  # a fault of ours
    recorded.thread.start()
    with pytest.raises(TypeError):
        await asyncio.to_thread(recorded.thread.close)
    await asyncio.sleep(0)
    assert len(recorded.failures) == 1
    assert measure.probe(recorded.whole(tmp_path)).duration > 5
    assert not any(thread.name == "media" for thread in threading.enumerate())
