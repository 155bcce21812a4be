"""Faults at the calls with which a process makes files durable: death, an error, or a long wait. Put in by test processes alone.

A fault names its process, the call and what the call is about, and happens once: a file beside the spool remembers that it did.
`remove file` is watched besides: a committed file must not go before the bucket has it, to the byte.
"""

import errno
import functools
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

VARIABLE = "RECORDER_TEST_FAULTS"
VIOLATIONS = "removed-too-early"

Call = Literal["fsync", "rename", "write", "remove"]

# What a path in the spool is.
_KINDS = (
    ("journal", re.compile(r"/(journal)$")),
    ("events", re.compile(r"/(uploads)$")),
    ("draft", re.compile(r"/partial/.*\.draft(\.new)?$")),
    ("media", re.compile(r"/partial/[^/]+$")),
    ("file", re.compile(r"/files/[^/.][^/]*$")),
    ("folder of files", re.compile(r"/files$")),
    ("recording", re.compile(r"/spool[^/]*/\.?[0-9a-f]{32}(\.gone)?$")),
)


@dataclass(frozen=True, slots=True)
class Fault:
    process: Literal["agent", "worker"]
    call: Call
    what: str
    action: Literal["kill", "tear", "EIO", "wait"] = "kill"
    nth: int = 1  # such call of the process
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.process}: {self.call} {self.what} #{self.nth} {self.action}"


@dataclass(frozen=True, slots=True)
class Plan:
    faults: tuple[Fault, ...]
    folder: str  # where the marks are left
    bucket: str  # where the objects of the test are

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def happened(folder: Path, fault: Fault) -> bool:
    return _mark(folder, fault).exists()


def install(process: str) -> None:
    """Put the faults of the environment into this process."""
    plan = json.loads(os.environ.get(VARIABLE, "null"))
    if plan is None:
        return
    faults = [Fault(**fault) for fault in plan["faults"]]
    faulty = _Faulty(
        [fault for fault in faults if fault.process == process], Path(plan["folder"]), Path(plan["bucket"]), watching=process == "agent"
    )
    for call in ("fsync", "rename", "replace", "write", "unlink"):
        setattr(os, call, faulty.wrapped(call, getattr(os, call)))


class _Faulty:
    def __init__(self, faults: list[Fault], folder: Path, bucket: Path, *, watching: bool) -> None:
        self._counts = dict.fromkeys(faults, 0)
        self._folder = folder
        self._bucket = bucket
        self._watching = watching  # for committed files; a worker takes back what it could not commit

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*arguments: Any, **options: Any) -> Any:
            path = _path(arguments[1] if name in ("rename", "replace") else arguments[0])
            what = next((kind for kind, pattern in _KINDS if pattern.search(path)), None) if "/spool" in path else None
            if what:
                as_called: Call = {"replace": "rename", "unlink": "remove"}.get(name, name)  # type: ignore[assignment]  # the keys are `Call`
                if self._watching and (as_called, what) == ("remove", "file"):
                    self._watch(Path(path))
                for fault in self._counts:
                    if (fault.call, fault.what) == (as_called, what):
                        self._meet(fault, arguments, real)
            return real(*arguments, **options)

        return call

    def _meet(self, fault: Fault, arguments: tuple[Any, ...], real: Callable[..., Any]) -> None:
        self._counts[fault] += 1
        if self._counts[fault] < fault.nth or not _first(_mark(self._folder, fault)):
            return
        match fault.action:
            case "tear":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "EIO":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            case "wait":
                time.sleep(fault.seconds)

    def _watch(self, path: Path) -> None:
        """Nothing may be removed that is not in the bucket."""
        copies = [copy.read_bytes() for copy in self._bucket.rglob(path.name)]
        if path.exists() and path.read_bytes() not in copies:
            with (self._folder / VIOLATIONS).open("a") as file:
                file.write(f"{path.name}\n")


def _path(target: Any) -> str:
    if isinstance(target, int):
        try:
            return str(Path(f"/proc/self/fd/{target}").readlink())
        except OSError:
            return ""
    return os.fsdecode(target)


def _mark(folder: Path, fault: Fault) -> Path:
    return folder / re.sub(r"\W+", "-", fault.name)


def _first(mark: Path) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
