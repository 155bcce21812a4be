"""The spool's folder of one recording: what is committed, and what a crash leaves."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import SpoolError
from storage.spool import RecordingSpool, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def _commit(recording: RecordingSpool, name: str, data: bytes = b"media") -> dict[str, object]:
    recording.partial(name).write_bytes(data)
    return dict(recording.commit(name, {"type": "slice", "sequence": 1}))


def test_spool_commit_moves_measures_and_journals(spool: Spool) -> None:
    recording = spool.recording("sid")
    record = _commit(recording, "a b.ts", b"media")
    assert record == {"type": "slice", "sequence": 1, "name": "a b.ts", "size": 5, "sha256": hashlib.sha256(b"media").hexdigest()}
    assert recording.records() == [record]
    assert not recording.partial("a b.ts").exists()
    assert recording.file("a b.ts").read_bytes() == b"media"
    recording.append({"type": "ended"})
    recording.remove("a b.ts")
    recording.remove("a b.ts")
    again = RecordingSpool(recording.folder)  # another process
    assert again.records() == [record, {"type": "ended"}]
    assert not again.file("a b.ts").exists()


def test_spool_is_for_its_owner_only(spool: Spool) -> None:
    recording = spool.recording("sid")
    _commit(recording, "x.ts")
    folders = [spool.root, *(path for path in spool.root.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o077 for path in folders} == {0}


def test_spool_commits_a_name_once_even_after_its_file_is_gone(spool: Spool) -> None:
    recording = spool.recording("sid")
    _commit(recording, "x.ts")
    recording.remove("x.ts")
    for writer in (recording, RecordingSpool(recording.folder)):
        with pytest.raises(SpoolError):
            _commit(writer, "x.ts", b"other")
    assert len(recording.records()) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "a\0b"])
def test_spool_names_are_one_part(spool: Spool, name: str) -> None:
    recording = spool.recording("sid")
    for call in (recording.partial, recording.file, recording.remove, lambda name: recording.commit(name, {}), spool.recording):
        with pytest.raises(ValueError):
            call(name)


def test_spool_failed_fsync_commits_nothing_and_is_not_retried(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = spool.recording("sid")
    recording.partial("x.ts").write_bytes(b"media")
    real = os.fsync

    def fail_once(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_once)  # no disk here breaks on demand
    with pytest.raises(SpoolError):
        recording.commit("x.ts", {})
    with pytest.raises(SpoolError):  # the disk works again, the bytes are gone for good
        recording.commit("x.ts", {})
    assert recording.records() == []
    assert not recording.file("x.ts").exists()


def test_spool_commit_without_a_file_is_an_error(spool: Spool) -> None:
    with pytest.raises(SpoolError):
        spool.recording("sid").commit("x.ts", {})


def test_spool_finds_files_whose_record_is_lost(spool: Spool) -> None:
    recording = spool.recording("sid")
    for name in ("1.ts", "2.ts", "3.ts"):
        _commit(recording, name)
    journal = recording.folder / "journal"
    torn = journal.read_bytes()[:-10]
    journal.write_bytes(torn)
    assert [path.name for path in recording.unrecorded()] == ["3.ts"]
    assert len(recording.records()) == 2
    assert recording.corrupt_lines == 1


def test_spool_lists_and_destroys_recordings(spool: Spool) -> None:
    for sid in ("b", "a"):
        _commit(spool.recording(sid), "x.ts")
    assert spool.recordings() == ["a", "b"]
    spool.recording("a").destroy()
    assert spool.recordings() == ["b"]
    (spool.root / ".c.gone").mkdir()  # a crash while it was removed
    assert spool.recordings() == ["b"]
    spool.lock()
    assert not (spool.root / ".c.gone").exists()


def test_spool_has_one_owner(spool: Spool) -> None:
    spool.lock()
    with pytest.raises(SpoolError, match="another process"):
        Spool(spool.root).lock()
    spool.unlock()
    other = Spool(spool.root)
    other.lock()
    other.unlock()


def test_spool_commits_of_several_threads_keep_each_name_once(spool: Spool) -> None:
    recording = spool.recording("sid")
    names = [f"{number}.ts" for number in range(40)]
    for name in names:
        recording.partial(name).write_bytes(name.encode())

    def commit(name: str) -> bool:
        try:
            recording.commit(name, {})
        except SpoolError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(commit, [name for name in names for _ in range(3)]))
    assert sum(done) == len(names)
    assert sorted(str(record["name"]) for record in recording.records()) == sorted(names)


def test_spool_refuses_a_folder_that_is_a_disk_of_its_own(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = spool.recording("sid")
    _commit(recording, "x.ts")
    spool.lock()
    spool.unlock()
    assert [path.name for path in (recording.folder / "files").iterdir()] == ["x.ts"]

    def across_devices(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "replace", across_devices)  # two real disks are among the rows of the fault matrix
    with pytest.raises(SpoolError, match="not on one disk"):
        Spool(spool.root).lock()


def test_spool_knows_whether_there_is_media(spool: Spool) -> None:
    recording = spool.recording("sid")
    assert not recording.holds_media
    recording.partial("open.ts").touch()
    assert recording.holds_media
    recording.partial("open.ts").unlink()
    _commit(recording, "x.ts")
    assert recording.holds_media
    recording.remove("x.ts")
    assert not recording.holds_media
