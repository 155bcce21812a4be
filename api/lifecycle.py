"""The states of a recording and the ways from one to the next; every change of a `Recording` row's state is made here.

(row made) -> INITIALISED -> STARTING -> READY <-> RECORDING -> STOPPING -> STOPPED -> EXITED | FAILED
   live: holds its channel and uid until STOPPED              finished: nothing changes from EXITED or FAILED on,
                                                              but for files that come to the customer's store later
"""

from enum import IntEnum
from typing import Final

from api.tables import Recording
from recorder.protocol import EventBody, Finished, Outcome, Phase, Reason, Uploading


class Status(IntEnum):
    """As the public API counts."""

    NOTHING = 0  # offered, nobody has taken it yet
    INITIALISED = 1  # a node has taken it
    STARTING = 2
    READY = 4
    RECORDING = 5
    STOPPING = 6
    STOPPED = 7  # the last file is written, uploads go on
    EXITED = 8
    FAILED = 20


_PHASES: Final[dict[Phase, Status]] = {
    "starting": Status.STARTING,
    "ready": Status.READY,
    "recording": Status.RECORDING,
    "stopping": Status.STOPPING,
}
_FAILURES: Final[frozenset[Outcome]] = frozenset({"failed", "interrupted"})


def accept(row: Recording) -> None:
    """A node has taken it."""
    row.status = max(row.status, Status.INITIALISED)


def advance(row: Recording, phase: Phase) -> None:
    """The worker tells what it does. A new worker may begin again at `starting`, but nothing leads back from stopping."""
    if row.status < Status.STOPPING:
        row.status = _PHASES[phase]


def begin_stop(row: Recording) -> None:
    row.status = max(row.status, Status.STOPPING)


def end(row: Recording, outcome: Outcome, reason: Reason, *, at_ms: int) -> None:
    """The last file is written; its channel and uid are free for another recording."""
    if not row.finished:
        row.status = Status.STOPPED
        row.live = False
        row.ended_ms = at_ms
        row.outcome, row.reason = outcome, reason


def finish(row: Recording, *, outcome: Outcome, reason: Reason, uploading: Uploading, now_ms: int, leaves_behind: bool = False) -> None:
    """It has ended and told how. Its secrets are wiped unless its node still has files to bring (`leaves_behind`)."""
    row.status = Status.FAILED if outcome in _FAILURES else Status.EXITED
    row.live = False
    row.finished = True
    row.finished_ms = now_ms
    row.ended_ms = row.ended_ms or now_ms
    row.outcome, row.reason, row.uploading = outcome, reason, uploading
    if not leaves_behind:
        row.sealed_spec = None


def close(row: Recording, uploading: Uploading) -> None:
    """No byte is left to bring: its secrets are wiped."""
    row.uploading = uploading
    row.sealed_spec = None


def is_too_late(row: Recording, body: EventBody) -> bool:
    """It has ended, and this changes nothing any more: it ends once, even when its node then fails with files still to bring."""
    return row.finished and (not leaves_behind(row) or isinstance(body, Finished))


def leaves_behind(row: Recording) -> bool:
    """It has ended, and its node still tries to bring files to the customer's store."""
    return row.finished and row.sealed_spec is not None
