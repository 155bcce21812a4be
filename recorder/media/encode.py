"""Encoders of the composite: H.264 for the canvas and AAC-LC for the mixed sound."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.context import CodecContext, ThreadType
from av.packet import Packet as AvPacket
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from mixer.audio import Sound

RATE = 48000
FRAME_SAMPLES = 1024

_AAC_PROFILES = {0: (1, 48_000), 1: (1, 128_000), 2: (2, 192_000)}  # audioProfile: channels, bits per second
_ADTS_RATE_INDEX = 3  # 48 kHz
_BT601 = 6  # AVColorSpace SMPTE 170M; PyAV names only the values of swscale

# Settings of single encoders by FFmpeg's name; others run with the common ones.
_VIDEO_OPTIONS = {
    "libx264": {
        "preset": "superfast",
        "tune": "zerolatency",  # no B-frames, no look-ahead: a packet comes out for every frame that goes in
        "profile": "high",
    }
}


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

    Keyframes come where they are asked for and every `gop` frames after the last one, never elsewhere.
    """

    def __init__(self, *, name: str = "libx264", width: int, height: int, fps: int, bitrate_kbps: int, gop: int | None = None) -> None:
        context = CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p"
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
            "sc_threshold": "0",  # no keyframes of the encoder's own choice
            **_VIDEO_OPTIONS.get(name, {}),
        }
        context.open()
        self._context = context

    def encode(self, frame: VideoFrame, tick: int, *, force_keyframe: bool = False) -> list[Packet]:
        """Encode the frame as the picture of `tick`; ticks rise, and may leave some out. Afterwards it may be drawn over."""
        frame.pts = tick
        frame.time_base = self._context.time_base
        frame.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        return _packets(self._context.encode(frame), duration=1)

    def flush(self) -> list[Packet]:
        """What is still inside; nothing can be encoded afterwards."""
        return _packets(self._context.encode(None), duration=1)


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
