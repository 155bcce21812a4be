"""What a recording left in the bucket: playlists with their slices, and MP4s, as far as their structure says."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import av

_STAMP = re.compile(r"_(\d{17})\.\w+$")


@dataclass(frozen=True, slots=True)
class Playlist:
    path: Path
    slices: tuple[Path, ...]
    seconds: float  # sum of EXTINF
    ended: bool

    @property
    def packed(self) -> bool:
        """Slices of MPEG-TS may be joined as they are; WebM slices may not."""
        return all(path.suffix == ".ts" for path in self.slices)


def read_playlist(path: Path) -> Playlist:
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    lengths = [float(line.removeprefix("#EXTINF:").rstrip(",")) for line in lines if line.startswith("#EXTINF:")]
    names = tuple(path.parent / unquote(line) for line in lines if not line.startswith("#"))
    return Playlist(path, names, sum(lengths), bool(lines) and lines[-1] == "#EXT-X-ENDLIST")


def started_at(path: Path) -> float:
    """Unix time in seconds of a slice's first media, from its name.

    Raises:
        ValueError: the name carries no time.
    """
    match = _STAMP.search(path.name)
    if not match:
        raise ValueError(f"no time in the name {path.name}")
    return datetime.strptime(match[1], "%Y%m%d%H%M%S%f").replace(tzinfo=UTC).timestamp()


def index_in_front(path: Path) -> bool:
    """Whether an MP4's `moov` box stands before its first `mdat`, so that players can begin at once."""
    with path.open("rb") as file:
        while header := file.read(8):
            size, kind = int.from_bytes(header[:4], "big"), header[4:]
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            if size == 1:  # 64-bit size follows, ISO/IEC 14496-12, section 4.2
                size = int.from_bytes(file.read(8), "big")
                file.seek(size - 16, 1)
            elif size >= 8:
                file.seek(size - 8, 1)
            else:
                return False
    return False


def begins_with_keyframe(path: Path) -> bool:
    """Whether the first video packet is a keyframe; files without video do."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            return True
        return next((packet.is_keyframe for packet in container.demux(container.streams.video[0]) if packet.size), False)
