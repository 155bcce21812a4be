"""What a folder with downloaded recordings holds: the slices of each participant or composite, by their lists.

Lists may come from anywhere: each slice they name is a plain file of the same folder, or the list is refused.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recorder.frames import Kind
from recorder.tools.offline import OfflineError
from recorder.tools.offline.playlist import BOTH, SLICE, Piece, Told, beside, read, text_of

_TRACK_LIST = re.compile(
    r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_(?P<kind>audio|video|av)(?:_(?P<tick>\d+)_(?P<index>\d+))?\.m3u8"
)
_MPD = re.compile(r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_av\.mpd")
_SENT_AGAIN = re.compile(r".*_(?P<tick>\d+)_(?P<index>\d+)\.m3u8")


@dataclass(frozen=True, slots=True)
class Source:
    """One participant of an individual recording, or one composite. Pieces are in order of time; one may be in both."""

    sid: str
    uid: int | None  # None: a composite
    audio: tuple[Piece, ...] = ()
    video: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(sorted({*self.audio, *self.video}, key=lambda piece: (piece.start_ns, piece.path)))

    @property
    def missing(self) -> list[str]:
        return [piece.path.name for piece in self.pieces if piece.missing]


_Recording = tuple[str, int | None]  # stem of the names, uid


@dataclass(frozen=True, slots=True)
class _List:
    path: Path
    backup: int  # -1: the original's
    kind: str
    version: tuple[int, int] | None  # None: uploaded by itself; else index and tick of one that was sent again


def individuals(folder: Path) -> list[Source]:
    """The participants of all individual recordings in the folder.

    Raises:
        OfflineError: there is none, or a list makes no sense.
    """
    found: dict[_Recording, list[_List]] = defaultdict(list)
    for path in _files(folder):
        if match := _TRACK_LIST.fullmatch(path.name) or _MPD.fullmatch(path.name):
            told = match.groupdict()
            version = (int(told["index"]), int(told["tick"])) if told.get("index") else None
            kind = told.get("kind") or "mpd"
            found[told["stem"], int(told["uid"])].append(_List(path, _backup(told["backup"]), kind, version))
    return _sources(found, folder, "an individual recording")


def composites(folder: Path) -> list[Source]:
    """The composite (or web page) recordings in the folder.

    Raises:
        OfflineError: there is none, or a list makes no sense.
    """
    found: dict[_Recording, list[_List]] = defaultdict(list)
    for path in _files(folder):
        told = read(path) if path.suffix == ".m3u8" and "__uid_s_" not in path.name else []
        match = SLICE.fullmatch(told[0][1].path.name) if told else None
        if match:
            bare = re.sub(r"^bak\d+_", "", path.name)
            # A channel's name may end like a list that was sent again: its slices tell.
            again = None if bare == f"{match['stem']}.m3u8" else _SENT_AGAIN.fullmatch(path.name)
            version = (int(again["index"]), int(again["tick"])) if again else None
            backup = re.match(r"bak(\d+)_", path.name)
            found[match["stem"], None].append(_List(path, _backup(backup and backup[1]), "whole", version))
    return _sources(found, folder, "a composite recording")


def source_of(path: Path) -> Source:
    """What one M3U8 or MPD lists. Of a multivariant playlist: what the lists that it names do.

    Raises:
        OfflineError: it makes no sense, or lists nothing.
    """
    text = text_of(path)
    told: list[Told] = []
    if "#EXT-X-STREAM-INF" in text:
        named = re.findall(r'^#EXT-X-MEDIA:.*\bURI="([^"]+)"|^([^#\s].*)$', text, flags=re.M)
        for address in dict.fromkeys(media or variant for media, variant in named):
            told += read(beside(path, address))
    else:
        told = read(path)
    source = Source("", None, *(_in_order([(0, told)], kind) for kind in BOTH))
    if not source.pieces:
        raise OfflineError(f"{path.name} lists no slices")
    return source


# ---- which lists count -------------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _backup(digits: str | None) -> int:
    return int(digits) if digits else -1


def _sources(found: Mapping[_Recording, Sequence[_List]], folder: Path, what: str) -> list[Source]:
    if not found:
        raise OfflineError(f"there is no list of {what} in {folder}")
    sources = []
    for (stem, uid), lists in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        told = _told(lists)
        source = Source(stem.partition("_")[0], uid, *(_in_order(told, kind) for kind in BOTH))
        if source.pieces:
            sources.append(source)
    if not sources:
        raise OfflineError(f"the lists of {what} in {folder} are empty")
    return sources


def _told(lists: Sequence[_List]) -> list[tuple[int, list[Told]]]:
    """What the lists that count tell, each with the number of its backup."""
    versions: dict[tuple[int, str], list[_List]] = defaultdict(list)
    for item in lists:
        versions[item.backup, item.kind].append(item)
    # The lists of one kind come before the merged ones, which tell the same.
    order = ("audio", "video", "whole", "av", "mpd")
    return [(key[0], read(_chosen(versions[key]).path)) for key in sorted(versions, key=lambda key: (order.index(key[1]), key[0]))]


def _chosen(versions: Sequence[_List]) -> _List:
    """Of the list that was uploaded by itself and the one sent again last the larger file."""
    plain = [item for item in versions if item.version is None]
    again = [item for item in versions if item.version is not None]
    newest = [max(again, key=lambda item: item.version or (0, 0))] if again else []
    return max([*plain, *newest], key=lambda item: item.path.stat().st_size)


def _in_order(lists: Iterable[tuple[int, Iterable[Told]]], kind: Kind) -> tuple[Piece, ...]:
    """By time, each slice once. Where the recording was taken over by a backup, its slices replace those of the one before."""
    found: dict[Path, tuple[int, Piece]] = {}
    for backup, told in lists:
        for kinds, piece in told:
            if kind in kinds:
                found.setdefault(piece.path, (backup, piece))
    kept: list[Piece] = []
    for backup in sorted({backup for backup, _ in found.values()}, reverse=True):
        starts = [piece.start_ns for piece in kept]
        kept += [piece for number, piece in found.values() if number == backup and not _is_within(kept, starts, piece)]
        kept.sort(key=lambda piece: (piece.start_ns, piece.path))
    return tuple(kept)


def _is_within(kept: Sequence[Piece], starts: Sequence[int], piece: Piece) -> bool:
    index = bisect_right(starts, piece.start_ns) - 1
    return index >= 0 and piece.start_ns < kept[index].end_ns
