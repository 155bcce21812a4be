"""Encoded media and a spool for the tests of the outputs."""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from recorder.outputs import Closed, Draft, Product, Shelf
from recorder.outputs.hls import CompositeHls
from recorder.outputs.mp4 import CompositeMp4
from recorder.outputs.names import Names
from recorder.protocol import File, Slice

SECOND_NS = 1_000_000_000
UTC_NS = 1_700_000_000_000_000_000  # 2023-11-14 22:13:20
Size = tuple[int, int]
SID = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Encoded:
    data: bytes
    time_ns: int
    keyframe: bool = True


class FolderSpool:
    """A spool without a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Mapping[str, object]] = []
        (folder / "partial").mkdir(parents=True)

    def partial(self, name: str) -> Path:
        return self.folder / "partial" / name

    def commit(self, name: str, record: Mapping[str, object]) -> Mapping[str, object]:
        assert not (self.folder / name).exists(), "a name is committed once"
        data = self.partial(name).read_bytes()
        self.partial(name).rename(self.folder / name)
        full = {**record, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.records.append(full)
        return full

    def left_open(self) -> list[str]:
        return [path.name for path in (self.folder / "partial").iterdir()]


class PromptShelf(Shelf):
    """Commits at once."""

    def close(self, draft: Draft, duration_ns: int) -> Closed:
        committed = super().close(draft, duration_ns).commit()
        return Closed(lambda: committed)


def shelf(folder: Path, channel: str = "room") -> tuple[Shelf, FolderSpool]:
    spool = FolderSpool(folder)
    return PromptShelf(spool, Names(SID, channel), epoch=1, epoch_utc_ns=UTC_NS), spool


def slices(products: Sequence[Product]) -> list[Slice]:
    return [item.commit() if isinstance(item, Closed) else item for item in products if not isinstance(item, File)]


def files(products: Sequence[Product]) -> list[File]:
    return [item for item in products if isinstance(item, File)]


@lru_cache
def video(codec: str, frames: int, *, fps: int = 15, gop: int = 15, size: Size = (160, 120), b_frames: int = 0) -> tuple[Encoded, ...]:
    """A moving picture. H.264 is Annex B with parameter sets at each keyframe."""
    encoder, options = {
        "h264": ("libx264", {"preset": "ultrafast", "sc_threshold": "0"} | ({} if b_frames else {"tune": "zerolatency"})),
        "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
        "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    }[codec]
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, fps)
    context.framerate = Fraction(fps)
    context.gop_size = gop
    context.max_b_frames = b_frames
    context.options = options
    rows, columns = np.indices((size[1] * 3 // 2, size[0]))
    packets = []
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(((rows + columns + 3 * number) % 200 + 20).astype(np.uint8), format="yuv420p")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    return tuple(Encoded(bytes(packet), (packet.pts or 0) * SECOND_NS // fps, packet.is_keyframe) for packet in packets)


@lru_cache
def aac(frames: int, *, layout: str = "mono", silent_samples: int = 0) -> tuple[Encoded, ...]:
    """A tone after some silence in ADTS frames; the first primes the decoder and lies before zero."""
    context = av.AudioCodecContext.create("aac", "w")
    context.sample_rate, context.layout, context.format = 48_000, layout, "fltp"
    context.time_base = Fraction(1, 48_000)
    channels = 2 if layout == "stereo" else 1
    packets = []
    for number in range(frames):
        samples = np.arange(1024 * number, 1024 * number + 1024)
        tone = 0.5 * np.sin(2 * np.pi * 1000 * samples / 48_000) * (samples >= silent_samples)
        sound = av.AudioFrame.from_ndarray(np.tile(tone.astype(np.float32), (channels, 1)), format="fltp", layout=layout)
        sound.sample_rate, sound.pts = 48_000, 1024 * number
        packets += context.encode(sound)
    packets += context.encode(None)
    return tuple(Encoded(_adts(bytes(packet), channels), (packet.pts or 0) * SECOND_NS // 48_000) for packet in packets)


def _adts(frame: bytes, channels: int) -> bytes:
    """ISO 14496-3, 1.A.2.2: AAC-LC at 48 kHz, no checksum."""
    size = len(frame) + 7
    return bytes((0xFF, 0xF1, 1 << 6 | 3 << 2, channels << 6 | size >> 11, size >> 3 & 255, (size & 7) << 5 | 0x1F, 0xFC)) + frame


def decode_errors(path: Path) -> str:
    """What ffmpeg has to say about a file that it decodes completely."""
    command = ("ffmpeg", "-nostdin", "-v", "warning", "-i", f"file:{path}", "-f", "null", "-")
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=50).stderr


def sound(path: Path) -> npt.NDArray[np.int16]:
    """The first channel of a file's sound as a player hears it: from the first time stamp on, at 48 kHz."""
    command = ("ffmpeg", "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a", "-ac", "1", "-f", "s16le", "-")
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True, timeout=50).stdout, np.int16)


def access_units(path: Path) -> list[bytes]:
    """The video packets of a file."""
    with av.open(f"file:{path}") as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def audio_frames(path: Path) -> bytes:
    """The sound of a file, joined: TS demuxers and muxers divide it differently."""
    with av.open(f"file:{path}") as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0) if packet.size)


def joined(folder: Path, items: Sequence[Slice]) -> Path:
    """One file of all slices, as a player of the list sees it."""
    path = folder / "joined.ts"
    path.write_bytes(b"".join((folder / item.name).read_bytes() for item in items))
    return path


def packets(path: Path, kind: str) -> list[dict[str, str]]:
    """Times and flags of the packets of one stream (`v` or `a`) as ffprobe sees them."""
    entries = "packet=pts_time,dts_time,duration_time,flags"
    lines = probe(path, "-select_streams", kind, "-show_entries", entries).splitlines()
    parsed = [dict(part.split("=", 1) for part in line.split("|")[1:] if "=" in part) for line in lines if line.startswith("packet|")]
    return [packet for packet in parsed if "pts_time" in packet]


def streams(path: Path) -> dict[str, dict[str, str]]:
    """Facts of the streams by codec name."""
    lines = [line for line in probe(path, "-show_streams").splitlines() if line.startswith("stream|")]
    parsed = [dict(part.split("=", 1) for part in line.split("|")[1:] if "=" in part) for line in lines]
    return {stream["codec_name"]: stream for stream in parsed}


def probe(path: Path, *arguments: str) -> str:
    command = ("ffprobe", "-v", "error", *arguments, "-of", "compact", f"file:{path}")
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


def play(output: CompositeHls | CompositeMp4, pictures: Sequence[Encoded], sounds: Sequence[Encoded]) -> list[Product]:
    """Hand in everything as encoders do, about in order; sound comes a little late."""
    events = [(item.time_ns, "v", item) for item in pictures] + [(item.time_ns + 90_000_000, "a", item) for item in sounds]
    products: list[Product] = []
    for _, kind, item in sorted(events, key=lambda event: event[:2]):
        if kind == "v":
            products += output.video(item.data, item.time_ns, keyframe=item.keyframe)
        else:
            products += output.audio(item.data, item.time_ns)
    return products
