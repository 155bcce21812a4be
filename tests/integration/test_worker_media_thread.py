"""The media thread: what a stall does, and what is left when the media path fails."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.protocol import EventBody, SliceCommitted
from recorder.settings import Recording
from recorder.spec import RecordingSpec
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.worker.media_thread import VIDEO_LIMIT, MediaThread
from recorder.worker.pipeline import Joined, Surroundings
from recorder.worker.salvage import salvage
from storage.journal import Record
from storage.spool import RecordingSpool
from tests.integration.media import SECOND, Person


class Fixture:
    def __init__(
        self,
        folder: Path,
        mode: str,
        *,
        video: bool = False,
        slice_seconds: float = 15,
        mp4: bool = False,
        finish_parts: Callable[[], bool] = lambda: True,
    ) -> None:
        self.now_ns = 0
        self.reports: list[EventBody] = []
        self.failures: list[Exception] = []
        self.spool = RecordingSpool(folder)
        self.keyframes: list[Track] = []
        spec = RecordingSpec.model_validate({"sid": "a" * 32, "app_id": "app", "channel": "room", "uid": 1, "mode": mode, "video": video})
        spec = spec.model_copy(update={"mp4": mp4})
        settings = Recording(slice_seconds=slice_seconds)
        zero_ns = 1_700_000_000 * SECOND
        around = Surroundings(spec, settings, self.spool, 0, zero_ns, self.reports.append, self.keyframes.append)
        around = replace(around, finish_parts=finish_parts)
        self.thread = MediaThread(around, clock=self._clock, failed=self.failures.append)
        self.stall: Callable[[], None] | None = None  # called once, when the thread is at work

    def _clock(self) -> int:
        if self.stall and threading.current_thread().name == "media":
            stall, self.stall = self.stall, None
            stall()
        return self.now_ns

    def put_sound(self, seconds: float, *, start: float = 0) -> None:
        """As it arrives, each packet 20 ms after its capture."""
        self.thread.put(Joined(101))
        for frame in Person(101, None, start=start, end=seconds).frames():
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


async def test_what_arrives_while_a_step_takes_seconds_is_not_overtaken(tmp_path: Path) -> None:
    recorded = Fixture(tmp_path / "spool", "mix")
    recorded.put_sound(2)
    recorded.stall = lambda: recorded.put_sound(10, start=2)
    recorded.thread.start()
    await asyncio.to_thread(recorded.thread.close)
    assert len(measure.beep_onsets(recorded.whole(tmp_path), tone_hz(101))) == 10


async def test_a_slow_disk_does_not_hold_the_media_up(tmp_path: Path) -> None:
    recorded, disk = Fixture(tmp_path / "spool", "mix", slice_seconds=2), threading.Event()
    commit = recorded.spool.commit

    def slow(name: str, record: Mapping[str, object]) -> Record:
        disk.wait()
        return commit(name, record)

    recorded.spool.commit = slow  # type: ignore[method-assign]  # the disk's fsync
    recorded.put_sound(10)
    recorded.thread.start()
    partial = tmp_path / "spool" / "partial"
    async with asyncio.timeout(10):
        while len(list(partial.glob("*.ts"))) < 5:
            await asyncio.sleep(0.02)
    assert list((tmp_path / "spool" / "files").iterdir()) == []
    disk.set()
    await asyncio.to_thread(recorded.thread.close)
    await asyncio.sleep(0)
    slices = [report.slice for report in recorded.reports if isinstance(report, SliceCommitted)]
    assert [item.sequence for item in slices] == [0, 1, 2, 3, 4]
    assert len(measure.beep_onsets(recorded.whole(tmp_path), tone_hz(101))) == 10


async def test_too_many_frames_cost_pictures_and_no_sound(tmp_path: Path) -> None:
    recorded = Fixture(tmp_path / "spool", "mix", video=True)
    asked: list[Track] = recorded.keyframes
    pictures = EncodedFrame(Track(102, "video"), "vp8", b"\0", False, 0)
    for _ in range(VIDEO_LIMIT):
        recorded.thread.put(pictures)
    assert recorded.thread.frames_dropped == 0
    recorded.thread.put(pictures)
    assert recorded.thread.frames_dropped == 1
    recorded.put_sound(10)
    assert recorded.thread.frames_dropped == 1
    recorded.thread.start()
    async with asyncio.timeout(10):
        while recorded.thread.waiting:
            await asyncio.sleep(0.02)
    recorded.thread.put(pictures)  # refers to one that is missing
    assert (recorded.thread.frames_dropped, asked[-1:]) == (2, [Track(102, "video")])
    recorded.thread.put(pictures._replace(keyframe=True))
    recorded.thread.put(pictures)
    assert recorded.thread.frames_dropped == 2
    await asyncio.to_thread(recorded.thread.close)
    assert len(measure.beep_onsets(recorded.whole(tmp_path), tone_hz(101))) == 10


@pytest.mark.parametrize("in_a_hurry", [False, True])
async def test_who_fails_or_is_in_a_hurry_leaves_the_mp4_to_be_finished_by_others(tmp_path: Path, in_a_hurry: bool) -> None:
    recorded = Fixture(tmp_path / "spool", "mix", mp4=True, finish_parts=lambda: not in_a_hurry)
    recorded.put_sound(6)
    if not in_a_hurry:
        recorded.thread.put(EncodedFrame(Track(102, "audio"), "opus", b"\0", True, None))  # type: ignore[arg-type]  # a fault of ours
    recorded.thread.start()
    with contextlib.nullcontext() if in_a_hurry else pytest.raises(TypeError):
        await asyncio.to_thread(recorded.thread.close)
    names = [record["name"] for record in recorded.spool.records() if record["type"] == "slice"]
    assert [Path(str(name)).suffix for name in names] == [".ts"]
    salvage(recorded.spool, 1)
    (mp4,) = (record["name"] for record in recorded.spool.records() if str(record.get("name")).endswith(".mp4") and "sha256" in record)
    assert measure.probe(recorded.spool.file(str(mp4))).duration > 5


async def test_fifty_speakers_may_wait_as_long_as_one(tmp_path: Path) -> None:
    """Their sound is lost after twenty seconds of standstill, and not before, however many pictures wait with it."""
    recorded = Fixture(tmp_path / "spool", "mix", video=True)
    for number in range(21 * 50):
        recorded.now_ns = number * SECOND // 50
        dropped = recorded.thread.frames_dropped
        for uid in range(101, 151):
            recorded.thread.put(EncodedFrame(Track(uid, "audio"), "opus", b"\0", True, recorded.now_ns))
        assert recorded.thread.frames_dropped - dropped == (50 if recorded.now_ns >= 20 * SECOND else 0)


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
