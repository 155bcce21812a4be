"""Reads slices: what they hold, their encoded media, and what that decodes to.

Files are opened as what their names say: libav would take a playlist that is called `.ts` for one, and open whatever it names.
"""

import contextlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import CodecContext, ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mixer.picture import Picture
from recorder.frames import Kind
from recorder.media.encode import RATE
from recorder.media.pictures import picture_of
from recorder.outputs.mux import AAC_FRAME_NS
from recorder.tools.offline import OfflineError
from recorder.tools.offline.playlist import Piece, Turn

SECOND = 1_000_000_000
DEMUXERS = {".ts": "mpegts", ".webm": "webm", ".mp4": "mp4", ".m4a": "mp4", ".aac": "aac", ".mp3": "mp3", ".wav": "wav"}

_NANOSECONDS = Fraction(1, SECOND)
_PRIMING_NS = 2 * AAC_FRAME_NS
_LOOK_PACKETS = 32  # of each kind, to learn what a slice holds
_USUAL_INTERVAL_NS = SECOND // 15
_OPUS_DELAY_NS = 312 * SECOND // RATE  # libopus's look-ahead, which a transport stream does not tell
_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VideoFacts:
    codec: str
    size: tuple[int, int]
    interval_ns: int  # median, from frame to frame
    starts_with_keyframe: bool


@dataclass(frozen=True, slots=True)
class AudioFacts:
    codec: str
    rate: int
    channels: int
    adts: bool  # AAC, each frame with its header


@dataclass(frozen=True, slots=True)
class Facts:
    """What a slice holds."""

    video: VideoFacts | None
    audio: AudioFacts | None
    end_ns: int | None  # of its media, from its start; None: not measured


@dataclass(frozen=True, slots=True)
class Coded:
    """An encoded picture or piece of sound."""

    time_ns: int
    data: bytes
    keyframe: bool = True
    early_ns: int = 0  # by how much it is decoded before it is shown
    lasts_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """A packet and what its decoder must know; a packet itself leads to memory of its file, which is closed some time."""

    coded: Coded
    codec: str
    form: tuple[int, str]  # sound: rate and layout
    extradata: bytes | None
    late_ns: int  # by how much what it decodes to comes later than its moment


def look(piece: Piece, *, whole: bool = False) -> Facts:
    """What a slice holds, by its first packets; `whole`: and for how long, by all of them.

    Raises:
        OfflineError: it cannot be read.
    """
    times: dict[Kind, list[int]] = {"audio": [], "video": []}
    first: dict[Kind, Coded] = {}
    ends: dict[Kind, tuple[int, int]] = {}  # moment of the last packet, and how long it lasts
    with opened(piece.path) as container:
        streams = _streams(container)
        for kind, packet in _demuxed(container, streams, piece.start_ns):
            first.setdefault(kind, packet)
            ends[kind] = max(ends.get(kind, (0, 0)), (packet.time_ns - piece.start_ns, packet.lasts_ns))
            if len(times[kind]) < _LOOK_PACKETS:
                times[kind].append(packet.time_ns)
            elif not whole and all(len(times[wanted]) == _LOOK_PACKETS for wanted in streams):
                break
        video, audio = streams.get("video"), streams.get("audio")
        seen = None
        if isinstance(video, VideoStream) and "video" in first:
            size = (video.codec_context.width, video.codec_context.height)
            seen = VideoFacts(video.codec_context.name, size, _interval_ns(times["video"]), first["video"].keyframe)
        heard = None
        if isinstance(audio, AudioStream) and "audio" in first:
            adts_rate = _adts_rate(first["audio"].data) if audio.codec_context.name == "aac" else None
            heard = AudioFacts(audio.codec_context.name, adts_rate or audio.rate, audio.channels, adts_rate is not None)
    end_ns = max((at_ns + (lasts_ns or _interval_ns(times[kind])) for kind, (at_ns, lasts_ns) in ends.items()), default=0)
    return Facts(seen, heard, end_ns if whole else None)


def coded(pieces: Sequence[Piece], kind: Kind) -> Iterator[Coded]:
    """The encoded media of one kind with its moments: each slice begins when its name says, and ends where the next one begins.

    Raises:
        OfflineError: a slice cannot be read.
    """
    for found in _found(pieces, kind):
        yield found.coded


def pictures(pieces: Sequence[Piece]) -> Iterator[tuple[int, Picture, VideoFrame]]:
    """Decoded pictures with their moments, as the mixer's pictures, to be turned, and as they are."""
    turns = [turn for piece in pieces for turn in piece.turns]
    rotation = 0
    for time_ns, frame in _decoded(pieces, "video"):
        assert isinstance(frame, VideoFrame)
        # A moment is told in whole milliseconds.
        while turns and turns[0].from_ns <= time_ns + SECOND // 1000:
            rotation = turns.pop(0).rotation
        yield time_ns, picture_of(frame, rotation), frame


def sound(pieces: Sequence[Piece], channels: int) -> Iterator[tuple[int, Samples]]:
    """Samples at 48 kHz, `(channels, samples)`, with the moment of the first."""
    layout = "mono" if channels == 1 else "stereo"
    resampler, form = None, None
    for time_ns, frame in _decoded(pieces, "audio"):
        assert isinstance(frame, AudioFrame)
        if resampler is None or form != (frame.format.name, frame.layout.name, frame.sample_rate):
            resampler, form = (
                AudioResampler(format="fltp", layout=layout, rate=RATE),
                (frame.format.name, frame.layout.name, frame.sample_rate),
            )
        frame.pts = None  # the resampler would fill gaps; where samples go is decided elsewhere
        for part in resampler.resample(frame):
            yield time_ns, part.to_ndarray().astype(np.float32, copy=False)


# ---- packets -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A file to be read.

    Raises:
        OfflineError: it cannot be read, also later.
    """
    try:
        with av.open(f"file:{path}", format=DEMUXERS[path.suffix], metadata_errors="replace") as container:
            yield container
    except (FFmpegError, EOFError) as error:
        raise OfflineError(f"{path.name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except IndexError as error:  # PyAV knows only the streams that were there at first
        raise OfflineError(f"{path.name} cannot be read: a stream begins in the middle of it") from error


def _streams(container: InputContainer) -> dict[Kind, Stream]:
    found: dict[Kind, Stream] = {}
    if container.streams.video and container.streams.video[0].codec_context:
        found["video"] = container.streams.video[0]
    if container.streams.audio and container.streams.audio[0].codec_context:
        found["audio"] = container.streams.audio[0]
    return found


def _demuxed(container: InputContainer, streams: dict[Kind, Stream], start_ns: int) -> Iterator[tuple[Kind, Coded]]:
    """Packets with moments.

    A slice of both kinds starts with its picture: sound that lies shortly before primes the decoder. Else with what comes first.
    """
    kinds: dict[int, Kind] = {stream.index: kind for kind, stream in streams.items()}
    if not kinds:
        return
    starts = [_ns(stream.start_time or 0, stream.time_base) for stream in streams.values()]
    zero_ns = starts[0] if starts[0] - min(starts) < _PRIMING_NS else min(starts)
    if container.format.name.startswith(("matroska", "mov")) and abs(zero_ns) < SECOND:
        zero_ns = 0  # these count from their start by themselves
    for packet in container.demux(list(streams.values())):
        if packet.pts is None or not packet.size:
            continue
        time_ns = start_ns + _ns(packet.pts, packet.time_base) - zero_ns
        early_ns = _ns(packet.pts - (packet.pts if packet.dts is None else packet.dts), packet.time_base)
        lasts_ns = _ns(packet.duration or 0, packet.time_base)
        yield kinds[packet.stream_index], Coded(time_ns, bytes(packet), packet.is_keyframe, early_ns, lasts_ns)


def _found(pieces: Sequence[Piece], kind: Kind) -> Iterator[_Found]:
    there = [piece for piece in pieces if not piece.missing]
    for piece, following in zip(there, [*there[1:], None], strict=True):
        with opened(piece.path) as container:
            streams = _streams(container)
            stream = streams.get(kind)
            context = stream.codec_context if stream else None
            if not context:
                continue
            form = (context.sample_rate, context.layout.name) if isinstance(context, AudioCodecContext) else (0, "")
            extradata = bytes(context.extradata) if context.extradata else None
            late_ns = _OPUS_DELAY_NS if context.name == "opus" and piece.path.suffix == ".ts" else 0
            for packet_kind, packet in _demuxed(container, streams, piece.start_ns):
                if packet_kind == kind and (following is None or packet.time_ns < following.start_ns):
                    yield _Found(packet, context.name, form, extradata, late_ns)


def _decoded(pieces: Sequence[Piece], kind: Kind) -> Iterator[tuple[int, VideoFrame | AudioFrame]]:
    """One decoder for all slices of the same form: the sound of one goes on in the next, a forced cut has no keyframe."""
    decoder: VideoCodecContext | AudioCodecContext | None = None
    last: _Found | None = None
    for found in _found(pieces, kind):
        if decoder is None or last is None or not _goes_on(last, found):
            if decoder and last:
                yield from _frames(decoder, None, last.late_ns)
            decoder, last = _decoder(found, kind), found
        yield from _frames(decoder, found.coded, found.late_ns)
    if decoder and last:
        yield from _frames(decoder, None, last.late_ns)


def _goes_on(last: _Found, found: _Found) -> bool:
    """H.264 tells its parameters in the stream."""
    same = (last.codec, last.form, last.late_ns) == (found.codec, found.form, found.late_ns)
    return same and (found.codec == "h264" or last.extradata == found.extradata)


def _decoder(found: _Found, kind: Kind) -> VideoCodecContext | AudioCodecContext:
    try:
        context = CodecContext.create(found.codec, "r")
        if found.extradata:
            # The decoder would leave out the look-ahead of each slice (RFC 7845, section 5.1), but only that of the first is none.
            is_opus = found.codec == "opus"
            context.extradata = found.extradata[:10] + bytes(2) + found.extradata[12:] if is_opus else found.extradata
        if isinstance(context, AudioCodecContext):
            context.sample_rate, context.layout = found.form
        context.thread_type = ThreadType.SLICE
        context.open()
    except (FFmpegError, ValueError) as error:
        raise OfflineError(f"{found.codec} cannot be decoded: {error}") from error
    assert isinstance(context, VideoCodecContext if kind == "video" else AudioCodecContext)
    return context


def _frames(
    decoder: VideoCodecContext | AudioCodecContext, packet: Coded | None, late_ns: int
) -> Iterator[tuple[int, VideoFrame | AudioFrame]]:
    raw: Packet[Stream] | None = None
    if packet:
        raw = Packet(packet.data)
        raw.pts, raw.dts, raw.time_base = packet.time_ns, packet.time_ns - packet.early_ns, _NANOSECONDS
    try:
        frames = decoder.decode(raw)
    except (FFmpegError, EOFError):
        return  # damaged: the picture before stands, or it is silent
    for frame in frames:
        if frame.pts is not None:
            yield frame.pts - late_ns, frame


def _ns(value: int, time_base: Fraction | None) -> int:
    return round(value * (time_base or _NANOSECONDS) * SECOND)


def _interval_ns(times: Sequence[int]) -> int:
    steps = [after - before for before, after in pairwise(sorted(times)) if after > before]
    return round(statistics.median(steps)) if steps else _USUAL_INTERVAL_NS


def _adts_rate(data: bytes) -> int | None:
    """ISO/IEC 14496-3, 1.A.2.2; None: there is no such header, or it tells another profile than LC."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0 or data[2] >> 6 != 1:
        return None
    index = data[2] >> 2 & 0xF
    return _ADTS_RATES[index] if index < len(_ADTS_RATES) else None


def single(path: Path) -> Piece:
    """A file that stands for itself, from zero on."""
    return Piece(path, 0, 0, (Turn(0, 0),))
