"""Secrets that can be found again: those that tests use carry a mark, and a run of tests ends with a search for it.

Looked at are all files that the run leaves (logs, databases, spools, recordings), what is logged in the tests' own processes, and
the arguments and environments of all processes while the run lasts.
"""

import base64
import json
import logging
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

MARK: Final = "canary5f2b91"
FINDINGS: Final = "canary-findings.txt"
LOOK_SECONDS: Final = 1.0

_GIVEN: Final = frozenset({"s3.json", "credentials.json", "operator.json"})  # where secrets belong
_DEPLOYMENT: Final = {"credentials.json": "customer_secret", "operator.json": "operator_secret"}


def secret(name: str) -> str:
    """A secret that is found wherever it is written in clear, or in base64."""
    return f"{MARK}-{name}"


def forms(text: str) -> list[bytes]:
    """How it looks in clear, in UTF-16, in hexadecimal, and somewhere inside of base64."""
    plain = text.encode()
    encoded = [base64.b64encode(b"x" * shift + plain)[(0, 4, 4)[shift] :].rstrip(b"=")[:-1] for shift in range(3)]
    return [plain, text.encode("utf-16-le"), plain.hex().encode(), *encoded]


def search(folder: Path, mark: str = MARK) -> Iterator[str]:
    """Where below `folder` the mark is, or a generated secret of a deployment outside of the file it was given in."""
    needles = forms(mark)
    for path in _files(folder):
        if path.name not in _GIVEN and _holds(path, needles):
            yield f"{mark} in {path}"
        if path.name in _DEPLOYMENT:
            yield from _search_deployment(path)


def _search_deployment(given: Path) -> Iterator[str]:
    try:
        generated = json.loads(given.read_text())[_DEPLOYMENT[given.name]]
    except (OSError, ValueError, KeyError):
        return
    for path in _files(given.parent):
        if path.name not in _GIVEN and _holds(path, forms(generated)):
            yield f"the secret of {given} in {path}"


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):  # passes over what somebody removes meanwhile
        for path in map(Path(parent).joinpath, names):
            if path.is_file() and not path.is_symlink():
                yield path


def _holds(path: Path, needles: Iterable[bytes]) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(needle) >= 0 for needle in needles)
    except (OSError, ValueError):  # gone meanwhile; empty
        return False


class Watch(logging.Handler):
    """Looks, while the tests run, at what leaves no file."""

    def __init__(self, mark: str = MARK) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._needles = forms(mark)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)

    def begin(self) -> None:
        logging.getLogger().addHandler(self)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(str(value) for value in vars(record).values())
        if self._in((record.getMessage() + text).encode(errors="replace")):
            self.found.add(f"a line logged at {record.pathname}:{record.lineno}")

    def look_at_processes(self) -> None:
        for name in ("cmdline", "environ"):
            for path in Path("/proc").glob(f"[0-9]*/{name}"):
                try:
                    content = path.read_bytes()
                except OSError:  # gone, or somebody else's
                    continue
                if self._in(content):
                    command = (path.parent / "comm").read_text().strip() if path.parent.exists() else "?"
                    self.found.add(f"the {name} of a process {command}")

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.look_at_processes()

    def _in(self, content: bytes) -> bool:
        return any(needle in content for needle in self._needles)
