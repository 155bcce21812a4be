"""Receivers of the receive benches, each a program of its own that measures itself; standard library only.

A receiver joins the channel, gets everybody's media, and writes one JSON object, its `Measured`, when its time is over.
"""

import argparse
import json
import resource
import time
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """Where and whom a receiver receives, and for how long it measures."""

    hub: str  # URL
    path: str  # "<app>/<channel>"
    uids: range
    warm_seconds: float
    measured_seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    cpu_ms_per_second: float  # user + system, all threads
    packets: int  # in the measured time, without repeated ones
    missing: int  # sequence numbers whose packet never came
    frames: int  # video frames and packets of sound, complete, in the measured time
    useless: int  # frames that came but could not be handed on
    seconds: float
    note: str = ""


def arguments(description: str | None) -> Room:
    """The room of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--warm", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    return Room(given.hub, given.path, range(given.first, given.first + given.count), given.warm, given.seconds)


def words(room: Room) -> list[str]:
    """The command line that `arguments` reads."""
    where = ["--hub", room.hub, "--path", room.path, "--first", str(room.uids.start), "--count", str(len(room.uids))]
    return [*where, "--warm", str(room.warm_seconds), "--seconds", str(room.measured_seconds)]


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    clock: float
    cpu: float
    packets: int
    missing: int
    frames: int
    useless: int


def read(packets: int, missing: int, frames: int, useless: int = 0) -> Reading:
    return Reading(time.monotonic(), cpu_seconds(), packets, missing, frames, useless)


def between(first: Reading, last: Reading, *, missing: int, useless: int = 0, note: str = "") -> Measured:
    seconds = last.clock - first.clock
    return Measured(
        cpu_ms_per_second=(last.cpu - first.cpu) * 1000 / seconds,
        packets=last.packets - first.packets,
        missing=missing,
        frames=last.frames - first.frames,
        useless=useless,
        seconds=seconds,
        note=note,
    )


def tell(measured: Measured) -> None:
    print(json.dumps(asdict(measured)), flush=True)
