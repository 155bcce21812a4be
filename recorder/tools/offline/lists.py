"""What a folder with downloaded recordings holds: the slices of each participant or composite, by their lists.

Lists may come from anywhere: each slice they name is a plain file of the same folder, or the list is refused.
"""

import re
import xml.etree.ElementTree as ET
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from recorder.frames import Kind
from recorder.tools.offline import OfflineError

MS = 1_000_000

_TRACK_LIST = re.compile(
    r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_(?P<kind>audio|video|av)(?:_(?P<tick>\d+)_(?P<index>\d+))?\.m3u8"
)
_MPD = re.compile(r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_av\.mpd")
_SENT_AGAIN = re.compile(r".*_(?P<tick>\d+)_(?P<index>\d+)\.m3u8")
_SLICE = re.compile(r"(?:bak\d+_)?(?P<stem>.+)_(?P<utc>\d{17})\.(?:ts|webm)")
_SLICE_KIND = re.compile(r"__uid_e_(audio|video|av)_\d{17}\.\w+")
_EXTINF = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_ROTATE = re.compile(r"ROTATE=(\d+)(?:,TIME=(\d+))?")
_ATTRIBUTE = re.compile(r'([\w:-]+)="([^"]*)"')
_LONGEST_SECONDS = 86_400
_BOTH: tuple[Kind, Kind] = ("audio", "video")


@dataclass(frozen=True, slots=True)
class Shape:
    """By how many degrees clockwise pictures are to be turned from a moment on; sizes are taken from the media."""

    from_ns: int  # Unix
    rotation: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One slice."""

    path: Path
    start_ns: int  # Unix, by its name
    duration_ns: int  # by the list; 0: it does not say
    shapes: tuple[Shape, ...] = ()  # told before it; the first holds from its start on
    missing: bool = False  # there is no such file, or an empty one

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


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


_Told = tuple[tuple[Kind, ...], Piece]  # for which kinds a slice is listed
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
        match = _SLICE.fullmatch(told[0][1].path.name) if told else None
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
    text = _text(path)
    told: list[_Told] = []
    if "#EXT-X-STREAM-INF" in text:
        named = re.findall(r'^#EXT-X-MEDIA:.*\bURI="([^"]+)"|^([^#\s].*)$', text, flags=re.M)
        for address in dict.fromkeys(media or variant for media, variant in named):
            told += read(_beside(path, address))
    else:
        told = read(path)
    source = Source("", None, *(_in_order([(0, told)], kind) for kind in _BOTH))
    if not source.pieces:
        raise OfflineError(f"{path.name} lists no slices")
    return source


def read(path: Path) -> list[_Told]:
    """The slices of an M3U8 or MPD, in its order. A multivariant playlist lists none.

    Raises:
        OfflineError: it makes no sense, or names something else than slices beside it.
    """
    if path.suffix == ".mpd":
        return list(_read_mpd(path))
    return list(_read_m3u8(path))


def unix_ns(digits: str) -> int:
    """The moment of 17 digits `YYYYMMDDhhmmssmmm`, or of 13 digits of Unix milliseconds.

    Raises:
        ValueError: it is none.
    """
    if len(digits) == 13:
        return int(digits) * MS
    if len(digits) != 17:
        raise ValueError(digits)
    moment = datetime.strptime(digits[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return (int(moment.timestamp()) * 1000 + int(digits[14:])) * MS


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
        source = Source(stem.partition("_")[0], uid, *(_in_order(told, kind) for kind in _BOTH))
        if source.pieces:
            sources.append(source)
    if not sources:
        raise OfflineError(f"the lists of {what} in {folder} are empty")
    return sources


def _told(lists: Sequence[_List]) -> list[tuple[int, list[_Told]]]:
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


def _in_order(lists: Iterable[tuple[int, Iterable[_Told]]], kind: Kind) -> tuple[Piece, ...]:
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


# ---- reading a list ----------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError as error:
        raise OfflineError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_m3u8(path: Path) -> Iterator[_Told]:
    text = _text(path)
    if "#EXT-X-STREAM-INF" in text:
        return
    shapes = _Shapes(path)
    duration_ns = 0
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#EXTINF:"):
            duration_ns = _duration_ns(line.removeprefix("#EXTINF:").partition(",")[0], path)
        elif line.startswith("#EXT-X-AGORA-ROTATE"):
            if match := _ROTATE.search(line):
                shapes.tell(match[1], match[2])
        elif line and not line.startswith("#"):
            piece = _piece(path, line, duration_ns)
            yield _kinds(path, piece), replace(piece, shapes=shapes.before(piece))
            duration_ns = 0


def _read_mpd(path: Path) -> Iterator[_Told]:
    kind: Kind = "video"
    shapes = _Shapes(path)
    durations: list[int] = []
    for element, attributes in _elements(_text(path)):
        content = attributes.get("contentType") or attributes.get("mimeType", "").partition("/")[0]
        if content in _BOTH:
            kind = "audio" if content == "audio" else "video"
        if element == "SegmentTimeline":
            durations = []
        if element == "S" and re.fullmatch(r"\d{1,8}", attributes.get("d", "")):
            repeated = attributes.get("r", "")
            durations += [int(attributes["d"]) * MS] * (1 + int(repeated) if re.fullmatch(r"\d{1,4}", repeated) else 1)
        if {"width", "height", "rotate"} <= attributes.keys():
            shapes.tell(attributes["rotate"], attributes.get("time"))
        if "media" in attributes:
            piece = _piece(path, attributes["media"], durations.pop(0) if durations else 0)
            yield (kind,), replace(piece, shapes=shapes.before(piece)) if kind == "video" else piece


def _elements(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Names and attributes of the elements; of what is no XML: of its lines, as the original's tool reads them."""
    try:
        if "<!" in text.replace("<!--", ""):
            raise ET.ParseError  # noqa: TRY301  # declarations have no place in an MPD
        elements = list(ET.fromstring(text).iter())  # noqa: S314  # without declarations there is nothing to expand
    except (ET.ParseError, ValueError):
        for line in text.splitlines():
            name = re.search(r"<\s*(?:\w+:)?(\w+)", line)
            yield name[1] if name else "", {key.rpartition(":")[2]: unescape(value) for key, value in _ATTRIBUTE.findall(line)}
        return
    for element in elements:
        yield element.tag.rpartition("}")[2], {key.rpartition("}")[2]: value for key, value in element.attrib.items()}


class _Shapes:
    """What rotation tags have told so far: the last one holds for all slices after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rotation = 0
        self._told: list[tuple[int | None, int]] = []

    def tell(self, degrees: str, time: str | None) -> None:
        """Lists count anticlockwise."""
        try:
            moment = unix_ns(time) if time else None
        except ValueError:
            raise OfflineError(f"{self._path.name} tells a rotation of {time}, which is no time") from None
        if degrees not in ("0", "90", "180", "270"):
            raise OfflineError(f"{self._path.name} tells a rotation by {degrees} degrees")
        self._told.append((moment, -int(degrees) % 360))

    def before(self, piece: Piece) -> tuple[Shape, ...]:
        told = [Shape(piece.start_ns if moment is None else moment, rotation) for moment, rotation in self._told]
        past = [shape for shape in told if shape.from_ns <= piece.start_ns]
        first = Shape(piece.start_ns, past[-1].rotation if past else self._rotation)
        later = sorted((shape for shape in told if shape.from_ns > piece.start_ns), key=lambda shape: shape.from_ns)
        self._rotation, self._told = (later or [first])[-1].rotation, []
        return (first, *later)


def _piece(path: Path, address: str, duration_ns: int) -> Piece:
    slice_path = _beside(path, address)
    match = _SLICE.fullmatch(slice_path.name)
    try:
        if match is None:
            raise ValueError  # noqa: TRY301
        start_ns = unix_ns(match["utc"])
    except ValueError:
        raise OfflineError(f"{path.name} names {address!r}, which is no slice: <name>_<17 digits>.ts or .webm") from None
    there = slice_path.is_file() and slice_path.stat().st_size > 0
    return Piece(slice_path, start_ns, duration_ns, missing=not there)


def _beside(path: Path, address: str) -> Path:
    """The file of the same folder that a list names, percent-encoded or not."""
    for name in (address.strip(), unquote(address.strip(), errors="surrogateescape")):
        # Also what is no name on another system: the folder may be shared.
        if name != Path(name).name or name in ("", ".", "..") or set(name) & set("\\\0") or any(letter < " " for letter in name):
            raise OfflineError(f"{path.name} names {address!r}, which is not a file beside it")
        if path.with_name(name).exists():
            break
    return path.with_name(name)


def _kinds(path: Path, piece: Piece) -> tuple[Kind, ...]:
    """By the name of the slice; a slice of a composite may hold both."""
    match = _SLICE_KIND.search(piece.path.name) or re.search(r"__uid_e_(audio|video)", path.name)
    if match is None or match[1] == "av":
        return _BOTH
    return ("audio",) if match[1] == "audio" else ("video",)


def _duration_ns(text: str, path: Path) -> int:
    if not _EXTINF.fullmatch(text.strip()) or float(text) > _LONGEST_SECONDS:
        raise OfflineError(f"{path.name} holds a duration that is none: {text[:40]!r}")
    return round(float(text) * 1e9)
