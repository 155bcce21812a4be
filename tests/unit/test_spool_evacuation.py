"""What is taken along from a spool that fails."""

import hashlib
from pathlib import Path

import pytest

from storage.evacuation import evacuate
from storage.spool import ARRIVING, RecordingSpool, Spool


@pytest.fixture
def failing(tmp_path: Path) -> RecordingSpool:
    recording = Spool(tmp_path / "first").recording("sid")
    for name in ("gone.ts", "there.ts", "hurt.ts", "unreadable.ts"):
        recording.partial(name).write_bytes(name.encode())
        recording.commit(name, {"type": "slice", "sequence": len(name)})
    recording.append({"type": "ended"})
    recording.remove("gone.ts")
    recording.file("hurt.ts").write_bytes(b"other")
    recording.file("unreadable.ts").unlink()
    recording.file("unreadable.ts").mkdir()  # root reads everything else
    recording.partial("open.ts").write_bytes(b"half")
    recording.partial("open.ts.draft").write_bytes(b"{}")
    recording.uploads.append({"type": "epoch", "epoch": 3})
    recording.notes.append({"type": "worker"})
    recording.close()
    return recording


def test_what_can_be_read_is_there_under_the_same_records(tmp_path: Path, failing: RecordingSpool) -> None:
    second = Spool(tmp_path / "second")
    copy = evacuate(failing.folder, second)
    assert second.recordings() == ["sid"]
    assert copy.records() == failing.records()
    assert [path.name for path in sorted((copy.folder / "files").iterdir())] == ["there.ts"]
    assert hashlib.sha256(copy.file("there.ts").read_bytes()).hexdigest() == copy.records()[1]["sha256"]
    assert copy.left_open() == ["open.ts", "open.ts.draft"]
    assert copy.partial("open.ts").read_bytes() == b"half"
    assert copy.uploads.read().records == ({"type": "epoch", "epoch": 3},)
    assert copy.notes.read().records == ({"type": "worker"},)
    assert failing.file("there.ts").exists()


def test_what_a_crash_left_half_way_is_no_recording(tmp_path: Path, failing: RecordingSpool) -> None:
    second = Spool(tmp_path / "second")
    half = RecordingSpool(second.root / f".sid{ARRIVING}")
    half.append({"type": "slice", "name": "old"})
    half.close()
    assert second.recordings() == []
    assert evacuate(failing.folder, second).records() == failing.records()
    (second.root / f".other{ARRIVING}").mkdir()
    second.lock()
    assert [path.name for path in sorted(second.root.iterdir())] == [".lock", "sid"]
    second.unlock()


def test_a_recording_that_was_moved_is_set_aside(tmp_path: Path, failing: RecordingSpool) -> None:
    first = Spool(tmp_path / "first")
    first.set_aside("sid")
    first.set_aside("sid")
    assert first.recordings() == []
    assert (tmp_path / "first" / ".sid.moved" / "files" / "there.ts").exists()
