"""Merges the slices of each participant, or of a composite, into files that any player takes.

Media is copied unless an option, or the media itself, asks for encoding: an absence lasts by the time stamps of the picture before it.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from recorder.outputs.names import utc
from recorder.tools.offline import OfflineError, pictures, sound
from recorder.tools.offline.contents import Contents, complain, contents
from recorder.tools.offline.lists import Source, composites, individuals
from recorder.tools.offline.media import SECOND, Coded
from recorder.tools.offline.options import PICTURES, SEGMENTS, SOUND, Options, effective
from recorder.tools.offline.output import Progress, write_mp4
from recorder.tools.offline.playlist import MS, Piece
from recorder.tools.offline.shots import take
from recorder.tools.offline.timeline import Axis, Span, longest_hold_ns, segments, within

log = logging.getLogger(__name__)

LOG, DONE = "convert.log", "convert-done.txt"  # of the original's tool

_COMPAT_FPS: Final = 15
_LONGEST_NS: Final = 31 * 86_400 * SECOND
_FPS_LIMITS: Final = (5, 60)  # of a source
_KBPS_LIMITS: Final = (50, 20_000)


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to be made."""

    name: str
    audio: tuple[Piece, ...]
    video: tuple[Piece, ...]
    axis: Axis
    window: Span  # of the axis

    def place(self, time_ns: int) -> int | None:
        at_ns = self.axis.place(time_ns)
        return None if at_ns is None else at_ns - self.window.begin_ns


def merge(folder: Path, options: Options, progress: Progress = lambda *_: None) -> list[Path]:
    """Merge what is in the folder, into it; returns the files that were made.

    Raises:
        OfflineError: the options do not fit together, there is nothing to merge, or slices are missing or broken.
    """
    if wrong := options.problems():
        raise OfflineError("; ".join(wrong))
    # Scripts made for the original's tool wait for its mark of completion.
    (folder / DONE).unlink(missing_ok=True)
    made: list[Path] = []
    with (folder / LOG).open("a", errors="backslashreplace") as file:
        try:
            for path in _merged(folder, effective(options), progress):
                made.append(path)
                file.write(f"{_now()} made {path.name}\n")
            if not made:
                raise OfflineError(f"there is nothing to make of what is recorded in {folder}{_behind(options)}")  # noqa: TRY301
        except OfflineError as error:
            file.write(f"{_now()} failed: {error}\n")
            raise
        file.write(f"{_now()} done\n")
    (folder / DONE).write_text("".join(f"{path.name}\n" for path in made), errors="surrogateescape")
    return made


def _behind(options: Options) -> str:
    return "" if options.begin_s is None else f", {options.begin_s:g} s after its begin"


def merge_source(source: Source, output: Path, progress: Progress = lambda *_: None, *, video: bool = True) -> None:
    """All of a source as one MP4 or M4A, absences included.

    Raises:
        OfflineError: slices are missing or broken, or hold nothing for such a file.
    """
    found = contents(source)
    if not video:
        found = replace(found, source=replace(found.source, video=()))
    job = _whole(output.stem, "", found.source.audio, found.source.video, Axis(segments(found.source.pieces)))
    if job is None:
        raise OfflineError(f"{output.name} would be empty")
    if not _make(output, job, found, Options(), progress):
        raise OfflineError(f"{output.name} would be empty")


def _merged(folder: Path, options: Options, progress: Progress) -> Iterator[Path]:
    everybody = composites(folder) if options.composite else individuals(folder)
    sources = [source for source in everybody if options.uid in (None, source.uid)]
    if not sources:
        raise OfflineError(f"nothing is recorded of {options.uid} in {folder}")
    if options.output is not None and len(sources) > 1:
        raise OfflineError(f"-o names one file, but there are {len(sources)} recordings of {options.uid}")
    if not options.ignore_missing:
        complain(sources)
    found = [contents(source, ignore_missing=options.ignore_missing) for source in sources]
    for one, name in zip(found, _names(sources), strict=True):
        log.info("merging", extra={"source": name, "slices": len(one.source.pieces)})
        for job in _jobs(one, name, options):
            if _make(folder / job.name, job, one, options, progress):
                yield folder / job.name
        if options.shots_ms is not None:
            yield from take(folder, name, one.source.video, options.shots_ms)
        if options.each_slice:
            yield from _each_slice(folder, one, progress)


def _names(sources: Sequence[Source]) -> list[str]:
    """What the names of files begin with: the uid, or the sid of a composite; both where the uid alone would not do."""
    counts = Counter(source.uid for source in sources)
    return [
        source.sid if source.uid is None else str(source.uid) if counts[source.uid] == 1 else f"{source.sid}_{source.uid}"
        for source in sources
    ]


# ---- what is to be made ------------------------------------------------------------------------------------------


def _jobs(found: Contents, name: str, options: Options) -> Iterator[_Job]:
    source = found.source
    spans = segments(source.pieces)
    if options.mode == SEGMENTS:
        for span in spans:
            audio, video = within(source.audio, span), within(source.video, span)
            if job := _whole(f"{name}_{utc(span.begin_ns // MS)}", "_av", audio, video, Axis([span])):
                yield job
    else:
        axis = Axis(spans, drop_absences=options.drop_absences)
        if axis.length_ns > _LONGEST_NS:
            raise OfflineError(f"{name} lasts {axis.length_ns / SECOND / 86_400:.0f} days with its absences: -s leaves them out")
        audio = () if options.mode == PICTURES else source.audio
        video = () if options.mode == SOUND else source.video
        window = _window(options, axis)
        if window.length_ns > 0 and (job := _whole(f"{name}_0_merge{_mark(options)}", "_av", audio, video, axis)):
            yield replace(job, window=window, name=options.output or job.name)
    if options.also_sound:
        for span in spans:
            audio, video = within(source.audio, span), within(source.video, span)
            is_there = options.mode == SEGMENTS and not video
            if job := None if is_there else _whole(f"{name}_{utc(span.begin_ns // MS)}", "", audio, (), Axis([span])):
                yield job


def _whole(stem: str, both: str, audio: Sequence[Piece], video: Sequence[Piece], axis: Axis) -> _Job | None:
    """A file of all that the axis has; None: there is nothing."""
    has_audio, has_video = (any(not piece.missing for piece in pieces) for pieces in (audio, video))
    if not has_audio and not has_video:
        return None
    ending = ".m4a" if not has_video else f"{both}.mp4" if has_audio else ".mp4"
    heard, seen = tuple(audio) if has_audio else (), tuple(video) if has_video else ()
    return _Job(f"{stem}{ending}", heard, seen, axis, Span(0, axis.length_ns))


def _mark(options: Options) -> str:
    """The window in a file's name."""
    if options.begin_s is None:
        return ""
    length = "" if options.length_s is None else f"_{options.length_s:.3f}"
    return f"_{options.begin_s:.3f}{length}"


def _window(options: Options, axis: Axis) -> Span:
    """Its length is not positive where the participant's recording ends before."""
    begin_ns = round((options.begin_s or 0) * SECOND)
    end_ns = axis.length_ns if options.length_s is None else begin_ns + round(options.length_s * SECOND)
    return Span(begin_ns, min(axis.length_ns, end_ns))


# ---- making it ---------------------------------------------------------------------------------------------------


def _make(path: Path, job: _Job, found: Contents, options: Options, progress: Progress) -> bool:
    """False: nothing was recorded in the window."""
    length_ns = job.window.length_ns
    size, video = _video(job, found, options)
    audio = _audio(job, found)
    if video is None and audio is None:
        return False
    write_mp4(path, size, video, audio, lambda done_ns: progress(job.name, done_ns, length_ns))
    progress(job.name, length_ns, length_ns)
    return True


def _video(job: _Job, found: Contents, options: Options) -> tuple[tuple[int, int] | None, Iterator[Coded] | None]:
    """The size of the pictures, and they themselves."""
    independent = {piece for piece, fact in found.seen(job.video) if fact.starts_with_keyframe}
    pieces = job.axis.needed(job.video, job.window, independent.__contains__)
    facts = [fact for _, fact in found.seen(pieces)]
    if not facts:
        return None, None
    length_ns = job.window.length_ns
    covered = [Span(span.begin_ns - job.window.begin_ns, span.end_ns - job.window.begin_ns) for span in job.axis.covered(pieces)]
    is_short = longest_hold_ns(covered, length_ns) <= pictures.MAX_HOLD_NS
    if not _asks_for_encoding(options) and pictures.copyable(facts, pieces) and is_short:
        size = next(fact.size for fact in facts if all(fact.size))
        return size, pictures.copied(pieces, job.place, length_ns)
    encoding = _encoding(found, options, constant=bool(options.fps) or options.compat or not is_short)
    black = _gaps(covered, length_ns) if options.fill == "black_frame" else []
    return encoding.size, pictures.encoded(pieces, job.place, length_ns, encoding, black)


def _audio(job: _Job, found: Contents) -> Iterator[Coded] | None:
    pieces = job.axis.needed(job.audio, job.window, lambda piece: not piece.missing)
    facts = found.heard(pieces)
    if not facts:
        return None
    if channels := sound.copyable_channels(facts):
        return sound.copied(pieces, job.place, job.window.length_ns, channels)
    channels = sound.encoded_channels(facts)
    return sound.encoded(sound.laid(pieces, job.place, job.window.length_ns, channels), channels)


def _asks_for_encoding(options: Options) -> bool:
    return bool(options.fps or options.size or options.kbps or options.fill == "black_frame" or options.compat)


def _encoding(found: Contents, options: Options, *, constant: bool) -> pictures.Encoding:
    """As the source is where nothing else is asked for; of all of a participant, so that its segments are alike."""
    pieces = found.seen(found.source.video)
    usual_ns = sorted(fact.interval_ns for _, fact in pieces)[len(pieces) // 2]
    fps = options.fps or (_COMPAT_FPS if options.compat else min(max(round(SECOND / usual_ns), _FPS_LIMITS[0]), _FPS_LIMITS[1]))
    lasting_ns = sum(piece.duration_ns for piece, _ in pieces)
    bits = sum(piece.path.stat().st_size for piece, _ in pieces) * 8
    kbps = options.kbps or min(max(round(bits * 1e6 / max(lasting_ns, SECOND)), _KBPS_LIMITS[0]), _KBPS_LIMITS[1])
    return pictures.Encoding(options.size or pictures.largest(pieces), fps, kbps, constant)


def _gaps(covered: Sequence[Span], length_ns: int) -> list[Span]:
    edges = [0, *(edge for span in covered for edge in (span.begin_ns, span.end_ns)), length_ns]
    return [Span(begin_ns, end_ns) for begin_ns, end_ns in zip(edges[::2], edges[1::2], strict=True) if begin_ns < end_ns]


def _each_slice(folder: Path, found: Contents, progress: Progress) -> Iterator[Path]:
    """An MP4 or M4A beside each TS slice, under its name."""
    for piece in found.source.pieces:
        if piece.path.suffix == ".ts" and not piece.missing:
            audio, video = ((piece,) if piece in pieces else () for pieces in (found.source.audio, found.source.video))
            job = _whole(piece.path.stem, "", audio, video, Axis([Span(piece.start_ns, piece.end_ns)]))
            if job and _make(folder / job.name, job, found, Options(), progress):
                yield folder / job.name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
