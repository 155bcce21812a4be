"""What a recording leaves behind: playlists, slices and MP4 parts, committed to the spool.

The outputs (`hls`, `mp4`, `track`) take encoded packets from the media thread and give back products: a `File` once, when its
first media arrives, and for every finished file a `Closed`, which is to be committed, or the `Slice` that came of it. They know
neither the channel nor the customer's storage. This module, `playlist`, `names` and `salvage` load no media library: the agent
and the control plane use them too.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from recorder.outputs.names import Names
from recorder.protocol import Content, File, Slice

# Zero of the recording's timeline in every TS file. Media may begin slightly before zero, and the clock reference runs
# ahead of the media, but neither may be negative.
TS_ZERO_NS = 10_000_000_000

GAP_NS = 500_000_000  # so long nothing came: the timeline file says so

# What is added to the name of an open file.
DRAFT = ".draft"
FRAGMENTS = ".fragments"


class Spool(Protocol):
    """Where files of one recording become durable."""

    def partial(self, name: str) -> Path:
        """Where a file that is still being written lives."""

    def commit(self, name: str, record: Mapping[str, object]) -> Mapping[str, object]:
        """Make the partial file `name` durable and journal `record`; returns it with `size` and `sha256`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that is being written. It stands beside the file as JSON, for whoever finds both after a crash."""

    name: str
    playlist: str | None
    start_ns: int  # on the recording timeline
    start_ms: int  # Unix ms
    discontinuity: bool = False
    tags: tuple[str, ...] = ()
    content: Content = "media"
    holes: tuple[tuple[int, int], ...] = ()  # from and to on the recording timeline: nothing came, the picture stands still


@dataclass(frozen=True, slots=True)
class Closed:
    """A finished file that is not yet durable."""

    commit: Callable[[], Slice]  # takes as long as the disk does; once


Product = File | Slice | Closed


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

    def open(self, draft: Draft) -> Path:
        """Where the file of `draft` is written."""
        self._note(draft, None)
        return self._spool.partial(draft.name)

    def revise(self, draft: Draft) -> None:
        """More is known of an open file; its name stays."""
        self._note(draft, None)

    def discard(self, draft: Draft) -> None:
        """There is nothing in it."""
        for path in (self._spool.partial(draft.name), self._draft(draft.name)):
            path.unlink(missing_ok=True)

    def close(self, draft: Draft, duration_ns: int) -> Closed:
        """Number the written file of `draft`, which is committed after those before it."""
        self._note(draft, duration_ns)
        record = slice_record(draft, epoch=self._epoch, sequence=next(self._sequence), duration_ns=duration_ns)
        return Closed(partial(self._commit, record))

    def _commit(self, record: Mapping[str, object]) -> Slice:
        name = str(record["name"])
        committed = Slice.model_validate(self._spool.commit(name, record))
        self._draft(name).unlink(missing_ok=True)
        return committed

    def _note(self, draft: Draft, duration_ns: int | None) -> None:
        """For `salvage`. Not forced to disk: after a power cut little of an open file is left either."""
        path = self._draft(draft.name)
        new = path.with_name(f"{path.name}.new")  # a full disk must not cost what is there
        new.write_text(json.dumps({**asdict(draft), "epoch": self._epoch, "duration_ns": duration_ns}))
        new.replace(path)

    def _draft(self, name: str) -> Path:
        return self._spool.partial(f"{name}{DRAFT}")


def slice_record(draft: Draft, *, epoch: int, sequence: int, duration_ns: int) -> Mapping[str, object]:
    """What the journal says of a committed file, but for what the spool knows."""
    return {
        "type": "slice",
        "name": draft.name,
        "playlist": draft.playlist,
        "epoch": epoch,
        "sequence": sequence,
        "start_ms": draft.start_ms,
        "start_ns": draft.start_ns,
        "duration_ns": duration_ns,
        "discontinuity": draft.discontinuity,
        "tags": list(draft.tags),
        "content": draft.content,
        "holes": draft.holes,
    }


def composite_track(*, video: bool, audio: bool) -> Literal["audio", "video", "audio_and_video"]:
    if video and audio:
        return "audio_and_video"
    return "video" if video else "audio"
