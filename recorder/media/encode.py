"""Encoders of the composite: H.264 for the canvas and AAC-LC for the mixed sound."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.codec import codecs_available
from av.codec.context import CodecContext, ThreadType
from av.error import FFmpegError
from av.packet import Packet as AvPacket
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from mixer.audio import Sound
from recorder.outputs.h264 import heads

log = logging.getLogger(__name__)

RATE = 48000
FRAME_SAMPLES = 1024

_AAC_PROFILES = {0: (1, 48_000), 1: (1, 128_000), 2: (2, 192_000)}  # audioProfile: channels, bits per second
_ADTS_RATE_INDEX = 3  # 48 kHz
_BT601 = 6  # AVColorSpace SMPTE 170M; PyAV names only the values of swscale

SOFTWARE_ENCODER = "libx264"

# FFmpeg's names. Each must give a packet at once for every frame (no B-frames, no look-ahead) and a keyframe where one is asked for.
_VIDEO_OPTIONS = {
    SOFTWARE_ENCODER: {
        "preset": "superfast",
        "tune": "zerolatency",
        "profile": "high",
        "sc_threshold": "0",  # no keyframes of the encoder's own choice
    },
    "h264_nvenc": {"tune": "ull", "rc": "cbr", "zerolatency": "1", "delay": "0", "forced-idr": "1", "no-scenecut": "1"},
    "h264_qsv": {"async_depth": "1", "forced_idr": "1"},
    "h264_v4l2m2m": {},
    "h264_videotoolbox": {"realtime": "1"},
    "libopenh264": {},  # for an FFmpeg without x264
}
VIDEO_ENCODERS = tuple(_VIDEO_OPTIONS)
_PIXELS = {"h264_qsv": "nv12"}  # it takes nothing else from memory

_H264_PARAMETERS, _H264_DELIMITER = 7, 9  # NAL unit types
_PROBE_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded frame. Times count in ticks of the encoder: frames of video, samples of sound."""

    data: bytes
    pts: int
    dts: int
    duration: int
    keyframe: bool


class VideoEncoder:
    """H.264 in Annex B with parameter sets in front of every keyframe. One tick is one frame interval.

    Keyframes come where they are asked for and every `gop` frames after the last one, never elsewhere. The rate is bounded: what
    lasts ten seconds or more is at most a fifth larger than `bitrate_kbps` says, after a still picture too.

    Raises:
        FFmpegError: this FFmpeg has no such encoder, or the machine nothing to run it on.
    """

    def __init__(
        self, *, name: str = SOFTWARE_ENCODER, width: int, height: int, fps: int, bitrate_kbps: int, gop: int | None = None
    ) -> None:
        context = CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = width, height
        context.pix_fmt = _PIXELS.get(name, "yuv420p")
        context.framerate = Fraction(fps)
        context.time_base = Fraction(1, fps)
        context.sample_aspect_ratio = Fraction(1)
        context.bit_rate = bitrate_kbps * 1000
        context.gop_size = gop or 4 * fps
        context.max_b_frames = 0
        context.thread_count = 1  # more threads cost up to a fifth more CPU; recordings run in parallel
        context.thread_type = ThreadType.NONE
        context.colorspace = _BT601
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.SMPTE170M
        context.color_trc = ColorTrc.SMPTE170M
        context.options = {
            "maxrate": str(bitrate_kbps * 1000),
            "bufsize": str(bitrate_kbps * 2000),  # how far a burst may go: two seconds' worth
            **_VIDEO_OPTIONS.get(name, {}),
        }
        context.open()
        self._context = context

    def encode(self, frame: VideoFrame, tick: int, *, force_keyframe: bool = False) -> list[Packet]:
        """Encode the frame as the picture of `tick`; ticks rise, and may leave some out. Afterwards it may be drawn over."""
        if self._context.pix_fmt != frame.format.name:
            frame = frame.reformat(format=self._context.pix_fmt, threads=1)
        frame.pts = tick
        frame.time_base = self._context.time_base
        frame.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        return _packets(self._context.encode(frame), duration=1)

    def set_bitrate(self, kbps: int) -> None:
        """From the next picture on; libx264 follows, other encoders may go on as they were."""
        self._context.bit_rate = kbps * 1000

    def flush(self) -> list[Packet]:
        """What is still inside; nothing can be encoded afterwards."""
        return _packets(self._context.encode(None), duration=1)


def open_encoder(*, name: str, width: int, height: int, fps: int, bitrate_kbps: int) -> VideoEncoder:
    """The encoder of this name; in software when the hardware takes no more (cards encode only so many streams at a time)."""
    try:
        return VideoEncoder(name=name, width=width, height=height, fps=fps, bitrate_kbps=bitrate_kbps)
    except FFmpegError as error:
        if name == SOFTWARE_ENCODER:
            raise
        log.warning("the encoder cannot be opened, encoding in software", extra={"encoder": name, "error": str(error)})
        return VideoEncoder(width=width, height=height, fps=fps, bitrate_kbps=bitrate_kbps)


def why_unusable(name: str) -> str | None:
    """Try an encoder out; returns what is wrong with it."""
    if name not in VIDEO_ENCODERS:
        return f"no encoder of ours; there are {', '.join(VIDEO_ENCODERS)}"
    if name not in codecs_available:
        return "the installed FFmpeg was built without it"
    planes = [np.full(shape, 128, np.uint8) for shape in ((180, 320), (90, 160), (90, 160))]
    try:
        encoder = VideoEncoder(name=name, width=320, height=180, fps=15, bitrate_kbps=500)
        packets: list[Packet] = []
        for tick in range(_PROBE_FRAMES):
            packets += encoder.encode(VideoFrame.from_dlpack(planes, "yuv420p"), tick, force_keyframe=tick in (0, _PROBE_FRAMES // 2))
        packets += encoder.flush()
    except (FFmpegError, ValueError) as error:
        return f"it cannot be used: {error.strerror if isinstance(error, FFmpegError) else error}"
    keyframes = [packet.pts for packet in packets if packet.keyframe]
    if len(packets) != _PROBE_FRAMES or keyframes != [0, _PROBE_FRAMES // 2]:
        return "it makes no keyframe where one is asked for, or keeps pictures back"
    if any(kind != _H264_PARAMETERS for packet in packets if packet.keyframe for kind in _first_kinds(packet.data)):
        return "its keyframes come without parameter sets"
    return None


def _first_kinds(access_unit: bytes) -> list[int]:
    """The type of the first NAL unit that is no delimiter."""
    return [kind for kind, _, _ in heads(access_unit) if kind != _H264_DELIMITER][:1] or [0]


class AudioEncoder:
    """AAC-LC at 48 kHz, one ADTS frame a packet, from chunks of any length.

    A packet's `pts` is the number of the first sample that comes out of a decoder for it, so sound and `pts` agree exactly when
    each packet is presented at its `pts`. The first packet lies `FRAME_SAMPLES` before `start`: it is silent and primes the
    decoder, and must be kept (shift all times where they may not be negative, or cut it by an edit list).
    """

    def __init__(self, profile: int, *, start: int = 0) -> None:
        self.channels, bit_rate = _AAC_PROFILES[profile]
        context = CodecContext.create("aac", "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate = RATE
        context.layout = "mono" if self.channels == 1 else "stereo"
        context.format = "fltp"
        context.bit_rate = bit_rate
        context.time_base = Fraction(1, RATE)
        context.open()
        self._context = context
        self._next = start
        self._rest: Sound = np.zeros((self.channels, 0), np.float32)

    def encode(self, sound: Sound) -> list[Packet]:
        """Take the next samples, `(channels, samples)`; return the packets that are ready, each of `FRAME_SAMPLES` samples."""
        sound = np.concatenate((self._rest, sound), axis=1)
        whole = sound.shape[1] - sound.shape[1] % FRAME_SAMPLES
        self._rest = sound[:, whole:]
        packets: list[Packet] = []
        for offset in range(0, whole, FRAME_SAMPLES):
            packets += self._encode(sound[:, offset : offset + FRAME_SAMPLES])
        return packets

    def flush(self) -> list[Packet]:
        """The rest, filled up with silence; nothing can be encoded afterwards."""
        packets = self._encode(self._rest) if self._rest.shape[1] else []
        return packets + self._adts(self._context.encode(None))

    def _encode(self, sound: Sound) -> list[Packet]:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", self._context.layout)
        frame.sample_rate = RATE
        frame.time_base = self._context.time_base
        frame.pts = self._next
        self._next += sound.shape[1]
        return self._adts(self._context.encode(frame))

    def _adts(self, packets: Iterable["AvPacket[Stream]"]) -> list[Packet]:
        return [
            Packet(_adts_header(packet.size, self.channels) + bytes(packet), packet.pts, packet.pts, FRAME_SAMPLES, True)
            for packet in packets
            if packet.pts is not None
        ]


def _packets(packets: Iterable["AvPacket[Stream]"], duration: int) -> list[Packet]:
    return [
        Packet(bytes(packet), packet.pts, packet.pts if packet.dts is None else packet.dts, duration, packet.is_keyframe)
        for packet in packets
        if packet.pts is not None
    ]


def _adts_header(size: int, channels: int) -> bytes:
    """ISO/IEC 14496-3 section 1.A.2.2: MPEG-4 AAC-LC, no CRC, one raw block."""
    length = size + 7
    bits = 0xFFF1 << 40 | 1 << 38 | _ADTS_RATE_INDEX << 34 | channels << 30 | length << 13 | 0x7FF << 2
    return bits.to_bytes(7, "big")
