"""The codecs' share: the same decoders and encoders on the same media, and nothing else under the clock."""

import time
from collections.abc import Iterator

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
        """CPU per second of media."""
        pictures = self._pictures() if self._videos else 0
        return (pictures + self._sound()) / 1e6 / self._room.seconds

    def _mixed(self) -> list[Sound]:
        """What the recording's encoder gets to encode, in pieces of one second."""
        mixer = AudioMixer(channels=1, ahead_seconds=self._room.seconds + 1)
        for uid, sent in enumerate(self._sounds):
            decoder = AudioDecoder("opus", 1)
            for number, frame in enumerate(sent):
                for samples, _ in decoder.decode(frame.payload, frame.time_ns):
                    mixer.write(uid, number * samples.shape[1], samples)
        return [mixer.read(RATE) for _ in range(self._room.seconds)]

    def _pictures(self) -> int:
        """CPU ns. Drawing is not counted: only so that the encoder gets what the recording's encoder gets."""
        canvas = Canvas(self._room.canvas.width, self._room.canvas.height)
        fps = self._room.canvas.fps
        encoder = VideoEncoder(width=canvas.size.width, height=canvas.size.height, fps=fps, bitrate_kbps=self._room.canvas.bitrate_kbps)
        compositor = Compositor(canvas, Scaler)
        compositor.arrange(layouts.load(LAYOUT).place(self._room.uids, canvas.size, layouts.Options()))
        frame = frame_of(canvas.planes)
        decoders = {uid: VideoDecoder("vp8") for uid in self._videos}
        spent = 0
        for number, due in enumerate(self._due(fps)):
            spent -= time.thread_time_ns()
            decoded = [(uid, decoders[uid].decode(item.payload, item.time_ns)) for uid, item in due]
            spent += time.thread_time_ns()
            for uid, pictures in decoded:
                compositor.set_picture(uid, picture_of(pictures[-1][0]))
            compositor.draw()
            spent -= time.thread_time_ns()
            encoder.encode(frame, number, force_keyframe=number % (15 * fps) == 0)
            spent += time.thread_time_ns()
        return spent

    def _due(self, fps: int) -> Iterator[list[tuple[int, EncodedFrame]]]:
        """What is decoded for each picture of the output."""
        waiting = {uid: list(reversed(sent)) for uid, sent in self._videos.items()}
        for number in range(self._room.seconds * fps):
            until_ns = self._start_ns + (2 * number + 1) * SECOND // (2 * fps)
            due = []
            for uid, frames in waiting.items():
                while frames and frames[-1].time_ns <= until_ns:
                    due.append((uid, frames.pop()))
            yield due

    def _sound(self) -> int:
        decoders = [_opus() for _ in self._sounds]
        encoder = AudioEncoder(0)
        started = time.thread_time_ns()
        for decoder, sent in zip(decoders, self._sounds, strict=True):
            for frame in sent:
                decoder.decode(Packet(frame.payload))
        for second in self._mix:
            encoder.encode(second)
        return time.thread_time_ns() - started


def _opus() -> AudioCodecContext:
    context = CodecContext.create("opus", "r")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = RATE
    context.layout = "stereo"
    context.open()
    return context
