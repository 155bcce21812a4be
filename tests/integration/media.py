"""Encoded frames of generated participants for tests of the media path, on a timeline, without a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from recorder.frames import EncodedFrame, Track
from recorder.tools.content import Picture, Style
from recorder.tools.publish_media import AudioLoop, VideoCodec, VideoLoop, encode_audio, encode_video, encode_video_apart

SECOND = 1_000_000_000
PERIOD_SECONDS = 8


@lru_cache(maxsize=16)
def video_loop(uid: int, codec: VideoCodec, width: int, height: int, fps: int) -> VideoLoop:
    encode = encode_video_apart if codec == "av1" else encode_video
    return encode(Style(uid, width, height, fps, PERIOD_SECONDS), codec, 500)


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


class Browser:
    """Somebody who sends a keyframe at the beginning and when asked, no other; it is encoded as it is taken."""

    def __init__(
        self, uid: int, asked: Sequence[Track], *, deaf: bool = False, vp8: bool = False, size: tuple[int, int] = (320, 180)
    ) -> None:
        """`asked` grows with each request for a keyframe; who is `deaf` answers none."""
        self.person = Person(uid, "vp8" if vp8 else "h264", sound=False, width=size[0], height=size[1])
        self._asked = asked
        self._answered = 0
        self._deaf = deaf
        self._picture = Picture(Style(uid, *size, self.person.fps, PERIOD_SECONDS))
        self._encoder = VideoCodecContext.create("libvpx" if vp8 else "libx264", "w")
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = *size, "yuv420p"
        self._encoder.time_base, self._encoder.gop_size = Fraction(1, self.person.fps), 100_000
        self._encoder.bit_rate = 2 * size[0] * size[1]
        self._encoder.options = (
            {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"}
            if vp8
            else {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0"}
        )

    def frame(self, number: int) -> EncodedFrame:
        """Taken in order."""
        raw = VideoFrame.from_ndarray(self._picture.draw(number % (self.person.fps * PERIOD_SECONDS)), format="yuv420p")
        raw.pts = number
        keyframe = number == 0 or (len(self._asked) > self._answered and not self._deaf)
        self._answered = len(self._asked)
        raw.pict_type = PictureType.I if keyframe else PictureType.NONE
        (packet,) = self._encoder.encode(raw)
        assert packet.is_keyframe == keyframe
        track, codec = Track(self.person.uid, "video"), self.person.codec or "h264"
        return EncodedFrame(
            track, codec, bytes(packet), keyframe, number * SECOND // self.person.fps, self.person.width, self.person.height
        )
