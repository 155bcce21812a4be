"""Converts single files, or all of one format in a folder, to another format: copied where the format can hold it as it is."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Stream

from recorder.media.encode import RATE
from recorder.tools.offline import OfflineError
from recorder.tools.offline.contents import contents
from recorder.tools.offline.lists import Source, source_of
from recorder.tools.offline.media import SECOND, Samples, opened, single
from recorder.tools.offline.merge import merge_source
from recorder.tools.offline.output import Progress, whole
from recorder.tools.offline.sound import copied, copyable_channels, encoded_channels, laid
from recorder.tools.offline.timeline import Axis, segments

Target = Literal["mp4", "mp3", "wav", "aac", "m4a", "ts"]
TARGETS: Final[tuple[Target, ...]] = ("mp4", "m4a", "mp3", "wav", "aac", "ts")
SOURCES: Final = ("ts", "webm", "m3u8", "mpd", "mp4", "m4a", "aac", "mp3", "wav")

_LISTS: Final = (".m3u8", ".mpd")
_SLICES: Final = (".ts", ".webm", *_LISTS)
_ENCODERS: Final = {"mp3": ("mp3", "libmp3lame", 128_000), "wav": ("wav", "pcm_s16le", None), "aac": ("adts", "aac", 128_000)}
_MUXERS: Final = {"mp4": "mp4", "m4a": "mp4", "ts": "mpegts", "aac": "adts"}
_HOLD: Final = {"mp4": {"h264", "aac"}, "m4a": {"aac"}, "ts": {"h264", "aac"}, "aac": {"aac"}}  # what is copied into them


def convert(source: Path, target: Target, output: Path | None = None, progress: Progress = lambda *_: None) -> Path:
    """Write `source` in another format beside it, or as `output`; returns the file.

    Raises:
        OfflineError: it cannot be read, or holds nothing that the format is for.
    """
    output = output or source.with_suffix(f".{target}")
    if source.suffix[1:] not in SOURCES:
        raise OfflineError(f"{source.name} has none of the formats {', '.join(SOURCES)}")
    if output.exists() and output.samefile(source):
        raise OfflineError(f"{source.name} has this format already")
    if target in _MUXERS and source.suffix not in _SLICES and _copied(source, target, output, progress):
        return output
    if target in ("mp4", "m4a"):
        merge_source(_source(source), output, progress, video=target == "mp4")
    elif target in _ENCODERS:
        _encoded(source, target, output, progress)
    else:
        raise OfflineError(f"{source.name} holds nothing that a .{target} could be made of")
    return output


def convert_folder(folder: Path, source: str, target: Target, progress: Progress = lambda *_: None) -> list[Path]:
    """Every file of one format in the folder, under its name with the new suffix.

    Raises:
        OfflineError: there is none; or some cannot be converted, when all others are done.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix == f".{source}" and not path.name.startswith("."))
    if not found:
        raise OfflineError(f"there is no .{source} file in {folder}")
    made, wrong = [], []
    for path in found:
        try:
            made.append(convert(path, target, progress=progress))
        except OfflineError as error:
            wrong.append(str(error))
    if wrong:
        raise OfflineError("; ".join(wrong))
    return made


def _source(path: Path) -> Source:
    """A list, or a file that stands for itself."""
    if path.suffix in _LISTS:
        return source_of(path)
    piece = single(path)
    return Source("", None, (piece,), (piece,))


# ---- copied ------------------------------------------------------------------------------------------------------


def _copied(source: Path, target: str, output: Path, progress: Progress) -> bool:
    """Copy what `target` can hold from one container to another; False: that is not all that it should hold."""
    with opened(source) as old:
        streams: list[Stream] = [*(old.streams.video[:1] if "h264" in _HOLD[target] else ()), *old.streams.audio[:1]]
        if not streams or not all(stream.codec_context and stream.codec_context.name in _HOLD[target] for stream in streams):
            return False
        with whole(output) as part, av.open(f"file:{part}", "w", format=_MUXERS[target], options=_options(target)) as new:
            copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in streams}
            first = Fraction(old.start_time or 0, av.time_base)
            length_ns = (old.duration or 0) * 1000
            for packet in old.demux(streams):
                if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                    shift = round(first / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    progress(output.name, round(packet.pts * packet.time_base * SECOND), length_ns)
                    packet.stream = copies[packet.stream_index]
                    new.mux(packet)
    progress(output.name, length_ns, length_ns)
    return True


def _options(target: str) -> dict[str, str]:
    return {"movflags": "faststart"} if _MUXERS[target] == "mp4" else {}


# ---- encoded -----------------------------------------------------------------------------------------------------


def _encoded(path: Path, target: str, output: Path, progress: Progress) -> None:
    """The sound alone, with as many channels as it has."""
    found = contents(_source(path))
    pieces = found.source.audio
    known = found.heard(pieces)
    if not known:
        raise OfflineError(f"{path.name} holds no sound")
    axis = Axis(segments(pieces))
    container_format, encoder, bit_rate = _ENCODERS[target]
    if target == "aac" and (same := copyable_channels(known)):
        with whole(output) as part, part.open("wb") as file:
            for packet in copied(pieces, axis.place, axis.length_ns, same):
                file.write(packet.data)
                progress(output.name, packet.time_ns, axis.length_ns)
        return
    channels = encoded_channels(known)
    with whole(output) as part, av.open(f"file:{part}", "w", format=container_format) as new:
        stream = new.add_stream(encoder, rate=RATE, layout="mono" if channels == 1 else "stereo")
        assert isinstance(stream, AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        for frame, at_ns in _frames(laid(pieces, axis.place, axis.length_ns, channels), channels):
            new.mux(stream.encode(frame))
            progress(output.name, at_ns, axis.length_ns)
        new.mux(stream.encode(None))
    progress(output.name, axis.length_ns, axis.length_ns)


def _frames(parts: Iterable[Samples], channels: int) -> Iterator[tuple[AudioFrame, int]]:
    """As frames, each with its time. The encoder's stream cuts them to its size."""
    at = 0
    for part in parts:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", "mono" if channels == 1 else "stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
        yield frame, at * SECOND // RATE
        at += part.shape[1]
