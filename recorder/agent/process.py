"""Worker processes: started from a forkserver that has loaded the media libraries, ended by a ladder with deadlines."""

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from recorder.worker.launch import Launch

log = logging.getLogger(__name__)

WORKER: Final = "recorder.worker.main:run"
MEDIA_LIBRARIES: Final = ("numpy", "av", "aiortc", "recorder.worker.pipeline", "recorder.channels.hub")
_POLL_SECONDS: Final = 0.05
# A worker uses one thread for pictures; pools of BLAS threads would not survive the fork and only cost memory.
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds a worker gets on each rung before the next."""

    ask: float
    terminate: float
    kill: float


class WorkerProcess:
    """A process that may be somebody else's child: after a restart the agent finds workers of its former life."""

    def __init__(self, pid: int, identity: str, child: BaseProcess | None = None) -> None:
        self.pid = pid
        self.identity = identity  # differs between two processes that had the same pid
        self._child = child

    @classmethod
    def find(cls, pid: int, identity: str | None = None) -> "WorkerProcess | None":
        """The living process with this pid; None when there is none, or it is not the one that had `identity`."""
        found = _identity(pid)
        if found is None or identity not in (None, found):
            return None
        return cls(pid, found)

    def alive(self) -> bool:
        return _identity(self.pid) == self.identity

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> None:
        """Until the process is gone. Not by its parent's means: the parent is the forkserver, or was in a former life."""
        while self.alive():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(_POLL_SECONDS)

    def describe_end(self) -> str:
        """How a process that is gone ended, as far as that is known."""
        if self._child is None:
            return "ended"
        self._child.join(timeout=1)
        code = self._child.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class Launcher:
    """Starts workers. One per agent: the forkserver belongs to the process."""

    def __init__(self, target: str = WORKER, preload: Sequence[str] = MEDIA_LIBRARIES) -> None:
        """`target` is `module:function`, called in the worker with a `Launch`; `preload` modules are loaded before the fork."""
        self._target = target
        self._preload = [target.partition(":")[0], *preload]
        self._context = multiprocessing.get_context("forkserver")

    def warm(self) -> None:
        """Start the forkserver, which then loads the worker's libraries in the background."""
        os.environ.update(_ENVIRONMENT)
        forkserver.set_forkserver_preload(self._preload)
        forkserver.ensure_running()

    async def start(self, launch: Launch) -> WorkerProcess:
        """Start a worker.

        Raises:
            OSError, EOFError: it could not be started.
        """
        return await asyncio.to_thread(self._start, launch)

    def _start(self, launch: Launch) -> WorkerProcess:
        child = self._context.Process(target=_enter, args=(self._target, launch), name=f"worker-{launch.epoch}")
        child.start()
        assert child.pid
        return WorkerProcess(child.pid, _identity(child.pid) or "gone", child)


async def end(process: WorkerProcess, ask: Callable[[], Awaitable[None]] | None, grace: Grace) -> str:
    """Make a worker go: ask, terminate, kill, each with its deadline. Returns the rung that did it."""

    async def asked() -> None:
        if ask:
            await ask()

    async def send(number: signal.Signals) -> None:
        process.send(number)

    rungs: tuple[tuple[str, Callable[[], Awaitable[None]], float], ...] = (
        ("ask", asked, grace.ask),
        ("terminate", lambda: send(signal.SIGTERM), grace.terminate),
        ("kill", lambda: send(signal.SIGKILL), grace.kill),
    )
    for name, act, seconds in rungs:
        log.log(logging.INFO if name == "ask" else logging.WARNING, "ending a worker", extra={"rung": name, "pid": process.pid})
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                await act()
                await process.wait()
                return name
    log.error("a worker survives SIGKILL", extra={"pid": process.pid})
    return "none"


def _enter(target: str, launch: Launch) -> None:
    """In the worker, right after the fork."""
    os.setsid()  # Ctrl-C at the agent's terminal is the agent's to handle
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(launch)


def _identity(pid: int) -> str | None:
    """Pid and start time of a living process; None for a dead one, also when nobody has reaped it."""
    try:
        # The name in parentheses may contain blanks and parentheses: proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _identity_by_signal(pid)
    return None if fields[0] in "ZX" else f"{pid}@{fields[19]}"


def _identity_by_signal(pid: int) -> str | None:
    """For systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # somebody else's process that got the pid
        return None
    return str(pid)
