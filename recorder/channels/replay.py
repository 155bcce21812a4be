"""Connector that plays a capture in real time, in a loop until the recording ends; `place.url` is the capture's folder.

For tests and benches: a worker with all its duties, without publishers and a network. Nobody answers keyframe requests.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from recorder.channels import ChannelError, Listener, Place
from recorder.frames import Track
from recorder.rtp.capture import CaptureError, load
from recorder.rtp.playback import Player
from recorder.spec import RecordingSpec, Subscription

log = logging.getLogger(__name__)

_WAKE_SECONDS = 0.01  # one wake-up serves every packet that arrived since the last one


class ReplayConnector:
    def __init__(self, place: Place, listener: Listener, *, pictures: bool) -> None:
        self._place = place
        self._pictures = pictures
        self._listener = listener
        self._player: Player | None = None
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        try:
            capture = load(Path(self._place.url))
            patience_ns = self._place.jitter_ms * 1_000_000
            self._player = Player(
                capture, self._listener, patience_ns=patience_ns, pictures=self._pictures, start_ns=self._now_ns(), loop=True
            )
        except CaptureError as error:
            raise ChannelError(str(error)) from error
        if self._player.next_ns() is None:
            raise ChannelError("the capture is empty")
        self._player.subscribe(Subscription())
        self._player.advance(self._now_ns())
        self._task = asyncio.create_task(self._play(self._player))
        self._task.add_done_callback(self._ended)

    def subscribe(self, wanted: Subscription) -> None:
        if self._player:
            self._player.subscribe(wanted)

    def request_keyframe(self, track: Track) -> None:
        """There is nobody to ask."""

    async def leave(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CaptureError):
                await self._task
        if self._player:
            self._player.flush()

    async def _play(self, player: Player) -> None:
        while True:
            await asyncio.sleep(_WAKE_SECONDS)
            player.advance(self._now_ns())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("the capture cannot be played on", exc_info=error)
            self._listener.lost(ChannelError("the capture cannot be played on"))

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._place.zero_ns


def create(place: Place, spec: RecordingSpec, listener: Listener) -> ReplayConnector:
    return ReplayConnector(place, listener, pictures=spec.video)
