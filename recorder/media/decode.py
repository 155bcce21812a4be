"""Decoders for what participants send. Input is hostile: nothing here raises because of a payload, it counts.

Only the decoders named in this file are ever opened, and no demuxer or parser sees network input.
"""

import contextlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Literal

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.context import CodecContext, Flags, ThreadType
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from mixer.audio import Sound
from recorder.media import opus
from recorder.media.resample import Upsampler

VideoCodec = Literal["h264", "vp8", "vp9", "av1"]
AudioCodec = Literal["opus", "pcmu", "pcma", "g722"]

MAX_SIDE = 4096
RATE = 48000

_NANOSECONDS = Fraction(1, 1_000_000_000)
_VIDEO_DECODERS = {"h264": "h264", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
# Decoder, its sample rate, and the delay of encoder and decoder together in samples: libopus's look-ahead (which all real
# senders use; RFC 7845 calls it pre-skip and RTP never tells it), and the filter banks of G.722.
_OPUS_DELAY = 312
_AUDIO_DECODERS = {
    "opus": ("opus", 48000, _OPUS_DELAY),
    "pcmu": ("pcm_mulaw", 8000, 0),
    "pcma": ("pcm_alaw", 8000, 0),
    "g722": ("g722", 16000, 22),
}
_SEAM_NS = 5_000_000  # packets further apart than this do not continue each other

# FFmpeg's Opus decoder keeps back this many samples while a sender is in SILK's narrowband: the first such packet gives fewer
# samples than it lasts, the first of another kind gives them back. All packets last a multiple of 2.5 ms.
_SILK_DELAY = 24
_OPUS_STEP = RATE // 400


OPUS_DELAY_NS = _OPUS_DELAY * 1_000_000_000 // 48_000


unusable: Counter[str] = Counter()  # what decoders of this process refused, by codec: a worker has one recording


class _Decoder:
    codec: str
    errors = 0  # payloads refused, and pictures of an impossible size

    def _refuse(self, count: int) -> None:
        self.errors += count
        unusable[self.codec] += count


class VideoDecoder(_Decoder):
    """One stream's decoder: a payload in, at once its picture out."""

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec
        self._context = self._open()

    def decode(self, payload: bytes, time_ns: int) -> list[tuple[VideoFrame, int]]:
        """The pictures in this access unit, with their times. Empty payloads are dropped: they would end the stream for FFmpeg."""
        if not payload:
            return []
        packet = Packet(payload)
        packet.pts = time_ns
        packet.time_base = _NANOSECONDS
        try:
            frames = self._context.decode(packet)
        except FFmpegError:
            self._refuse(1)
            return []
        shown = [frame for frame in frames if min(frame.width, frame.height) >= 2 and max(frame.width, frame.height) <= MAX_SIDE]
        if len(shown) < len(frames):
            self._refuse(len(frames) - len(shown))
        if self.codec == "vp8":
            for frame in shown:
                # FFmpeg takes VP8's clamping_type for a colour range; RFC 6386 section 9.2 knows limited range only.
                frame.color_range = ColorRange.MPEG
        return [(frame, time_ns if frame.pts is None else frame.pts) for frame in shown]

    def reset(self) -> None:
        """Start anew with a fresh decoder; the next picture must be a keyframe."""
        self._context = self._open()

    def _open(self) -> VideoCodecContext:
        context = CodecContext.create(_VIDEO_DECODERS[self.codec], "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        context.thread_type = ThreadType.NONE
        context.flags |= Flags.low_delay
        context.options = {"max_pixels": str(MAX_SIDE * MAX_SIDE)}  # checked before a picture is allocated
        context.open()
        return context


class AudioDecoder(_Decoder):
    """One stream's decoder to 48 kHz. Delays of codec and resampling are taken off the times it returns."""

    def __init__(self, codec: AudioCodec, channels: int) -> None:
        self.codec = codec
        self._channels = channels
        name, rate, delay = _AUDIO_DECODERS[codec]
        self._upsampler = Upsampler(RATE // rate) if rate != RATE else None
        self._delay_ns = (delay + (Upsampler.DELAY if self._upsampler else 0)) * 1_000_000_000 // rate
        self._next_ns: int | None = None
        self._kept_back = 0  # samples
        # To one channel FFmpeg decodes a mono packet, and the mean of a stereo one, for less: same samples, but for stereo speech.
        self._averages = codec == "opus" and channels == 1
        self._open = partial(_open, name, rate)
        self._context = self._open("stereo" if codec == "opus" and channels > 1 else "mono")
        self._newest = b""

    def decode(self, payload: bytes, time_ns: int) -> list[tuple[Sound, int]]:
        """The sound in this packet, `(channels, samples)` in float32, with its time."""
        if not payload:
            return []
        try:
            frames = self._frames(payload)
        except FFmpegError:
            self._refuse(1)
            return []
        if self._upsampler and (self._next_ns is None or abs(time_ns - self._next_ns) > _SEAM_NS):
            self._upsampler.reset()
        decoded = []
        for frame in frames:
            start_ns = time_ns - self._delay_ns - self._kept_back * 1_000_000_000 // RATE
            decoded.append((self._convert(frame), start_ns))
            time_ns += self._lasts(frame) * 1_000_000_000 // frame.sample_rate
        self._next_ns = time_ns
        return decoded

    def decode_all(self, packets: Sequence[tuple[bytes, int]]) -> list[tuple[Sound, int]]:
        """The same for packets in their order, each with its time. The result is the same as when each is decoded alone, at a
        fraction of the cost. Those of Opus are well-formed."""
        decoded = []
        payloads = [payload for payload, _ in packets]
        begin = 0
        while begin < len(packets):
            count = opus.joinable(payloads[begin : begin + opus.MAX_PACKET_STEPS]) if self.codec == "opus" else 1
            group = packets[begin : begin + count]
            decoded += self._decode_joined(group) if count > 1 else self.decode(*group[0])
            begin += count
        return decoded

    def _decode_joined(self, packets: Sequence[tuple[bytes, int]]) -> list[tuple[Sound, int]]:
        """Packets of Opus that can be joined: equally long, but for what the first gives less or more than it lasts."""
        try:
            frames = self._frames(opus.join([payload for payload, _ in packets]))
        except FFmpegError:
            self._refuse(len(packets))
            return []
        decoded = []
        for frame in frames:
            sound, kept_back, begin = self._convert(frame), self._kept_back, 0
            each = self._lasts(frame) // len(packets)
            for number, (_, time_ns) in enumerate(packets, 1):
                end = frame.samples - (len(packets) - number) * each
                decoded.append((sound[:, begin:end], time_ns - self._delay_ns - kept_back * 1_000_000_000 // RATE))
                kept_back, begin = self._kept_back, end
        return decoded

    def _frames(self, payload: bytes) -> list[AudioFrame]:
        if self._averages:
            if opus.is_stereo_speech(payload):
                self._averages = False
                self._context = self._open("stereo")
                if self._newest:
                    with contextlib.suppress(FFmpegError):
                        self._context.decode(Packet(self._newest))  # what comes sounds on from this
            self._newest = payload
        return self._context.decode(Packet(payload))

    def _lasts(self, frame: AudioFrame) -> int:
        """For how many samples of the sender this frame stands."""
        if self.codec != "opus":
            return frame.samples
        lasts = _OPUS_STEP * round(frame.samples / _OPUS_STEP)
        self._kept_back = min(max(self._kept_back + lasts - frame.samples, 0), _SILK_DELAY)
        return lasts

    def _convert(self, frame: AudioFrame) -> Sound:
        if not self._upsampler:
            sound = self._planes(frame)
            flat = sound.ravel()
            if flat.dot(flat) < 1 or (flat.min() >= -1 and flat.max() <= 1):  # the cheap question first; false for NaN
                return sound
        samples = frame.to_ndarray()
        sound = samples.astype(np.float32, copy=False)
        if samples.dtype == np.int16:
            sound = sound / np.float32(32768)
        if not np.isfinite(sound.sum()):
            sound = np.nan_to_num(sound, posinf=0, neginf=0)
        if self._upsampler:
            sound = self._upsampler.push(sound)
        if sound.shape[0] > self._channels:
            sound = sound.mean(axis=0, keepdims=True)
        elif sound.shape[0] < self._channels:
            sound = np.repeat(sound, self._channels, axis=0)
        return np.clip(sound, -1, 1)  # a broken packet can be of any loudness

    def _planes(self, frame: AudioFrame) -> Sound:
        """The planes of FFmpeg's Opus decoder, or their mean: what `_convert` does, for sound that is as it should be, in a
        third of the time. Never a view: the decoder's memory is not kept."""
        planes = [np.frombuffer(plane, np.float32, frame.samples) for plane in frame.planes]  # type: ignore[call-overload]  # a buffer to Python 3.12
        sound = np.empty((self._channels, frame.samples), np.float32)
        if len(planes) == 1:
            sound[:] = planes[0]
            return sound
        left, right = planes
        if self._channels == 1:
            np.add(left, right, out=sound[0])
            sound *= np.float32(0.5)
        else:
            sound[0], sound[1] = left, right
        return sound


def _open(name: str, rate: int, layout: Literal["mono", "stereo"]) -> AudioCodecContext:
    context = CodecContext.create(name, "r")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = rate
    context.layout = layout
    context.open()
    return context
