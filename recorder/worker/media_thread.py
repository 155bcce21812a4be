"""The thread in which one recording's media is decoded, mixed, encoded and written; the only owner of its pipeline.

What crosses the border: frames and channel events in through a bounded queue, reports out to the event loop.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from recorder.frames import EncodedFrame
from recorder.worker import pipeline

log = logging.getLogger(__name__)

QUEUE_LIMIT = 8192  # frames: some ten seconds of fifty speakers and seventeen pictures
WAKE_SECONDS = 0.02


class MediaThread:
    def __init__(self, around: pipeline.Surroundings, *, zero_ns: int, failed: Callable[[BaseException], None]) -> None:
        self._zero_ns = zero_ns
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._pipeline = pipeline.create(around)
        self._queue: deque[tuple[pipeline.Input, int]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="media", daemon=True)
        self.frames_dropped = 0

    def start(self) -> None:
        self._thread.start()

    def put(self, item: pipeline.Input) -> None:
        """Queue a frame or an event. Frames beyond the queue's bound are dropped and counted."""
        if len(self._queue) >= QUEUE_LIMIT and isinstance(item, EncodedFrame):
            self.frames_dropped += 1
            return
        self._queue.append((item, self._now_ns()))

    def close(self) -> None:
        """Record what is queued, close every file, end the thread. Blocks."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.frames_dropped:
            log.warning("media thread too slow, frames dropped", extra={"frames": self.frames_dropped})

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._zero_ns

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._step()
                wait = min(WAKE_SECONDS, (self._pipeline.due_ns() - self._now_ns()) / 1e9)
                if wait > 0:
                    self._closing.wait(wait)
            self._step()
            self._pipeline.close(self._now_ns())
        except Exception as error:  # the border of the thread: the worker ends the recording and names the outcome
            log.exception("the media path failed")
            self._loop.call_soon_threadsafe(self._failed, error)

    def _step(self) -> None:
        for _ in range(len(self._queue)):
            self._pipeline.take(*self._queue.popleft())
        self._pipeline.advance(self._now_ns())
