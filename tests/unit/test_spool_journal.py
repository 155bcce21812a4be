"""The journal against crashes: whatever happens to its bytes, whole lines are read and nothing else."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import journal
from storage.errors import SpoolError
from storage.journal import Journal

RECORDS = [{"type": "slice", "n": n, "name": f"sid_ä\n{n}.ts"} for n in range(4)]


def _written(tmp_path: Path) -> bytes:
    path = tmp_path / "whole"
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def _read(path: Path, data: bytes) -> tuple[list[dict[str, object]], int]:
    path.write_bytes(data)
    content = Journal(path).read()
    return [dict(record) for record in content.records], content.corrupt


def test_spool_journal_gives_back_what_it_took(tmp_path: Path) -> None:
    assert _read(tmp_path / "j", _written(tmp_path)) == (RECORDS, 0)
    assert Journal(tmp_path / "none").read() == journal.Content((), 0)


def test_spool_journal_cut_at_every_offset(tmp_path: Path) -> None:
    data = _written(tmp_path)
    for length in range(len(data) + 1):
        whole = data[:length].count(b"\n")
        complete = length < len(data) and data[length : length + 1] == b"\n"  # only the line's end is missing
        records, corrupt = _read(tmp_path / "cut", data[:length])
        assert records == RECORDS[: whole + complete]
        assert corrupt == (not complete and data[:length][-1:] not in (b"\n", b""))


def test_spool_journal_takes_records_after_a_cut_at_every_offset(tmp_path: Path) -> None:
    data = _written(tmp_path)
    last = data.rindex(b"\n", 0, -1) + 1
    path = tmp_path / "cut"
    for length in range(last, len(data)):
        path.write_bytes(data[:length])
        torn = Journal(path)
        torn.append({"type": "after"}, durable=False)
        torn.close()
        records = [dict(record) for record in Journal(path).read().records]
        assert records[:3] == RECORDS[:3]
        assert records[-1] == {"type": "after"}
        assert all(record in RECORDS for record in records[3:-1])


def test_spool_journal_with_a_bit_flipped_at_every_offset(tmp_path: Path) -> None:
    data = _written(tmp_path)
    for offset in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            flipped = bytearray(data)
            flipped[offset] ^= bit
            hit = data[:offset].count(b"\n")
            # Where the flipped byte is the end of a line, two lines become one.
            hurt = {hit, hit + 1} if data[offset : offset + 1] == b"\n" else {hit}
            records, corrupt = _read(tmp_path / "flipped", bytes(flipped))
            assert records == [record for n, record in enumerate(RECORDS) if n not in hurt]
            assert corrupt >= 1


@given(st.binary(max_size=300))
def test_spool_journal_never_reads_noise(noise: bytes) -> None:
    for line in noise.split(b"\n"):
        record = journal.decode(line)
        assert record is None or journal.encode(record).strip() == line


def test_spool_journal_does_not_trust_a_disk_after_a_failed_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Journal(tmp_path / "j")
    failing.append({"n": 1})

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:  # the kernel's answer cannot be had otherwise without a broken disk
        broken.setattr(os, "fsync", fail)
        with pytest.raises(SpoolError, match="Input/output error"):
            failing.append({"n": 2})
    with pytest.raises(SpoolError):  # fsync would succeed now, without the lost page
        failing.append({"n": 3})
    failing.close()


def test_spool_journal_on_a_full_disk_asks_for_room_once_and_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def make_room() -> bool:
        asked.append(True)
        return len(asked) == 1

    full = Journal(tmp_path / "j", make_room)
    full.append({"n": 1})
    room, real = [5], os.write

    def write(descriptor: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as disk:  # a real full disk is among the rows of the fault matrix
        disk.setattr(os, "write", write)
        with pytest.raises(SpoolError, match="No space left"):
            full.append({"n": 2})
        assert len(asked) == 2  # after the first, it was tried again
        room[0] = 1000
        full.append({"n": 3})
    full.close()
    content = Journal(tmp_path / "j").read()
    assert [record["n"] for record in content.records] == [1, 3]
    assert content.corrupt == 0
