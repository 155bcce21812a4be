"""Captures: written by workers, replayed to the byte, played in a loop and in real time."""

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from cli.replay import command
from recorder.frames import EncodedFrame
from recorder.protocol import FileOpened
from recorder.rtp.capture import Capture, CaptureError, load
from recorder.rtp.capture_writer import CaptureWriter
from recorder.rtp.playback import Player
from recorder.rtp.receiver import Route, SessionReceiver
from recorder.settings import Settings
from recorder.spec import Canvas, Layout, RecordingSpec, Subscription, UidRule, UserBackground
from recorder.tools import measure
from recorder.tools.replay import replay
from tests.corpus import Scenario, nine, write
from tests.corpus_senders import Network, Picture, Sender
from tests.live import TestedWorker, hub, publisher, settings
from tests.watching import SECOND, Heard, play, watch

SID = "5eed" * 8
_TWO = Scenario(
    "two", "", (Sender(101, (Picture(codec="h264"),)), Sender(102, start=1.0, end=4.0)), Network(loss=0.02, overtaken=0.05), seconds=5.0
)


def _spec(mode: str = "mix", **changes: object) -> RecordingSpec:
    base = RecordingSpec.model_validate({"sid": SID, "app_id": "app", "channel": "room", "uid": 900, "mode": mode})
    return base.model_copy(update={"canvas": Canvas(width=320, height=180, fps=30), "layout": Layout(number=1), **changes})


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# ---- the same bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mix", "individual"])
def test_replay_of_the_same_capture_twice_gives_identical_slices(mode: str, tmp_path: Path) -> None:
    capture = write(_TWO, tmp_path / "capture")
    options = [str(capture.folder), "--mode", mode, "--slice-seconds", "2", "--mp4"]
    for name in ("first", "second"):
        result = CliRunner().invoke(command, [*options, "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    first, second = _digests(tmp_path / "first"), _digests(tmp_path / "second")
    kinds = {"mix": {".ts": 3, ".m3u8": 1, ".mp4": 1}, "individual": {".ts": 6, ".webm": 1, ".m3u8": 4}}[mode]
    for suffix, least in kinds.items():
        assert sum(name.endswith(suffix) for name in first) >= least
    assert first == second
    assert "x real time" in result.output


def test_replay_takes_another_layout_frame_rate_and_mode(tmp_path: Path) -> None:
    capture = write(_TWO, tmp_path / "capture")
    options = ["--layout", "vertical", "--fps", "10", "--mode", "mix"]
    result = CliRunner().invoke(command, [str(capture.folder), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").glob("*.ts")
    video = measure.probe(path).stream("video")
    assert video is not None
    assert abs(video.frames - 50) <= 1


@pytest.mark.parametrize("broken", [b"", b"{}", b'{"version": 2, "zero_utc_ns": 0}'])
def test_replay_refuses_what_is_no_capture(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "session.json").write_bytes(broken)
    result = CliRunner().invoke(command, [str(tmp_path / "capture"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "session.json" in result.output


def test_replay_refuses_a_capture_that_names_files_elsewhere(tmp_path: Path) -> None:
    capture = write(_TWO, tmp_path / "capture")
    path = capture.folder / "session.json"
    path.write_text(path.read_text().replace("1-101.rtpdump", "../1-101.rtpdump"))
    with pytest.raises(CaptureError):
        load(capture.folder)


@pytest.mark.parametrize(("pictures", "patience_ms", "rounds_ms"), [(True, 500, 100), (False, 500, 200), (True, 50, 10), (False, 50, 20)])
def test_receivers_have_their_turns_when_those_of_a_channel_have(
    pictures: bool, patience_ms: int, rounds_ms: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds as far apart as a connector's, but for those while a packet is missing, which are closer."""
    ticks = list[tuple[int, float]]()
    tick = SessionReceiver.tick

    def noted(self: SessionReceiver, now_ns: int) -> list[bytes]:
        sent = tick(self, now_ns)
        ticks.append((now_ns, self.next_tick_seconds))
        return sent

    monkeypatch.setattr(SessionReceiver, "tick", noted)
    lossy = Scenario("lossy", "", (Sender(pictures=()),), Network(loss=0.01), seconds=8)
    player = Player(write(lossy, tmp_path / "capture"), Heard(), patience_ns=patience_ms * 1_000_000, pictures=pictures)
    while (due := player.next_ns()) is not None:
        player.advance(due)
    waits = [(b - a, wanted) for (a, wanted), (b, _) in pairwise(ticks)]
    assert all(wait == min(rounds_ms * 1_000_000, round(wanted * SECOND) if wanted < math.inf else SECOND) for wait, wanted in waits)
    assert {wanted < math.inf for _, wanted in waits} == {True, False}


# ---- again and again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Network(), Network(loss=0.05, repaired=True)], ids=["clean", "repaired"])
def test_a_capture_with_a_period_is_looped_without_a_seam(network: Network, tmp_path: Path) -> None:
    sender = Sender(first_sequence=0xFF00, first_timestamp=0xFFFF0000)
    scenario = Scenario("loop", "", (sender,), network, seconds=8.0, looped=True)
    heard, player = play(write(scenario, tmp_path / "capture"), seconds=24.1)
    assert heard.happened == ["101 joined", "101 video started", "101 audio started"]
    for kind, rate in (("video", 30), ("audio", 50)):
        frames = heard.of(101, kind)  # type: ignore[arg-type]
        assert len(frames) >= 24 * rate
        assert all(abs(frame.time_ns - 20_000_000 - n * SECOND // rate) < 10_000_000 for n, frame in enumerate(frames))
        assert [f.payload for f in frames[8 * rate : 16 * rate]] == [f.payload for f in frames[: 8 * rate]]
    assert len(player.counters) == 1
    assert player.counters[0][1].frames_undecodable == 0


def test_a_capture_without_a_period_begins_anew_as_if_its_senders_had_restarted(tmp_path: Path) -> None:
    first = Sender(audio=False)
    guest = Sender(102, start=1.5, audio=False)
    capture = write(Scenario("anew", "", (first, guest), seconds=5.3), tmp_path / "capture")
    heard, player = play(capture, seconds=15.5)
    arrivals = "102 joined", "102 video started"
    assert heard.happened == ["101 joined", "101 video started", *arrivals, *("102 video stopped", "102 left", *arrivals) * 2]
    video = heard.of(101, "video")
    assert all(0 < b.time_ns - a.time_ns < 100_000_000 for a, b in pairwise(video))
    assert len(video) >= 15 * 30
    assert sum(counters.frames_undecodable for _, counters in player.counters) == 0


def test_only_what_is_subscribed_to_is_received(tmp_path: Path) -> None:
    spec = _spec("mix", subscription=Subscription(video=UidRule(kind="none")))
    replayed = replay(write(_TWO, tmp_path / "capture"), tmp_path / "out", spec)
    assert {uid: counters.bytes > 30_000 for uid, counters in replayed.receivers} == {101: False, 102: False}
    assert all(counters.frames > 100 for _, counters in replayed.receivers)


# ---- written by a worker -----------------------------------------------------------------------------------------


def _counters(paths: list[Path], whole: Path) -> list[int | None]:
    whole.write_bytes(b"".join(path.read_bytes() for path in paths))
    return [measure.read_counter(measure.luma_of(frame)) for _, frame in measure.video_frames(whole)]


async def test_a_capture_of_a_live_channel_gives_the_same_pictures_as_the_recording(tmp_path: Path) -> None:
    at = settings(tmp_path, slice_seconds=4, capture_dir=tmp_path / "captures")
    token = "a-secret-that-nobody-may-read"
    spec = _spec("individual", token=SecretStr(token), layout=Layout(user_backgrounds=(UserBackground(uid=101, url="http://s3?key=x"),)))
    playlist = f"{SID}_room__uid_s_101__uid_e_video.m3u8"
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        await stack.enter_async_context(publisher(url, 101))
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: sum(isinstance(r.body, FileOpened) for r in worker.reports) == 2, 30)
        await asyncio.sleep(5)
        await worker.stop()
        live = _counters([worker.folder / "files" / item.name for item in worker.playlist(playlist)], tmp_path / "live.ts")
    folder = tmp_path / "captures" / f"{SID}-1"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert token not in (folder / "session.json").read_text()
    assert "key=x" not in (folder / "session.json").read_text()
    capture = load(folder)
    assert [(h.what, h.kind) for h in capture.description.happenings] == [("joined", None), ("started", "audio"), ("started", "video")]
    replayed = await asyncio.to_thread(replay, capture, tmp_path / "replayed")
    again = _counters(replayed.paths(playlist.replace(f"{SID}_room", "capture_replay")), tmp_path / "again.ts")
    assert len(live) > 120
    assert again == live
    mixed = await asyncio.to_thread(replay, capture, tmp_path / "mixed", _spec())
    watched = watch(mixed.paths(f"{SID}_room.m3u8"), tmp_path / "mixed.ts")
    assert len(set(live) - {counter for _, counter in watched.counters}) <= 3
    assert statistics.median(map(abs, watched.offsets)) < 0.045


class _Room:
    """A capture that is written by hand."""

    def __init__(self, folder: Path, limit_bytes: int = 1 << 20) -> None:
        self.folder = folder
        self.frames: list[EncodedFrame] = []
        self.zero_ns = time.monotonic_ns()
        self.writer = CaptureWriter(
            folder, _spec(), zero_ns=self.zero_ns, zero_utc_ns=1_700_000_000 * SECOND, jitter_ms=300, limit_bytes=limit_bytes
        )
        self.receiver = self.writer.receiver(
            101,
            routes={96: Route("audio", "opus", 48000)},
            retransmissions={},
            on_frame=self.frames.append,
            patience_ns=SECOND,
            zero_ns=self.zero_ns,
        )

    def send(self, count: int, size: int = 100) -> None:
        for number in range(count):
            data = struct.pack("!BBHII", 0x80, 96, number, number * 960, 7) + bytes(size)
            self.receiver.packet(data, self.zero_ns + number * 20_000_000)

    def load(self) -> Capture:
        self.writer.close(self.zero_ns + 10 * SECOND)
        return load(self.folder)


def test_a_capture_ends_at_its_limit_and_the_recording_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = _Room(tmp_path / "capture", limit_bytes=50 * 112)
    with caplog.at_level(logging.WARNING):
        room.send(200)
        capture = room.load()
    assert len(room.frames) == 200
    assert not capture.description.complete
    assert 50 <= len(list(capture.arrivals(capture.description.sessions[0]))) <= 51
    assert [record.message for record in caplog.records] == ["capture ended, it has reached its limit; the recording goes on"]


def test_a_capture_ends_when_the_disk_does_not_keep_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = _Room(tmp_path / "capture", limit_bytes=1 << 30)
    with caplog.at_level(logging.WARNING):
        room.send(1500, size=60_000)  # three times what may wait, at once
        capture = room.load()
    assert room.receiver.counters.packets == 1500
    assert not capture.description.complete
    assert [record.message for record in caplog.records] == ["capture ended, the disk is too slow for it; the recording goes on"]


def _occupied(folder: Path) -> None:
    folder.mkdir()


def _below_a_file(folder: Path) -> None:
    folder.parent.write_text("")


def _gone(folder: Path) -> None:
    time.sleep(0.3)
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(("before", "after"), [(_occupied, None), (_below_a_file, None), (None, _gone)])
def test_a_capture_that_cannot_be_written_costs_one_warning(
    before: Callable[[Path], None] | None, after: Callable[[Path], None] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "captures" / "capture"
    if before is _occupied:
        folder.parent.mkdir()
    if before:
        before(folder)
    room = _Room(folder)
    if after:
        after(folder)
    with caplog.at_level(logging.WARNING):
        room.send(100)
        room.writer.close(room.zero_ns)
    assert len(room.frames) == 100
    assert [record.message for record in caplog.records] == ["capture ended, it cannot be written; the recording goes on"]


def test_a_capture_of_a_killed_worker_can_be_replayed(tmp_path: Path) -> None:
    """The last record is torn, and nobody has written when it ended."""
    room = _Room(tmp_path / "capture")
    room.send(100)
    capture = room.load()
    path = capture.folder / "1-101.rtpdump"
    path.write_bytes(path.read_bytes()[:-30])
    description = json.loads((capture.folder / "session.json").read_text())
    (capture.folder / "session.json").write_text(json.dumps(description | {"ended_ns": None}))
    heard, _ = play(load(capture.folder))
    assert len(heard.of(101, "audio")) == 99


# ---- in real time ------------------------------------------------------------------------------------------------


def _played(at: Settings, capture: Path) -> Settings:
    return at.model_copy(update={"agent": at.agent.model_copy(update={"replay": capture})})


async def test_a_worker_records_a_capture_that_is_played_in_real_time(tmp_path: Path) -> None:
    scenario = replace(nine(seconds=8, people=2), canvas=Canvas(width=320, height=180, fps=15))
    capture = await asyncio.to_thread(write, scenario, tmp_path / "capture")
    at = _played(settings(tmp_path, slice_seconds=2), capture.folder)
    async with TestedWorker(at, _spec("individual")).running() as worker:
        await worker.until(lambda: sum(isinstance(r.body, FileOpened) for r in worker.reports) == 4, 20)
        await asyncio.sleep(4)
        await worker.stop()
        assert worker.phases() == ["starting", "ready", "recording", "stopping"]
        for kind in ("audio", "video"):
            slices = worker.playlist(f"{SID}_room__uid_s_102__uid_e_{kind}.m3u8")
            assert 3.5 < sum(item.duration_ns for item in slices) / SECOND < 6
            assert measure.decode_errors([worker.folder / "files" / slices[0].name]) == []


async def test_a_worker_that_shall_play_nothing_fails_with_a_reason(tmp_path: Path) -> None:
    async with TestedWorker(_played(settings(tmp_path), tmp_path / "nowhere"), _spec()).running() as worker:
        await worker.until(lambda: worker.ended is not None)
        assert worker.ended is not None
        assert (worker.ended.outcome, worker.ended.reason) == ("failed", "channel")
