"""What this machine has, and what processes take of it, as the kernel says: proc(5), cgroups(7) of both versions.

Where the kernel does not say (no Linux), figures are None.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# In memory.stat: the page cache that is given back when memory is wanted, which counts as used.
_CACHE = ("total_inactive_file", "inactive_file")


@dataclass(frozen=True, slots=True)
class Machine:
    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def cores(self) -> float:
        """Processors that this process may use; less where a cgroup allows less of their time."""
        allowed = [float(_processors())]
        for folder in self._folders("cpu"):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                allowed.append(_quota(folder))
        return min(allowed)

    def free_memory_bytes(self) -> int | None:
        """Memory that may still be taken without swapping, by the machine and by each cgroup around this process."""
        free = []
        with contextlib.suppress(OSError, KeyError, ValueError):
            free.append(int(_table(self.proc / "meminfo")["MemAvailable:"]) * 1024)
        for folder in self._folders("memory"):
            with contextlib.suppress(OSError, ValueError):
                free.append(_free_of(folder))
        return max(0, min(free)) if free else None

    def cpu_seconds(self, pid: int) -> float | None:
        """User and system time of a process so far; None when there is no such process."""
        try:
            fields = (self.proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return None

    def _folders(self, controller: str) -> Iterator[Path]:
        """Those of the cgroups around this process, from its own outwards. In a container some of them are out of sight."""
        try:
            lines = (self.proc / "self" / "cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = self.cgroups / controllers if controllers else self.cgroups
            inside = Path(path.lstrip("/"))
            for folder in (inside, *inside.parents):
                yield root / folder


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(folder: Path) -> float:
    """Raises:
    OSError, ValueError: there is none.
    """
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except FileNotFoundError:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    cores = int(quota) / int(period)  # "max" and -1 stand for no limit
    if cores <= 0:
        raise ValueError
    return cores


def _free_of(folder: Path) -> int:
    """Raises:
    OSError, ValueError: the cgroup has no limit.
    """
    try:
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
    except FileNotFoundError:
        limit, used = (int((folder / f"memory.{name}_in_bytes").read_text()) for name in ("limit", "usage"))
    statistics = _table(folder / "memory.stat")
    return limit - used + int(next((statistics[name] for name in _CACHE if name in statistics), "0"))


def _table(path: Path) -> dict[str, str]:
    """The first two words of each line."""
    return {words[0]: words[1] for line in path.read_text().splitlines() if len(words := line.split()) > 1}
