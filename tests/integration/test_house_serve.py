"""The supervisor of `cloud-recorder serve` with small real processes in place of the service."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.main import WRONG_CONFIG
from cli.serve import CRASH_LOOP, Child, Part, only_one, supervise
from recorder.settings import ConfigError

# Writes its name when SIGTERM comes, then ends.
POLITE = """
import pathlib, signal, sys
def end(*_):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[3]).touch()
while True:
    signal.pause()
"""
DIES_ONCE = f"""
import os, pathlib, sys
first = pathlib.Path(sys.argv[3] + ".first")
if not first.exists():
    first.touch()
    os._exit(9)
{POLITE}"""
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[3]).touch()
while True:
    time.sleep(60)
"""


def child(tmp_path: Path, name: str, script: str = POLITE, *, stop_seconds: float = 20.0) -> Child:
    argv = (sys.executable, "-c", script, str(tmp_path / "ended"), name, str(tmp_path / f"{name}.up"))
    return Child(Part(name, argv, stop_seconds), first_backoff_seconds=0.01)


async def up(tmp_path: Path, *names: str) -> None:
    while not all((tmp_path / f"{name}.up").exists() for name in names):
        await asyncio.sleep(0.02)


async def test_children_end_one_by_one_in_the_given_order(tmp_path: Path) -> None:
    stop = asyncio.Event()
    children = [child(tmp_path, name) for name in ("agent", "api", "hub")]
    async with asyncio.TaskGroup() as group:
        run = group.create_task(supervise(children, stop, asyncio.Event()))
        await up(tmp_path, "agent", "api", "hub")
        stop.set()
    assert run.result() is None
    assert (tmp_path / "ended").read_text().split() == ["agent", "api", "hub"]


async def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        run = group.create_task(supervise([child(tmp_path, "hub", DIES_ONCE)], stop, asyncio.Event()))
        await up(tmp_path, "hub")
        stop.set()
    assert run.result() is None
    assert (tmp_path / "ended").read_text().split() == ["hub"]


async def test_a_crash_loop_ends_the_service_and_the_others_in_order(tmp_path: Path) -> None:
    crashing = child(tmp_path, "api", "import sys; open(sys.argv[1] + '.lives', 'a').write('x'); sys.exit(9)")
    async with asyncio.timeout(30):
        failed = await supervise([child(tmp_path, "agent"), crashing, child(tmp_path, "hub")], asyncio.Event(), asyncio.Event())
    assert failed == f"api died {CRASH_LOOP} times in a row (last exit code 9)"
    assert len((tmp_path / "ended.lives").read_text()) == CRASH_LOOP


async def test_a_refused_configuration_is_not_tried_again(tmp_path: Path) -> None:
    refusing = child(tmp_path, "api", f"import sys; open(sys.argv[1] + '.lives', 'a').write('x'); sys.exit({WRONG_CONFIG})")
    assert await supervise([refusing], asyncio.Event(), asyncio.Event()) == "api refuses to start, see above"
    assert (tmp_path / "ended.lives").read_text() == "x"


async def test_a_child_that_ignores_sigterm_is_killed_after_its_deadline(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        run = group.create_task(supervise([child(tmp_path, "agent", STUBBORN, stop_seconds=0.2)], stop, asyncio.Event()))
        await up(tmp_path, "agent")
        stop.set()
    assert run.result() is None


async def test_a_second_signal_does_not_wait_for_the_deadline(tmp_path: Path) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(supervise([child(tmp_path, "agent", STUBBORN, stop_seconds=3600)], stop, hurry))
        await up(tmp_path, "agent")
        stop.set()
        hurry.set()


async def test_stop_while_a_child_is_being_started_leaves_none_behind(tmp_path: Path) -> None:
    one = child(tmp_path, "hub")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        run = group.create_task(one.run())
        await asyncio.sleep(0)  # run() is inside the spawn now
        await one.stop(asyncio.Event())
    assert run.result() is None


def test_a_data_dir_is_served_once(tmp_path: Path) -> None:
    with only_one(tmp_path / "data"):
        with pytest.raises(ConfigError, match="in use by another"), only_one(tmp_path / "data"):
            pass
    with only_one(tmp_path / "data"):
        pass


def test_the_lock_lasts_as_long_as_a_child_that_inherited_it(tmp_path: Path) -> None:
    with only_one(tmp_path) as lock:
        process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    try:
        with pytest.raises(ConfigError), only_one(tmp_path):
            pass
    finally:
        process.communicate()
    with only_one(tmp_path):
        pass


def test_a_process_bound_to_a_parent_ends_with_it(tmp_path: Path) -> None:
    """The parent is killed so that it cannot tell anybody; its child must go all the same."""
    script = f"""
import os, subprocess, sys, signal, time
child = subprocess.Popen([sys.executable, "-c", '''
import os, sys, signal
from cli.main import _end_with
_end_with(os.getppid())
print("up", flush=True)
signal.pause()
'''], stdout=open({str(tmp_path / "out")!r}, "w"))
print(child.pid, flush=True)
while "up" not in open({str(tmp_path / "out")!r}).read():
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=30, check=False)
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    for _ in range(500):
        if _gone(pid):
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # a zombie until init reaps it
    except FileNotFoundError:
        return True
