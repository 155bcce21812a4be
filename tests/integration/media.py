"""Encoded frames of generated participants for tests of the media path, on a timeline, without a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from recorder.frames import EncodedFrame, Track
from recorder.tools.content import Style
from recorder.tools.publish_media import AudioLoop, VideoCodec, VideoLoop, encode_audio, encode_video

SECOND = 1_000_000_000
PERIOD_SECONDS = 8


@lru_cache(maxsize=16)
def video_loop(uid: int, codec: VideoCodec, width: int, height: int, fps: int) -> VideoLoop:
    return encode_video(Style(uid, width, height, fps, PERIOD_SECONDS), codec, 500)


@lru_cache(maxsize=16)
def audio_loop(uid: int) -> AudioLoop:
    return encode_audio(uid, PERIOD_SECONDS)


@dataclass(frozen=True, slots=True)
class Person:
    """One participant who sends from `start` to `end` seconds."""

    uid: int
    codec: VideoCodec | None = "h264"
    sound: bool = True
    start: float = 0.0
    end: float = 10.0
    width: int = 640
    height: int = 360
    fps: int = 30

    def frames(self) -> Iterator[EncodedFrame]:
        if self.codec:
            yield from self._video(self.codec)
        if self.sound:
            yield from self._audio()

    def _video(self, codec: VideoCodec) -> Iterator[EncodedFrame]:
        loop = video_loop(self.uid, codec, self.width, self.height, self.fps)
        track = Track(self.uid, "video")
        for number in range(round(self.start * self.fps), round(self.end * self.fps)):
            index = number % loop.frames
            run = index - index % loop.gop
            time_ns = number * SECOND // self.fps
            yield EncodedFrame(track, codec, loop.runs[run][index - run], index == run, time_ns, self.width, self.height)

    def _audio(self) -> Iterator[EncodedFrame]:
        loop = audio_loop(self.uid)
        track = Track(self.uid, "audio")
        for number in range(round(self.start * 50), round(self.end * 50)):
            yield EncodedFrame(track, "opus", loop.packets[number % len(loop.packets)], True, number * SECOND // 50)
