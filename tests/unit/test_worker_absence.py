"""How long nobody was there, counted over the workers of one recording."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from recorder.worker.absence import Absence
from storage.evacuation import evacuate
from storage.spool import Spool


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(monotonic=100.0, utc=1_000_000.0, boot="first")
    monkeypatch.setattr(time, "monotonic", lambda: now.monotonic)
    monkeypatch.setattr(time, "time_ns", lambda: round(now.utc * 1e9))
    monkeypatch.setattr("recorder.worker.absence._boot", lambda: now.boot)
    return now


def test_the_next_worker_counts_on(tmp_path: Path, clock: SimpleNamespace) -> None:
    Absence(tmp_path / "absence")
    for since in (10, 25):
        clock.monotonic = 100 + since
        assert Absence(tmp_path / "absence").seconds() == since


def test_who_was_there_when_the_worker_died_is_not_forgotten(tmp_path: Path, clock: SimpleNamespace) -> None:
    Absence(tmp_path / "absence").end()
    clock.monotonic = 150
    successor = Absence(tmp_path / "absence")
    clock.monotonic = 157
    assert successor.seconds() == 7  # nobody is found any more: it begins with the successor
    successor.end()
    assert successor.seconds() == 0
    successor.begin()
    clock.monotonic = 160
    successor.begin()
    assert successor.seconds() == 3
    assert Absence(tmp_path / "absence").seconds() == 3


@pytest.mark.parametrize("step", [3600, -3600, -1_000_000])
def test_a_wall_clock_that_is_set_changes_nothing(tmp_path: Path, clock: SimpleNamespace, step: float) -> None:
    Absence(tmp_path / "absence")
    clock.utc += step
    clock.monotonic += 5
    assert Absence(tmp_path / "absence").seconds() == 5


@pytest.mark.parametrize(("passed", "counted"), [(40, 40), (-40, 0)])
def test_the_wall_clock_counts_across_a_restart_of_the_machine(
    tmp_path: Path, clock: SimpleNamespace, passed: float, counted: float
) -> None:
    Absence(tmp_path / "absence")
    clock.boot, clock.monotonic = "second", 3.0
    clock.utc += passed
    assert Absence(tmp_path / "absence").seconds() == pytest.approx(counted)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"boot": "first"}', json.dumps({"boot": "first", "monotonic_ns": None, "utc_ns": 1})])
def test_a_torn_mark_begins_anew(tmp_path: Path, clock: SimpleNamespace, content: str) -> None:
    (tmp_path / "absence").write_text(content)
    absence = Absence(tmp_path / "absence")
    clock.monotonic += 2
    assert absence.seconds() == 2


def test_a_mark_that_cannot_be_written_costs_no_count(tmp_path: Path, clock: SimpleNamespace) -> None:
    absence = Absence(tmp_path / "nowhere" / "absence")
    clock.monotonic += 2
    assert absence.seconds() == 2
    absence.end()
    assert absence.seconds() == 0


def test_the_mark_goes_along_to_another_spool(tmp_path: Path, clock: SimpleNamespace) -> None:
    failing = Spool(tmp_path / "failing").recording("a" * 32)
    Absence(failing.absence)
    clock.monotonic += 9
    moved = evacuate(failing.folder, Spool(tmp_path / "second"))
    assert Absence(moved.absence).seconds() == 9
