"""What a killed worker left open: which files those are, and how much of each is whole. Loads no media library.

TS slices are committed as they are up to their last whole frame, WebM slices up to their last whole block, and screenshots that are
whole. MP4 parts are rewritten from their whole fragments, by whoever may load the muxers (`parts`).
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recorder.outputs import DRAFT, FRAGMENTS, TS_ZERO_NS, Draft, slice_record, torn_webm
from storage.errors import LocalFileError, SpoolError
from storage.journal import Record
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

_TS_PACKET = 188
_TS_CLOCK_HZ = 90_000
_TS_WRAP = 1 << 33  # ticks
_LONGEST_UNIT = _TS_CLOCK_HZ // 5  # of sound; the muxer waits no longer for more

_NAME = re.compile(r"(?P<stem>.+)_(?P<utc>\d{17})\.(?P<kind>ts|webm|jpg)", re.DOTALL)
_PART_INDEX = re.compile(r"_(\d+)\.mp4$")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that was begun and not committed."""

    draft: Draft
    epoch: int
    duration_ns: int | None  # None: it was still open

    @property
    def is_part(self) -> bool:
        return self.draft.name.endswith(".mp4")

    @property
    def is_picture(self) -> bool:
        return self.draft.content == "snapshot"


def leftovers(spool: RecordingSpool) -> list[Leftover]:
    """In order of time. What is left of files that are committed is removed."""
    committed = {record.get("name") for record in spool.records()}
    found = []
    for name in spool.left_open():
        path = spool.partial(name)
        if name.endswith(FRAGMENTS) and name.removesuffix(FRAGMENTS) in committed:
            path.unlink(missing_ok=True)  # the crash came just after the commit
        if not name.endswith(DRAFT):
            continue
        if name.removesuffix(DRAFT) in committed:
            _remove(spool, name.removesuffix(DRAFT))
            continue
        try:
            found.append(_leftover(json.loads(path.read_bytes())))
        except (ValueError, KeyError, TypeError):  # a power cut tore it
            log.exception("what an open file was meant to be cannot be read")
    return sorted(found, key=lambda item: (item.epoch, item.draft.start_ns))


def salvage_slices(spool: RecordingSpool) -> None:
    """Commit the slices and screenshots of a worker that is gone, under its epoch; nothing while another process still writes."""
    if not spool.lock():
        log.warning("the spool is still being written, nothing is salvaged")
        return
    try:
        for item in leftovers(spool):
            if not item.is_part:
                try:
                    _salvage_file(spool, item)
                except (OSError, SpoolError, LocalFileError):
                    log.exception("an open file is lost", extra={"file": item.draft.name})
        record_again(spool)
    finally:
        spool.close()


def record_again(spool: RecordingSpool) -> None:
    """Journal the committed files whose record is damaged, by what their names and their media tell.

    The playlist's tags before them are lost; they are shown behind a discontinuity, at their place in time.
    """
    drafts = {name.removesuffix(DRAFT) for name in spool.left_open()}  # those are committed by their drafts
    found = [(path, parsed) for path in spool.unrecorded() if path.name not in drafts and (parsed := _NAME.fullmatch(path.name))]
    for path, parsed in sorted(found, key=lambda one: one[1]["utc"]):
        records = [record for record in spool.records() if record.get("type") == "slice"]
        start_ms = _unix_ms(parsed["utc"])
        epoch, sequence = _place(records, start_ms)
        start_ns = _start_ns(records, epoch, start_ms)
        is_picture = parsed["kind"] == "jpg"
        draft = Draft(
            path.name,
            None if is_picture else f"{parsed['stem']}.m3u8",
            start_ns,
            start_ms,
            discontinuity=not is_picture,
            content="snapshot" if is_picture else "media",
        )
        try:
            with spool.plain(path.name) as plain:
                duration_ns = {"ts": _ts_duration_ns, "webm": torn_webm.mend}[parsed["kind"]](plain) if not is_picture else 0
            spool.adopt(path.name, slice_record(draft, epoch=epoch, sequence=sequence, duration_ns=duration_ns))
        except LocalFileError:
            log.exception("a file whose record is damaged is damaged itself, and left out", extra={"file": path.name})
            continue
        log.error("the record of a committed file was damaged and is made again", extra={"file": path.name})


def next_sequence(records: Iterable[Record], epoch: int) -> int:
    return 1 + max((record["sequence"] for record in records if record.get("type") == "slice" and record["epoch"] == epoch), default=-1)


def next_part(spool: RecordingSpool) -> int:
    """The first index that no MP4 part of this recording has, committed, announced or left open."""
    records = spool.records()
    names = [str(record.get("name", "")) for record in records]
    names += [str(record["file"]["name"]) for record in records if record.get("type") == "file"]
    names += [name.removesuffix(DRAFT) for name in spool.left_open()]
    return 1 + max((int(found[1]) for found in map(_PART_INDEX.search, names) if found), default=-1)


def parts(spool: RecordingSpool) -> list[Leftover]:
    """The MP4 parts that were left open."""
    return [item for item in leftovers(spool) if item.is_part]


def open_bytes(spool: RecordingSpool, part: Leftover) -> int:
    path = spool.partial(f"{part.draft.name}{FRAGMENTS}")
    return path.stat().st_size if path.exists() else 0


def whole_fragments(path: Path) -> int:
    """How many bytes of a fragmented MP4 are whole: the header, and fragments with all of their media."""
    whole = at = 0
    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(16):
            length = int.from_bytes(header[:4], "big")
            if length == 1:  # ISO/IEC 14496-12 section 4.2: the length follows the type
                length = int.from_bytes(header[8:16], "big")
            if length < 8 or at + length > size:
                break
            at += length
            if header[4:8] == b"mdat":
                whole = at
            file.seek(at)
    return whole


def whole_units(data: bytes, start_ns: int) -> tuple[int, int]:
    """How much of a TS file is whole: its bytes up to the last frame, which may be torn, and how long their media lasts after
    `start_ns` of the recording's timeline. (0, 0): no frame is whole."""
    start = (start_ns + TS_ZERO_NS) * _TS_CLOCK_HZ // 1_000_000_000
    times: dict[int, list[int]] = {}  # in ticks since the start, by PID
    last = 0
    pending: tuple[int, int] | None = None
    for at, pid, pts in _units(data):
        if pending:
            times.setdefault(pending[0], []).append(pending[1])
        pending, last = (pid, (pts - start + _TS_WRAP // 2) % _TS_WRAP - _TS_WRAP // 2), at
    ends = []
    for pid, stream in times.items():
        before, newest = (sorted(stream)[-2:] * 2)[:2]
        end = newest + newest - before
        if pending and pending[0] == pid and pending[1] > newest:  # units of sound hold several frames, and not always as many
            end = min(pending[1], max(end, newest + _LONGEST_UNIT))
        ends.append(end)
    end = max(ends, default=0)
    return (last, max(0, end) * 1_000_000_000 // _TS_CLOCK_HZ) if times else (0, 0)


def _leftover(fields: dict[str, object]) -> Leftover:
    epoch, duration_ns = fields.pop("epoch"), fields.pop("duration_ns", None)
    assert isinstance(epoch, int)
    assert duration_ns is None or isinstance(duration_ns, int)
    tags, holes = fields.pop("tags"), fields.pop("holes", ())
    assert isinstance(tags, Sequence)
    assert isinstance(holes, Sequence)
    draft = Draft(**fields, tags=tuple(tags), holes=tuple((start, end) for start, end in holes))  # type: ignore[arg-type]  # as `Shelf` wrote them
    return Leftover(draft, epoch, duration_ns)


def _salvage_file(spool: RecordingSpool, item: Leftover) -> None:
    draft, path = item.draft, spool.partial(item.draft.name)
    if not path.exists():
        spool.reopen(draft.name)  # the crash came after the rename
    if not path.exists():
        if item.duration_ns is not None:
            log.error("a closed file is lost, the disk failed", extra={"file": draft.name})
        _remove(spool, draft.name)
        return
    duration_ns = item.duration_ns
    if duration_ns is None:
        duration_ns = torn_webm.mend(path) if draft.name.endswith(".webm") else _cut(path, draft.start_ns)
    if duration_ns or (duration_ns == 0 and item.is_picture):
        sequence = next_sequence(spool.records(), item.epoch)
        spool.commit(draft.name, slice_record(draft, epoch=item.epoch, sequence=sequence, duration_ns=duration_ns))
        log.info("open file salvaged", extra={"file": draft.name, "seconds": round(duration_ns / 1e9, 3)})
    _remove(spool, draft.name)


def _cut(path: Path, start_ns: int) -> int:
    """Leave of a TS file what is whole; returns how many ns that lasts."""
    length, duration_ns = whole_units(path.read_bytes(), start_ns)
    os.truncate(path, length)
    return duration_ns


def _ts_duration_ns(path: Path) -> int:
    """Of a whole file."""
    data = path.read_bytes()
    first = next((pts for _, _, pts in _units(data)), 0)
    return whole_units(data, first * 1_000_000_000 // _TS_CLOCK_HZ - TS_ZERO_NS)[1]


def _unix_ms(utc: str) -> int:
    moment = datetime.strptime(utc[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(utc[14:])


def _place(records: Sequence[Record], start_ms: int) -> tuple[int, int]:
    """Epoch and sequence of the record that is missing at this time: a number left out by the worker of then, or its next one."""
    before = max((record["epoch"] for record in records if record["start_ms"] <= start_ms), default=1)
    after = min((record["epoch"] for record in records if record["start_ms"] > start_ms), default=before)
    free = {}
    for epoch in (before, after):
        taken = {record["sequence"] for record in records if record["epoch"] == epoch}
        free[epoch] = next(number for number in range(len(taken) + 1) if number not in taken)
        if free[epoch] < len(taken):
            return epoch, free[epoch]
    return before, free[before]


def _start_ns(records: Sequence[Record], epoch: int, start_ms: int) -> int:
    """The start on the timeline, by that of any other file of the same worker."""
    known = next((record for record in records if record["epoch"] == epoch), None)
    return known["start_ns"] + (start_ms - known["start_ms"]) * 1_000_000 if known else 0


def _remove(spool: RecordingSpool, name: str) -> None:
    for leftover in (name, f"{name}{FRAGMENTS}", f"{name}{DRAFT}"):
        spool.partial(leftover).unlink(missing_ok=True)


def _units(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, PID, PTS) of each start of a frame, in whole packets (ISO/IEC 13818-1 sections 2.4.3.2 and 2.4.3.6)."""
    for at in range(0, len(data) - _TS_PACKET + 1, _TS_PACKET):
        if data[at] != 0x47:
            return
        if not data[at + 1] & 0x40:
            continue
        payload = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        head = data[payload : payload + 14]
        if head.startswith(b"\0\0\1") and len(head) == 14 and head[7] & 0x80:
            pts = (head[9] >> 1 & 7) << 30 | head[10] << 22 | head[11] >> 1 << 15 | head[12] << 7 | head[13] >> 1
            yield at, (data[at + 1] & 0x1F) << 8 | data[at + 2], pts
