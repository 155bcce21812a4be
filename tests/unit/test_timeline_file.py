"""The timeline file: what workers noted and committed, put on one axis; bounded, and safe with hostile names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recorder.frames import EncodedFrame, Figures, Track
from recorder.outputs import timeline_file
from recorder.outputs.timeline_file import Cause, Timeline, compile_timeline
from recorder.spec import RecordingSpec
from recorder.worker.chronicle import Chronicle
from recorder.worker.pipeline import Joined, Left, Started, Stopped
from storage.errors import SpoolError
from storage.journal import Journal
from storage.spool import RecordingSpool

SID = "a" * 32
SECOND = 1_000_000_000
ZERO = 1_700_000_000 * SECOND
VIDEO = Track(101, "video")
LIST = "v.m3u8"
FILE = {"type": "file", "file": {"name": LIST, "track": "video", "uid": 101, "mixed": False, "playable": True, "start_ms": 0}}
ROOT = Path(__file__).parents[2]


def _spec(channel: str = "room") -> RecordingSpec:
    return RecordingSpec(sid=SID, app_id="app", channel=channel, uid=1, mode="individual")


def _slice(number: int, start: float, duration: float, *, epoch: int = 1, holes: tuple[tuple[float, float], ...] = ()) -> dict[str, Any]:
    start_ns = round(start * SECOND)
    return {
        "type": "slice",
        "name": f"{epoch}-{number}.ts",
        "playlist": LIST,
        "epoch": epoch,
        "sequence": number,
        "start_ms": 1_700_000_000_000 + round(start * 1000),
        "start_ns": start_ns,
        "duration_ns": round(duration * SECOND),
        "holes": [[round(a * SECOND), round(b * SECOND)] for a, b in holes],
    }


def _worker(epoch: int, zero_ns: int) -> dict[str, object]:
    return {"type": "worker", "epoch": epoch, "zero_utc_ns": zero_ns}


def _gaps(timeline: Timeline) -> list[tuple[float, float, Cause]]:
    return [(gap.from_ms / 1000, gap.to_ms / 1000, gap.cause) for one in timeline.media for gap in one.gaps]


def test_workers_that_follow_each_other_are_on_one_axis() -> None:
    notes = [
        _worker(1, ZERO),
        {"type": "joined", "at_ns": SECOND, "uid": 101},
        _worker(3, ZERO + 20 * SECOND),  # of the second one nothing is left
        {"type": "joined", "at_ns": SECOND // 2, "uid": 101},
        {"type": "figures", "at_ns": SECOND, "left_out": 4, "tracks": []},
    ]
    records = [FILE, _slice(0, 1, 4), _slice(1, 5, 6), FILE, _slice(0, 1, 3, epoch=3)]
    timeline = compile_timeline(notes, records, _spec())
    assert timeline.zero_utc_ms == ZERO / 1_000_000
    assert [(worker.epoch, worker.zero_ms) for worker in timeline.workers] == [(1, 0), (3, 20_000)]
    assert [event.at_ms for event in timeline.events] == [1000, 20_500]
    assert _gaps(timeline) == [(11, 21, "worker_lost")]
    assert (timeline.media[0].from_ms, timeline.media[0].to_ms) == (1000, 24_000)
    assert timeline.left_out.events == 4


def test_each_gap_has_its_cause() -> None:
    notes = [
        _worker(1, ZERO),
        {"type": "stopped", "at_ns": 10 * SECOND + 1, "uid": 102, "kind": "video"},
        {"type": "stopped", "at_ns": 20 * SECOND - 20_000_000, "uid": 101, "kind": "video"},
    ]
    records = [
        FILE,
        _slice(0, 0, 10),
        _slice(1, 10.3, 9.7, holes=((12, 13.5),)),  # what is shorter than half a second is none
        _slice(2, 25, 5),
        _slice(3, 30, 5),
        _slice(4, 35, 5),
        _slice(5, 40, 4, holes=((42, 44),)),  # a hole up to the end of its file
        _slice(6, 44, 1),
        _slice(7, 50, 1),
    ]
    timeline = compile_timeline(notes, records, _spec(), lost={"1-3.ts", "1-4.ts"})
    assert _gaps(timeline) == [
        (12, 13.5, "nothing_came"),
        (20, 25, "stopped"),
        (30, 40, "file_lost"),
        (42, 44, "nothing_came"),
        (45, 50, "nothing_came"),
    ]


def test_it_is_bounded_and_counts_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("EVENTS", 10), ("GAPS", 3), ("TRACKS", 2)):
        monkeypatch.setattr(timeline_file, name, limit)
    figures = [{"uid": uid, "kind": "audio", "received": 1, "lost": 0, "drift_ppm": None, "av_offset_ns": None} for uid in range(5)]
    notes = [_worker(1, ZERO), {"type": "figures", "at_ns": 0, "left_out": 7, "tracks": figures}]
    notes += [{"type": "joined", "at_ns": number, "uid": number} for number in range(12)]
    timeline = compile_timeline(notes, [FILE, *(_slice(number, 2 * number, 1) for number in range(6))], _spec())
    assert (len(timeline.events), len(timeline.tracks), len(timeline.media[0].gaps)) == (10, 2, 3)
    assert timeline.left_out.model_dump() == {"events": 9, "tracks": 3, "gaps": 2}


@pytest.mark.parametrize("channel", ['"],</script>\u2028{}', "../../x", "房间", "a\\u0000"])
def test_a_hostile_name_stays_a_string(tmp_path: Path, channel: str) -> None:
    spool = RecordingSpool(tmp_path)
    Chronicle(spool.notes, epoch=1, zero_utc_ns=ZERO)
    timeline_file.write(spool, _spec(channel), epoch=1)
    (written,) = (tmp_path / "files").iterdir()
    assert written.name == f"{SID}_{channel.replace('/', '-')}_timeline.json"
    assert written.read_bytes().isascii()
    assert json.loads(written.read_bytes())["cname"] == channel


def test_it_is_written_once_and_not_without_notes(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path)
    timeline_file.write(spool, _spec(), epoch=1)
    assert spool.records() == []
    Chronicle(spool.notes, epoch=1, zero_utc_ns=ZERO)
    for epoch in (1, 2):
        timeline_file.write(spool, _spec(), epoch=epoch)
    assert [record["epoch"] for record in spool.records()] == [1]
    assert spool.left_open() == []


def test_it_is_not_written_beside_a_worker(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path)
    Chronicle(spool.notes, epoch=1, zero_utc_ns=ZERO)
    assert spool.lock()
    timeline_file.write(RecordingSpool(tmp_path), _spec(), epoch=1)
    assert spool.records() == []


def _frame(time_ns: int, *, width: int = 640, rotation: int = 0, track: Track = VIDEO) -> EncodedFrame:
    return EncodedFrame(track, "vp8" if track.kind == "video" else "opus", b"x", True, time_ns, width, 360, rotation)


def test_a_format_is_noted_when_it_changes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "notes")
    chronicle = Chronicle(journal, epoch=1, zero_utc_ns=ZERO)
    for number, (width, rotation) in enumerate([(640, 0), (640, 0), (640, 90), (640, 90), (320, 90)]):
        chronicle.observe(_frame(number, width=width, rotation=rotation), number + 20)
    chronicle.observe(_frame(9, track=Track(101, "audio")), 29)
    chronicle.observe(_frame(10, track=Track(101, "audio")), 30)
    notes = [note for note in journal.read().records if note["type"] == "format"]
    assert [(note["at_ns"], note.get("width"), note.get("rotation")) for note in notes] == [
        (0, 640, 0),
        (2, 640, 90),
        (4, 320, 90),
        (9, None, None),
    ]


def test_the_file_of_what_a_worker_saw(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "notes")
    chronicle = Chronicle(journal, epoch=2, zero_utc_ns=ZERO)
    for item in (Joined(101), Started(VIDEO), _frame(5), Stopped(VIDEO), Left(101)):
        chronicle.observe(item, 10)
    chronicle.measured({VIDEO: Figures(90, 1)}, 20)
    chronicle.measured({VIDEO: Figures(100, 2, 12.34, -3_400_000), Track(101, "audio"): Figures(50, 0)}, 30)
    timeline = compile_timeline(journal.read().records, [], _spec())
    assert [event.type for event in timeline.events] == ["joined", "started", "format", "stopped", "left"]
    assert [track.model_dump(exclude={"uid", "epoch"}) for track in timeline.tracks] == [
        {"kind": "video", "packets_received": 100, "packets_lost": 2, "drift_ppm": 12.3, "av_offset_ms": -3.4},
        {"kind": "audio", "packets_received": 50, "packets_lost": 0, "drift_ppm": None, "av_offset_ms": None},
    ]


def test_a_flood_of_events_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "notes")
    chronicle = Chronicle(journal, epoch=1, zero_utc_ns=ZERO, limit=100)
    for number in range(1000):
        chronicle.observe(Joined(number), number)
    chronicle.measured({}, 1000)
    timeline = compile_timeline(journal.read().records, [], _spec())
    assert (len(timeline.events), timeline.left_out.events) == (100, 900)


def test_a_disk_that_fails_costs_the_notes_alone(tmp_path: Path) -> None:
    class Full(Journal):
        tries = 0

        def append(self, record: Mapping[str, Any], *, durable: bool = True) -> None:
            assert not durable
            self.tries += 1
            raise SpoolError("full")

    journal = Full(tmp_path / "notes")
    chronicle = Chronicle(journal, epoch=1, zero_utc_ns=ZERO)
    chronicle.observe(Joined(1), 0)
    chronicle.measured({}, 0)
    assert journal.tries == 1


def test_the_page_names_every_member() -> None:
    page = (ROOT / "docs" / "timeline-file.md").read_text()
    documented = set(re.findall(r"`([a-z_]+)`", page))
    schema = Timeline.model_json_schema()
    members = {name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})}
    assert members <= documented
    assert {value for part in schema["$defs"].values() for p in part["properties"].values() for value in p.get("enum", ())} <= documented
