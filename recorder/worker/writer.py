"""The thread that makes finished files durable and reports them, in order: an fsync may take seconds, the media cannot wait.

What waits is bounded in time. A disk that is further behind holds the media up, whose own queue is bounded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

BEHIND_SECONDS = 30.0

Job = Callable[[], object]


class Writer:
    def __init__(self, behind_seconds: float = BEHIND_SECONDS) -> None:
        self._behind_seconds = behind_seconds
        self._jobs: deque[tuple[Job, float]] = deque()  # with the time of arrival; the first one is being done
        self._changed = threading.Condition()
        self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, job: Job) -> None:
        """Have `job` done after all before it; waits while one of them is too old.

        Raises:
            Exception: an earlier one has failed; none is done after that.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._is_behind(), timeout=None if self._thread.is_alive() else 0)
            if self._error:
                raise self._error
            self._jobs.append((job, time.monotonic()))
            self._changed.notify_all()

    def close(self) -> None:
        """Do what is left, end the thread. Blocks.

        Raises:
            Exception: one has failed.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        if self._error:
            raise self._error

    def _is_behind(self) -> bool:
        return bool(self._jobs) and time.monotonic() - self._jobs[0][1] > self._behind_seconds

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                job = self._jobs[0][0]
            try:
                job()
            except Exception as error:  # noqa: BLE001  # whoever hands in the next job gets it
                self._error = error
            with self._changed:
                self._jobs.popleft()
                self._changed.notify_all()
            if self._error:
                return
