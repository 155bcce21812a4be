"""Tracks that play encoded media in real time into an ordinary aiortc sender.

aiortc stamps RTP packets and sender reports when it sends, so everything is sent at its capture time: both tracks of a
publisher share one clock and sleep to absolute deadlines.
"""

import asyncio
import math
from fractions import Fraction
from typing import Protocol

from aiortc import MediaStreamTrack
from av.packet import Packet
from av.stream import Stream

from recorder.tools.content import SAMPLE_RATE, Picture, Style
from recorder.tools.publish_media import AUDIO_FRAME, AudioLoop, VideoCodec, VideoEncoder, VideoLoop

_VIDEO_CLOCK_HZ = 90_000
_LEAD_SECONDS = 0.02  # between the first track's start and media time zero: time for the other one to start
_LATE_SECONDS = 0.5  # media later than this is dropped, as a camera would


class MediaClock:
    """Media time of one publisher, in seconds; starts when the first of its tracks does."""

    def __init__(self) -> None:
        self._zero: float | None = None

    def now(self) -> float:
        time = asyncio.get_running_loop().time()
        if self._zero is None:
            self._zero = time + _LEAD_SECONDS
        return time - self._zero

    async def until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds - self.now()))


class AudioTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, clock: MediaClock, media: AudioLoop) -> None:
        super().__init__()
        self.muted = False
        self._clock = clock
        self._media = media
        self._number: int | None = None  # of the next packet since media time zero

    async def recv(self) -> "Packet[Stream]":
        while True:
            due = math.ceil((self._clock.now() - _LATE_SECONDS) * SAMPLE_RATE / AUDIO_FRAME)
            number = max(0 if self._number is None else self._number, due)
            self._number = number + 1
            # As browsers do it: the time is that of the encoder's input, and receivers take the codec's delay off.
            pts = number * AUDIO_FRAME
            await self._clock.until(pts / SAMPLE_RATE)
            if not self.muted:
                return _packet(self._media.packets[number % len(self._media.packets)], pts, SAMPLE_RATE)


class VideoSource(Protocol):
    """Gives the encoded frame of an index; None: it can't, because a keyframe must come first."""

    fps: int

    async def frame(self, index: int, *, keyframe: bool) -> tuple[bytes, bool] | None:
        """The frame and whether it is a keyframe. `keyframe`: one is wanted, as soon as possible."""


class VideoTrack(MediaStreamTrack):
    kind = "video"

    def __init__(self, clock: MediaClock, source: VideoSource) -> None:
        super().__init__()
        self.muted = False
        self.keyframe_requests = 0
        self.rotation = 0  # by which receivers shall turn the picture, degrees clockwise
        self._clock = clock
        self._source = source
        self._index: int | None = None  # of the next frame since media time zero
        self._wants_keyframe = True

    def request_keyframe(self) -> None:
        self.keyframe_requests += 1
        self._wants_keyframe = True

    def change(self, source: VideoSource, rotation: int) -> None:
        """Go on with the frames of another source of the same rate, from a keyframe on."""
        assert source.fps == self._source.fps
        self._source = source
        self.rotation = rotation
        self._wants_keyframe = True

    async def recv(self) -> "Packet[Stream]":
        fps = self._source.fps
        while True:
            expected = 0 if self._index is None else self._index
            index = max(expected, math.ceil((self._clock.now() - _LATE_SECONDS) * fps))
            self._index = index + 1
            interrupted = index != expected or self.muted
            self._wants_keyframe |= interrupted
            frame = None if self.muted else await self._source.frame(index, keyframe=self._wants_keyframe)
            await self._clock.until(index / fps)
            if frame and not self.muted:
                data, is_keyframe = frame
                self._wants_keyframe &= not is_keyframe
                return _packet(data, index * _VIDEO_CLOCK_HZ // fps, _VIDEO_CLOCK_HZ)


class LoopedVideo:
    """Plays a loop; a request for a keyframe changes to the run that begins soonest."""

    def __init__(self, loop: VideoLoop) -> None:
        self.fps = loop.fps
        self._loop = loop
        self._run: int | None = None  # by its first frame
        self._next = 0

    async def frame(self, index: int, *, keyframe: bool) -> tuple[bytes, bool] | None:
        position = index % self._loop.frames
        if index != self._next:
            self._run = None  # frames were left out: nothing can be decoded before the next keyframe
        self._next = index + 1
        if position % self._loop.gop == 0 or ((keyframe or self._run is None) and self._loop.may_start(position)):
            self._run = position
        if self._run is None:
            return None
        return self._loop.runs[self._run][position - self._run], position == self._run


class LiveVideo:
    """Encodes while it plays: a request is answered by the very next frame."""

    def __init__(self, style: Style, codec: VideoCodec, bitrate_kbps: int) -> None:
        self.fps = style.fps
        self._picture = Picture(style)
        self._encoder = VideoEncoder(style, codec, bitrate_kbps)

    async def frame(self, index: int, *, keyframe: bool) -> tuple[bytes, bool] | None:
        data = await asyncio.to_thread(self._encode, index, keyframe)
        return (data, keyframe) if data else None

    def _encode(self, index: int, keyframe: bool) -> bytes:
        return self._encoder.encode(self._picture.draw(index), keyframe=keyframe)


def _packet(data: bytes, pts: int, clock_hz: int) -> "Packet[Stream]":
    packet: Packet[Stream] = Packet(data)
    packet.pts = pts
    packet.time_base = Fraction(1, clock_hz)
    return packet
