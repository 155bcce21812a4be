"""Pictures on the output's timeline: H.264 copied, or decoded, drawn on a canvas and encoded at a constant rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from av.codec.context import CodecContext
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from mixer.canvas import Canvas
from mixer.fit import Size, Tile, even, fit
from mixer.picture import BLACK, Picture
from recorder.media.pictures import frame_of
from recorder.media.scale import Scaler
from recorder.tools.offline import OfflineError
from recorder.tools.offline.media import SECOND, Coded, VideoFacts, coded, pictures
from recorder.tools.offline.playlist import Piece
from recorder.tools.offline.timeline import Span

MAX_HOLD_NS = 6 * 3600 * SECOND  # longer than 2^31 ticks of 90 kHz a picture cannot stand in an MP4 of libav's

_BT601 = 6  # AVColorSpace SMPTE 170M
_KEYFRAME_SECONDS = 2
_MAX_SIDE = 4096

Place = Callable[[int], int | None]  # from a moment to the output's time; None: not there


def copyable(facts: Sequence[VideoFacts], pieces: Sequence[Piece]) -> bool:
    """Whether an MP4 can hold it as it is: H.264 of one size that needs no turning."""
    turned = any(turn.rotation for piece in pieces for turn in piece.turns)
    return not turned and {fact.codec for fact in facts} == {"h264"} and len({fact.size for fact in facts if all(fact.size)}) == 1


def copied(pieces: Sequence[Piece], place: Place, length_ns: int) -> Iterator[Coded]:
    """Pictures as they are; each stands until the next one, the last one to the end.

    Before zero stand those that the one which is seen at zero needs.
    """
    held: list[Coded] = []  # from the last keyframe before zero on
    last: Coded | None = None
    for packet in coded(pieces, "video"):
        at_ns = place(packet.time_ns)
        if at_ns is None or at_ns >= length_ns:
            continue
        ready = [replace(packet, time_ns=at_ns)]
        if last is None and at_ns <= 0:
            held = [*([] if packet.keyframe else held), *ready]
            continue
        if held:
            ready, held = [*_before_zero(held), *ready], []
        for one in ready:
            if last:
                yield last
            last = one
    for one in _before_zero(held):
        if last:
            yield last
        last = one
    if last:
        yield replace(last, lasts_ns=length_ns - last.time_ns)


def _before_zero(held: Sequence[Coded]) -> list[Coded]:
    """The last one is seen at zero."""
    return [*held[:-1], *(replace(one, time_ns=0) for one in held[-1:])]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures are encoded."""

    size: tuple[int, int]  # even
    fps: int
    kbps: int


def encoded(pieces: Sequence[Piece], place: Place, length_ns: int, encoding: Encoding, black: Sequence[Span] = ()) -> Iterator[Coded]:
    """Each picture of the output shows what was to be seen then, in full and in the middle of black; nothing is seen in `black`.

    Pictures stand on a grid that begins with the first of the source, so that a source of the same rate is met exactly.
    """
    encoder = _Encoder(encoding)
    tick_ns = Fraction(SECOND, encoding.fps)
    page, nothing = _Page(encoding.size), _Page(encoding.size)
    origin_ns: int | None = None
    tick = 0
    is_empty = True

    def until(end_ns: int) -> Iterator[Coded]:
        """Encode what is on the page for all ticks before `end_ns`."""
        nonlocal tick
        while (at_ns := (origin_ns or 0) + int(tick * tick_ns)) < end_ns:
            is_black = is_empty or any(span.begin_ns <= at_ns < span.end_ns for span in black)
            yield from encoder.encode((nothing if is_black else page).frame, tick, at_ns)
            tick += 1

    for time_ns, picture, _ in pictures(pieces):
        at_ns = place(time_ns)
        if at_ns is None:
            continue
        if at_ns >= length_ns:
            break
        if at_ns >= 0:
            if origin_ns is None:
                origin_ns = at_ns % int(tick_ns)
            yield from until(at_ns - int(tick_ns / 2))  # a picture is due at the tick nearest to its moment
        page.draw(picture)
        is_empty = False
    yield from until(max(length_ns - int(tick_ns / 2), 1 if tick == 0 else 0))
    yield from encoder.flush()


class _Page:
    """A picture of the output."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._canvas = Canvas(*size)
        self._scaler = Scaler()
        self._tile: Tile | None = None
        self.frame: VideoFrame = frame_of(self._canvas.planes)

    def draw(self, picture: Picture) -> None:
        source = picture.planes.size
        tile = fit(source, picture.rotation, self._canvas.size)
        if tile != self._tile:
            self._canvas.planes.fill(BLACK)
            self._tile = tile
        flat = tile.size.turned(picture.rotation)
        scaled = self._scaler(picture, Tile(0, 0, source.width, source.height), flat.width, flat.height)
        self._canvas.planes.cut(tile).copy_from(scaled.turned(picture.rotation))


class _Encoder:
    """H.264 for files: nobody waits for it, so it may look ahead and use all processors."""

    def __init__(self, encoding: Encoding) -> None:
        context = CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = encoding.size
        context.pix_fmt = "yuv420p"
        context.framerate, context.time_base = Fraction(encoding.fps), Fraction(1, encoding.fps)
        context.sample_aspect_ratio = Fraction(1)
        context.bit_rate = encoding.kbps * 1000
        context.gop_size = _KEYFRAME_SECONDS * encoding.fps
        context.max_b_frames = 0
        context.colorspace, context.color_range = _BT601, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M
        context.options = {"preset": "veryfast", "profile": "high"}
        context.open()
        self._context = context
        self._tick_ns = SECOND // encoding.fps
        self._times: dict[int, int] = {}

    def encode(self, frame: VideoFrame, tick: int, at_ns: int) -> Iterator[Coded]:
        self._times[tick] = at_ns
        frame.pts, frame.time_base = tick, self._context.time_base
        frame.pict_type = PictureType.NONE
        yield from self._timed(self._context.encode(frame))

    def flush(self) -> Iterator[Coded]:
        yield from self._timed(self._context.encode(None))

    def _timed(self, packets: "Sequence[Packet[Stream]]") -> Iterator[Coded]:
        for packet in packets:
            if packet.pts is not None:
                yield Coded(self._times.pop(packet.pts), bytes(packet), packet.is_keyframe, 0, self._tick_ns)


def largest(facts: Sequence[tuple[Piece, VideoFacts]]) -> tuple[int, int]:
    """The size that holds each picture by itself, upright; even. The size of a slice without keyframe is not known.

    Raises:
        OfflineError: none is known.
    """
    known = [(piece, Size(*fact.size)) for piece, fact in facts if all(fact.size)]
    sizes = [size.turned(turn.rotation) for piece, size in known for turn in piece.turns]
    if not sizes:
        raise OfflineError(f"no picture can be seen in {', '.join(piece.path.name for piece, _ in facts)}")
    width, height = max(size.width for size in sizes), max(size.height for size in sizes)
    return even(min(width, _MAX_SIDE)), even(min(height, _MAX_SIDE))
