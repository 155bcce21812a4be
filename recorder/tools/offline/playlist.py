"""Reads an M3U8 or MPD: the slices that it names.

Lists may come from anywhere: each slice they name is a plain file of the same folder, or the list is refused.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from recorder.frames import Kind
from recorder.tools.offline import OfflineError

MS = 1_000_000
BOTH: tuple[Kind, Kind] = ("audio", "video")
SLICE = re.compile(r"(?:bak\d+_)?(?P<stem>.+)_(?P<utc>\d{17})\.(?:ts|webm)")

_SLICE_KIND = re.compile(r"__uid_e_(audio|video|av)_\d{17}\.\w+")
_EXTINF = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_ROTATE = re.compile(r"ROTATE=(\d+)(?:,TIME=(\d+))?")
_ATTRIBUTE = re.compile(r'([\w:-]+)="([^"]*)"')
_LONGEST_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Turn:
    """By how many degrees clockwise pictures are to be turned from a moment on; sizes are taken from the media."""

    from_ns: int  # Unix
    rotation: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One slice."""

    path: Path
    start_ns: int  # Unix, by its name
    duration_ns: int  # by the list; 0: it does not say
    turns: tuple[Turn, ...] = ()  # told before it; the first holds from its start on
    missing: bool = False  # there is no such file, or an empty one

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


Told = tuple[tuple[Kind, ...], Piece]  # for which kinds a slice is listed


def read(path: Path) -> list[Told]:
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


def text_of(path: Path) -> str:
    """A list as it stands.

    Raises:
        OfflineError: it cannot be read.
    """
    try:
        return path.read_text(errors="surrogateescape")
    except OSError as error:
        raise OfflineError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_m3u8(path: Path) -> Iterator[Told]:
    text = text_of(path)
    if "#EXT-X-STREAM-INF" in text:
        return
    turns = _Turns(path)
    duration_ns = 0
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#EXTINF:"):
            duration_ns = _duration_ns(line.removeprefix("#EXTINF:").partition(",")[0], path)
        elif line.startswith("#EXT-X-AGORA-ROTATE"):
            if match := _ROTATE.search(line):
                turns.tell(match[1], match[2])
        elif line and not line.startswith("#"):
            piece = _piece(path, line, duration_ns)
            yield _kinds(path, piece), replace(piece, turns=turns.before(piece))
            duration_ns = 0


def _read_mpd(path: Path) -> Iterator[Told]:
    kind: Kind = "video"
    turns = _Turns(path)
    durations: list[int] = []
    for element, attributes in _elements(text_of(path)):
        content = attributes.get("contentType") or attributes.get("mimeType", "").partition("/")[0]
        if content in BOTH:
            kind = "audio" if content == "audio" else "video"
        if element == "SegmentTimeline":
            durations = []
        if element == "S" and re.fullmatch(r"\d{1,8}", attributes.get("d", "")):
            repeated = attributes.get("r", "")
            durations += [int(attributes["d"]) * MS] * (1 + int(repeated) if re.fullmatch(r"\d{1,4}", repeated) else 1)
        if {"width", "height", "rotate"} <= attributes.keys():
            turns.tell(attributes["rotate"], attributes.get("time"))
        if "media" in attributes:
            piece = _piece(path, attributes["media"], durations.pop(0) if durations else 0)
            yield (kind,), replace(piece, turns=turns.before(piece)) if kind == "video" else piece


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


class _Turns:
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

    def before(self, piece: Piece) -> tuple[Turn, ...]:
        told = [Turn(piece.start_ns if moment is None else moment, rotation) for moment, rotation in self._told]
        past = [turn for turn in told if turn.from_ns <= piece.start_ns]
        first = Turn(piece.start_ns, past[-1].rotation if past else self._rotation)
        later = sorted((turn for turn in told if turn.from_ns > piece.start_ns), key=lambda turn: turn.from_ns)
        self._rotation, self._told = (later or [first])[-1].rotation, []
        return (first, *later)


def _piece(path: Path, address: str, duration_ns: int) -> Piece:
    slice_path = beside(path, address)
    match = SLICE.fullmatch(slice_path.name)
    try:
        if match is None:
            raise ValueError  # noqa: TRY301
        start_ns = unix_ns(match["utc"])
    except ValueError:
        raise OfflineError(f"{path.name} names {address!r}, which is no slice: <name>_<17 digits>.ts or .webm") from None
    there = slice_path.is_file() and slice_path.stat().st_size > 0
    return Piece(slice_path, start_ns, duration_ns, missing=not there)


def beside(path: Path, address: str) -> Path:
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
        return BOTH
    return ("audio",) if match[1] == "audio" else ("video",)


def _duration_ns(text: str, path: Path) -> int:
    if not _EXTINF.fullmatch(text.strip()) or float(text) > _LONGEST_SECONDS:
        raise OfflineError(f"{path.name} holds a duration that is none: {text[:40]!r}")
    return round(float(text) * 1e9)
