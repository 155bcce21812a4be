"""What a process holds: memory, file descriptors, threads. Linux only, by /proc."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    rss_mb: float
    descriptors: int
    threads: int


def footprint(pid: int) -> Footprint:
    """Raises FileNotFoundError when the process is gone."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    rss_kb = int(status["VmRSS"].split()[0])
    return Footprint(round(rss_kb / 1024, 2), len(list((process / "fd").iterdir())), int(status["Threads"]))
