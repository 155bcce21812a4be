"""Measures what one worker records and tells the agent from time to time: what a killed worker may lose of it is bounded.

Each report holds the whole time of this epoch so far, so that a repeated or a lost one changes nothing.
"""

from collections.abc import Callable

from recorder.frames import EncodedFrame
from recorder.protocol import Metered, UsedTime
from recorder.spec import RecordingSpec
from recorder.usage import Meter, Used, day_of

_DAY_MS = 86_400_000


class Metering:
    def __init__(
        self, spec: RecordingSpec, epoch: int, *, report_seconds: float, report: Callable[[Metered], object], now_ms: Callable[[], int]
    ) -> None:
        """`now_ms` gives Unix milliseconds that never go back."""
        self._snapshots_only = not spec.files
        self._wanted = spec.video
        self._epoch = epoch
        self._report_ms = round(report_seconds * 1000)
        self._report = report
        self._now_ms = now_ms
        self._meter: Meter | None = None  # None: nothing is recorded, not yet or no more
        self._told_ms = 0

    def begin(self) -> None:
        """From now on the session counts."""
        self._told_ms = self._now_ms()
        self._meter = Meter(self._told_ms, snapshots_only=self._snapshots_only)

    def frame(self, frame: EncodedFrame) -> None:
        """A frame of a subscribed track has arrived."""
        if self._meter and self._wanted and frame.track.kind == "video":
            self._meter.picture(frame.track.uid, frame.width, frame.height, self._now_ms())

    def tell_when_due(self) -> None:
        """Report today's and yesterday's time; older days do not change any more."""
        now_ms = self._now_ms()
        if self._meter and now_ms - self._told_ms >= self._report_ms:
            self._told_ms = now_ms
            self._report(self._metered(self._meter.advance(now_ms), since=day_of(now_ms - _DAY_MS)))

    def end(self) -> Metered | None:
        """The session ends now; returns the last report, None when it had not begun."""
        meter, self._meter = self._meter, None
        return self._metered(meter.close(self._now_ms())) if meter else None

    def _metered(self, used: Used, since: str = "") -> Metered:
        times = (UsedTime(day=day, category=category, milliseconds=time) for (day, category), time in sorted(used.items()) if day >= since)
        return Metered(epoch=self._epoch, used=tuple(times))
