"""How many recordings two cores carry: real workers that play a capture in real time.

A tick is late when it is finished more than one frame interval after its time. A count passes with at most one late tick in a
thousand, in the median of three runs.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable

from tests.bench import Result
from tests.bench.density import ROOMS
from tests.live import ROOT

LATE = 0.001
RUNS = 3
SECONDS = 60
PROBE_SECONDS = 15
PROBES = 3


class DensityFailed(Exception):
    """A run broke off, or not one recording is carried."""


def late(kind: str, count: int, seconds: float) -> float:
    """The share of late ticks with so many recordings at once.

    Raises:
        DensityFailed: the run broke off.
    """
    ROOMS[kind].capture()  # made before the clock runs
    words = [sys.executable, "-m", "tests.bench.density", kind, str(count), str(seconds)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise DensityFailed(run.stderr.strip()[-500:])
    found = json.loads(run.stdout)
    share: float = found["late"] / found["ticks"]
    print(f"{kind}: {count} at once, {found['late']} of {found['ticks']} ticks late", file=sys.stderr, flush=True)
    return share


def _largest(kind: str, first: int, step: int) -> int:
    """Look for the limit with short runs, then go down from there with long ones, which decide.

    A short run is spoilt by one disturbance from outside, so what it refuses is tried again.
    """
    count = first
    while any(late(kind, count + step, PROBE_SECONDS) <= LATE for _ in range(PROBES)):
        count += step
    while count > 0 and statistics.median(late(kind, count, SECONDS) for _ in range(RUNS)) > LATE:
        count -= max(step // 2, 1)
    if count <= 0:
        raise DensityFailed("not one recording is carried")
    return count


def density() -> Iterable[Result]:
    yield Result("density", _largest("pictures", 4, 1), "recordings on two cores")
    yield Result("density/audio", _largest("voices", 28, 4), "recordings on two cores")


BENCHES = {"density": density}
