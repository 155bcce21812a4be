"""Where a recording's media has gaps, as ffprobe sees its files: the judge of timeline files."""

import subprocess
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import median

from recorder.outputs import GAP_NS, TS_ZERO_NS


def frame_times(path: Path, kind: str, *, start_ns: int) -> list[float]:
    """Seconds on the timeline of the worker that wrote the file; `start_ns` is that of the file. TS counts from that timeline's zero
    (`TS_ZERO_NS`), WebM from its own begin."""
    command = ["ffprobe", "-v", "error", "-select_streams", kind[0], "-show_entries", "packet=pts_time", "-of", "csv=p=0", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    shift = -TS_ZERO_NS if path.suffix == ".ts" else start_ns
    return sorted(float(line.strip(",")) + shift / 1e9 for line in printed.split())


def gaps(times: Iterable[float], *, longer_than: float = GAP_NS / 1e9) -> list[tuple[float, float]]:
    """From the end of the last frame before to the first after, in seconds."""
    ordered = sorted(times)
    usual = median(b - a for a, b in pairwise(ordered))
    return [(a + usual, b) for a, b in pairwise(ordered) if b - a - usual > longer_than]
