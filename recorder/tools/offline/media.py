"""Reading slices and writing the output: media is copied where it can be, and encoded where it must."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from recorder.frames import Kind
from recorder.media.encode import FRAME_SAMPLES, RATE, AudioEncoder
from recorder.outputs.mux import AAC_FRAME_NS, Mp4File, index_in_front
from recorder.tools.offline import OfflineError
from recorder.tools.offline.lists import Piece
from recorder.tools.offline.timeline import limits

SECOND = 1_000_000_000
_ADTS_48_KHZ = 3
_PIECE_SAMPLES = 10 * RATE  # of silence laid at a time

Samples = npt.NDArray[np.float32]
AnyPacket: TypeAlias = "Packet[Stream]"
Tick = Callable[[int], None]  # told how far the output has come, in ns


def packets(pieces: Sequence[Piece], kind: Kind, *, flush: bool = False) -> Iterator[tuple[int, "AnyPacket"]]:
    """The encoded media of one kind with its moments: a slice begins when its name says.

    `flush`: after those of each slice an empty one, with which its decoder gives what it has kept.

    Raises:
        OfflineError: a slice cannot be read.
    """
    for piece, limit_ns in zip(pieces, limits(pieces), strict=True):
        try:
            with av.open(f"file:{piece.path}") as container:
                for time_ns, packet in _of(container, kind, piece.start_ns):
                    if (limit_ns is None or time_ns < limit_ns) and (packet.size or flush):
                        yield time_ns, packet
        except FFmpegError as error:
            raise OfflineError(f"{piece.path.name} cannot be read: {error.strerror}") from error


def _of(container: InputContainer, kind: Kind, start_ns: int) -> Iterator[tuple[int, "AnyPacket"]]:
    """A file that holds both begins with its picture."""
    first = (*container.streams.video, *container.streams.audio)[:1]
    wanted = (container.streams.video if kind == "video" else container.streams.audio)[:1]
    zero: Fraction | None = None
    waiting: list[AnyPacket] = []
    for packet in container.demux([*{*first, *wanted}]):
        if not packet.size and packet.stream in wanted:
            yield start_ns, packet
        if packet.pts is None or packet.time_base is None or not packet.size:
            continue
        if zero is None and packet.stream is first[0]:
            zero = packet.pts * packet.time_base
        if packet.stream in wanted:
            waiting.append(packet)
        if zero is not None:
            yield from ((start_ns + round((one.pts * one.time_base - zero) * SECOND), one) for one in waiting if one.pts is not None)
            waiting.clear()


def holds(piece: Piece, kind: Kind) -> bool:
    return next(packets((piece,), kind), None) is not None


class Output:
    """A file that has its name only when it is whole."""

    def __init__(self, path: Path, *, size: tuple[int, int] | None, audio: bool) -> None:
        self.path = path
        self._open = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._whole = path.with_name(f".{path.name}.{os.getpid()}.whole")
        self.file = Mp4File(self._open, origin_ns=0, size=size, audio=audio)

    def finish(self) -> None:
        self.file.close()
        index_in_front(self._open, self._whole)
        self._whole.replace(self.path)

    def clean(self) -> None:
        """Remove what is left when something went wrong, or nothing."""
        for path in (self._open, self._whole):
            path.unlink(missing_ok=True)


# ---- sound -------------------------------------------------------------------------------------------------------


class CopiedSound:
    """AAC frames as they are, on a grid of their own length: gaps are frames of silence, encoded once."""

    def __init__(self, output: Output, channels: int) -> None:
        self._output = output
        self._count = 0  # frames so far
        self._silence = _silent_frame(channels)

    def write(self, packet: "AnyPacket", at_ns: int) -> None:
        gap_ns = at_ns - self._count * AAC_FRAME_NS
        if gap_ns <= -AAC_FRAME_NS // 2:
            return  # there is sound already
        self._fill(round(gap_ns / AAC_FRAME_NS))
        self._put(bytes(packet))

    def finish(self, end_ns: int) -> None:
        self._fill(round((end_ns - self._count * AAC_FRAME_NS) / AAC_FRAME_NS))

    def _fill(self, frames: int) -> None:
        for _ in range(frames):
            self._put(self._silence)

    def _put(self, data: bytes) -> None:
        self._output.file.write_audio(data, self._count * FRAME_SAMPLES * SECOND // RATE)
        self._count += 1


class EncodedSound:
    """Sound that is no AAC at 48 kHz: decoded, laid onto the timeline, and encoded as mono."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._encoder = AudioEncoder(0)
        self._end = 0  # sample up to which there is sound

    def write(self, samples: Samples, at_ns: int) -> None:
        at = round(at_ns * RATE / SECOND)
        if abs(at - self._end) < RATE // 100:
            at = self._end  # rounding of times, not a gap
        if at > self._end:
            self._silence(at - self._end)
        samples = samples[:, max(0, self._end - at) :]
        self._end += samples.shape[1]
        self._put(samples)

    def finish(self, end_ns: int) -> None:
        self._silence(round(end_ns * RATE / SECOND) - self._end)
        for packet in self._encoder.flush():
            self._output.file.write_audio(packet.data, packet.pts * SECOND // RATE)

    def _silence(self, samples: int) -> None:
        while samples > 0:
            piece = min(samples, _PIECE_SAMPLES)
            self._put(np.zeros((1, piece), np.float32))
            self._end += piece
            samples -= piece

    def _put(self, samples: Samples) -> None:
        for packet in self._encoder.encode(samples):
            self._output.file.write_audio(packet.data, packet.pts * SECOND // RATE)


def aac_channels(pieces: Sequence[Piece]) -> int | None:
    """How many channels the sound has, if it is AAC in ADTS form at 48 kHz throughout; else None."""
    found: set[int] = set()
    for piece in pieces:
        _, packet = next(packets((piece,), "audio"), (0, None))
        if packet is None:
            continue
        data = bytes(packet)
        if packet.stream.codec_context.name != "aac" or len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
            return None
        if data[2] >> 2 & 0xF != _ADTS_48_KHZ:
            return None
        found.add((data[2] & 1) << 2 | data[3] >> 6)
    return found.pop() if len(found) == 1 and found <= {1, 2} else None


def decoded_sound(pieces: Sequence[Piece]) -> Iterator[tuple[int, Samples]]:
    """Mono at 48 kHz with its moments."""
    for piece, limit_ns in zip(pieces, limits(pieces), strict=True):
        resampler = AudioResampler(format="fltp", layout="mono", rate=RATE)
        zero_ns: int | None = None  # of the file's own time
        for time_ns, packet in packets((piece,), "audio", flush=True):
            if packet.pts is not None and packet.time_base is not None and zero_ns is None:
                zero_ns = time_ns - round(packet.pts * packet.time_base * SECOND)
            for frame in packet.decode():
                assert isinstance(frame, AudioFrame)
                at_ns = (zero_ns or 0) + round((frame.time or 0) * SECOND)
                if limit_ns is None or at_ns < limit_ns:
                    for samples in resampler.resample(frame):
                        yield at_ns, samples.to_ndarray().astype(np.float32, copy=False)


def _silent_frame(channels: int) -> bytes:
    encoder = AudioEncoder(0 if channels == 1 else 2)
    return encoder.encode(np.zeros((channels, 8 * FRAME_SAMPLES), np.float32))[-1].data


# ---- pictures ----------------------------------------------------------------------------------------------------


class Seen:
    """What the video of some slices is, by a look at each."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.sizes: set[tuple[int, int]] = set()
        self.codecs: set[str] = set()
        self.reordered = False
        self.rotations = {shape.rotation for piece in pieces for shape in piece.shapes}
        intervals: list[int] = []
        bits = 0
        lasting_ns = 0
        for piece in pieces:
            times: list[int] = []
            for time_ns, packet in packets((piece,), "video"):
                if not times:
                    context = packet.stream.codec_context
                    self.codecs.add(context.name)
                    self.sizes.add((context.width, context.height))  # type: ignore[attr-defined]  # of a video stream
                times.append(time_ns)
                bits += packet.size * 8
                self.reordered |= packet.dts is not None and packet.dts != packet.pts
            steps = [b - a for a, b in pairwise(times)]
            intervals += steps
            lasting_ns += sum(steps)
        self.interval_ns = round(statistics.median(intervals)) if intervals else SECOND // 15
        self.kbps = max(50, round(bits * 1e6 / lasting_ns)) if lasting_ns else 500

    @property
    def fps(self) -> int:
        return max(1, min(60, round(SECOND / self.interval_ns)))

    @property
    def largest(self) -> tuple[int, int]:
        """Upright, even, and as large as holds each size by itself."""
        turned = {(h, w) for w, h in self.sizes} if self.rotations & {90, 270} else set()
        upright = self.sizes if self.rotations <= {90, 270} and not turned else self.sizes | turned
        if self.rotations and self.rotations <= {90, 270}:
            upright = turned
        return tuple(max(size[side] for size in upright) // 2 * 2 for side in (0, 1))  # type: ignore[return-value]

    @property
    def copyable(self) -> bool:
        """Whether an MP4 can hold it as it is."""
        return self.codecs == {"h264"} and len(self.sizes) == 1 and not self.rotations - {0} and not self.reordered


def decoded_pictures(pieces: Sequence[Piece]) -> Iterator[tuple[int, VideoFrame, int]]:
    """Pictures with their moments, and by how many degrees clockwise they are to be turned."""
    rotation = 0
    for piece, limit_ns in zip(pieces, limits(pieces), strict=True):
        shapes = list(piece.shapes)
        held: dict[int, int] = {}  # moments of packets, by their time stamps
        for time_ns, packet in packets((piece,), "video", flush=True):
            if packet.pts is not None:
                held[packet.pts] = time_ns
            for frame in packet.decode():
                assert isinstance(frame, VideoFrame)
                moment_ns = held.pop(frame.pts, time_ns) if frame.pts is not None else time_ns
                while shapes and shapes[0].from_ns <= moment_ns + SECOND // 1000:
                    rotation = shapes.pop(0).rotation
                if limit_ns is None or moment_ns < limit_ns:
                    yield moment_ns, frame, rotation
