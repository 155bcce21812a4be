"""One participant's picture: encoded frames wait here until the output's clock reaches them, then the latest is decoded.

Only participants who are shown are decoded; one who is shown again begins at the next keyframe.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from mixer.picture import Picture
from recorder.frames import EncodedFrame, Track
from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.media.pictures import picture_of

log = logging.getLogger(__name__)

QUEUE_LIMIT = 600  # frames: ten seconds at 60 fps
ASK_KEYFRAME_NS = 1_000_000_000  # a request may be lost on its way, and browsers send no keyframe without one
STARVED_NS = 2_000_000_000  # frames in without one picture out: the decoder is stuck


class Sight:
    def __init__(self, track: Track, request_keyframe: Callable[[Track], object]) -> None:
        self._track = track
        self._request_keyframe = request_keyframe
        self._waiting: deque[EncodedFrame] = deque()
        self._decoder: VideoDecoder | None = None
        self._needs_keyframe = True
        self._unanswered_ns: int | None = None  # capture time of the first frame since the last picture
        self._asked_ns: int | None = None  # capture time of the frame that made us ask
        self._stopped_ns: int | None = None  # when the participant said that nothing follows; None: frames may come
        self._pictured_ns = 0  # capture time of the picture
        self.picture: Picture | None = None  # the latest, since this participant has a place
        self.shown = False

    def take(self, frame: EncodedFrame) -> None:
        if len(self._waiting) >= QUEUE_LIMIT:
            log.warning("pictures do not come to their turn, dropped", extra={"uid": self._track.uid, "frames": len(self._waiting)})
            self._waiting.clear()
            self._restart()
        # Where a stream began anew its times may go back. Frames are decoded in order, so those before are due as well.
        for index in reversed(range(len(self._waiting))):
            if self._waiting[index].time_ns <= frame.time_ns:
                break
            self._waiting[index] = self._waiting[index]._replace(time_ns=frame.time_ns)
        self._waiting.append(frame)

    def show(self, shown: bool) -> None:
        """Whether this participant has a place on the canvas."""
        if shown and not self.shown:
            self._restart()
        elif not shown:
            self._decoder = self.picture = self._stopped_ns = None
        self.shown = shown

    def interrupt(self, now_ns: int) -> None:
        """The stream stopped; whatever comes next refers to pictures that were never sent to us, until a keyframe."""
        self._needs_keyframe = True
        self._stopped_ns = now_ns

    def resume(self) -> None:
        """The stream goes on."""
        self._stopped_ns = None

    def stopped_for(self, now_ns: int) -> int:
        """How long there has been nothing new to see, in ns; 0 while the stream goes on.

        It counts from the last picture: of one who just sends nothing the channel tells seconds later that the stream stopped.
        """
        if self._stopped_ns is None:
            return 0
        return now_ns - (self._stopped_ns if self.picture is None else self._pictured_ns)

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def latest(self, until_ns: int) -> Picture | None:
        """The picture captured last before `until_ns`, or None when there is no new one."""
        newest = None
        while self._waiting and self._waiting[0].time_ns <= until_ns:
            frame = self._waiting.popleft()
            if self.shown and self._needs_keyframe and not frame.keyframe:
                self._ask(frame.time_ns)
            elif self.shown:
                newest = self._decode(frame) or newest
        self.picture = newest or self.picture
        return newest

    def _decode(self, frame: EncodedFrame) -> Picture | None:
        if self._decoder is None or self._decoder.codec != frame.codec:
            if not frame.keyframe:
                self._restart()
                return None
            self._decoder = VideoDecoder(cast(VideoCodec, frame.codec))
        self._needs_keyframe = False
        decoded = self._decoder.decode(frame.payload, frame.time_ns)
        if decoded:
            self._unanswered_ns = None
            self._pictured_ns = frame.time_ns
            return picture_of(decoded[-1][0], frame.rotation)
        if self._unanswered_ns is None:
            self._unanswered_ns = frame.time_ns
        if frame.time_ns - self._unanswered_ns >= STARVED_NS:
            log.warning("the decoder gives nothing, starting a new one", extra={"uid": self._track.uid})
            self._decoder = None
            self._restart()
        return None

    def _restart(self) -> None:
        """Go on at the next keyframe, and ask for one."""
        self._needs_keyframe = True
        self._unanswered_ns = None
        if not any(frame.keyframe for frame in self._waiting):
            self._request_keyframe(self._track)

    def _ask(self, time_ns: int) -> None:
        """Ask for a keyframe once more."""
        if self._asked_ns is None or abs(time_ns - self._asked_ns) >= ASK_KEYFRAME_NS:
            self._asked_ns = time_ns
            self._request_keyframe(self._track)
