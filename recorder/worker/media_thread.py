"""The thread in which one recording's media is decoded, mixed, encoded and written; the only owner of its pipeline.

What crosses the border: frames and channel events in through a bounded queue, reports out to the event loop.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from recorder.frames import EncodedFrame
from recorder.worker import pipeline

log = logging.getLogger(__name__)

QUEUE_LIMIT = 8192  # frames: some ten seconds of fifty speakers and seventeen pictures
WAKE_SECONDS = 0.02


class MediaThread:
    def __init__(self, around: pipeline.Surroundings, *, clock: Callable[[], int], failed: Callable[[Exception], None]) -> None:
        """`clock` tells the nanoseconds of the recording's timeline."""
        self._running_clock = clock
        self._end_ns: int | None = None
        self._error: Exception | None = None
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
        self._queue.append((item, self._clock()))

    def end_now(self) -> None:
        """The recording ends at this moment, however long it takes to leave the channel and to close."""
        if self._end_ns is None:
            self._end_ns = self._running_clock()

    def close(self) -> None:
        """Record what is queued, close every file, end the thread. Blocks.

        Raises:
            Exception: the media path has failed, now or before; what it had written is closed and committed as far as possible.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.frames_dropped:
            log.warning("media thread too slow, frames dropped", extra={"frames": self.frames_dropped})
        if self._error:
            raise self._error

    def _clock(self) -> int:
        now = self._running_clock()
        return now if self._end_ns is None else min(now, self._end_ns)

    def _run(self) -> None:
        try:
            try:
                while not self._closing.is_set():
                    self._step()
                    wait = min(WAKE_SECONDS, (self._pipeline.due_ns() - self._clock()) / 1e9)
                    if wait > 0:
                        self._closing.wait(wait)
                self._step()
            finally:  # also after a failure: open files hold up to two hours
                self._pipeline.close(self._clock())
        except Exception as error:  # the border of the thread: the worker ends, another one goes on
            log.exception("the media path failed")
            self._error = error
            self._loop.call_soon_threadsafe(self._failed, error)

    def _step(self) -> None:
        # A stall (of the disk, of the machine) leaves seconds of media here. They are taken as they came, with the output
        # following, so that nothing is ahead of the output by more than it can hold.
        for _ in range(len(self._queue)):
            item, arrival_ns = self._queue.popleft()
            self._pipeline.take(item, arrival_ns)
            if self._pipeline.due_ns() <= arrival_ns:
                self._pipeline.advance(arrival_ns)
        self._pipeline.advance(self._clock())
