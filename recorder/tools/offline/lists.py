"""What a folder with downloaded recordings holds: the slices of each participant or composite, by their playlists.

Lists and names may come from anywhere: a slice is a plain file of the same folder, or the list is refused.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from recorder.frames import Kind
from recorder.tools.offline import OfflineError

MS = 1_000_000

_TRACK_LIST = re.compile(
    r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_(?P<kind>audio|video)(?:_\d+_(?P<index>\d+))?\.m3u8"
)
_MPD = re.compile(r"(?:bak(?P<backup>\d+)_)?(?P<stem>.+)__uid_s_(?P<uid>\d+)__uid_e_av\.mpd")
_WHOLE_LIST = re.compile(r"(?:bak(?P<backup>\d+)_)?(?P<stem>[0-9a-zA-Z]+_.*?)(?:_\d+_(?P<index>\d+))?\.m3u8")
_UTC = re.compile(r"_(\d{17})\.[0-9A-Za-z]+")
_ROTATE = re.compile(r"WIDTH=(\d+),HEIGHT=(\d+),ROTATE=(\d+)(?:,TIME=(\d+))?")
_MPD_ROTATE = re.compile(r'width="(\d+)" height="(\d+)" rotate="(\d+)"(?: time="(\d+)")?')
_MPD_MEDIA = re.compile(r'\bmedia="([^"]+)"')
_MPD_SECTION = re.compile(r'contentType="(audio|video)"')


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of the pictures, and by how many degrees clockwise they are to be turned, from a moment on."""

    from_ns: int  # Unix
    width: int
    height: int
    rotation: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One slice."""

    path: Path
    start_ns: int  # Unix, by its name
    duration_ns: int  # by the list; 0: it does not say
    shapes: tuple[Shape, ...] = ()  # told before it

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


@dataclass(frozen=True, slots=True)
class Source:
    """One participant of an individual recording, or one composite. Pieces are in their order."""

    name: str  # uid, or the stem up to the channel's name
    uid: int | None
    audio: tuple[Piece, ...] = ()
    video: tuple[Piece, ...] = ()  # of a composite: both in one

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(sorted((*self.audio, *self.video), key=lambda piece: piece.start_ns))


def individuals(folder: Path, *, ignore_missing: bool = False) -> list[Source]:
    """The participants of all individual recordings in the folder.

    Raises:
        OfflineError: there is none, a list makes no sense, or slices are missing.
    """
    found: dict[tuple[str, int], dict[Kind, dict[str, list[Path]]]] = defaultdict(lambda: {"audio": {}, "video": {}})
    described: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if match := _TRACK_LIST.fullmatch(path.name):
            kind: Kind = "audio" if match["kind"] == "audio" else "video"
            found[match["stem"], int(match["uid"])][kind].setdefault(match["backup"] or "", []).append(path)
        elif match := _MPD.fullmatch(path.name):
            described[match["stem"], int(match["uid"])].append(path)
    sources, missing = [], set[str]()
    for key in sorted({*found, *described}):
        tracks: dict[Kind, list[Piece]] = {kind: _read_all(lists.values()) for kind, lists in found[key].items()}
        for path in described[key]:
            for kind, pieces in _read_mpd(path).items():
                known = {piece.path for piece in tracks[kind]}
                tracks[kind] += [piece for piece in pieces if piece.path not in known]
        audio, video = (_in_order(tracks[kind], missing) for kind in ("audio", "video"))
        sources.append(Source(str(key[1]), key[1], audio, video))
    return _checked(sources, missing, folder, "individual", ignore_missing=ignore_missing)


def composites(folder: Path, *, ignore_missing: bool = False) -> list[Source]:
    """The composite (or web page) recordings in the folder.

    Raises:
        OfflineError: there is none, a list makes no sense, or slices are missing.
    """
    found: dict[str, dict[str, list[Path]]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        match = _WHOLE_LIST.fullmatch(path.name)
        if match and "__uid_s_" not in path.name:
            found[match["stem"]].setdefault(match["backup"] or "", []).append(path)
    missing = set[str]()
    sources = [Source(stem.partition("_")[0], None, (), _in_order(_read_all(lists.values()), missing)) for stem, lists in found.items()]
    return _checked(sources, missing, folder, "composite", ignore_missing=ignore_missing)


def slices_of(playlist: Path) -> tuple[Piece, ...]:
    """The slices of one M3U8.

    Raises:
        OfflineError: it makes no sense, or some are missing.
    """
    missing = set[str]()
    pieces = _in_order(list(_read(playlist)), missing)
    if missing:
        raise OfflineError(f"{len(missing)} slices are missing: {', '.join(sorted(missing))}")
    if not pieces:
        raise OfflineError(f"{playlist.name} lists no slices")
    return pieces


def _checked(sources: list[Source], missing: set[str], folder: Path, what: str, *, ignore_missing: bool) -> list[Source]:
    if not sources:
        raise OfflineError(f"there is no list of an {what} recording in {folder}")
    if missing and not ignore_missing:
        raise OfflineError(f"{len(missing)} slices are missing: {', '.join(sorted(missing))}")
    return [source for source in sources if source.audio or source.video]


def _read_all(lists: Iterable[list[Path]]) -> list[Piece]:
    """The slices of the original's list and of those after failovers; of several versions of one the newest or larger one counts."""
    return [piece for versions in lists for piece in _read(_chosen(versions))]


def _chosen(versions: list[Path]) -> Path:
    """The list that was uploaded by itself, or the one sent again last: the larger file."""

    def index(path: Path) -> int:
        match = _TRACK_LIST.fullmatch(path.name) or _WHOLE_LIST.fullmatch(path.name)
        return int(match["index"]) if match and match["index"] else -1

    plain = [path for path in versions if index(path) < 0]
    again = sorted((path for path in versions if index(path) >= 0), key=index)
    return max([*plain, *again[-1:]], key=lambda path: path.stat().st_size)


def _in_order(pieces: list[Piece], missing: set[str]) -> tuple[Piece, ...]:
    """By time, each once; those of which there is no file are told in `missing`."""
    there: dict[Path, Piece] = {}
    for piece in sorted(pieces, key=lambda piece: piece.start_ns):
        if not piece.path.is_file():
            missing.add(piece.path.name)
        elif piece.path.stat().st_size:
            there.setdefault(piece.path, piece)
    return tuple(there.values())


def _read(playlist: Path) -> Iterator[Piece]:
    """The slices of an M3U8. A size or rotation holds for all after it."""
    shapes: list[Shape] = []
    last: Shape | None = None
    duration_ns = 0
    for line in playlist.read_text(errors="replace").splitlines():
        if line.startswith("#EXTINF:"):
            duration_ns = _seconds(line.removeprefix("#EXTINF:").partition(",")[0], playlist)
        elif line.startswith("#EXT-X-AGORA-ROTATE") and (match := _ROTATE.search(line)):
            shapes.append(_shape(match.groups()))
        elif line and not line.startswith("#"):
            piece = _piece(playlist, line, duration_ns)
            told = [shape if shape.from_ns else replace(shape, from_ns=piece.start_ns) for shape in shapes]
            if last and not any(shape.from_ns <= piece.start_ns for shape in told):
                told.insert(0, replace(last, from_ns=piece.start_ns))
            last = told[-1] if told else last
            shapes = []
            yield replace(piece, shapes=tuple(told))
            duration_ns = 0


def _read_mpd(path: Path) -> dict[Kind, list[Piece]]:
    """The slices that an MPD names, line by line as the original's tool reads them: no XML of strangers is parsed."""
    pieces: dict[Kind, list[Piece]] = {"audio": [], "video": []}
    shapes: list[Shape] = []
    kind: Kind = "video"
    for line in path.read_text(errors="replace").splitlines():
        if match := _MPD_SECTION.search(line):
            kind = "audio" if match[1] == "audio" else "video"
        if match := _MPD_ROTATE.search(line):
            shapes.append(_shape(match.groups()))
        if match := _MPD_MEDIA.search(line):
            pieces[kind].append(replace(_piece(path, match[1], 0), shapes=tuple(shapes) if kind == "video" else ()))
            shapes = shapes[-1:]
    return pieces


def _piece(playlist: Path, address: str, duration_ns: int) -> Piece:
    name = unquote(address.strip())
    if name != Path(name).name or name.startswith(".") or "\\" in name or "\0" in name:
        raise OfflineError(f"{playlist.name} names what is not a file beside it: {address!r}")
    match = _UTC.search(name)
    if match is None:
        raise OfflineError(f"{playlist.name} names a slice without a time: {name!r}")
    return Piece(playlist.with_name(name), unix_ns(match[1]), duration_ns)


def _shape(found: tuple[str | None, ...]) -> Shape:
    width, height, rotation, at = found
    return Shape(unix_ns(at) if at else 0, int(width or 0), int(height or 0), -int(rotation or 0) % 360)


def _seconds(text: str, playlist: Path) -> int:
    try:
        return round(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise OfflineError(f"{playlist.name} holds a duration that is no number: {text!r}") from None


def unix_ns(digits: str) -> int:
    """The moment of 17 digits `YYYYMMDDhhmmssmmm`, or of 13 digits of Unix milliseconds.

    Raises:
        OfflineError: it is none.
    """
    try:
        if len(digits) == 13:
            return int(digits) * MS
        moment = datetime.strptime(digits[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1000 * MS + int(digits[14:] or 0) * MS
    except ValueError:
        raise OfflineError(f"{digits} is no time") from None
