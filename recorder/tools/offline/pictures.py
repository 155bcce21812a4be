"""Pictures on the output's timeline: H.264 copied, or decoded, drawn on a canvas and encoded."""

from collections import deque
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
from recorder.tools.offline.timeline import SEAM_NS, Span

MAX_HOLD_NS = 6 * 3600 * SECOND  # longer than 2^31 ticks of 90 kHz a picture cannot stand in an MP4 of libav's

_BT601 = 6  # AVColorSpace SMPTE 170M
_KEYFRAME_SECONDS = 2
_MAX_SIDE = 4096
_CLOCK_HZ = 90_000

Place = Callable[[int], int | None]  # from a moment to the output's time; None: not there


def copyable(facts: Sequence[VideoFacts], pieces: Sequence[Piece]) -> bool:
    """Whether an MP4 can hold it as it is: H.264 of one size that needs no turning."""
    turned = any(turn.rotation for piece in pieces for turn in piece.turns)
    return not turned and {fact.codec for fact in facts} == {"h264"} and len({fact.size for fact in facts if all(fact.size)}) == 1


def copied(pieces: Sequence[Piece], place: Place, length_ns: int) -> Iterator[Coded]:
    """Pictures as they are; each stands until the next one, the last one to the end.

    Before zero stand those that the one which is seen at zero needs.
    """
    return _to_the_end(_copied(pieces, place, length_ns), length_ns)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures are encoded."""

    size: tuple[int, int]  # even
    fps: int
    kbps: int
    constant: bool  # `fps` pictures in each second; else each at its moment


def encoded(pieces: Sequence[Piece], place: Place, length_ns: int, encoding: Encoding, black: Sequence[Span] = ()) -> Iterator[Coded]:
    """Pictures in full and in the middle of black. Nothing is seen before the first one, and from the begin of each of `black` on."""
    return _to_the_end(_encoded(pieces, place, length_ns, encoding, black), length_ns)


def _to_the_end(packets: Iterator[Coded], length_ns: int) -> Iterator[Coded]:
    last: Coded | None = None
    for packet in packets:
        if last:
            yield last
        last = packet
    if last:
        yield replace(last, lasts_ns=length_ns - last.time_ns)


# ---- copied ------------------------------------------------------------------------------------------------------


def _copied(pieces: Sequence[Piece], place: Place, length_ns: int) -> Iterator[Coded]:
    held: list[Coded] = []  # from the last keyframe before zero on
    is_begun = False
    for packet in coded(pieces, "video"):
        at_ns = place(packet.time_ns)
        if at_ns is None or at_ns >= length_ns:
            continue
        moved = replace(packet, time_ns=at_ns)
        if at_ns <= 0 and not is_begun:
            held = [*([] if packet.keyframe else held), moved]
            continue
        yield from _seen_at_zero(held)
        held, is_begun = [], True
        yield moved
    yield from _seen_at_zero(held)


def _seen_at_zero(held: Sequence[Coded]) -> Iterator[Coded]:
    """The last one is."""
    yield from held[:-1]
    yield from (replace(one, time_ns=0) for one in held[-1:])


# ---- encoded -----------------------------------------------------------------------------------------------------

_Seen = tuple[int, Picture | None]  # from when on; None: nothing


def _encoded(pieces: Sequence[Piece], place: Place, length_ns: int, encoding: Encoding, black: Sequence[Span]) -> Iterator[Coded]:
    encoder = _Encoder(encoding)
    page, nothing = _Page(encoding.size), _Page(encoding.size)
    seen = _seen(pieces, place, length_ns, black)
    drawn: Picture | None = None
    for at_ns, picture in _at_a_constant_rate(seen, length_ns, encoding.fps) if encoding.constant else _as_they_came(seen):
        if picture and picture is not drawn:
            page.draw(picture)
            drawn = picture
        yield from encoder.encode((page if picture else nothing).frame, at_ns)
    yield from encoder.flush()


def _seen(pieces: Sequence[Piece], place: Place, length_ns: int, black: Sequence[Span]) -> Iterator[_Seen]:
    """In order; what comes before zero may be seen at zero."""
    gaps = deque(span.begin_ns for span in black)
    first = True
    for time_ns, picture, _ in pictures(pieces):
        at_ns = place(time_ns)
        if at_ns is None:
            continue
        if at_ns >= length_ns:
            break
        if first and at_ns > SEAM_NS:
            yield 0, None
        while gaps and gaps[0] <= at_ns:
            yield gaps.popleft(), None
        yield at_ns, picture
        first = False
    yield from ((begin_ns, None) for begin_ns in gaps)


def _as_they_came(seen: Iterator[_Seen]) -> Iterator[_Seen]:
    waiting: _Seen | None = None
    for at_ns, picture in seen:
        if waiting and at_ns > max(0, waiting[0]):
            yield max(0, waiting[0]), waiting[1]
        waiting = at_ns, picture
    if waiting:
        yield max(0, waiting[0]), waiting[1]


def _at_a_constant_rate(seen: Iterator[_Seen], length_ns: int, fps: int) -> Iterator[_Seen]:
    """On a grid that begins with the first picture; each is seen from the place nearest to its moment on."""
    tick_ns = Fraction(SECOND, fps)
    origin_ns: int | None = None
    shown: Picture | None = None
    tick = 0

    def until(end_ns: float) -> Iterator[_Seen]:
        nonlocal tick
        while (at_ns := (origin_ns or 0) + int(tick * tick_ns)) < end_ns:
            yield at_ns, shown
            tick += 1

    for at_ns, picture in seen:
        if picture and at_ns >= 0 and origin_ns is None:
            origin_ns = at_ns % int(tick_ns)
        yield from until(at_ns - int(tick_ns / 2))
        shown = picture
    yield from until(max(length_ns - int(tick_ns / 2), 0 if tick else 1))


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
        context.framerate, context.time_base = Fraction(encoding.fps), Fraction(1, _CLOCK_HZ)
        context.sample_aspect_ratio = Fraction(1)
        context.bit_rate = encoding.kbps * 1000
        context.gop_size = _KEYFRAME_SECONDS * encoding.fps
        context.max_b_frames = 0
        context.colorspace, context.color_range = _BT601, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M
        context.options = {"preset": "veryfast", "profile": "high"}
        context.open()
        self._context = context
        self._times: dict[int, int] = {}  # of pictures that are still inside, by their ticks
        self._last = -1

    def encode(self, frame: VideoFrame, at_ns: int) -> Iterator[Coded]:
        """Moments rise; a picture that comes with the one before it is left out."""
        tick = at_ns * _CLOCK_HZ // SECOND
        if tick <= self._last:
            return
        self._last = tick
        frame.pts, frame.time_base = tick, self._context.time_base
        frame.pict_type = PictureType.NONE
        self._times[tick] = at_ns
        yield from self._timed(self._context.encode(frame))

    def flush(self) -> Iterator[Coded]:
        yield from self._timed(self._context.encode(None))

    def _timed(self, packets: "Sequence[Packet[Stream]]") -> Iterator[Coded]:
        for packet in packets:
            if packet.pts is not None:
                yield Coded(self._times.pop(packet.pts), bytes(packet), packet.is_keyframe)


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
