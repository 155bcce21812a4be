"""Makes a WebM file whole that a killed worker left open: cut after its last whole block, with its length and duration filled in.

libav writes a cluster at once when it is full (RFC 9559 describes the elements), the length of the segment and the duration at the
end: a file without them plays, but no player knows how long it is. Loads no media library.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SEGMENT, _INFO, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1549A966, 0x1F43B675, 0xA0
_SCALE, _DURATION, _VOID, _TIMESTAMP, _SIMPLE_BLOCK, _BLOCK, _CRC = 0x2AD7B1, 0x4489, 0xEC, 0xE7, 0xA3, 0xA1, 0xBF
_DURATION_BYTES = 11  # of the element, and of the void that libav leaves for it
_BLOCK_HEAD_BYTES = 4  # number of the track, which we have one of, time and flags
_MILLISECOND_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Element:
    kind: int
    start: int  # of its id
    size_at: int
    body: int
    size: int | None  # None: unknown, as of what is being written

    @property
    def end(self) -> int | None:
        return None if self.size is None else self.body + self.size


@dataclass(slots=True)
class _Found:
    """What is whole so far."""

    length: int = 0
    segment: _Element | None = None
    info: _Element | None = None
    scale_ns: int = _MILLISECOND_NS
    torn: _Element | None = None  # the last cluster, of which only the first blocks are there
    before: int = 0  # times of the last two blocks, in units of the scale
    newest: int = -1


def mend(path: Path) -> int:
    """Cut the file and fill in what is missing; returns how many ns its media lasts. 0: not even two blocks are whole.

    A file that is whole stays as it is.
    """
    if path.stat().st_size == 0:
        return 0
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _look(data)
            if found.newest < 0 or found.segment is None:
                return 0
            duration = 2 * found.newest - found.before if found.newest > found.before else found.newest
            patches = [*_lengths(found), *_duration(data, found, duration)]
        file.truncate(found.length)
        for at, new in patches:
            file.seek(at)
            file.write(new)
    return duration * found.scale_ns


def _look(data: mmap.mmap) -> _Found:
    found = _Found()
    for top in _elements(data, 0, len(data)):
        if top.kind != _SEGMENT:
            continue
        found.segment = top
        for part in _elements(data, top.body, len(data) if top.end is None else top.end):
            if part.kind == _CLUSTER:
                _look_into(data, part, found)
            elif part.end is None or part.end > len(data):
                break
            elif part.kind == _INFO:
                found.info = part
                for fact in _elements(data, part.body, part.end):
                    if fact.kind == _SCALE and fact.end is not None:
                        found.scale_ns = int.from_bytes(data[fact.body : fact.end], "big")
            elif found.newest >= 0 and found.torn is None:  # behind the clusters: what a finished file ends with
                found.length = part.end
        break
    return found


def _look_into(data: mmap.mmap, cluster: _Element, found: _Found) -> None:
    whole = cluster.end is not None and cluster.end <= len(data)
    end = cluster.end if whole and cluster.end is not None else len(data)
    base = 0
    last = None
    for part in _elements(data, cluster.body, end):
        if part.end is None or part.end > end:
            break
        if part.kind == _CRC and not whole:  # it would be wrong for what is kept
            return
        if part.kind == _TIMESTAMP:
            base = int.from_bytes(data[part.body : part.end], "big")
        block = _block(data, part)
        if block is not None:
            found.before, found.newest = max(found.newest, 0), max(base + block, found.newest)
            last = part.end
    if whole and last is not None:
        found.length = end
    elif last is not None:
        found.length, found.torn = last, cluster


def _block(data: mmap.mmap, part: _Element) -> int | None:
    """The time of a block, relative to its cluster; None: it is none."""
    if part.kind == _BLOCK_GROUP and part.end is not None:
        inside = [one for one in _elements(data, part.body, part.end) if one.kind == _BLOCK]
        return _block(data, inside[0]) if inside else None
    if part.kind not in (_SIMPLE_BLOCK, _BLOCK) or part.end is None or part.end - part.body < _BLOCK_HEAD_BYTES:
        return None
    time: int = struct.unpack_from(">h", data, part.body + _width(data[part.body : part.body + 1], 0, 1))[0]
    return time


def _lengths(found: _Found) -> Iterator[tuple[int, bytes]]:
    """Patches of the sizes that are not true any more, in as many bytes as they have."""
    for element in (found.segment, found.torn):
        if element is None or (element is found.segment and element.end == found.length):
            continue
        width = element.body - element.size_at
        yield element.size_at, (found.length - element.body | 1 << 7 * width).to_bytes(width, "big")


def _duration(data: mmap.mmap, found: _Found, duration: int) -> Iterator[tuple[int, bytes]]:
    if found.info is None or found.info.end is None:
        return
    wanted = (_VOID, _DURATION) if found.length < len(data) else (_VOID,)
    for fact in _elements(data, found.info.body, found.info.end):
        if fact.kind in wanted and fact.end is not None and fact.end - fact.start == _DURATION_BYTES:
            yield fact.start, _DURATION.to_bytes(2, "big") + b"\x88" + struct.pack(">d", duration)
            return


def _elements(data: mmap.mmap, at: int, end: int) -> Iterator[_Element]:
    """Those that begin between `at` and `end` with a whole head; the last one may reach beyond. Noise ends them."""
    end = min(end, len(data))
    while at < end:
        head = data[at : at + 12]
        kind_width, size_width = _width(head, 0, 4), 0
        if kind_width:
            size_width = _width(head, kind_width, 8)
        if not kind_width or not size_width or len(head) < kind_width + size_width or at + kind_width + size_width > end:
            return
        size, _ = _number(data, at + kind_width)
        unknown = size == (1 << 7 * size_width) - 1
        kind = int.from_bytes(head[:kind_width], "big")
        element = _Element(kind, at, at + kind_width, at + kind_width + size_width, None if unknown else size)
        yield element
        if element.end is None:
            return
        at = element.end


def _width(head: bytes, at: int, most: int) -> int:
    """How many bytes the number there takes; 0: it is none."""
    width = 9 - head[at].bit_length() if at < len(head) else most + 1
    return width if width <= most else 0


def _number(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of EBML without its marker (RFC 8794 section 4), and its width."""
    width = 9 - data[at].bit_length()
    return int.from_bytes(data[at : at + width], "big") & (1 << 7 * width) - 1, width
