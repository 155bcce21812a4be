"""The thread in which one recording's media is decoded, mixed, encoded and written; the only owner of its pipeline.

What crosses the border: frames and channel events in through a bounded queue, reports out to the event loop. Finished files go
to the disk in a thread of their own, and what may take its time (screenshots) is made in another.

When the machine cannot keep up, the pipeline is told to do less; what still comes too fast costs pictures, never sound.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from recorder.frames import EncodedFrame, Track
from recorder.media.decode import unusable
from recorder.worker import pipeline
from recorder.worker.writer import Writer

log = logging.getLogger(__name__)

VIDEO_LIMIT = 4096  # frames and events in the queue beyond which no picture is taken
AUDIO_LIMIT_NS = 20_000_000_000  # how long the first in the queue has waited when sound is lost, too
QUEUE_LIMIT = 1 << 17  # frames of sound that somebody sends in tiny pieces: twice as many as fifty speakers need
IDLE_SECONDS = 0.02  # from one look at the queue to the next while the pipeline waits for nothing but what comes
WAIT_SECONDS = 0.5  # the longest wait for what is due: each wake-up costs as much as a packet of sound
ASK_KEYFRAME_NS = 1_000_000_000


class MediaThread:
    def __init__(
        self,
        around: pipeline.Surroundings,
        *,
        clock: Callable[[], int],
        failed: Callable[[Exception], None],
        observe: Callable[[pipeline.Input, int], object] | None = None,
    ) -> None:
        """`clock` tells the nanoseconds of the recording's timeline; `observe` sees what the pipeline takes, and when it came."""
        self._running_clock = clock
        self._end_ns: int | None = None
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._observe = observe
        self._request_keyframe = around.request_keyframe
        self._writer = Writer()
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
        self._pipeline = pipeline.create(
            replace(
                around,
                defer=self._writer.put,
                aside=self._aside.submit,
                finish_parts=lambda: self._error is None and around.finish_parts(),
            )
        )
        self._asked_ns: int | None = None
        self._broken: set[Track] = set()  # pictures are missing: the next ones cannot be decoded before a keyframe
        self._queue: deque[tuple[pipeline.Input, int]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="media", daemon=True)
        self._interval_ns = 1_000_000_000 // around.spec.canvas.fps
        self.frames_dropped = 0
        self.advances = 0  # times that something was due
        self.advances_late = 0  # and was finished more than a frame interval after its time

    def start(self) -> None:
        self._writer.start()
        self._thread.start()

    def put(self, item: pipeline.Input) -> None:
        """Queue a frame or an event. Frames beyond the queue's bounds are dropped and counted."""
        now_ns = self._clock()
        if isinstance(item, EncodedFrame) and not self._admits(item, now_ns):
            self.frames_dropped += 1
            return
        self._queue.append((item, now_ns))

    def _admits(self, frame: EncodedFrame, now_ns: int) -> bool:
        if frame.track.kind == "audio":
            return self._waited_ns(now_ns) < AUDIO_LIMIT_NS and len(self._queue) < QUEUE_LIMIT
        if len(self._queue) >= VIDEO_LIMIT:
            self._broken.add(frame.track)
        elif frame.track in self._broken:
            if frame.keyframe:
                self._broken.remove(frame.track)
            elif self._asked_ns is None or now_ns - self._asked_ns > ASK_KEYFRAME_NS:
                self._asked_ns = now_ns
                for track in self._broken:
                    self._request_keyframe(track)
        return frame.track not in self._broken

    def _waited_ns(self, now_ns: int) -> int:
        """How long the first in the queue has been there."""
        try:
            return now_ns - self._queue[0][1]
        except IndexError:  # it is empty, perhaps only now: the thread takes from it meanwhile
            return 0

    @property
    def waiting(self) -> int:
        """Frames and events in the queue."""
        return len(self._queue)

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
        if unusable.total():
            log.warning("frames could not be decoded", extra={"frames": dict(unusable)})
        log.info("media thread ended", extra={"advances": self.advances, "late": self.advances_late})
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
                    due_ns = self._pipeline.due_ns()
                    wait = IDLE_SECONDS if due_ns == pipeline.NEVER else min(WAIT_SECONDS, (due_ns - self._clock()) / 1e9)
                    if wait > 0:
                        self._closing.wait(wait)
                self._step()
            except Exception as error:
                self._error = error
                raise
            finally:  # also after a failure: open files hold up to two hours
                try:
                    self._pipeline.close(self._clock())
                finally:
                    self._aside.shutdown()  # before the writer: what is made there is committed, too
                    self._writer.close()
        except Exception as error:  # the border of the thread: the worker ends, another one goes on
            log.exception("the media path failed")
            self._error = error
            self._loop.call_soon_threadsafe(self._failed, error)

    def _step(self) -> None:
        # A stall (of the disk, of the machine) leaves seconds of media here. They are taken as they came, with the output
        # following, so that nothing is ahead of the output by more than it can hold.
        due_ns = self._pipeline.due_ns()
        for _ in range(len(self._queue)):
            item, arrival_ns = self._queue.popleft()
            if self._observe:
                self._observe(item, arrival_ns)
            self._pipeline.take(item, arrival_ns)
            if due_ns == pipeline.NEVER:  # perhaps this was what it waited for
                due_ns = self._pipeline.due_ns()
            if due_ns <= arrival_ns:
                self._advance(arrival_ns)
                due_ns = self._pipeline.due_ns()
                now_ns = self._clock()
                self._pipeline.behind(now_ns - arrival_ns, now_ns)
        now_ns = self._clock()
        self._pipeline.behind(max(0, now_ns - self._pipeline.due_ns()), now_ns)
        # What came meanwhile belongs to the output, too: it must not go on without it.
        self._advance(min(now_ns, self._queue[0][1]) if self._queue else now_ns)

    def _advance(self, until_ns: int) -> None:
        due_ns = self._pipeline.due_ns()
        self._pipeline.advance(until_ns)
        if due_ns <= until_ns:
            self.advances += 1
            self.advances_late += self._clock() - due_ns > self._interval_ns
