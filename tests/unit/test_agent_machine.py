"""What the kernel says of a machine, from files like its own."""

import os
import time
from pathlib import Path

import pytest

from recorder.agent.machine import Machine

MIB = 1 << 20
CORES = float(len(os.sched_getaffinity(0)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    8388608 kB\n"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def machine(root: Path) -> Machine:
    return Machine(root / "proc", root / "cgroup")


def test_without_cgroups(root: Path) -> None:
    assert machine(root).free_memory_bytes() == 8192 * MIB
    assert machine(root).cores() == CORES


def test_the_narrowest_cgroup_of_version_2_counts(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/pods/recorder\n",
            "cgroup/pods/recorder/memory.max": "max\n",
            "cgroup/pods/recorder/memory.current": "1\n",
            "cgroup/pods/recorder/cpu.max": "max 100000\n",
            "cgroup/pods/memory.max": f"{1000 * MIB}\n",
            "cgroup/pods/memory.current": f"{900 * MIB}\n",
            "cgroup/pods/memory.stat": f"anon 5\ninactive_file {300 * MIB}\n",
            "cgroup/pods/cpu.max": "50000 100000\n",
        },
    )
    assert machine(root).free_memory_bytes() == 400 * MIB
    assert machine(root).cores() == 0.5


def test_version_1(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "9:name=systemd:/x\n4:memory:/docker/1\n1:cpu,cpuacct:/docker/1\n0::/\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/memory.usage_in_bytes": "4096\n",
            "cgroup/memory/memory.stat": "total_inactive_file 0\n",
            "cgroup/memory/docker/1/memory.limit_in_bytes": f"{500 * MIB}\n",
            "cgroup/memory/docker/1/memory.usage_in_bytes": f"{450 * MIB}\n",
            "cgroup/memory/docker/1/memory.stat": f"inactive_file {MIB}\ntotal_inactive_file {100 * MIB}\n",
            "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "25000\n",
            "cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
        },
    )
    assert machine(root).free_memory_bytes() == 150 * MIB
    assert machine(root).cores() == 0.25


def test_a_container_that_sees_its_own_cgroup_as_the_root(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/\n",
            "cgroup/memory.max": f"{100 * MIB}\n",
            "cgroup/memory.current": f"{200 * MIB}\n",  # more than it may, for a moment
            "cgroup/memory.stat": "",
            "cgroup/cpu.max": "30000 100000\n",
        },
    )
    assert machine(root).free_memory_bytes() == 0
    assert machine(root).cores() == 0.3


def test_where_the_kernel_says_nothing(tmp_path: Path) -> None:
    assert machine(tmp_path).free_memory_bytes() is None
    assert machine(tmp_path).cpu_seconds(1) is None
    assert machine(tmp_path).cores() == CORES


@pytest.mark.parametrize("text", ["", "2 100000\n"])
def test_files_that_are_not_understood_are_passed_over(root: Path, text: str) -> None:
    write(root, {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": text, "cgroup/a/memory.current": text, "proc/7/stat": "7 (a"})
    assert machine(root).free_memory_bytes() == 8192 * MIB
    assert machine(root).cpu_seconds(7) is None


def test_processor_time_of_a_process_with_a_name_that_confuses(root: Path) -> None:
    fields = ["S", *["0"] * 10, "250", "150", *["0"] * 10]
    write(root, {"proc/7/stat": f"7 (a) S 1 (b)) {' '.join(fields)}"})
    assert machine(root).cpu_seconds(7) == 400 / os.sysconf("SC_CLK_TCK")


def test_this_machine() -> None:
    here = Machine()
    free = here.free_memory_bytes()
    assert free is not None
    assert 0 < free < 1 << 50
    assert 0 < here.cores() <= CORES
    before = here.cpu_seconds(os.getpid())
    assert before is not None
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert 0.05 <= (here.cpu_seconds(os.getpid()) or 0) - before < 10
    assert here.cpu_seconds(2**22 + 1) is None
