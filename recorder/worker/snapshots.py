"""Screenshots of the individual mode: of everybody who sends video the latest picture, as JPG, at each interval of the timeline.

The instants are one grid for all: the timeline's zero plus whole intervals. A picture is taken `latency_ms` after its instant, so
that frames still on their way are in it; it shows the frame captured last before the instant, and its name tells that frame's
time. Who is muted or away, or has sent nothing for STALE_NS, has no picture taken.

Decoding everything for one picture in ten seconds would be a waste, and a frame needs those it refers to. So frames wait here,
encoded, from their newest keyframe on, and are decoded only for a picture. When that run would be long, a keyframe is asked for
LEAD_NS before the instant: early enough for a second request, and for the encoder to make good what a keyframe under a tight
bitrate lacks. Below ASK_FROM_SECONDS it would have to send keyframes all the time: then every frame is decoded instead.

Nothing here may hurt the recording: decoding and compression happen aside, at most one picture of each participant is on its way
to the disk, and whatever fails is counted and left out.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import cast

from av.video.frame import VideoFrame

from recorder.frames import EncodedFrame, Track
from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.media.pictures import rgb_of
from recorder.outputs import Closed, Draft, Shelf, jpeg
from recorder.protocol import SliceCommitted
from recorder.worker.pipeline import Input, Left, Started, Stopped, Surroundings
from storage.errors import SpoolError

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
LEAD_NS = 3 * SECOND // 2
SHORT_NS = 3 * SECOND  # a run from a keyframe that is no older, LEAD_NS before the instant, is not worth asking for another
ASK_FROM_SECONDS = 5
ASK_AGAIN_NS = SECOND // 2  # a request may be lost
KEPT_NS = 10 * SECOND  # before an instant; senders that answer no request usually send keyframes more often
KEPT_BYTES = 4 << 20  # of one participant
STALE_NS = 5 * SECOND
CLOSE_SECONDS = 5.0  # for the last pictures when the recording ends


class Snapshots:
    def __init__(self, around: Surroundings, shelf: Shelf) -> None:
        assert around.spec.snapshots
        self.taken = 0
        self.failed = 0  # decoder, compression or disk
        self.skipped = 0  # the one before was not finished
        self.missed = 0  # no keyframe came in time
        self._around = around
        self._shelf = shelf
        self._interval_ns = around.spec.snapshots.interval_seconds * SECOND
        self._asks = around.spec.snapshots.interval_seconds >= ASK_FROM_SECONDS
        self._latency_ns = around.settings.latency_ms * 1_000_000
        self._instant_ns = self._interval_ns  # of the next pictures
        self._series: dict[int, _Series] = {}
        self._deadline: float | None = None  # of the monotonic clock, for pictures not yet begun; None: there is time

    def take(self, item: Input, now_ns: int) -> None:
        """As `Pipeline.take`; what is not video does not matter."""
        self.advance(now_ns)
        match item:
            case EncodedFrame(track=Track(kind="video")):
                self._of(item.track).take(item, self._instant_ns)
            case Stopped(track=Track(kind="video")):
                self._of(item.track).stop(now_ns, self._instant_ns)
            case Started(track=Track(kind="video")):
                self._of(item.track).stopped = False
            case Left(uid=uid) if uid in self._series:
                self._series[uid].stop(now_ns, self._instant_ns)

    def advance(self, now_ns: int) -> None:
        """Take the pictures that are due, and ask for the keyframes of the next ones."""
        while self._instant_ns + self._latency_ns <= now_ns:
            self._take_all()
        if not self._asks or self._instant_ns - LEAD_NS <= now_ns < self._instant_ns:
            for series in self._series.values():
                if series.wants_keyframe(now_ns, self._instant_ns, early=self._asks):
                    self._around.request_keyframe(series.track)

    def close(self, now_ns: int) -> None:
        """Take what is due up to now; frames still on their way are not waited for."""
        while self._instant_ns <= now_ns:
            self._take_all()
        self._deadline = time.monotonic() + CLOSE_SECONDS
        self._around.aside(lambda: self._around.defer(self._sum_up))

    def _of(self, track: Track) -> "_Series":
        if track.uid not in self._series:
            self._series[track.uid] = _Series(track)
        return self._series[track.uid]

    def _take_all(self) -> None:
        instant_ns, self._instant_ns = self._instant_ns, self._instant_ns + self._interval_ns
        for uid, series in list(self._series.items()):
            if series.is_sending(instant_ns):
                self._take_one(series, instant_ns)
            if series.settle():
                del self._series[uid]

    def _take_one(self, series: "_Series", instant_ns: int) -> None:
        if series.busy:
            series.give_up(instant_ns)
            self.skipped += 1
            return
        frames = series.frames_until(instant_ns)
        if series.shown is None or series.shown.time_ns <= instant_ns - STALE_NS:
            series.give_up(instant_ns)
            self.missed += 1
            return
        series.busy = True
        self._around.aside(partial(self._develop, series, frames, series.shown))

    def _develop(self, series: "_Series", frames: Sequence[EncodedFrame], shown: EncodedFrame) -> None:
        """One picture, from frames to a file. Runs aside."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.skipped += 1
            series.busy = False
            return
        try:
            picture = series.decode(frames)
            if picture is None:
                self._fail(series, "the decoder gives no whole picture")
            else:
                closed = self._write(series.track, picture, shown)
                self._around.defer(partial(self._commit, series, closed))
        except Exception as error:  # noqa: BLE001  # a screenshot must never cost the recording
            self._fail(series, f"{type(error).__name__}: {error}")

    def _write(self, track: Track, picture: VideoFrame, shown: EncodedFrame) -> Closed:
        pixels = rgb_of(picture, shown.rotation)
        start_ms = self._shelf.start_ms(f"snapshots of {track.uid}", shown.time_ns)
        draft = Draft(self._shelf.names.snapshot(track.uid, start_ms), None, shown.time_ns, start_ms, content="snapshot")
        try:
            jpeg.write(self._shelf.partial(draft.name), pixels)
            return self._shelf.close(draft, 0)
        except OSError:
            self._shelf.discard(draft)
            raise

    def _commit(self, series: "_Series", closed: Closed) -> None:
        try:
            committed = closed.commit()
        except SpoolError as error:  # the recording's own files tell whether the disk has failed
            self._fail(series, str(error))
            return
        self.taken += 1
        series.busy = series.failing = False
        self._around.report(SliceCommitted(slice=committed))

    def _sum_up(self) -> None:
        figures = {"taken": self.taken, "failed": self.failed, "skipped": self.skipped, "missed": self.missed}
        log.info("screenshots ended", extra=figures)

    def _fail(self, series: "_Series", why: str) -> None:
        self.failed += 1
        if not series.failing:
            log.warning("screenshots fail", extra={"uid": series.track.uid, "why": why})
        series.failing = True
        series.busy = False


class _Series:
    """One participant's. `decode` is called aside, everything else by the owner of the pipeline."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self.stopped = False  # nothing is sent; what still comes was on its way
        self.busy = False  # a picture is being made, or made durable
        self.failing = False  # the last one failed
        self.spoilt = False  # the decoder cannot go on before a keyframe
        self.shown: EncodedFrame | None = None  # the newest that was given out to be decoded
        self._waiting: deque[EncodedFrame] = deque()
        self._bytes = 0
        self._broken = True  # what comes cannot be decoded before a keyframe
        self._newest_ns: int | None = None  # capture time of the newest frame since the stream began or went on
        self._ended = False  # the stream stopped; the frames of before are still good for an instant before that
        self._asked_ns: int | None = None
        self._decoder: VideoDecoder | None = None
        self._picture: VideoFrame | None = None  # decoded last

    def take(self, frame: EncodedFrame, instant_ns: int) -> None:
        """`instant_ns` is the next one: frames of before a newer keyframe are of no use unless they are for it."""
        if self.stopped:
            return
        if self._ended:
            self._forget()
        self._newest_ns = frame.time_ns
        if frame.keyframe and frame.time_ns <= instant_ns:
            self._clear()
        self._broken &= not frame.keyframe
        if self._broken:
            return
        self._waiting.append(frame)
        self._bytes += len(frame.payload)
        if self._bytes > KEPT_BYTES or self._waiting[0].time_ns < instant_ns - KEPT_NS:
            self._clear()
            self._broken, self.shown = True, None

    def stop(self, now_ns: int, instant_ns: int) -> None:
        """The stream stopped; what comes when it goes on begins with a keyframe."""
        self.stopped = True
        if now_ns <= instant_ns:
            self._forget()
        else:
            self._ended = True

    def wants_keyframe(self, now_ns: int, instant_ns: int, *, early: bool) -> bool:
        """Whether to ask for one now, for this instant; `early`: also to have less to decode."""
        if self.stopped or self._newest_ns is None or (self._asked_ns is not None and now_ns - self._asked_ns < ASK_AGAIN_NS):
            return False
        long = early and bool(self._waiting) and self._waiting[0].time_ns < instant_ns - LEAD_NS - SHORT_NS
        if not (self._broken or long):
            return False
        self._asked_ns = now_ns
        return True

    def is_sending(self, instant_ns: int) -> bool:
        return self._newest_ns is not None and self._newest_ns > instant_ns - STALE_NS

    def settle(self) -> bool:
        """The pictures of an instant were taken. Returns whether nothing is left of the participant."""
        if self._ended:
            self._forget()
        return self.stopped and not self.busy

    def frames_until(self, instant_ns: int) -> list[EncodedFrame]:
        """What has to be decoded to see the instant; nothing, when the picture of before is still the latest."""
        if self.spoilt:
            self.spoilt = False
            self._drop_until_keyframe()
        frames = []
        while self._waiting and self._waiting[0].time_ns <= instant_ns:
            frames.append(self._waiting.popleft())
            self._bytes -= len(frames[-1].payload)
        self.shown = frames[-1] if frames else self.shown
        return frames

    def give_up(self, instant_ns: int) -> None:
        """Leave out the frames of this instant; the decoder goes on at a keyframe."""
        self.frames_until(instant_ns)
        self._drop_until_keyframe()

    def decode(self, frames: Sequence[EncodedFrame]) -> VideoFrame | None:
        """The last picture; None when not all frames can be decoded, for what follows refers to those that cannot."""
        if frames:
            self._picture = None
        for frame in frames:
            if self._decoder is None or self._decoder.codec != frame.codec:
                self._decoder = VideoDecoder(cast(VideoCodec, frame.codec))
            decoded = self._decoder.decode(frame.payload, frame.time_ns)
            self._picture = decoded[-1][0] if decoded else self._picture
        if self._decoder and self._decoder.errors:
            self._decoder = self._picture = None
            self.spoilt = True
        return self._picture

    def _drop_until_keyframe(self) -> None:
        while self._waiting and not self._waiting[0].keyframe:
            self._bytes -= len(self._waiting.popleft().payload)
        self._broken = not self._waiting
        self.shown = None

    def _clear(self) -> None:
        self._waiting.clear()
        self._bytes = 0

    def _forget(self) -> None:
        self._clear()
        self._broken, self._ended = True, False
        self._newest_ns = self.shown = None
