"""A spool whose committed files are sealed: crashes at every step, salvage, moves to another spool, damage."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from recorder.outputs import Draft, Shelf
from recorder.outputs.names import Names
from recorder.outputs.salvage import salvage_slices
from recorder.spec import RecordingSpec
from storage.errors import LocalFileError, SpoolError
from storage.evacuation import evacuate
from storage.journal import Journal
from storage.sealed import Seal
from storage.spool import RecordingSpool, Spool
from tests.unit.test_outputs_salvage import SECOND, stream

SID = "0123456789abcdef0123456789abcdef"
MEDIA = stream()


@pytest.fixture
def seal() -> Seal:
    return Seal(os.urandom(32))


@pytest.fixture
def recording(tmp_path: Path, seal: Seal) -> RecordingSpool:
    recording = Spool(tmp_path / "spool").recording(SID)
    recording.use(seal)
    return recording


def _plain(recording: RecordingSpool, name: str) -> bytes:
    assert recording.seal
    with recording.seal.file(recording.file(name), name).open("rb") as file:
        return file.read()


def _in_clear(folder: Path) -> list[str]:
    """Files that show some of the media. Its packets repeat, so any part of it will do."""
    return [path.name for path in folder.rglob("*") if path.is_file() and MEDIA[188:376] in path.read_bytes()]


def _write(recording: RecordingSpool, *, closed: bool) -> tuple[Shelf, Draft]:
    """An open slice; `closed`: about to be committed."""
    shelf = Shelf(recording, Names(SID, "room"), epoch=1, epoch_utc_ns=1_764_000_000 * SECOND)
    draft = Draft(shelf.names.slice(shelf.utc_ms(0)), shelf.names.playlist(), 0, shelf.utc_ms(0))
    shelf.open(draft).write_bytes(MEDIA)
    if closed:
        shelf.close(draft, SECOND)
    return shelf, draft


def test_what_is_committed_lies_sealed_and_is_measured_plain(recording: RecordingSpool) -> None:
    shelf, draft = _write(recording, closed=False)
    assert _in_clear(recording.folder) == [draft.name]  # while it is open
    committed = shelf.close(draft, SECOND).commit()
    assert (committed.size, committed.sha256) == (len(MEDIA), hashlib.sha256(MEDIA).hexdigest())
    assert _in_clear(recording.folder) == []
    assert recording.left_open() == []
    assert _plain(recording, draft.name) == MEDIA
    again = RecordingSpool(recording.folder, recording.seal)
    assert again.is_as_committed(draft.name, committed.sha256)
    assert not again.is_as_committed(draft.name, "other")


def test_without_the_key_nothing_is_committed_and_nothing_lost(recording: RecordingSpool) -> None:
    _, draft = _write(recording, closed=True)
    unknowing = RecordingSpool(recording.folder)
    assert unknowing.sealed
    with pytest.raises(SpoolError):
        unknowing.commit(draft.name, {"type": "slice"})
    salvage_slices(RecordingSpool(recording.folder))
    assert recording.partial(draft.name).read_bytes() == MEDIA
    salvage_slices(RecordingSpool(recording.folder, recording.seal))
    assert _plain(recording, draft.name) == MEDIA
    assert _in_clear(recording.folder) == []


class _Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("step", range(5))
def test_a_crash_at_any_step_of_a_commit_costs_nothing(recording: RecordingSpool, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    shelf, draft = _write(recording, closed=False)
    closing = shelf.close(draft, SECOND)
    steps = [(Seal, "write"), (Path, "rename"), (os, "fsync"), (Path, "unlink"), (Journal, "append")]
    with monkeypatch.context() as patched:  # there is no seam between two calls to the system, and it is worth none
        owner, what = steps[step]
        real: Callable[..., object] = getattr(owner, what)

        def last(*arguments: object, **named: object) -> None:
            if what in ("write", "fsync"):
                real(*arguments, **named)
            raise _Crash

        patched.setattr(owner, what, last)
        with suppress(_Crash):
            closing.commit()
    for _ in range(2):
        salvage_slices(RecordingSpool(recording.folder, recording.seal))
    (record,) = RecordingSpool(recording.folder).records()
    assert record["sha256"] == hashlib.sha256(MEDIA).hexdigest()
    assert _plain(recording, draft.name) == MEDIA
    assert recording.left_open() == []
    assert _in_clear(recording.folder) == []


def test_an_open_slice_is_cut_and_sealed(recording: RecordingSpool) -> None:
    _, draft = _write(recording, closed=False)
    salvage_slices(RecordingSpool(recording.folder, recording.seal))
    whole = _plain(recording, draft.name)
    assert whole
    assert MEDIA.startswith(whole)
    assert _in_clear(recording.folder) == []


def test_a_record_that_is_torn_is_made_again_from_the_sealed_file(recording: RecordingSpool) -> None:
    shelf, draft = _write(recording, closed=False)
    committed = shelf.close(draft, SECOND).commit()
    (recording.folder / "journal").write_bytes(b"torn\n")
    salvage_slices(RecordingSpool(recording.folder, recording.seal))
    (record,) = RecordingSpool(recording.folder).records()
    assert (record["sha256"], record["duration_ns"]) == (committed.sha256, SECOND)
    assert _in_clear(recording.folder) == []


def test_a_file_that_is_damaged_with_its_record_is_left_out(recording: RecordingSpool) -> None:
    shelf, draft = _write(recording, closed=False)
    shelf.close(draft, SECOND).commit()
    (recording.folder / "journal").write_bytes(b"torn\n")
    _flip(recording.file(draft.name))
    salvage_slices(RecordingSpool(recording.folder, recording.seal))
    assert RecordingSpool(recording.folder).records() == []
    assert recording.left_open() == []
    with pytest.raises(LocalFileError):
        _plain(recording, draft.name)


@pytest.mark.parametrize("knowing", [True, False])
def test_sealed_files_move_to_the_second_spool_as_they_are(recording: RecordingSpool, tmp_path: Path, knowing: bool) -> None:
    names = ("a.ts", "b.ts")
    for name in names:
        recording.partial(name).write_bytes(MEDIA)
        recording.commit(name, {"type": "slice"})
    _flip(recording.file("b.ts"))
    second = Spool(tmp_path / "second")
    copy = evacuate(recording.folder, second, recording.seal if knowing else None)
    assert copy.sealed
    assert copy.records() == recording.records()
    assert copy.file("a.ts").read_bytes() == recording.file("a.ts").read_bytes()
    assert copy.file("b.ts").exists() == (not knowing)
    assert _in_clear(second.root) == []


def test_no_key_is_told_or_given_unless_there_is_one() -> None:
    spec = RecordingSpec(sid=SID, app_id="a", channel="c", uid=1, mode="mix")
    assert spec.seal() is None
    assert "media_key" not in json.loads(spec.with_secrets())
    sealed = spec.with_media_key()
    assert isinstance(sealed.media_key, SecretStr)
    assert sealed.media_key.get_secret_value() not in f"{sealed!r}{sealed.model_dump_json()}"
    given: Mapping[str, object] = json.loads(sealed.for_worker().with_secrets())
    back = RecordingSpec.model_validate(given)
    assert back.media_key == sealed.media_key
    assert spec.with_media_key().media_key != sealed.media_key


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
