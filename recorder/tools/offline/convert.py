"""Converts single files, or all of one format in a folder, to another format: copied where the format allows it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.stream import VideoStream

from recorder.tools.offline import OfflineError
from recorder.tools.offline.merge import merge_list

Target = Literal["mp4", "mp3", "wav", "aac", "m4a", "ts"]
TARGETS: Final[tuple[Target, ...]] = ("mp4", "mp3", "wav", "aac", "m4a", "ts")
SOURCES: Final = ("ts", "webm", "mp4", "m4a", "aac", "mp3", "wav", "m3u8")

_FORMATS: Final = {"mp4": "mp4", "m4a": "ipod", "mp3": "mp3", "wav": "wav", "aac": "adts", "ts": "mpegts"}
_OPTIONS: Final = {"mp4": {"movflags": "faststart"}, "m4a": {"movflags": "faststart"}}
_VIDEO: Final = {"mp4": {"h264"}, "ts": {"h264"}}  # what these hold as it is; else H.264 is made
_AUDIO: Final = {
    "mp4": ({"aac"}, "aac"),
    "m4a": ({"aac"}, "aac"),
    "aac": ({"aac"}, "aac"),
    "ts": ({"aac"}, "aac"),
    "mp3": ({"mp3"}, "libmp3lame"),
    "wav": ({"pcm_s16le"}, "pcm_s16le"),
}
_SECOND: Final = 1_000_000_000

Progress = Callable[[str, int, int], None]  # file, how far in ns, of how many


def convert(source: Path, target: Target, output: Path | None = None, progress: Progress = lambda *_: None) -> Path:
    """Write `source` in another format beside it, or as `output`; returns the file.

    Raises:
        OfflineError: it cannot be read, or holds nothing of what the format is for.
    """
    output = output or source.with_suffix(f".{target}")
    if output == source:
        raise OfflineError(f"{source.name} has this format already")
    if source.suffix == ".m3u8":  # libav would open whatever it names, wherever that is
        if target not in ("mp4", "m4a"):
            raise OfflineError("a playlist can be converted to mp4 and m4a")
        merge_list(source, output, progress)
        return output
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with (
            av.open(f"file:{source}") as old,
            av.open(f"file:{part}", "w", format=_FORMATS[target], options=_OPTIONS.get(target, {})) as new,
        ):
            _convert(old, new, target, source.name, progress)
        part.replace(output)
    except FFmpegError as error:
        raise OfflineError(f"{source.name} cannot be converted: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return output


def convert_folder(folder: Path, source: str, target: Target, progress: Progress = lambda *_: None) -> list[Path]:
    """Every file of one format in the folder, under its name with the new suffix.

    Raises:
        OfflineError: there is none, or one of them cannot be converted; those before it are done.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix == f".{source}" and not path.name.startswith("."))
    if not found:
        raise OfflineError(f"there is no .{source} file in {folder}")
    return [convert(path, target, progress=progress) for path in found]


def _convert(old: InputContainer, new: OutputContainer, target: Target, name: str, progress: Progress) -> None:
    makers = [_maker(stream, new, target) for stream in (*old.streams.video[:1], *old.streams.audio[:1])]
    tracks = {stream.index: write for stream, write in makers if write}
    if not tracks:
        raise OfflineError(f"{name} holds nothing that .{target} is for")
    length_ns = (old.duration or 0) * 1000
    chosen = [old.streams[index] for index in tracks]
    for packet in old.demux(chosen):
        tracks[packet.stream_index](packet)
        if packet.pts is not None and packet.time_base:
            progress(name, round(packet.pts * packet.time_base * _SECOND) - (old.start_time or 0) * 1000, length_ns)
    progress(name, length_ns, length_ns)


def _maker(stream: Any, new: OutputContainer, target: Target) -> tuple[Stream, Callable[[Any], None] | None]:
    """What takes the packets of a stream; None: the format has no place for it."""
    is_video = isinstance(stream, VideoStream)
    if is_video and target not in _VIDEO:
        return stream, None
    keeps, encoder = (_VIDEO[target], "libx264") if is_video else _AUDIO[target]
    if stream.codec_context.name in keeps and not (target == "aac" and stream.codec_context.extradata):
        return stream, _copier(new.add_stream_from_template(stream, opaque=True), new)
    return stream, _encoder(stream, new, encoder)


def _copier(made: Any, new: OutputContainer) -> Callable[[Any], None]:
    def copy(packet: Any) -> None:
        if packet.dts is not None:
            packet.stream = made
            new.mux(packet)

    return copy


def _encoder(stream: Any, new: OutputContainer, name: str) -> Callable[[Any], None]:
    if isinstance(stream, VideoStream):
        made: Any = new.add_stream(name, rate=stream.average_rate or 30, options={"preset": "veryfast"})
        made.width, made.height, made.pix_fmt = stream.width // 2 * 2, stream.height // 2 * 2, "yuv420p"
        made.bit_rate = stream.bit_rate or 0
        made.time_base = stream.time_base
    else:
        made = new.add_stream(name, rate=stream.rate)
        made.layout = stream.layout

    def encode(packet: Any) -> None:
        frames: Sequence[Any] = packet.decode()
        for frame in frames:
            if isinstance(stream, VideoStream):
                frame = frame.reformat(width=made.width, height=made.height, format="yuv420p")  # noqa: PLW2901
            new.mux(made.encode(frame))
        if packet.dts is None:  # the end
            new.mux(made.encode(None))

    return encode
