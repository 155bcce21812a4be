"""What a recording leaves behind: playlists, slices and MP4 parts, committed to the spool.

The outputs (`hls`, `mp4`, `track`) take encoded packets from the media thread and give back products: a `File` once,
when its first media arrives, and a `Slice` for every committed file. They know neither the channel nor the customer's
storage. This module and `playlist` and `names` load no media library: the agent and the control plane use them too.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from recorder.outputs.names import Names
from recorder.protocol import File, Slice

Product = File | Slice


class Spool(Protocol):
    """Where files of one recording become durable."""

    def partial(self, name: str) -> Path:
        """Where a file that is still being written lives."""

    def commit(self, name: str, record: Mapping[str, object]) -> Mapping[str, object]:
        """Make the partial file `name` durable and journal `record`; returns it with `size` and `sha256`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that is being written."""

    name: str
    playlist: str | None
    start_ns: int  # on the recording timeline
    start_ms: int  # Unix ms
    discontinuity: bool = False
    tags: tuple[str, ...] = ()


class Shelf:
    """The one place of a worker where its outputs put finished files: names, times and numbers them.

    `epoch_utc_ns` is the UTC time in Unix ns of the zero of the recording's timeline. It is fixed for the whole life of
    the worker: a step of the wall clock must not show in names.
    """

    def __init__(self, spool: Spool, names: Names, *, epoch: int, epoch_utc_ns: int) -> None:
        self.names = names
        self._spool = spool
        self._epoch = epoch
        self._epoch_utc_ns = epoch_utc_ns
        self._sequence = itertools.count()
        self._newest_ms: dict[str, int] = {}  # by playlist

    def utc_ms(self, time_ns: int) -> int:
        return (self._epoch_utc_ns + time_ns) // 1_000_000

    def start_ms(self, playlist: str, start_ns: int) -> int:
        """Unix ms of a slice of `playlist` that starts now. It rises with each call: names are made of it."""
        start_ms = max(self.utc_ms(start_ns), self._newest_ms.get(playlist, -1) + 1)
        self._newest_ms[playlist] = start_ms
        return start_ms

    def partial(self, name: str) -> Path:
        return self._spool.partial(name)

    def commit(self, draft: Draft, duration_ns: int) -> Slice:
        """Commit the written file of `draft`."""
        record = {
            "type": "slice",
            "name": draft.name,
            "playlist": draft.playlist,
            "epoch": self._epoch,
            "sequence": next(self._sequence),
            "start_ms": draft.start_ms,
            "start_ns": draft.start_ns,
            "duration_ns": duration_ns,
            "discontinuity": draft.discontinuity,
            "tags": list(draft.tags),
        }
        return Slice.model_validate(self._spool.commit(draft.name, record))


def composite_track(*, video: bool, audio: bool) -> Literal["audio", "video", "audio_and_video"]:
    if video and audio:
        return "audio_and_video"
    return "video" if video else "audio"
