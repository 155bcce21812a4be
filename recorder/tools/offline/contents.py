"""What the slices of a source hold: each is looked at once, and what its list does not say is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recorder.frames import Kind
from recorder.tools.offline import OfflineError
from recorder.tools.offline.lists import Source
from recorder.tools.offline.media import SECOND, AudioFacts, Facts, VideoFacts, look
from recorder.tools.offline.playlist import Piece


@dataclass(frozen=True, slots=True)
class Contents:
    """A source whose slices hold what they are listed for, and all have a duration."""

    source: Source
    _facts: Mapping[Path, Facts]

    def seen(self, pieces: Sequence[Piece]) -> list[tuple[Piece, VideoFacts]]:
        """Those of the slices that have video, and what it is."""
        return [(piece, fact) for piece in pieces if not piece.missing and (fact := self._facts[piece.path].video)]

    def heard(self, pieces: Sequence[Piece]) -> list[AudioFacts]:
        """What the sound of the slices is."""
        return [fact for piece in pieces if not piece.missing and (fact := self._facts[piece.path].audio)]


def complain(sources: Sequence[Source]) -> None:
    """Name every slice that is missing.

    Raises:
        OfflineError: there are such slices.
    """
    missing = sorted({name for source in sources for name in source.missing})
    if missing:
        are = "slice is" if len(missing) == 1 else "slices are"
        raise OfflineError(f"{len(missing)} {are} missing or empty: {', '.join(missing)}")


def contents(source: Source, *, ignore_missing: bool = False) -> Contents:
    """Look at each slice. Those that hold nothing and are told to last for less than a second are left out.

    `ignore_missing`: what is missing or broken is an absence.

    Raises:
        OfflineError: slices are missing or broken; all of them are named.
    """
    if not ignore_missing:
        complain([source])
    facts: dict[Path, Facts] = {}
    broken: list[str] = []
    for piece in source.pieces:
        if piece.missing:
            continue
        try:
            known = look(piece, whole=piece.duration_ns < SECOND)
        except OfflineError as error:
            broken.append(str(error))
            continue
        if known.video or known.audio or piece.duration_ns < SECOND:
            facts[piece.path] = known
        else:
            broken.append(f"{piece.path.name} holds no media")
    if broken and not ignore_missing:
        raise OfflineError("; ".join(broken))
    return Contents(replace(source, audio=_kept(source.audio, "audio", facts), video=_kept(source.video, "video", facts)), facts)


def _kept(pieces: Sequence[Piece], kind: Kind, facts: Mapping[Path, Facts]) -> tuple[Piece, ...]:
    """Nothing, if there is nothing of this kind at all."""
    found = []
    for piece in pieces:
        known = facts.get(piece.path)
        if known is None:
            found.append(replace(piece, missing=True))
        elif known.video if kind == "video" else known.audio:
            found.append(replace(piece, duration_ns=piece.duration_ns or known.end_ns or 0))
    return tuple(found) if any(not piece.missing for piece in found) else ()
