"""How much of a torn file is whole, and what a killed worker's folder tells."""

import json
from pathlib import Path

import pytest

from recorder.outputs import DRAFT, FRAGMENTS, TS_ZERO_NS, Closed, Draft, Shelf
from recorder.outputs.names import Names
from recorder.outputs.salvage import leftovers, next_part, next_sequence, parts, salvage_slices, whole_fragments, whole_units
from storage.spool import RecordingSpool

SECOND = 1_000_000_000
VIDEO, AUDIO = 256, 257


def ts_packet(pid: int, pts: int | None = None) -> bytes:
    """A packet with the start of a frame, or one that continues it."""
    head = bytes((0x47, (0x40 if pts is not None else 0) | pid >> 8, pid & 255, 0x10))
    if pts is None:
        return head + bytes(184)
    time = bytes((0x21 | pts >> 29 & 0xE, pts >> 22 & 255, 1 | pts >> 14 & 0xFE, pts >> 7 & 255, 1 | pts << 1 & 0xFE))
    return (head + b"\0\0\1\xe0\0\0\x80\x80\5" + time).ljust(188, b"\xff")


def ticks(seconds: float) -> int:
    return round((seconds + TS_ZERO_NS / SECOND) * 90_000) % (1 << 33)


def stream(start: float = 0.0) -> bytes:
    """Ten pictures of three packets at ten a second, sound every 0.2 s."""
    packets = [ts_packet(0)]
    for number in range(10):
        packets += [ts_packet(VIDEO, ticks(start + number / 10)), ts_packet(VIDEO), ts_packet(VIDEO)]
        if number % 2:
            packets.append(ts_packet(AUDIO, ticks(start + number / 10 - 0.1)))
    return b"".join(packets)


def test_a_slice_is_whole_up_to_its_last_frame_wherever_it_is_torn() -> None:
    data = stream()
    starts = [at for at in range(0, len(data), 188) if data[at + 1] & 0x40]
    for length in range(len(data) + 1):
        known = [at for at in starts if at + 188 <= length]
        whole, end_ns = whole_units(data[:length], 0)
        assert whole == (known[-1] if len(known) > 1 else 0)
        assert end_ns <= SECOND
    assert whole_units(data, 0)[1] == SECOND
    assert whole_units(data[:-188], 0)[0] == starts[-2]
    assert whole_units(data[: 188 * 8] + bytes(188) + data[188 * 9 :], 0)[0] == starts[2]  # nothing after a hole is looked at


def test_units_of_sound_need_not_be_equally_long() -> None:
    begins = [0.0, 0.021, 0.128, 0.235]  # one frame, then five in each
    data = b"".join(ts_packet(AUDIO, ticks(begin)) for begin in begins)
    for count in (2, 3, 4):
        assert abs(whole_units(data[: 188 * count], 0)[1] - begins[count - 1] * SECOND) < 20_000
    after_a_pause = data + ts_packet(AUDIO, ticks(9.0))
    assert whole_units(after_a_pause, 0)[1] / SECOND < 0.5


def box(kind: bytes, size: int) -> bytes:
    return size.to_bytes(4, "big") + kind + bytes(size - 8)


def test_an_mp4_is_whole_up_to_its_last_fragment_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "part"
    header, fragment = box(b"ftyp", 24) + box(b"moov", 100), box(b"moof", 60) + box(b"mdat", 200)
    data = header + fragment * 3
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        fragments = max(0, length - len(header)) // len(fragment)
        assert whole_fragments(path) == (len(header) + fragments * len(fragment) if fragments else 0)
    path.write_bytes(header + fragment + bytes(300))
    assert whole_fragments(path) == len(header + fragment)


def shelf(spool: RecordingSpool, epoch: int) -> Shelf:
    return Shelf(spool, Names("s", "room"), epoch=epoch, epoch_utc_ns=1_700_000_000 * SECOND)


def draft(name: str, start: float) -> Draft:
    return Draft(name, "s_room.m3u8", round(start * SECOND), round(1_700_000_000_000 + start * 1000), False, ("#TAG",))


def test_open_and_closed_slices_are_committed_in_order_under_the_epoch_of_their_worker(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path / "s")
    shelved = shelf(spool, epoch=3)
    for name, start in (("a.ts", 0.0), ("b.ts", 1.0), ("c.ts", 2.0)):
        shelved.open(draft(name, start)).write_bytes(stream(start))
    closed: list[Closed] = [shelved.close(draft("a.ts", 0), SECOND), shelved.close(draft("b.ts", 1), SECOND)]
    first = closed[0].commit()
    spool.close()
    salvage_slices(RecordingSpool(spool.folder))
    made = [record for record in spool.records() if record["type"] == "slice"]
    assert [(record["name"], record["epoch"], record["sequence"]) for record in made] == [("a.ts", 3, 0), ("b.ts", 3, 1), ("c.ts", 3, 2)]
    assert made[0]["sha256"] == first.sha256
    assert made[1]["size"] == len(stream())  # it was closed: nothing is torn
    assert (made[2]["duration_ns"], made[2]["start_ns"], made[2]["tags"]) == (SECOND, 2 * SECOND, ["#TAG"])
    assert made[2]["size"] == len(stream()) - 188
    assert spool.left_open() == []
    salvage_slices(RecordingSpool(spool.folder))  # again: nothing changes
    assert spool.records() == made


def test_times_that_wrap_are_understood(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path / "s")
    start = (1 << 33) / 90_000 - 10 - 0.45  # within the slice
    shelf(spool, 1).open(draft("a.ts", start)).write_bytes(stream(start))
    salvage_slices(RecordingSpool(spool.folder))
    assert abs(spool.records()[0]["duration_ns"] - SECOND) < SECOND // 1000


def test_a_crash_between_the_rename_and_the_record_is_made_good(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path / "s")
    shelved = shelf(spool, 1)
    shelved.open(draft("a.ts", 0)).write_bytes(stream())
    shelved.close(draft("a.ts", 0), SECOND)
    spool.partial("a.ts").rename(spool.file("a.ts"))
    salvage_slices(RecordingSpool(spool.folder))
    assert [record["name"] for record in spool.records()] == ["a.ts"]
    assert spool.file("a.ts").read_bytes() == stream()


def test_nothing_whole_gives_no_slice_and_a_committed_one_only_loses_its_draft(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path / "s")
    shelved = shelf(spool, 1)
    shelved.open(draft("empty.ts", 0)).write_bytes(stream()[:400])
    shelved.open(draft("never.ts", 1))
    shelved.open(draft("done.ts", 2)).write_bytes(stream(2))
    note = spool.partial(f"done.ts{DRAFT}").read_bytes()
    shelved.close(draft("done.ts", 2), SECOND).commit()
    spool.partial(f"done.ts{DRAFT}").write_bytes(note)  # killed before it was removed
    spool.partial(f"torn.ts{DRAFT}").write_bytes(b'{"name": "to')
    salvage_slices(RecordingSpool(spool.folder))
    assert [record["name"] for record in spool.records()] == ["done.ts"]
    assert spool.left_open() == [f"torn.ts{DRAFT}"]


def test_a_folder_that_is_still_written_is_left_alone(tmp_path: Path) -> None:
    writing = RecordingSpool(tmp_path / "s")
    assert writing.lock()
    shelf(writing, 1).open(draft("a.ts", 0)).write_bytes(stream())
    salvage_slices(RecordingSpool(writing.folder))
    assert writing.records() == []
    writing.close()
    salvage_slices(RecordingSpool(writing.folder))
    assert len(writing.records()) == 1


def test_indices_and_numbers_go_on_behind_all_that_was_ever_given_out(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path / "s")
    assert (next_part(spool), next_sequence(spool.records(), 1)) == (0, 0)
    spool.append({"type": "file", "file": {"name": "s_room_7_4.mp4"}})  # announced, and the crash came at once
    shelved = shelf(spool, 1)
    shelved.open(draft("s_room_7_2.mp4", 0)).write_bytes(b"whole")
    shelved.close(draft("s_room_7_2.mp4", 0), SECOND).commit()
    assert (next_part(spool), next_sequence(spool.records(), 1), next_sequence(spool.records(), 2)) == (5, 1, 0)
    shelved.open(draft("s_room_7_5.mp4", 0))
    spool.partial(f"s_room_7_5.mp4{FRAGMENTS}").touch()
    assert next_part(spool) == 6
    (part,) = parts(spool)
    assert (part.draft, part.epoch, part.duration_ns) == (draft("s_room_7_5.mp4", 0), 1, None)
    spool.partial(f"s_room_7_2.mp4{FRAGMENTS}").write_bytes(b"killed between the commit and its removal")
    assert leftovers(spool) == [part]
    assert spool.left_open() == [f"s_room_7_5.mp4{DRAFT}", f"s_room_7_5.mp4{FRAGMENTS}"]
    assert json.loads(spool.partial(f"s_room_7_5.mp4{DRAFT}").read_bytes())["epoch"] == 1


def test_a_screenshot_that_is_whole_is_committed(tmp_path: Path) -> None:
    spool = RecordingSpool(tmp_path)
    shelf = Shelf(spool, Names("a" * 32, "room"), epoch=3, epoch_utc_ns=0)
    names = [shelf.names.snapshot(101, ms) for ms in (1000, 2000, 3000)]
    for name in names:
        spool.partial(name).write_bytes(b"picture")
    closed = [shelf.close(Draft(name, None, 0, 0, content="snapshot"), 0) for name in names[:2]]
    spool.partial(names[1]).rename(spool.file(names[1]))  # the crash came after the rename; the third was still being written
    assert len(closed) == 2
    salvage_slices(RecordingSpool(tmp_path))
    assert [(record["name"], record["content"], record["sequence"]) for record in spool.records()] == [
        (names[0], "snapshot", 0),
        (names[1], "snapshot", 1),
    ]
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == names[:2]


def test_a_webm_slice_that_was_left_open_is_committed(tmp_path: Path) -> None:
    def element(kind: str, content: bytes) -> bytes:
        return bytes.fromhex(kind) + (len(content) | 1 << 28).to_bytes(4, "big") + content

    blocks = [element("a3", b"\x81" + (number * 100).to_bytes(2, "big") + b"\x80frame") for number in range(10)]
    cluster = element("1f43b675", element("e7", b"\0") + b"".join(blocks))
    spool = RecordingSpool(tmp_path / "s")
    opened = shelf(spool, 1).open(draft("a.webm", 3.0))
    opened.write_bytes(element("1a45dfa3", b"") + bytes.fromhex("1853806701ffffffffffffff") + cluster[:-1])
    salvage_slices(RecordingSpool(spool.folder))
    (record,) = spool.records()
    assert (record["name"], record["duration_ns"], record["start_ns"]) == ("a.webm", 900_000_000, 3 * SECOND)
    assert spool.file("a.webm").read_bytes().endswith(blocks[8])
    assert spool.left_open() == []


def _names(spool: RecordingSpool) -> list[str]:
    """Of the slices, in the order in which a playlist shows them."""
    return [str(record["name"]) for record in sorted(spool.records(), key=lambda record: (record["epoch"], record["sequence"]))]


@pytest.mark.parametrize("hit", range(6))
def test_a_damaged_line_of_the_journal_is_made_again_by_its_file(tmp_path: Path, hit: int) -> None:
    spool = RecordingSpool(tmp_path / "s")
    for epoch in (1, 2):
        shelved = shelf(spool, epoch)
        for number in range(3):
            start = 100 * epoch + number
            name = shelved.names.slice(1_700_000_000_000 + start * 1000)
            made = Draft(name, shelved.names.playlist(), start * SECOND, 1_700_000_000_000 + start * 1000, False, ("#TAG",))
            shelved.open(made).write_bytes(stream(start) + ts_packet(VIDEO, ticks(start + 1)))
            shelved.close(made, SECOND).commit()
    spool.close()
    records, names = spool.records(), _names(spool)
    lines = (spool.folder / "journal").read_bytes().split(b"\n")
    lines[hit] = lines[hit][:40] + bytes([lines[hit][40] ^ 1]) + lines[hit][41:]
    (spool.folder / "journal").write_bytes(b"\n".join(lines))
    damaged = RecordingSpool(spool.folder)
    assert len(damaged.records()) == 5
    salvage_slices(damaged)
    assert _names(damaged) == names
    again = {str(record["name"]): record for record in damaged.records()}[names[hit]]
    lost = records[hit]
    assert (again["sha256"], again["playlist"], again["start_ms"]) == (lost["sha256"], lost["playlist"], lost["start_ms"])
    assert (again["epoch"], again["sequence"], again["start_ns"]) == (lost["epoch"], lost["sequence"], lost["start_ns"])
    assert again["duration_ns"] == lost["duration_ns"]
    assert again["discontinuity"]
    salvage_slices(RecordingSpool(spool.folder))
    assert _names(spool) == names
