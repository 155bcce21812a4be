"""Who is in the channel, as far as one recording cares: listens to the connector and hands on what is recorded."""

import time
from collections.abc import Callable
from typing import Protocol

from recorder.channels import ChannelError
from recorder.frames import EncodedFrame, Kind, Track
from recorder.rtp.capture_writer import CaptureWriter
from recorder.spec import RecordingSpec, Subscription
from recorder.worker.pipeline import Input, Joined, Left, Started, Stopped


class Inbox(Protocol):
    def put(self, item: Input) -> None: ...


class Audience:
    """A `Listener`. Calls come from the event loop."""

    def __init__(
        self, spec: RecordingSpec, media: Inbox, *, on_lost: Callable[[ChannelError], None], capture: CaptureWriter | None = None
    ) -> None:
        self._spec = spec
        self._media = media
        self._on_lost = on_lost
        self._capture = capture
        self._subscription = spec.subscription
        self._people: dict[int, bool] = {}  # uid -> host, in join order
        self._tracks: set[Track] = set()
        self._empty_since: float | None = time.monotonic()

    def idle_seconds(self) -> float:
        """How long nobody who counts has been here: nobody at all, or no host in a live broadcast."""
        return 0.0 if self._empty_since is None else time.monotonic() - self._empty_since

    def subscribe(self, subscription: Subscription) -> None:
        before, self._subscription = self._subscription, subscription
        self._media.put(subscription)
        for track in self._tracks:
            was, now = self._admits(track, before), self._admits(track, subscription)
            if was != now:
                self._media.put(Started(track) if now else Stopped(track))

    def participant_joined(self, uid: int, *, host: bool) -> None:
        if self._capture:
            self._capture.participant_joined(uid, time.monotonic_ns(), host=host)
        self._people[uid] = host
        self._note_presence()
        if host:
            self._media.put(Joined(uid))

    def participant_left(self, uid: int) -> None:
        if self._capture:
            self._capture.participant_left(uid, time.monotonic_ns())
        host = self._people.pop(uid, False)
        self._note_presence()
        if host:
            self._media.put(Left(uid))

    def track_started(self, track: Track) -> None:
        if self._capture:
            self._capture.track_started(track.uid, track.kind, time.monotonic_ns())
        self._tracks.add(track)
        if self._admits(track, self._subscription):
            self._media.put(Started(track))

    def track_stopped(self, track: Track) -> None:
        if self._capture:
            self._capture.track_stopped(track.uid, track.kind, time.monotonic_ns())
        self._tracks.discard(track)
        if self._admits(track, self._subscription):
            self._media.put(Stopped(track))

    def frame(self, frame: EncodedFrame) -> None:
        self._media.put(frame)

    def lost(self, error: ChannelError) -> None:
        self._on_lost(error)

    def _admits(self, track: Track, subscription: Subscription) -> bool:
        kind: Kind = track.kind
        rule = subscription.audio if kind == "audio" else subscription.video
        return rule.admits(track.uid)

    def _note_presence(self) -> None:
        present = any(self._people.values()) if self._spec.live_broadcast else bool(self._people)
        if present:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
