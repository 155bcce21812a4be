"""Removes every copy of a recording's media that a machine can reach: its spool, captures, and the objects in stores.

All of it is found by the recording's id, with which every name of ours begins, and looked for again afterwards.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recorder.settings import Settings
from storage import ObjectStore, StoreOptions, open_store
from storage.errors import StorageError

LOCAL_FOLDER = 100


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that is not there any more."""

    kind: Literal["spool", "capture", "object", "row"]
    name: str
    size: int | None = None  # bytes; of rows: how many


def erase_files(sid: str, settings: Settings) -> Iterator[Removed]:
    """What this machine's spool and captures hold."""
    for kind, folder in _folders(sid, settings):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield Removed(kind, str(path), path.stat().st_size)
        shutil.rmtree(folder)


def erase_objects(store: ObjectStore, prefix: str, sid: str, known: Iterable[str] = ()) -> Iterator[Removed]:
    """The objects of a bucket below `prefix`; with keys that may not list, those `known` by name, before the refusal is raised.

    Raises:
        StorageError: the store refuses, or fails.
    """
    try:
        found = _objects(store, prefix, sid)
    except StorageError:
        for key in known:
            store.delete(key)
        raise
    for one in found:
        store.delete(one.name)
        yield one


def buckets_here(settings: Settings) -> Iterator[tuple[str, ObjectStore]]:
    """The buckets of vendor 100, by name."""
    root = settings.recordings_dir
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("."):
            yield folder.name, open_store(StoreOptions(vendor=LOCAL_FOLDER, bucket=folder.name, root=root), lambda _host: ())


def left_on_disk(sid: str, settings: Settings) -> list[str]:
    """What is still there."""
    return [str(folder) for _, folder in _folders(sid, settings)]


def left_in_store(store: ObjectStore, prefix: str, sid: str) -> list[str]:
    """As `left_on_disk`.

    Raises:
        StorageError: it cannot be known.
    """
    return [found.name for found in _objects(store, prefix, sid)]


def _objects(store: ObjectStore, prefix: str, sid: str) -> list[Removed]:
    ours = re.compile(rf"(.*/)?(bak\d+_)?{re.escape(sid)}_[^/]*", re.DOTALL)
    return [Removed("object", found.key, found.size) for found in store.list(prefix) if ours.fullmatch(found.key)]


def _folders(sid: str, settings: Settings) -> Iterator[tuple[Literal["spool", "capture"], Path]]:
    for spool in filter(None, (settings.spool_dir, settings.agent.second_spool)):
        yield from (("spool", path) for name in (sid, f".{sid}.gone") if (path := spool / name).exists())
    captures = settings.recording.capture_dir
    if captures and captures.is_dir():
        yield from (("capture", path) for path in sorted(captures.glob(f"{sid}-*")))
