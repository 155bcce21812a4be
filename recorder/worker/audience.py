"""Who is in the channel, as far as one recording cares: listens to the connector and hands on what is recorded."""

import time
from collections.abc import Callable
from typing import Protocol

from recorder.channels import ChannelError
from recorder.frames import EncodedFrame, Track
from recorder.rtp.capture_writer import CaptureWriter
from recorder.spec import MOST_HEARD, RecordingSpec, Subscription, UidRule
from recorder.worker.absence import Absence
from recorder.worker.metering import Metering
from recorder.worker.pipeline import Input, Joined, Left, Started, Stopped
from recorder.worker.streams import Streams


class Inbox(Protocol):
    def put(self, item: Input) -> None: ...


class Audience:
    """A `Listener`. Calls come from the event loop.

    Of more people than a recording takes the first who joined are recorded; when one of them leaves the next moves up.
    """

    def __init__(
        self,
        spec: RecordingSpec,
        media: Inbox,
        *,
        receive: Callable[[Subscription], object],
        on_lost: Callable[[ChannelError], None],
        on_interrupted: Callable[[], object] = lambda: None,
        capture: CaptureWriter | None = None,
        metering: Metering | None = None,
        streams: Streams | None = None,
        absence: Absence | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`receive` is told whose media is to be received, whenever that changes; `now_ns` is the time of `streams`."""
        self._spec = spec
        self._media = media
        self._receive = receive
        self._on_lost = on_lost
        self._on_interrupted = on_interrupted
        self._capture = capture
        self._metering = metering
        self._streams = streams
        self._now_ns = now_ns
        self._subscription = spec.subscription
        self._admitted = spec.subscription  # with at most as many people as are recorded
        self._people: dict[int, bool] = {}  # uid -> host, in join order
        self._tracks: set[Track] = set()
        self._absence = absence or Absence()

    def idle_seconds(self) -> float:
        """How long nobody who counts has been here: nobody at all, or no host in a live broadcast."""
        return self._absence.seconds()

    @property
    def received(self) -> Subscription:
        """Whose media is to be received: nobody's of a kind that is not recorded."""
        nobody = UidRule(kind="none")
        return Subscription(
            audio=self._admitted.audio if self._spec.audio else nobody, video=self._admitted.video if self._spec.video else nobody
        )

    def subscribe(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._media.put(subscription)
        self._admit()

    def participant_joined(self, uid: int, *, host: bool) -> None:
        if self._capture:
            self._capture.participant_joined(uid, time.monotonic_ns(), host=host)
        self._people[uid] = host
        self._note_presence()
        if host:
            self._media.put(Joined(uid))
            if self._streams:
                self._streams.joined(uid)
        self._admit()

    def participant_left(self, uid: int) -> None:
        if self._capture:
            self._capture.participant_left(uid, time.monotonic_ns())
        host = self._people.pop(uid, False)
        self._note_presence()
        if self._streams:
            self._streams.left(uid, self._now_ns())
        if host:
            self._media.put(Left(uid))
        self._admit()

    def track_started(self, track: Track) -> None:
        if self._capture:
            self._capture.track_started(track.uid, track.kind, time.monotonic_ns())
        self._tracks.add(track)
        if _admits(self._admitted, track):
            self._begin(track)

    def track_stopped(self, track: Track) -> None:
        if self._capture:
            self._capture.track_stopped(track.uid, track.kind, time.monotonic_ns())
        self._tracks.discard(track)
        if _admits(self._admitted, track):
            self._stop(track)

    def frame(self, frame: EncodedFrame) -> None:
        if self._metering and frame.track.kind == "video" and _admits(self._admitted, frame.track):
            self._metering.frame(frame)
        if self._streams:
            self._streams.frame(frame.track, self._now_ns())
        self._media.put(frame)

    def interrupted(self) -> None:
        self._on_interrupted()

    def lost(self, error: ChannelError) -> None:
        self._on_lost(error)

    def _admit(self) -> None:
        """Find out anew who is recorded, and tell what that changes."""
        before, before_received = self._admitted, self.received
        self._admitted = Subscription(
            audio=self._first(self._subscription.audio, MOST_HEARD), video=self._first(self._subscription.video, self._spec.most_seen)
        )
        if self.received != before_received:
            self._receive(self.received)
        for track in self._tracks:
            was, now = _admits(before, track), _admits(self._admitted, track)
            if was != now:
                self._begin(track) if now else self._stop(track)

    def _begin(self, track: Track) -> None:
        self._media.put(Started(track))
        if self._streams and (self._spec.audio if track.kind == "audio" else self._spec.video):
            self._streams.started(track)

    def _stop(self, track: Track) -> None:
        self._media.put(Stopped(track))
        if self._streams:
            self._streams.stopped(track, self._now_ns())

    def _first(self, rule: UidRule, most: int) -> UidRule:
        """The rule itself unless it admits more people than `most`: then those who joined first."""
        admitted = [uid for uid, host in self._people.items() if host and rule.admits(uid)]
        return rule if len(admitted) <= most else UidRule(kind="only", uids=frozenset(admitted[:most]))

    def _note_presence(self) -> None:
        present = any(self._people.values()) if self._spec.live_broadcast else bool(self._people)
        if present:
            self._absence.end()
        else:
            self._absence.begin()


def _admits(subscription: Subscription, track: Track) -> bool:
    rule = subscription.audio if track.kind == "audio" else subscription.video
    return rule.admits(track.uid)
