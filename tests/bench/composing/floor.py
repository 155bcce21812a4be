"""The codecs' share: plain decoders (packet by packet, Opus to stereo) and the same encoders, and nothing else under the clock."""

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.codec.context import CodecContext
from av.packet import Packet

from mixer import layouts
from mixer.audio import AudioMixer, Sound
from mixer.canvas import Canvas
from mixer.compositor import Compositor
from recorder.frames import EncodedFrame
from recorder.media.decode import RATE, AudioDecoder, VideoDecoder
from recorder.media.encode import AudioEncoder, VideoEncoder
from recorder.media.pictures import frame_of, picture_of
from recorder.media.scale import Scaler
from tests.bench.composing import LAYOUT, Room, media

SECOND = 1_000_000_000
KEYFRAME_SECONDS = 15  # the slices


class Floor:
    """Decodes everybody of a room, encodes its canvas and its mix."""

    def __init__(self, room: Room) -> None:
        self._room = room
        frames = media(room)
        self._start_ns = min(frame.time_ns for sent in frames.values() for frame in sent)
        self._sounds = [sent for track, sent in frames.items() if track.kind == "audio"]
        self._videos = {track.uid: sent for track, sent in frames.items() if track.kind == "video"}
        self._mix = self._mixed()

    def milliseconds_per_second(self) -> float:
        """CPU per second of media: everything in the order of time, as a recording has to do it."""
        pictures = _Pictures(self._room, self._videos, self._start_ns) if self._videos else None
        voices = _Voices(self._sounds, self._start_ns, self._mix)
        fps = self._room.canvas.fps
        for number in range(self._room.seconds * fps):
            until_ns = self._start_ns + (2 * number + 1) * SECOND // (2 * fps)
            voices.advance(until_ns)
            if pictures:
                pictures.advance(number, until_ns)
        return (voices.spent_ns + (pictures.spent_ns if pictures else 0)) / 1e6 / self._room.seconds

    def _mixed(self) -> list[Sound]:
        """What the recording's encoder gets to encode, in pieces of one second."""
        mixer = AudioMixer(channels=1, ahead_seconds=self._room.seconds + 1)
        for uid, sent in enumerate(self._sounds):
            decoder = AudioDecoder("opus", 1)
            for number, frame in enumerate(sent):
                for samples, _ in decoder.decode(frame.payload, frame.time_ns):
                    mixer.write(uid, number * samples.shape[1], samples)
        return [mixer.read(RATE) for _ in range(self._room.seconds)]


class _Pictures:
    def __init__(self, room: Room, videos: dict[int, list[EncodedFrame]], start_ns: int) -> None:
        self.spent_ns = 0
        self._start_ns = start_ns
        self._fps = room.canvas.fps
        self._canvas = Canvas(room.canvas.width, room.canvas.height)
        size = self._canvas.size
        self._encoder = VideoEncoder(width=size.width, height=size.height, fps=self._fps, bitrate_kbps=room.canvas.bitrate_kbps)
        self._compositor = Compositor(self._canvas, Scaler)
        self._compositor.arrange(layouts.load(LAYOUT).place(room.uids, size, layouts.Options()))
        self._frame = frame_of(self._canvas.planes)
        self._waiting = {uid: deque(sent) for uid, sent in videos.items()}
        self._decoders = {uid: VideoDecoder("vp8") for uid in videos}

    def advance(self, number: int, until_ns: int) -> None:
        """Drawing is not counted: it is done so that the encoder gets what the recording's encoder gets."""
        due = list(_due(self._waiting, until_ns))
        started = time.thread_time_ns()
        decoded = [(uid, self._decoders[uid].decode(frame.payload, frame.time_ns)) for uid, frame in due]
        self.spent_ns += time.thread_time_ns() - started
        for uid, pictures in decoded:
            self._compositor.set_picture(uid, picture_of(pictures[-1][0]))
        self._compositor.draw()
        started = time.thread_time_ns()
        self._encoder.encode(self._frame, number, force_keyframe=number % (KEYFRAME_SECONDS * self._fps) == 0)
        self.spent_ns += time.thread_time_ns() - started


class _Voices:
    def __init__(self, sounds: list[list[EncodedFrame]], start_ns: int, mix: list[Sound]) -> None:
        self.spent_ns = 0
        self._start_ns = start_ns
        self._waiting = {number: deque(sent) for number, sent in enumerate(sounds)}
        self._decoders = [_opus() for _ in sounds]
        self._encoder = AudioEncoder(0)
        self._mix = np.concatenate(mix, axis=1)
        self._encoded = 0  # samples

    def advance(self, until_ns: int) -> None:
        due = list(_due(self._waiting, until_ns))
        end = (until_ns - self._start_ns) * RATE // SECOND
        started = time.thread_time_ns()
        for number, frame in due:
            self._decoders[number].decode(Packet(frame.payload))
        self._encoder.encode(self._mix[:, self._encoded : end])
        self.spent_ns += time.thread_time_ns() - started
        self._encoded = end


def _due(waiting: dict[int, deque[EncodedFrame]], until_ns: int) -> Iterator[tuple[int, EncodedFrame]]:
    """What was captured by then and not yet given."""
    for number, frames in waiting.items():
        while frames and frames[0].time_ns <= until_ns:
            yield number, frames.popleft()


def _opus() -> AudioCodecContext:
    context = CodecContext.create("opus", "r")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = RATE
    context.layout = "stereo"
    context.open()
    return context
