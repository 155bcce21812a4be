"""Screenshots of a recorded participant, at a fixed interval from the begin of its video in each recording segment."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from av.video.frame import VideoFrame

from recorder.media.pictures import rgb_of
from recorder.outputs import jpeg
from recorder.outputs.names import utc
from recorder.tools.offline.media import pictures
from recorder.tools.offline.output import whole
from recorder.tools.offline.playlist import MS, Piece
from recorder.tools.offline.timeline import Axis, Span, segments, within


def take(folder: Path, name: str, pieces: Sequence[Piece], every_ms: int) -> Iterator[Path]:
    """`<name>_<utc>_<index>.jpg`: what was seen `index` intervals after `utc`, the begin of the video in a recording segment.

    An instant in which no video ran has no picture, and its index is left out.

    Raises:
        OfflineError: a slice cannot be read, or a picture cannot be written.
    """
    every_ns = every_ms * MS
    for span in segments(pieces):
        seen = within(pieces, span)
        running = Axis([span]).covered(seen)
        for index, frame, rotation in _shown(seen, span, every_ns):
            if any(part.begin_ns <= index * every_ns < part.end_ns for part in running):
                path = folder / f"{name}_{utc(span.begin_ns // MS)}_{index}.jpg"
                with whole(path) as part:
                    jpeg.write(part, rgb_of(frame, rotation))
                yield path


def _shown(pieces: Sequence[Piece], span: Span, every_ns: int) -> Iterator[tuple[int, VideoFrame, int]]:
    """The last picture at each instant of the segment, and by how much it is to be turned."""
    index = 0
    last: tuple[VideoFrame, int] | None = None
    for time_ns, picture, frame in pictures(pieces):
        while span.begin_ns + index * every_ns < min(time_ns, span.end_ns):
            if last:
                yield index, *last
            index += 1
        last = frame, picture.rotation
    while last and span.begin_ns + index * every_ns < span.end_ns:
        yield index, *last
        index += 1
