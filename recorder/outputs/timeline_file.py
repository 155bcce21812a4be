"""The timeline file: what happened in a recording, on one time axis. Loads no media library: the agent writes it at the end.

It is made of what workers noted in the spool (`recorder.worker.chronicle`) and of the journal of committed files, so a killed
worker costs nothing of it. `docs/timeline-file.md` describes it for its readers.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict

from recorder.frames import Codec, Kind
from recorder.outputs import GAP_NS, Draft, slice_record
from recorder.outputs.names import Names
from recorder.outputs.salvage import next_sequence
from recorder.spec import Mode, RecordingSpec
from storage.journal import Record
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

EVENTS = 20_000  # of one file
GAPS = 10_000
TRACKS = 2000
_BEFORE_NS, _AFTER_NS = 500_000_000, 1_500_000_000  # the end of the last frame, when the news of a mute may come

Cause = Literal["stopped", "nothing_came", "worker_lost", "file_lost"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Worker(_Part):
    """One process that recorded. The media it wrote count from its own zero."""

    epoch: int  # rises from one to the next
    zero_ms: float


class Happening(_Part):
    """`started` and `stopped`: media of this kind is sent and wanted, or not any more (muted, gone, unsubscribed)."""

    at_ms: float
    type: Literal["joined", "left", "started", "stopped", "format"]
    uid: int
    kind: Kind | None = None
    codec: Codec | None = None  # this and what follows: `format` alone, which stands for all frames from then on
    width: int | None = None
    height: int | None = None
    rotation: int | None = None  # degrees clockwise to turn the picture for display


class TrackFigures(_Part):
    """How one participant's audio or video reached one worker."""

    uid: int
    kind: Kind
    epoch: int
    packets_received: int
    packets_lost: int
    drift_ppm: float | None = None  # positive: the sender's clock is faster than ours
    av_offset_ms: float | None = None  # positive: the picture is later than the sound


class Gap(_Part):
    from_ms: float
    to_ms: float
    cause: Cause


class Media(_Part):
    """What a playlist covers, from its first to its last frame or sample but for its gaps."""

    file: str
    uid: int  # 0: composite
    track: Literal["audio", "video", "audio_and_video"]
    from_ms: float
    to_ms: float
    gaps: tuple[Gap, ...]


class LeftOut(_Part):
    """What did not fit in."""

    events: int = 0
    tracks: int = 0
    gaps: int = 0


class Timeline(_Part):
    """Times are milliseconds since `zero_utc_ms`, which is Unix time."""

    version: Literal[1] = 1
    sid: str
    cname: str
    mode: Mode
    zero_utc_ms: float
    workers: tuple[Worker, ...]
    events: tuple[Happening, ...]
    tracks: tuple[TrackFigures, ...]
    media: tuple[Media, ...]
    left_out: LeftOut


def write(spool: RecordingSpool, spec: RecordingSpec, *, epoch: int, lost: Collection[str] = ()) -> None:
    """Commit the file of a recording that is over, under its last `epoch`; nothing when it is there or no worker kept notes.

    `lost` are committed files that will never be stored.

    Raises:
        SpoolError: the disk failed.
    """
    name = Names(spec.sid, spec.channel).timeline()
    notes, records = spool.notes.read().records, spool.records()
    there = any(record.get("name") == name and "sha256" in record for record in records)
    if there or not any(note["type"] == "worker" for note in notes):
        return
    if not spool.lock():
        log.warning("the spool is still being written, there is no timeline file")
        return
    try:
        timeline = compile_timeline(notes, records, spec, lost)
        spool.partial(name).write_text(json.dumps(timeline.model_dump(mode="json", exclude_none=True)), encoding="ascii")
        draft = Draft(name, None, 0, int(timeline.zero_utc_ms), content="timeline")
        spool.commit(name, slice_record(draft, epoch=epoch, sequence=next_sequence(records, epoch), duration_ns=0))
    finally:
        spool.close()


def compile_timeline(notes: Sequence[Record], records: Sequence[Record], spec: RecordingSpec, lost: Collection[str] = ()) -> Timeline:
    """Put together what workers noted and what was committed."""
    axis = _Axis(notes)
    left_out = {"events": 0, "tracks": 0, "gaps": 0}
    events: list[Happening] = []
    figures: dict[tuple[int, int, str], TrackFigures] = {}
    noted_left_out: dict[int, int] = {}
    epoch = 0
    for note in notes:
        match note["type"]:
            case "worker":
                epoch = note["epoch"]
            case "figures":
                noted_left_out[epoch] = note["left_out"]
                for track in note["tracks"]:
                    figures[epoch, track["uid"], track["kind"]] = _figures(epoch, track)
            case _:
                events.append(Happening.model_validate({**note, "at_ms": _ms(axis.place(epoch, note["at_ns"]))}))
    left_out["events"] = sum(noted_left_out.values()) + max(0, len(events) - EVENTS)
    left_out["tracks"] = max(0, len(figures) - TRACKS)
    media = []
    room = GAPS
    for one in _media(records, axis, _Stops(events), lost):
        kept = one.gaps[:room]
        left_out["gaps"] += len(one.gaps) - len(kept)
        room -= len(kept)
        media.append(one.model_copy(update={"gaps": kept}))
    return Timeline(
        sid=spec.sid,
        cname=spec.channel,
        mode=spec.mode,
        zero_utc_ms=_ms(axis.zero_utc_ns),
        workers=tuple(Worker(epoch=epoch, zero_ms=_ms(axis.place(epoch, 0))) for epoch in axis.epochs),
        events=tuple(events[:EVENTS]),
        tracks=tuple(list(figures.values())[:TRACKS]),
        media=tuple(media),
        left_out=LeftOut(**left_out),
    )


class _Axis:
    """The one time axis of workers that each count from a zero of their own: that of the first."""

    def __init__(self, notes: Iterable[Record]) -> None:
        self._zeros: dict[int, int] = {note["epoch"]: note["zero_utc_ns"] for note in notes if note["type"] == "worker"}
        self.zero_utc_ns = next(iter(self._zeros.values()))

    @property
    def epochs(self) -> list[int]:
        return list(self._zeros)

    def place(self, epoch: int, time_ns: int) -> int:
        return self._zeros[epoch] + time_ns - self.zero_utc_ns

    def start(self, record: Record) -> int:
        """Of a committed file; of a worker that could write no notes, by the file's name."""
        if record["epoch"] in self._zeros:
            return self.place(record["epoch"], record["start_ns"])
        return int(record["start_ms"]) * 1_000_000 - self.zero_utc_ns


class _Stops:
    """When what stopped being sent."""

    def __init__(self, events: Iterable[Happening]) -> None:
        self._times: defaultdict[tuple[int, str | None], list[float]] = defaultdict(list)
        for event in events:
            if event.type == "stopped":
                self._times[event.uid, event.kind].append(event.at_ms)

    def within(self, uid: int, kind: str, from_ns: int, to_ns: int) -> bool:
        """Whether that is why nothing came meanwhile."""
        first, last = _ms(from_ns - _BEFORE_NS), _ms(min(to_ns, from_ns + _AFTER_NS))
        return any(first <= at_ms <= last for at_ms in self._times[uid, kind])


def _media(records: Sequence[Record], axis: _Axis, stops: _Stops, lost: Collection[str]) -> Iterable[Media]:
    files = {record["file"]["name"]: record["file"] for record in records if record.get("type") == "file"}
    slices: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.get("type") == "slice" and record["playlist"] in files:
            slices[record["playlist"]].append(record)
    for name, members in slices.items():
        members.sort(key=axis.start)
        there = [member for member in members if member["name"] not in lost]
        if there:
            file = files[name]
            gaps = [*_holes(there, axis), *_between(there, [axis.start(m) for m in members if m["name"] in lost], axis)]
            yield Media(
                file=name,
                uid=file["uid"],
                track=file["track"],
                from_ms=_ms(axis.start(there[0])),
                to_ms=_ms(max(axis.start(member) + member["duration_ns"] for member in there)),
                gaps=tuple(_explained(start, end, cause, file, stops) for start, end, cause in _apart(sorted(gaps))),
            )


_Raw = tuple[int, int, Cause]  # from, to, and the cause as far as it is known from the files alone


def _holes(there: Iterable[Record], axis: _Axis) -> Iterable[_Raw]:
    """Inside of files: the last frame stands still."""
    for member in there:
        for start, end in member.get("holes", ()):
            shift = axis.start(member) - member["start_ns"]
            yield start + shift, end + shift, "nothing_came"


def _between(there: Sequence[Record], lost_ns: Sequence[int], axis: _Axis) -> Iterable[_Raw]:
    """Between files."""
    end = 0
    for before, after in pairwise(there):
        end = max(end, axis.start(before) + before["duration_ns"])
        start = axis.start(after)
        if start - end <= GAP_NS:
            continue
        if any(end <= time_ns < start for time_ns in lost_ns):
            yield end, start, "file_lost"
        else:
            yield end, start, "worker_lost" if before["epoch"] != after["epoch"] else "nothing_came"


def _apart(gaps: Iterable[_Raw]) -> list[_Raw]:
    """One of two that say the same: where a hole ends with its file."""
    found: list[_Raw] = []
    for gap in gaps:
        if not found or gap[0] >= found[-1][1]:
            found.append(gap)
    return found


def _explained(start: int, end: int, cause: Cause, file: Record, stops: _Stops) -> Gap:
    if cause == "nothing_came" and stops.within(file["uid"], file["track"], start, end):
        cause = "stopped"
    return Gap(from_ms=_ms(start), to_ms=_ms(end), cause=cause)


def _figures(epoch: int, track: Record) -> TrackFigures:
    drift, offset = track["drift_ppm"], track["av_offset_ns"]
    return TrackFigures(
        uid=track["uid"],
        kind=track["kind"],
        epoch=epoch,
        packets_received=track["received"],
        packets_lost=track["lost"],
        drift_ppm=None if drift is None else round(drift, 1),
        av_offset_ms=None if offset is None else _ms(offset),
    )


def _ms(time_ns: int) -> float:
    return round(time_ns / 1_000_000, 3)
