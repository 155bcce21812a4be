"""Judges recordings as a viewer would: what is seen and heard, when, and whether files are whole.

Reads the marks that `recorder.tools.content` draws. Times are presentation times in seconds, as the file states them.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import atan2, cos, hypot, sin
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
import av.logging
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from recorder.tools.content import COUNTER, FLASH, FLASH_SECONDS, SAMPLE_RATE, Plane, counter_cells, counter_from_cells, hue

_ROWS, _COLUMNS = counter_cells(0).shape
_SMOOTHING_SECONDS = 0.02  # applied twice: the first null of the filter is 50 Hz from the tone
_CONTRAST = 60  # least difference of black and white cells
_HUE_TOLERANCE = 0.2  # radians
_SATURATION = 18

Samples = npt.NDArray[np.float32]


class Rect(NamedTuple):
    """A tile in pixels of the recorded picture."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class StreamProbe:
    kind: str  # "video", "audio"
    codec: str
    width: int
    height: int
    fps: float
    sample_rate: int
    channels: int
    start: float
    duration: float
    frames: int  # packets, counted


@dataclass(frozen=True, slots=True)
class Probe:
    container: str
    duration: float  # from the earliest start to the latest end
    streams: tuple[StreamProbe, ...]

    def stream(self, kind: str) -> StreamProbe | None:
        return next((stream for stream in self.streams if stream.kind == kind), None)


# ---- pictures ----------------------------------------------------------------------------------------------------


def luma_of(frame: VideoFrame) -> Plane:
    return _plane(frame, 0)


def crop(plane: Plane, rect: Rect | None) -> Plane:
    return plane if rect is None else plane[rect.top : rect.top + rect.height, rect.left : rect.left + rect.width]


def read_counter(luma: Plane, aspect: float = 16 / 9) -> int | None:
    """The frame counter of a tile; None when there is none to be read.

    The tile shows a picture of this aspect: all of it, or its middle, cropped to fill.
    """
    left, top, right, bottom = COUNTER.pixels(luma.shape[1], luma.shape[0], aspect)
    if left < 0 or top < 0 or right > luma.shape[1] or bottom > luma.shape[0]:
        return None
    width, height = (right - left) / _COLUMNS, (bottom - top) / _ROWS
    cells = [[(left + (column + 0.5) * width, top + (row + 0.5) * height) for column in range(_COLUMNS)] for row in range(_ROWS)]
    means = np.array([[_around(luma, x, y, width / 2, height / 2) for x, y in row] for row in cells])
    low, high = means.min(), means.max()
    white = means > (low + high) / 2
    undecided = np.abs(means - (low + high) / 2) < (high - low) / 6
    if high - low < _CONTRAST or undecided.any():
        return None
    return counter_from_cells(white)


def flash_level(luma: Plane, aspect: float = 16 / 9) -> float:
    """Mean luma of the middle of the flash patch."""
    left, top, right, bottom = FLASH.pixels(luma.shape[1], luma.shape[0], aspect)
    margin_x, margin_y = (right - left) // 4, (bottom - top) // 4
    return float(luma[top + margin_y : bottom - margin_y, left + margin_x : right - margin_x].mean())


def mean_colour(frame: VideoFrame, rect: Rect | None = None) -> tuple[float, float, float]:
    """Y, U, V of the background: medians, which the marks in the middle do not move."""
    y = crop(_plane(frame, 0), rect)
    half = None if rect is None else Rect(rect.left // 2, rect.top // 2, max(1, rect.width // 2), max(1, rect.height // 2))
    u, v = (crop(_plane(frame, i), half) for i in (1, 2))
    return float(np.median(y)), float(np.median(u)), float(np.median(v))


def who(frame: VideoFrame, uids: Iterable[int], rect: Rect | None = None) -> int | None:
    """Whose background colour the tile shows; None when it is nobody's."""
    _, u, v = mean_colour(frame, rect)
    if hypot(u - 128, v - 128) < _SATURATION:
        return None
    angle = atan2(v - 128, u - 128)
    distance, uid = min((_angle_between(angle, hue(uid)), uid) for uid in uids)
    return uid if distance < _HUE_TOLERANCE else None


def video_frames(path: Path | str) -> Iterator[tuple[float, VideoFrame]]:
    """Decoded frames with their presentation times."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            yield float(frame.time or 0), frame


def flash_onsets(source: Path | str | Iterable[tuple[float, Plane]], rect: Rect | None = None, aspect: float = 16 / 9) -> list[float]:
    """When the flash patch turns white, by presentation time; `source` may be times and luma planes."""
    planes = ((time, luma_of(frame)) for time, frame in video_frames(source)) if isinstance(source, Path | str) else source
    levels = [(time, flash_level(crop(luma, rect), aspect)) for time, luma in planes]
    return [time for (_, before), (time, level) in pairwise(levels) if before < 128 <= level]


# ---- sound -------------------------------------------------------------------------------------------------------


def samples_of(path: Path | str) -> tuple[float, Samples]:
    """The first audio stream as mono at 48 kHz, with the time of the first sample; gaps in the timestamps stay silent."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    pieces: list[tuple[int, Samples]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            pieces += _pieces(resampler, frame)
        pieces += _pieces(resampler, None)
    if not pieces:
        return 0.0, np.zeros(0, np.float32)
    first = min(position for position, _ in pieces)
    end = max(position + len(piece) for position, piece in pieces)
    samples = np.zeros(end - first, np.float32)
    for position, piece in pieces:
        samples[position - first : position - first + len(piece)] = piece
    return first / SAMPLE_RATE, samples


def onsets(samples: npt.NDArray[np.float32 | np.float64], frequency: float) -> list[float]:
    """Where beeps of this tone begin, in seconds from the first sample: the half height of their edge."""
    level = _envelope(samples, frequency)
    if not len(level):
        return []
    loud = level > max(0.01, 0.3 * float(level.max()))
    edges: list[int] = np.flatnonzero(np.diff(loud.astype(np.int8))).tolist()
    found = []
    for start, end in pairwise(edges):
        seconds = (end - start) / SAMPLE_RATE
        if not loud[start + 1] or not 0.5 * FLASH_SECONDS < seconds < 1.6 * FLASH_SECONDS:
            continue
        half = float(level[start : end + 1].max()) / 2
        first = max(0, start - int(_SMOOTHING_SECONDS * SAMPLE_RATE))
        index = first + int(np.argmax(level[first : end + 1] >= half))
        if index > first:
            found.append((index - float((level[index] - half) / (level[index] - level[index - 1]))) / SAMPLE_RATE)
    return found


def beep_onsets(path: Path | str, frequency: float) -> list[float]:
    """When beeps of this tone begin, by presentation time."""
    start, samples = samples_of(path)
    return [start + onset for onset in onsets(samples, frequency)]


def tone_present(path: Path | str, frequency: float, start: float = 0.0, end: float = float("inf")) -> bool:
    """Whether a beep of this tone begins between the two times."""
    return any(start <= onset <= end for onset in beep_onsets(path, frequency))


def offsets(flashes: Sequence[float], beeps: Sequence[float]) -> list[float]:
    """For each flash the time from its nearest beep; flashes without a beep within 0.5 s are left out."""
    nearest = [min((flash - beep for beep in beeps), key=abs) for flash in flashes if beeps]
    return [offset for offset in nearest if abs(offset) < 0.5]


def av_offsets(path: Path | str, frequency: float, rect: Rect | None = None, aspect: float = 16 / 9) -> list[float]:
    """Flash minus beep, seconds: positive when the picture is late."""
    return offsets(flash_onsets(path, rect, aspect), beep_onsets(path, frequency))


# ---- files -------------------------------------------------------------------------------------------------------


def probe(path: Path | str) -> Probe:
    """What a file or playlist holds, by reading all of it."""
    with av.open(str(path)) as container:
        spans: dict[int, list[float]] = {stream.index: [] for stream in container.streams}
        counts = dict.fromkeys(spans, 0)
        for packet in container.demux():
            if packet.size and packet.pts is not None and packet.time_base is not None:
                start = float(packet.pts * packet.time_base)
                spans[packet.stream_index] += (start, start + float((packet.duration or 0) * packet.time_base))
                counts[packet.stream_index] += 1
        streams = tuple(
            _stream_probe(stream, spans[stream.index], counts[stream.index])
            for stream in container.streams
            if isinstance(stream, VideoStream | AudioStream) and spans[stream.index]
        )
        ends = [stream.start + stream.duration for stream in streams]
        duration = max(ends) - min(stream.start for stream in streams) if streams else 0.0
        return Probe(container.format.name, duration, streams)


def decode_errors(paths: Sequence[Path]) -> list[str]:
    """What a decoder complains about in these files, joined as they are (TS slices in order, or one file)."""
    data = io.BytesIO(b"".join(path.read_bytes() for path in paths))
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as logs:
            errors = _decode_all(data)
    finally:
        av.logging.set_level(level)
    return errors + [f"{name}: {message.strip()}" for severity, name, message in logs if severity <= av.logging.ERROR]


def _decode_all(data: io.BytesIO) -> list[str]:
    errors = []
    try:
        with av.open(data, "r") as container:
            for packet in container.demux():
                if packet.is_corrupt:
                    errors.append(f"corrupt packet in stream {packet.stream_index}")
                if isinstance(packet.stream, VideoStream | AudioStream):
                    errors += [
                        f"corrupt frame at {frame.time}"
                        for frame in packet.decode()
                        if isinstance(frame, VideoFrame | AudioFrame) and frame.is_corrupt
                    ]
    except av.FFmpegError as error:
        errors.append(str(error))
    return errors


def _stream_probe(stream: VideoStream | AudioStream, span: list[float], frames: int) -> StreamProbe:
    video = stream if isinstance(stream, VideoStream) else None
    audio = stream if isinstance(stream, AudioStream) else None
    duration = max(span) - min(span)
    starts = sorted(span[::2])
    if video and span[-1] == span[-2] and len(starts) > 1:  # no durations in the file: the last frame lasts as long as the others
        duration += median(b - a for a, b in pairwise(starts))
    return StreamProbe(
        kind=stream.type,
        codec=stream.codec_context.name if stream.codec_context else "",
        width=video.width if video else 0,
        height=video.height if video else 0,
        fps=float(video.average_rate or 0) if video else 0.0,
        sample_rate=audio.rate if audio else 0,
        channels=audio.channels if audio else 0,
        start=min(span),
        duration=duration,
        frames=frames,
    )


def _plane(frame: VideoFrame, index: int) -> Plane:
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[index]
    data: Plane = np.frombuffer(memoryview(plane), np.uint8)
    return data.reshape(plane.height, plane.line_size)[:, : plane.width]


def _around(luma: Plane, x: float, y: float, width: float, height: float) -> float:
    """Mean of the inner part of a cell: its edges are blurred by scaling."""
    left, top = int(x - width / 2), int(y - height / 2)
    return float(luma[top : max(top + 1, round(y + height / 2)), left : max(left + 1, round(x + width / 2))].mean())


def _angle_between(a: float, b: float) -> float:
    return abs(atan2(sin(a - b), cos(a - b)))


def _pieces(resampler: av.AudioResampler, frame: AudioFrame | None) -> list[tuple[int, Samples]]:
    found: list[tuple[int, Samples]] = []
    for piece in resampler.resample(frame):
        if piece.pts is not None and piece.time_base is not None:
            found.append((round(float(piece.pts * piece.time_base) * SAMPLE_RATE), piece.to_ndarray()[0].astype(np.float32)))
    return found


def _envelope(samples: npt.NDArray[np.float32 | np.float64], frequency: float) -> npt.NDArray[np.float64]:
    """Amplitude of one tone over time: shifted to zero frequency, then smoothed symmetrically so that edges keep their place."""
    window = int(_SMOOTHING_SECONDS * SAMPLE_RATE) | 1
    if len(samples) < 2 * window:
        return np.zeros(0)
    base = samples * np.exp(-2j * np.pi * frequency * np.arange(len(samples)) / SAMPLE_RATE)
    for _ in range(2):
        padded = np.concatenate([np.zeros(window // 2 + 1), base, np.zeros(window // 2)])
        total = np.cumsum(padded)
        base = (total[window:] - total[:-window]) / window
    level: npt.NDArray[np.float64] = 2 * np.abs(base)
    return level
