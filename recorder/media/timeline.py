"""From RTP timestamps to the recording's timeline.

The timeline counts nanoseconds of the monotonic clock since the recorder joined. A stream starts by the arrival of its
packets; from its first sender reports on, all streams of one sender share that sender's wall clock, so that lips match
voices, and the sender's clock follows ours by the least delay seen lately. Corrections are slewed, never jumped; only a
timestamp that its arrival disproves begins the stream anew.
"""

import statistics
from collections import deque

SLEW = 0.05  # of the passing time: 50 ms a second
PLAUSIBLE_NS = 10_000_000_000  # a timestamp further off than this from what the arrival suggests is a jump
# A capture time this far from the arrival is wrong: the sender's timestamps stood still in a pause, or leapt. Slewing would
# take minutes, in which the sound is too late or too early to be mixed.
IMPLAUSIBLE_NS = 1_000_000_000
_LATE_FOR_NS = 2_000_000_000  # a burst after a stall of the network is late too, for a moment
_REPORTS = 8
_WINDOW_NS = 10_000_000_000
_SECOND = 1_000_000_000


class _Least:
    """The smallest value of the last ten to twenty seconds."""

    def __init__(self) -> None:
        self._started_ns: int | None = None
        self._previous: int | None = None
        self._current: int | None = None

    def add(self, value: int, now_ns: int) -> int:
        if self._started_ns is None:
            self._started_ns = now_ns
        elif now_ns - self._started_ns > _WINDOW_NS:
            self._previous, self._current, self._started_ns = self._current, None, now_ns
        self._current = value if self._current is None else min(self._current, value)
        return self._current if self._previous is None else min(self._current, self._previous)


class SenderClock:
    """The wall clock of one sender against our timeline: one for all streams of a participant's session."""

    def __init__(self) -> None:
        self._least = _Least()

    def offset_ns(self, ntp_ns: int, arrival_ns: int) -> int:
        """What to add to the sender's wall clock to get our timeline."""
        return self._least.add(arrival_ns - ntp_ns, arrival_ns)


class StreamClock:
    """Capture times of one RTP stream (one SSRC)."""

    def __init__(self, clock_rate: int, sender: SenderClock) -> None:
        self._rate = clock_rate
        self._sender = sender
        self._last: int | None = None  # extended timestamp
        self._last_arrival_ns = 0
        self._arrival = _Least()
        self._reports: deque[int] = deque(maxlen=_REPORTS)  # sender's wall clock minus media time
        self._offset_ns = 0  # timeline minus media time, as applied
        self._applied_ns = 0  # media time up to which the slew has been applied
        self._late_since_ns: int | None = None
        self.jumps = 0

    def capture_ns(self, timestamp: int, arrival_ns: int) -> int:
        """The time of a 32-bit RTP timestamp on the timeline; `arrival_ns` is on the timeline too."""
        extended = self._unwrap(timestamp, arrival_ns)
        media_ns = extended * _SECOND // self._rate
        if self._last is not None and self._disproved(arrival_ns - media_ns - self._offset_ns, arrival_ns):
            self._forget()
        least = self._arrival.add(arrival_ns - media_ns, arrival_ns)
        if self._last is None:
            self._offset_ns, self._applied_ns = least, media_ns
        self._last, self._last_arrival_ns = extended, arrival_ns
        if self._reports:
            difference = int(statistics.median(self._reports))
            target = difference + self._sender.offset_ns(media_ns + difference, arrival_ns)
        else:
            target = least
        room = int(max(0, media_ns - self._applied_ns) * SLEW)
        self._offset_ns += max(-room, min(room, target - self._offset_ns))
        self._applied_ns = max(self._applied_ns, media_ns)
        return media_ns + self._offset_ns

    def report(self, timestamp: int, ntp_ns: int) -> None:
        """Take a sender report: at this RTP timestamp the sender's wall clock showed `ntp_ns`."""
        if self._last is None or ntp_ns <= 0:  # before any media, as some senders do
            return
        step = _signed(timestamp - self._last)
        if abs(step) * _SECOND // self._rate > PLAUSIBLE_NS:
            return
        self._reports.append(ntp_ns - (self._last + step) * _SECOND // self._rate)

    def _unwrap(self, timestamp: int, arrival_ns: int) -> int:
        if self._last is None:
            return timestamp
        step = _signed(timestamp - self._last)
        passed_ns = arrival_ns - self._last_arrival_ns
        if abs(step * _SECOND // self._rate - passed_ns) > PLAUSIBLE_NS and not self._may_have_wrapped(step, passed_ns):
            self._forget()
            return timestamp
        return self._last + step + self._whole_turns(step, passed_ns)

    def _disproved(self, late_ns: int, arrival_ns: int) -> bool:
        """Whether this lateness, early when negative, shows that our offset is wrong."""
        if late_ns <= IMPLAUSIBLE_NS:
            self._late_since_ns = None
        elif self._late_since_ns is None:
            self._late_since_ns = arrival_ns
        return late_ns < -IMPLAUSIBLE_NS or (self._late_since_ns is not None and arrival_ns - self._late_since_ns > _LATE_FOR_NS)

    def _forget(self) -> None:
        """What was learnt about this stream's clock is no longer true."""
        self.jumps += 1
        self._last = self._late_since_ns = None
        self._arrival = _Least()
        self._reports.clear()

    def _may_have_wrapped(self, step: int, passed_ns: int) -> bool:
        """After a pause longer than half a turn (13 h at 90 kHz) the step alone says nothing."""
        return abs((step + self._whole_turns(step, passed_ns)) * _SECOND // self._rate - passed_ns) <= PLAUSIBLE_NS

    def _whole_turns(self, step: int, passed_ns: int) -> int:
        return round((passed_ns * self._rate / _SECOND - step) / (1 << 32)) << 32


def _signed(step: int) -> int:
    """The step between two 32-bit timestamps with its sign."""
    return ((step + 0x80000000) & 0xFFFFFFFF) - 0x80000000
