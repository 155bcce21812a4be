"""The life of recordings, any calls and faults in any order, held to the contract. `make fuzz` goes on for longer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.model import How, Life, Recording, live_through, machine

IDLE: Final[How] = ("complete", "idle")
TOKEN: Final[How] = ("failed", "token")
CRASHED: Final[How] = ("interrupted", "crashed")
WAYS: Final = {
    ("acquired", "expired"),
    ("acquired", "offered"),
    ("acquired", "recording"),
    ("offered", "recording"),
    ("offered", "done"),
    ("offered", "failed"),
    ("recording", "stopping"),
    ("recording", "uploading"),
    ("recording", "failed"),
    ("stopping", "uploading"),
    ("stopping", "done"),
    ("stopping", "failed"),
    ("uploading", "done"),
    ("uploading", "failed"),
    ("uploading", "backup"),
    ("backup", "done"),
    ("backup", "failed"),
}
Steps = Iterator[Any]  # each of them is checked


@pytest.mark.timeout(180)
def test_any_calls_and_faults_in_any_order(tmp_path: Path) -> None:
    live_through(tmp_path / "data", examples=20, steps=25, repeatable=True)


def what_is_missing(life: Life, _recording: Recording) -> Steps:
    resource = life.acquire("2")
    yield life.time_passes(6)
    yield life.start(resource, "mix", 2)


def what_nobody_claims_at_once(life: Life, recording: Recording) -> Steps:
    yield life.stop(recording, 2)
    for uid, then in (("2", "given up"), ("2", "stopped"), ("2", "claimed late"), ("3", "restarted")):
        yield life.start_that_no_node_claims_at_once(uid, "mix", "storage", then)


def starts_that_are_cut_off(life: Life, recording: Recording) -> Steps:
    yield life.start_in_which_the_control_plane_is_killed("2", True)
    yield life.start_in_which_the_control_plane_is_killed("3", False)
    yield life.stop_and_wait(recording)


def failures(life: Life, recording: Recording) -> Steps:
    """What there is is uploaded."""
    yield life.slice(recording)
    yield life.end(recording, CRASHED, None)
    yield life.renew_keys(recording, 1, False)
    yield life.a_slice_is_stored(recording, False)
    yield life.everything_is_uploaded(CRASHED, ("uploaded", False))
    other = life.acquire_and_start("2", "mix")
    yield life.stop(other, 1)
    yield life.the_disk_fails(other)


def files_that_come_later(life: Life, recording: Recording) -> Steps:
    for uid, how, settled in (("2", IDLE, "uploaded"), ("3", TOKEN, "unknown")):
        late = life.acquire_and_start(uid, "mix")
        yield life.slice(late)
        yield life.end(late, how, None)
        yield life.a_slice_is_stored(late, True)
        yield life.everything_is_uploaded(how, ("backuped", True))
        yield life.renew_keys(late, 2, True)
        yield life.the_disk_fails(late)
        yield life.the_control_plane_is_killed_before_it_answers_the_node(late)
        yield life.what_was_left_behind_is_settled(settled)
        yield life.renew_keys(late, 3, True)
    yield life.end(recording, IDLE, ("uploaded", False))


def files_that_never_come(life: Life, recording: Recording) -> Steps:
    yield life.stop(recording, 1)
    yield life.end(recording, IDLE, ("unknown", True))
    yield life.a_slice_is_stored(recording, False)
    yield life.the_worker_dies(recording)
    yield life.the_node_never_settles_it()


def calls_that_are_cut_off(life: Life, recording: Recording) -> Steps:
    yield life.the_control_plane_is_killed_in_a_call(recording, "storage")
    yield life.the_worker_dies(recording)
    yield life.the_control_plane_is_killed_in_a_call(recording, "update")
    yield life.the_worker_dies(recording)
    yield life.an_epoch_goes_astray(recording)
    yield life.the_control_plane_is_killed_in_a_call(recording, "stop")
    yield life.the_worker_dies(recording)


LIVES: Final[tuple[Callable[[Life, Recording], Steps], ...]] = (
    what_is_missing,
    what_nobody_claims_at_once,
    starts_that_are_cut_off,
    failures,
    files_that_come_later,
    files_that_never_come,
    calls_that_are_cut_off,
)


@pytest.mark.timeout(120)
def test_every_way_from_state_to_state(tmp_path: Path) -> None:
    """The machine chooses some of them rarely."""
    with machine(tmp_path / "data") as kind:
        for lived in LIVES:
            life = kind()
            recording: Any = life.begin("mix")
            for _ in lived(life, recording):
                life.the_database_agrees()
            life.teardown()
        assert kind.ways.keys() == WAYS
