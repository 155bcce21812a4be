"""Merges the slices of each participant, or of a composite, into files that any player takes.

Media is copied unless an option, or the media itself, asks for encoding: an absence lasts by the time stamps of the picture before it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import numpy as np
from av.video.frame import VideoFrame

from mixer.canvas import Canvas
from recorder.media.encode import VideoEncoder
from recorder.media.pictures import frame_of, planes_of, rgb_of
from recorder.outputs import jpeg
from recorder.tools.offline import OfflineError
from recorder.tools.offline import media as files
from recorder.tools.offline.lists import Piece, Source, composites, individuals, slices_of
from recorder.tools.offline.timeline import Axis, Span, segments

log = logging.getLogger(__name__)

SECOND: Final = 1_000_000_000
COMPAT_FPS: Final = 15
MOST_KBPS: Final = 6300
AT_ONCE_NS: Final = 50_000_000  # pictures that begin so little after the sound begin with it
DONE, LOG = "convert-done.txt", "convert.log"

Fill = Literal["duplicate_prev", "black_frame"]
Progress = Callable[[str, int, int], None]  # file, how far in ns, of how many


@dataclass(frozen=True, slots=True)
class Options:
    mode: int = 0  # 0: each segment; 1: everything of a participant; 2: its sound; 3: its pictures
    composite: bool = False
    uid: int | None = None  # only this participant
    drop_absences: bool = False
    fps: int | None = None  # None: the source's
    size: tuple[int, int] | None = None
    kbps: int | None = None
    fill: Fill = "duplicate_prev"
    also_sound: bool = False  # beside each segment
    shots_ms: int | None = None  # also a JPG every so often
    begin_s: float | None = None
    length_s: float | None = None
    output: str | None = None  # name of the file
    each_slice: bool = False  # also each TS slice by itself
    compat: bool = False  # the original's defaults
    ignore_missing: bool = False

    def problems(self) -> Iterator[str]:
        """What is wrong with them together."""
        if self.length_s is not None and self.begin_s is None:
            yield "-t needs -b"
        if self.output is not None and self.uid is None:
            yield "-o needs -u"
        if self.output is not None and Path(self.output).name != self.output:
            yield "-o must be a name without a folder"
        if self.output is not None and self.mode == 0 and self.begin_s is None:
            yield "-o needs -m 1, 2 or 3, which make one file"
        if self.drop_absences and self.mode == 0 and self.begin_s is None:
            yield "-s does not go with -m 0"
        if self.composite and self.uid is not None:
            yield "-u is for individual recordings"
        if self.size and any(side % 2 for side in self.size):
            yield "-r takes even numbers"


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to be made."""

    name: str
    audio: tuple[Piece, ...]
    video: tuple[Piece, ...]
    axis: Axis
    window: Span | None  # of the axis


def merge(folder: Path, options: Options, progress: Progress = lambda *_: None) -> list[Path]:
    """Merge what is in the folder, into it; returns the files that were made.

    Raises:
        OfflineError: the options do not fit together, there is nothing to merge, or slices are missing or broken.
    """
    wrong = "; ".join(options.problems())
    if wrong:
        raise OfflineError(wrong)
    if options.mode == 0 and options.begin_s is not None:
        options = replace(options, mode=1)
    find = composites if options.composite else individuals
    sources = [one for one in find(folder, ignore_missing=options.ignore_missing) if options.uid in (None, one.uid)]
    if not sources:
        raise OfflineError(f"nothing is recorded of {options.uid}")
    made: list[Path] = []
    for source in map(_with_durations, sources):
        log.info("merging", extra={"source": source.name, "slices": len(source.pieces)})
        for job in _jobs(source, options):
            made += _make(folder, job, options, progress)
        if options.shots_ms:
            made += _shots(folder, source, options.shots_ms)
        if options.each_slice:
            made += _each_slice(folder, source, options, progress)
    _note(folder, made)
    return made


def merge_list(playlist: Path, output: Path, progress: Progress = lambda *_: None) -> None:
    """All slices of one M3U8 as an MP4 or M4A, absences included.

    Raises:
        OfflineError: it makes no sense, slices are missing or broken, or hold nothing for such a file.
    """
    pieces = slices_of(playlist)
    audio, video = (pieces if files.holds(pieces[0], kind) else () for kind in ("audio", "video"))
    source = _with_durations(Source(output.name, 0, audio, video if output.suffix == ".mp4" else ()))
    if not source.pieces:
        raise OfflineError(f"{playlist.name} holds nothing that {output.suffix} is for")
    axis = Axis(segments(source.pieces), drop_absences=False)
    _make(output.parent, _Job(output.name, source.audio, source.video, axis, None), Options(), progress)


def _with_durations(source: Source) -> Source:
    """What a list does not say is measured; slices under a second that hold nothing are left out."""

    def lasting(pieces: tuple[Piece, ...], kind: Literal["audio", "video"]) -> tuple[Piece, ...]:
        kept = []
        for piece in pieces:
            if piece.duration_ns < SECOND:
                times = [time_ns for time_ns, _ in files.packets((piece,), kind)]
                if not times:
                    continue
                if not piece.duration_ns:
                    step_ns = (times[-1] - times[0]) // max(1, len(times) - 1)
                    piece = replace(piece, duration_ns=times[-1] - times[0] + step_ns)  # noqa: PLW2901  # with what is now known
            kept.append(piece)
        return tuple(kept)

    if source.uid is None and not files.holds(source.video[0], "video"):  # a composite of sound alone
        source = replace(source, audio=source.video, video=())
    return replace(source, audio=lasting(source.audio, "audio"), video=lasting(source.video, "video"))


# ---- what is to be made ------------------------------------------------------------------------------------------


def _jobs(source: Source, options: Options) -> Iterator[_Job]:
    spans = segments(source.pieces)
    sound = source.audio or (source.video if options.composite else ())  # the slices of a composite hold both
    if options.mode == 0:
        for span in spans:
            audio, video = (_within(pieces, span) for pieces in (sound, source.video))
            axis = Axis([span], drop_absences=False)
            stem = f"{source.name}_{_utc(span.begin_ns)}"
            yield _Job(f"{stem}{_ending(bool(video), bool(audio))}", audio, video, axis, None)
            if options.also_sound and audio and video:
                yield _Job(f"{stem}.m4a", audio, (), axis, None)
        return
    axis = Axis(spans, drop_absences=options.drop_absences)
    window, mark = None, ""
    if options.begin_s is not None:
        begin_ns = round(options.begin_s * SECOND)
        end_ns = axis.length_ns if options.length_s is None else min(axis.length_ns, begin_ns + round(options.length_s * SECOND))
        if end_ns <= begin_ns:
            raise OfflineError(f"-b {options.begin_s} is behind the end of {source.name}, {axis.length_ns / SECOND:.3f} s")
        window = Span(begin_ns, end_ns)
        mark = f"_{options.begin_s:.3f}_{(end_ns - begin_ns) / SECOND:.3f}"
    audio = () if options.mode == 3 else sound
    video = () if options.mode == 2 else source.video
    if not (audio or video):
        return
    yield _Job(options.output or f"{source.name}_0_merge{mark}{_ending(bool(video), bool(audio))}", audio, video, axis, window)
    for span in spans if options.also_sound and video else ():
        if inside := _within(audio, span):
            yield _Job(f"{source.name}_{_utc(span.begin_ns)}.m4a", inside, (), Axis([span], drop_absences=False), None)


def _ending(video: bool, audio: bool) -> str:
    if video:
        return "_av.mp4" if audio else ".mp4"
    return ".m4a"


def _within(pieces: Sequence[Piece], span: Span) -> tuple[Piece, ...]:
    return tuple(piece for piece in pieces if span.begin_ns <= piece.start_ns <= span.end_ns)


def _utc(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // SECOND, UTC)
    return f"{moment:%Y%m%d%H%M%S}{time_ns // 1_000_000 % 1000:03d}"


# ---- making it ---------------------------------------------------------------------------------------------------


def _make(folder: Path, job: _Job, options: Options, progress: Progress) -> list[Path]:
    seen = files.Seen(job.video) if job.video else None
    encode = bool(seen) and (not (seen and seen.copyable) or _asks_for_encoding(options) or job.window is not None)
    size = options.size or (seen.largest if seen else None)
    length = job.window or Span(0, job.axis.length_ns)
    output = files.Output(folder / job.name, size=size, audio=bool(job.audio))
    writer = _Writer(output, length, lambda at_ns: progress(job.name, at_ns, length.length_ns))
    try:
        streams: list[_Stream] = []
        if seen and size:
            pictures = _encoded(job, seen, options, size) if encode else _copied(job, seen)
            streams.append(((at_ns, writer.picture, item) for at_ns, item in pictures))
        sound = _Sound(output, job.audio) if job.audio else None
        if sound:
            streams.append(((at_ns, sound.write, item) for at_ns, item in sound.read(job.axis, length)))
        _interleave(streams, writer)
        writer.finish()
        if sound:
            sound.finish(length.length_ns)
        output.finish()
    finally:
        output.clean()
    return [output.path]


def _asks_for_encoding(options: Options) -> bool:
    changed = options.fps or options.size or options.kbps or options.fill == "black_frame"
    return bool(changed) or options.compat


@dataclass(frozen=True, slots=True)
class _Coded:
    data: bytes
    keyframe: bool
    lasts_ns: int


def _copied(job: _Job, seen: files.Seen) -> Iterator[tuple[int, _Coded]]:
    last_ns = -1
    for time_ns, packet in files.packets(job.video, "video"):
        at_ns = job.axis.place(time_ns)
        if at_ns is not None and at_ns > last_ns:
            last_ns = at_ns
            yield at_ns, _Coded(bytes(packet), packet.is_keyframe, seen.interval_ns)


def _encoded(job: _Job, seen: files.Seen, options: Options, size: tuple[int, int]) -> Iterator[tuple[int, _Coded]]:
    """Every tick of the output's frame rate shows the picture that was to be seen then."""
    fps = options.fps or (COMPAT_FPS if options.compat else seen.fps)
    encoder = VideoEncoder(width=size[0], height=size[1], fps=fps, bitrate_kbps=options.kbps or min(seen.kbps, MOST_KBPS), gop=2 * fps)
    length = job.window or Span(0, job.axis.length_ns)
    black = _Page(size).frame
    away = job.axis.absences() if options.fill == "black_frame" else []
    shown = black
    tick = 0

    def until(end_ns: int) -> Iterator[tuple[int, _Coded]]:
        nonlocal tick
        while tick * SECOND // fps < end_ns:
            at_ns = length.begin_ns + tick * SECOND // fps
            nobody = any(span.begin_ns <= at_ns < span.end_ns for span in away)
            for packet in encoder.encode(black if nobody else shown, tick):
                yield packet.pts * SECOND // fps, _Coded(packet.data, packet.keyframe, SECOND // fps)
            tick += 1

    for time_ns, frame, rotation in files.decoded_pictures(job.video):
        at_ns = job.axis.place(time_ns)
        if at_ns is None:
            continue
        if shown is black and tick == 0 and at_ns - length.begin_ns < AT_ONCE_NS:
            at_ns = length.begin_ns
        # A picture is due at the tick nearest to its time.
        yield from until(min(at_ns - length.begin_ns - SECOND // fps // 2, length.length_ns))
        if at_ns >= length.end_ns:
            break
        page = _Page(size)
        page.draw(frame, rotation)
        shown = page.frame
    yield from until(length.length_ns)
    for packet in encoder.flush():
        yield packet.pts * SECOND // fps, _Coded(packet.data, packet.keyframe, SECOND // fps)


class _Page:
    """A picture of the output: the source in full, in the middle of black."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._canvas = Canvas(*size)
        self.frame = frame_of(self._canvas.planes)

    def draw(self, frame: VideoFrame, rotation: int) -> None:
        width, height = self._canvas.size.width, self._canvas.size.height
        lying = rotation in (90, 270)
        source = (frame.height, frame.width) if lying else (frame.width, frame.height)
        scale = min(width / source[0], height / source[1])
        inner = [max(2, round(side * scale / 2) * 2) for side in source]
        flat = inner[::-1] if lying else inner
        scaled = planes_of(frame.reformat(width=flat[0], height=flat[1], format="yuv420p"))
        left, top = (width - inner[0]) // 4 * 2, (height - inner[1]) // 4 * 2
        for part, target, pixels in zip((1, 2, 2), self._canvas.planes, scaled, strict=True):
            turned = np.rot90(pixels, -rotation // 90)
            target[top // part : top // part + turned.shape[0], left // part : left // part + turned.shape[1]] = turned


class _Writer:
    """Pictures into the file; the last one lasts to the end."""

    def __init__(self, output: files.Output, length: Span, tick: Callable[[int], None]) -> None:
        self._output = output
        self._length = length
        self._tick = tick
        self._waiting: tuple[int, _Coded] | None = None

    def picture(self, at_ns: int, coded: object) -> None:
        assert isinstance(coded, _Coded)
        self._put(None)
        self._waiting = at_ns, coded

    def told(self, at_ns: int) -> None:
        self._tick(min(at_ns, self._length.length_ns))

    def finish(self) -> None:
        self._put(self._length.length_ns)
        self.told(self._length.length_ns)

    def _put(self, end_ns: int | None) -> None:
        if self._waiting:
            at_ns, coded = self._waiting
            lasts_ns = end_ns - at_ns if end_ns is not None and end_ns > at_ns else coded.lasts_ns
            self._output.file.write_video(coded.data, at_ns, keyframe=coded.keyframe, duration_ns=lasts_ns)
        self._waiting = None


class _Sound:
    """The sound of a file: copied when it is AAC at 48 kHz throughout, else encoded."""

    def __init__(self, output: files.Output, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        channels = files.aac_channels(pieces)
        self._copy = files.CopiedSound(output, channels) if channels else None
        self._encode = None if channels else files.EncodedSound(output)

    def read(self, axis: Axis, length: Span) -> Iterator[tuple[int, object]]:
        source: Iterator[tuple[int, object]] = files.packets(self._pieces, "audio") if self._copy else files.decoded_sound(self._pieces)
        for time_ns, item in source:
            at_ns = axis.place(time_ns)
            if at_ns is not None and length.begin_ns <= at_ns < length.end_ns:
                yield at_ns - length.begin_ns, item

    def write(self, at_ns: int, item: object) -> None:
        if self._copy:
            self._copy.write(item, at_ns)  # type: ignore[arg-type]  # a packet, as `read` gave it
        elif self._encode:
            self._encode.write(item, at_ns)  # type: ignore[arg-type]  # samples

    def finish(self, end_ns: int) -> None:
        if self._copy:
            self._copy.finish(end_ns)
        elif self._encode:
            self._encode.finish(end_ns)


_Stream = Iterator[tuple[int, Callable[[int, object], None], object]]


def _interleave(streams: Sequence[_Stream], writer: _Writer) -> None:
    """Write what comes first first: players read a file from its beginning."""
    heads = [(stream, next(stream, None)) for stream in streams]
    while True:
        waiting = [(head[0], number) for number, (_, head) in enumerate(heads) if head]
        if not waiting:
            return
        at_ns, number = min(waiting)
        stream, head = heads[number]
        assert head
        head[1](at_ns, head[2])
        writer.told(at_ns)
        heads[number] = stream, next(stream, None)


# ---- beside it ---------------------------------------------------------------------------------------------------


def _shots(folder: Path, source: Source, every_ms: int) -> list[Path]:
    """`<uid>_<utc>_<index>.jpg`: the picture of every so many milliseconds, from the first one on."""
    made: list[Path] = []
    due_ns: int | None = None
    for time_ns, frame, rotation in files.decoded_pictures(source.video):
        if due_ns is not None and time_ns < due_ns:
            continue
        path = folder / f"{source.name}_{_utc(time_ns)}_{len(made)}.jpg"
        part = path.with_name(f".{path.name}.part")
        jpeg.write(part, rgb_of(frame, rotation))
        made.append(part.replace(path))
        due_ns = (time_ns if due_ns is None else due_ns) + every_ms * 1_000_000
        while due_ns <= time_ns:  # nobody was there
            due_ns += every_ms * 1_000_000
    return made


def _each_slice(folder: Path, source: Source, options: Options, progress: Progress) -> list[Path]:
    """An MP4 or M4A beside each TS slice, under its name; the slices themselves are standard TS already."""
    made = []
    for piece in source.pieces:
        if piece.path.suffix == ".ts":
            video = (piece,) if piece in source.video else ()
            audio = () if video and not options.composite else (piece,)
            name = f"{piece.path.stem}{'.mp4' if video else '.m4a'}"
            axis = Axis([Span(piece.start_ns, piece.end_ns)], drop_absences=False)
            made += _make(folder, _Job(name, audio, video, axis, None), Options(), progress)
    return made


def _note(folder: Path, made: Sequence[Path]) -> None:
    """For scripts that wait for the original's tool."""
    with (folder / LOG).open("a") as file:
        file.writelines(f"{datetime.now(UTC).isoformat(timespec='seconds')} {path.name}\n" for path in made)
    (folder / DONE).write_text("".join(f"{path.name}\n" for path in made))
