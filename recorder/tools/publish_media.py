"""Media of publishers, encoded once and then played in a loop by any number of them.

A video loop is cut into runs: each begins with a keyframe and lasts to the next regular one. Besides the regular runs there
is one for every point in between where a keyframe request may be answered; whichever run is played, the pictures are the
same. So a request costs no encoding, and content, counter and sync go on undisturbed.
"""

import asyncio
import hashlib
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from recorder.tools.content import SAMPLE_RATE, Picture, Plane, Style, sound

VideoCodec = Literal["h264", "vp8", "vp9", "av1"]
AudioCodec = Literal["opus", "pcmu", "pcma", "g722"]

GOP_SECONDS = 2
AUDIO_FRAME = 960  # samples: 20 ms
_ANSWERS_PER_SECOND = 2  # keyframe requests are answered within 1 / this
# Encoder and its sample rate; what encoder and decoder of G.722 delay together is not told by the encoder.
_SPEECH = {"pcmu": ("pcm_mulaw", 8000, 0), "pcma": ("pcm_alaw", 8000, 0), "g722": ("g722", 16_000, 22)}
_ENCODERS = {"h264": "libx264", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
_OPTIONS = {
    "h264": {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0"},
    "vp8": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0", "row-mt": "0"},
    "av1": {"preset": "11", "svtav1-params": "rtc=1:pred-struct=1:rc=2:lookahead=0:lp=1"},
}
_NOBODY = 65534
_APART_SECONDS = 12.0  # ten times what a loop takes
_FORMAT = 3  # of the cached files and of the content in them; another number makes old ones unused

_Loop = TypeVar("_Loop", "VideoLoop", "AudioLoop")


@dataclass(frozen=True, slots=True)
class VideoLoop:
    fps: int
    frames: int  # of the whole loop
    gop: int  # regular keyframes are that many frames apart
    runs: dict[int, tuple[bytes, ...]]  # by the number of their first frame

    def may_start(self, index: int) -> bool:
        """Whether a keyframe can be had at this frame of the loop."""
        return index in self.runs


@dataclass(frozen=True, slots=True)
class AudioLoop:
    packets: tuple[bytes, ...]  # 20 ms each
    delay: int  # samples by which a decoder's output lags behind the input


class Library:
    """Encodes what is asked for, once; keeps it in memory, and on disk when there is a folder for it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._making: dict[str, asyncio.Task[VideoLoop | AudioLoop]] = {}

    async def video(self, style: Style, codec: VideoCodec, bitrate_kbps: int) -> VideoLoop:
        def make() -> VideoLoop:
            encode = encode_video_apart if codec == "av1" else encode_video
            return self._stored(key, lambda: encode(style, codec, bitrate_kbps), _pack_video, _unpack_video)

        key = f"video-{codec}-{bitrate_kbps}-{'-'.join(map(str, astuple(style)))}"
        return cast(VideoLoop, await self._once(key, make))

    async def audio(self, uid: int, seconds: int = 8, codec: AudioCodec = "opus") -> AudioLoop:
        def make() -> AudioLoop:
            return self._stored(key, lambda: encode_audio(uid, seconds, codec), _pack_audio, _unpack_audio)

        key = f"audio-{codec}-{uid}-{seconds}"
        return cast(AudioLoop, await self._once(key, make))

    async def _once(self, key: str, make: Callable[[], VideoLoop | AudioLoop]) -> VideoLoop | AudioLoop:
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.ensure_future(asyncio.to_thread(make))
        return await asyncio.shield(task)  # others may be waiting for it too

    def _stored(
        self,
        key: str,
        encode: Callable[[], _Loop],
        pack: Callable[[_Loop], dict[str, np.ndarray]],
        unpack: Callable[[dict[str, np.ndarray]], _Loop],
    ) -> _Loop:
        if self._folder is None:
            return encode()
        path = self._folder / f"{hashlib.sha256(f'{_FORMAT}-{av.__version__}-{key}'.encode()).hexdigest()[:24]}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                return unpack(dict(arrays))
        loop = encode()
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        with beside.open("wb") as file:
            np.savez(file, **pack(loop))  # type: ignore[arg-type]  # numpy types its own keyword too narrowly
        beside.replace(path)
        return loop


def encode_video(style: Style, codec: VideoCodec, bitrate_kbps: int) -> VideoLoop:
    """Encode one period of the content, with its additional keyframes."""
    frames, gop = style.fps * style.period_seconds, style.fps * GOP_SECONDS
    if frames % gop:
        raise ValueError(f"the period must be a multiple of {GOP_SECONDS} s")
    step = max(divisor for divisor in range(1, max(2, style.fps // _ANSWERS_PER_SECOND + 1)) if gop % divisor == 0)
    picture = Picture(style)
    encoder = VideoEncoder(style, codec, bitrate_kbps)
    runs: dict[int, tuple[bytes, ...]] = {}
    for start in range(0, frames, gop):
        pictures = [picture.draw(index) for index in range(start, start + gop)]
        for skipped in range(0, gop, step):
            runs[start + skipped] = tuple(encoder.encode(drawn, keyframe=i == 0) for i, drawn in enumerate(pictures[skipped:]))
    return VideoLoop(style.fps, frames, gop, runs)


def encode_video_apart(style: Style, codec: VideoCodec, bitrate_kbps: int) -> VideoLoop:
    """`encode_video` in a process of its own, which gives up root's rights: SVT-AV1 would use them for real-time priority.

    Now and then its threads wait for each other for ever; then another process tries.

    Raises:
        multiprocessing.TimeoutError: several have tried.
    """
    for last in (False, False, True):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # which is ended with whatever it still does
            try:
                return pool.apply_async(_encode_as_nobody, (style, codec, bitrate_kbps)).get(_APART_SECONDS)
            except multiprocessing.TimeoutError:
                if last:
                    raise
    raise AssertionError


def _encode_as_nobody(style: Style, codec: VideoCodec, bitrate_kbps: int) -> VideoLoop:
    os.environ["SVT_LOG"] = "1"  # errors only
    Picture(style).draw(0)  # loads the rest of numpy, which nobody may not be allowed to read
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    return encode_video(style, codec, bitrate_kbps)


def encode_audio(uid: int, seconds: int, codec: AudioCodec = "opus") -> AudioLoop:
    """Encode one period of the sound; the encoder hears it twice, so that the second one has no seam."""
    samples = sound(uid, seconds)
    return _encode_opus(samples) if codec == "opus" else _encode_speech(samples, codec)


def _encode_opus(samples: npt.NDArray[np.int16]) -> AudioLoop:
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate = SAMPLE_RATE
    codec.layout = "mono"
    codec.format = "s16"
    codec.bit_rate = 40_000
    codec.options = {"application": "audio", "frame_duration": "20"}
    codec.time_base = Fraction(1, SAMPLE_RATE)
    packets: list[bytes] = []
    delay = 0
    count = len(samples) // AUDIO_FRAME
    for number in range(2 * count + 1):
        first = number % count * AUDIO_FRAME
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + AUDIO_FRAME], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = number * AUDIO_FRAME
        frame.time_base = Fraction(1, SAMPLE_RATE)
        for packet in codec.encode(frame):
            if not packets and packet.pts is not None:
                delay = -packet.pts
            packets.append(bytes(packet))
    return AudioLoop(tuple(packets[count : 2 * count]), delay)


def _encode_speech(samples: npt.NDArray[np.int16], codec: AudioCodec) -> AudioLoop:
    name, rate, delay = _SPEECH[codec]
    encoder = cast(AudioCodecContext, av.CodecContext.create(name, "w"))
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    encoder.time_base = Fraction(1, rate)
    # The loop repeats, so its spectrum is exact: cut there, nothing is delayed and nothing aliases.
    count = len(samples) * rate // SAMPLE_RATE
    low = np.fft.irfft(np.fft.rfft(samples)[: count // 2 + 1], count) * count / len(samples)
    heard = np.clip(np.tile(np.rint(low), 2), -32768, 32767).astype(np.int16)
    packets: list[bytes] = []
    for first in range(0, 2 * count, rate // 50):
        frame = av.AudioFrame.from_ndarray(heard[None, first : first + rate // 50], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, encoder.time_base
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return AudioLoop(tuple(packets[len(packets) // 2 :]), delay * SAMPLE_RATE // rate)


class VideoEncoder:
    """One encoder of a conversation: constant size, no B-frames, keyframes only where they are asked for."""

    def __init__(self, style: Style, codec: VideoCodec, bitrate_kbps: int) -> None:
        if codec == "av1" and os.geteuid() == 0:
            raise PermissionError("SVT-AV1 would give this process real-time priority")
        context = cast(VideoCodecContext, av.CodecContext.create(_ENCODERS[codec], "w"))
        context.width, context.height = style.width, style.height
        context.pix_fmt = "yuv420p"
        context.framerate = Fraction(style.fps)
        context.time_base = Fraction(1, style.fps)
        context.bit_rate = bitrate_kbps * 1000
        context.gop_size = 1 << 16
        context.max_b_frames = 0
        context.thread_count = 1
        if codec == "h264":
            context.profile = "Baseline"
        rate = {} if codec == "av1" else {"maxrate": f"{bitrate_kbps}k", "bufsize": f"{bitrate_kbps}k"}
        context.options = rate | _OPTIONS[codec]
        self._context = context
        self._count = 0

    def encode(self, picture: Plane, *, keyframe: bool) -> bytes:
        frame = av.VideoFrame.from_numpy_buffer(picture, format="yuv420p")
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        frame.pts = self._count
        frame.time_base = self._context.time_base
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


def _pack_video(loop: VideoLoop) -> dict[str, np.ndarray]:
    packets = [packet for run in loop.runs.values() for packet in run]
    lengths = [len(run) for run in loop.runs.values()]
    head = np.array([loop.fps, loop.frames, loop.gop])
    return {"head": head, "starts": np.array(list(loop.runs)), "lengths": np.array(lengths)} | _pack_packets(packets)


def _unpack_video(arrays: dict[str, np.ndarray]) -> VideoLoop:
    fps, frames, gop = arrays["head"].tolist()
    packets = iter(_unpack_packets(arrays))
    starts, lengths = arrays["starts"].tolist(), arrays["lengths"].tolist()
    return VideoLoop(fps, frames, gop, {s: tuple(next(packets) for _ in range(length)) for s, length in zip(starts, lengths, strict=True)})


def _pack_audio(loop: AudioLoop) -> dict[str, np.ndarray]:
    return {"delay": np.array(loop.delay)} | _pack_packets(loop.packets)


def _unpack_audio(arrays: dict[str, np.ndarray]) -> AudioLoop:
    return AudioLoop(tuple(_unpack_packets(arrays)), int(arrays["delay"]))


def _pack_packets(packets: list[bytes] | tuple[bytes, ...]) -> dict[str, np.ndarray]:
    return {"data": np.frombuffer(b"".join(packets), np.uint8), "sizes": np.array([len(packet) for packet in packets])}


def _unpack_packets(arrays: dict[str, np.ndarray]) -> list[bytes]:
    data = arrays["data"].tobytes()
    ends = np.cumsum(arrays["sizes"]).tolist()
    return [data[end - size : end] for end, size in zip(ends, arrays["sizes"].tolist(), strict=True)]
