"""From RTP timestamps to the recording's timeline.

The timeline counts nanoseconds of the monotonic clock since the recorder joined. A stream starts by the arrival of its
packets; from its first sender reports on, all streams of one sender share that sender's wall clock, so that lips match
voices, and that clock follows ours by the least delay seen lately. Corrections are slewed, never jumped; only timestamps that
their arrival disproves begin a stream anew.

Four rules keep lips and voices together. The clock of a sender moves as one, and so slowly (4 ms a second) that sound can be
stretched along; a path that gets 200 ms longer moves both. When the first reports show how far picture and voice are apart,
the picture goes to the voice, in its first seconds faster than anything else may move, because nobody sees it; until both have
reported it keeps to a voice that began late. A report that came with a late packet counts less than others: many senders stamp
a packet and its report when they send it, and then both are late. And a stream whose reports turn into nonsense keeps its last
good relation to the sender's clock for a minute before it falls back to arrival.
"""

from collections import deque
from statistics import median

SLEW = 0.05  # of the passing time: 50 ms a second
PICTURE_SETTLING_SLEW = 0.2  # of video, in the first seconds: 200 ms between picture and voice are gone after one
SETTLING_NS = 5_000_000_000  # browsers send the first report of their sound after 2.5 s
# A capture time this far from the arrival is wrong: the sender's timestamps stood still in a pause, or leapt. Slewing would
# take minutes, in which the sound is too late or too early to be mixed.
IMPLAUSIBLE_NS = 1_000_000_000

_SECOND = 1_000_000_000
_VIDEO_RATE_HZ = 90_000  # of every video format, and of no sound that is recorded (RFC 3551 section 4)
_STEP_NS, _QUICK_STEP_NS = 200_000_000, 20_000_000  # of media time between two corrections, and while there is more to correct
_LITTLE_NS = 1_000_000
_VOICE_STEP_NS = 50_000_000  # of media time that a correction of sound may use at once: a larger one would sound like a loss
_GENTLE = 250  # one part in so many: 4 ms a second, less than sound can be stretched by
_FAR_NS = 250_000_000  # an error that would take more than a minute to be taken away gently
_LATE_FOR_NS = 2_000_000_000  # a burst after a stall of the network is late too, for a moment
_STALL_NS = 60_000_000_000  # no network holds packets back for longer
_BACK_NS = 2_000_000_000  # packets out of order differ by less: the jitter buffer waits no longer
_PAUSE_NS = 600_000_000_000  # clocks that differ by 100 ppm are 60 ms apart after that: what was learnt has become worthless
_COAST_NS = 60_000_000_000
_UNUSED_NS = 2_000_000_000
_REPORTS = 5  # a majority of them decides
_LATE_REPORTS = 3  # so many are believed though all of them came with late packets
_REPORT_NOISE_NS = 50_000_000  # from their middle; a majority further away means that this clock jumps about
_REPORT_AGE_NS = 60_000_000_000
_AS_LATE_NS = 10_000_000  # reports whose packets differ by less are worth the same
_SAMPLE_NS, _SAMPLES, _SPREAD = 100_000_000, 16, 3  # of how late packets usually are, and how many times that is usual, too
_STILL_NS = 300_000_000  # packets late for so long are no burst
_REPORT_BEHIND_NS, _REPORT_AHEAD_NS = 10_000_000_000, 600_000_000_000  # of the last packet: reports go on in a pause
_NTP_ZERO_NS = -2_208_988_800 * _SECOND  # in Unix time: the sender has no clock (RFC 3550 section 6.4.1)
_WINDOW_NS = 10_000_000_000
_CHECKPOINT_NS, _CHECKPOINTS = 60_000_000_000, 11  # drift is measured over ten minutes
_NEVER = 1 << 62


class _Least:
    """The smallest value of the last ten to twenty seconds, or of as much before a pause. All windows turn over at the same
    moments, so that streams without reports follow a change of the path together."""

    def __init__(self) -> None:
        self._window = 0
        self._previous = self._current = _NEVER

    @property
    def value(self) -> int:
        return min(self._previous, self._current)

    def add(self, value: int, now_ns: int) -> int:
        window = now_ns // _WINDOW_NS
        if window > self._window:
            self._window, self._previous, self._current = window, self._current, value
        elif value < self._current:
            self._current = value
        return min(self._previous, self._current)


class SenderClock:
    """The wall clock of one sender against our timeline: one for all streams of a participant's session."""

    def __init__(self) -> None:
        self.offset_ns: int | None = None  # timeline minus the sender's wall clock, as applied; None: no report yet
        self.slewed_ns = 0  # the sum of all corrections so far
        self.begun_ns = -_NEVER  # arrival
        self.used_ns = -_NEVER  # arrival of the last packet that was placed by this clock
        self.follows_voice = False
        self._voice_late_ns, self._voice_ns = 0, -_NEVER  # see `voice_is`
        self._least = _Least()
        self._streams: dict[int, StreamClock] = {}  # the newest of each clock rate

    def stream(self, clock_rate: int, timestamp: int, arrival_ns: int) -> "StreamClock":
        """The clock of a stream that begins with this packet: the one before it goes on when its timestamps do, as in another session
        with the same participant; otherwise a new one."""
        clock = self._streams.get(clock_rate)
        if clock is None or not clock.continues(timestamp, arrival_ns):
            clock = self._streams[clock_rate] = StreamClock(clock_rate, self)
        return clock

    def begin(self, offset_ns: int, least_ns: int, arrival_ns: int, *, voice: bool) -> None:
        """Count the sender's wall clock from a stream that stays where it is; `least_ns` is the offset its arrivals suggest."""
        self.follows_voice = voice or (self.follows_voice and arrival_ns - self.used_ns <= _PAUSE_NS)
        self.offset_ns = offset_ns
        self.begun_ns = self.used_ns = arrival_ns
        self._least = _Least()
        self._least.add(least_ns, arrival_ns)

    @property
    def has_report(self) -> bool:
        """Whether something is known of its wall clock."""
        return self.offset_ns is not None or any(stream.laid_ns is not None for stream in self._streams.values())

    def voice_is(self, late_ns: int, arrival_ns: int) -> None:
        """Note by how much the voice is laid later than its arrivals ask for."""
        self._voice_late_ns, self._voice_ns = late_ns, arrival_ns

    def has_voice(self, arrival_ns: int) -> bool:
        return arrival_ns - self._voice_ns < _UNUSED_NS

    def voice_late_ns(self, arrival_ns: int) -> int:
        return self._voice_late_ns if self.has_voice(arrival_ns) else 0

    def follow(self, difference_ns: int, arrival_ns: int) -> int:
        """Take an arrival minus the sender's wall clock at its capture; returns the offset."""
        assert self.offset_ns is not None
        error = self._least.add(difference_ns, arrival_ns) - self.offset_ns
        passed = arrival_ns - self.used_ns
        if passed > 0:
            moved = _limited(error, _gentle(error, passed))
            self.offset_ns += moved
            self.slewed_ns += moved
            self.used_ns = arrival_ns
        return self.offset_ns


class StreamClock:
    """Capture times of one RTP stream (one SSRC). Sound and picture are told apart by the clock rate."""

    def __init__(self, clock_rate: int, sender: SenderClock) -> None:
        self.jumps = 0  # times that the stream began anew
        self.reports_refused = 0
        self.giver: object = None  # which of several sessions gave the newest frame, and its timestamp
        self.given = 0
        self._rate = clock_rate
        self._voice = clock_rate != _VIDEO_RATE_HZ
        self._sender = sender
        self._back = -_BACK_NS * clock_rate // _SECOND
        self._last: int | None = None
        self._begin(0, 0)
        self._last = None

    def _begin(self, timestamp: int, arrival_ns: int) -> int:
        """Start by arrival, knowing nothing."""
        self._last = timestamp
        self._ticks = 0  # from the stream's begin, where media time is zero, to the last timestamp
        self._offset_ns = arrival_ns  # timeline minus media time, as applied
        self._begun_ns = self._followed_ns = arrival_ns
        self._recent_ns = self._before_ns = arrival_ns  # the least arrival minus media time since the last correction, and before
        self._applied_ns = self._due_ns = 0  # media time of the last correction and of the next
        self._least = _Least()
        self._late_since_ns: int | None = None
        self._behind_since_ns: int | None = None  # arrival from which on all packets have been late
        self._delay_ns = arrival_ns  # of the last packet: arrival minus media time
        self._delays: deque[int] = deque(maxlen=_SAMPLES)  # of some packets, a burst being one
        self._sampled_ns = -_NEVER
        # Sender's wall clock minus media time, and by how much the packet before the report was unusually late.
        self._reports: deque[tuple[int, int]] = deque(maxlen=_REPORTS)
        self._reported_ns = 0  # media time
        self._wall_ns: int | None = None  # what the reports say together; None: nothing
        self._trusted_ns = -_NEVER  # arrival of the last packet that was placed by reports
        self._coast_ns = 0  # our offset then, without the sender's corrections
        self._checkpoints: deque[tuple[int, int]] = deque(maxlen=_CHECKPOINTS)
        return arrival_ns

    @property
    def drift_ppm(self) -> float:
        """By how much the stream's clock is faster than ours, over the last ten minutes; 0 in the first."""
        if len(self._checkpoints) < 2:
            return 0.0
        (first_ns, first), (last_ns, last) = self._checkpoints[0], self._checkpoints[-1]
        return (first - last) * 1e6 / (last_ns - first_ns)

    @property
    def laid_ns(self) -> int | None:
        """Timeline minus the sender's wall clock, as this stream is laid now; None: its reports say nothing."""
        return None if self._wall_ns is None else self._offset_ns - self._wall_ns

    def capture_ns(self, timestamp: int, arrival_ns: int) -> int:
        """The time of a 32-bit RTP timestamp on the timeline; `arrival_ns` is on the timeline too."""
        if self._last is None:
            return self._begin(timestamp, arrival_ns)
        step = ((timestamp - self._last + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._ticks += step
        self._last = timestamp
        media_ns = self._ticks * _SECOND // self._rate
        self._delay_ns = delay = arrival_ns - media_ns
        if delay < self._recent_ns:  # noqa: PLR1730 - min() would be a seventh of the time of this method
            self._recent_ns = delay
        late = delay - self._offset_ns
        if not -IMPLAUSIBLE_NS <= late <= IMPLAUSIBLE_NS or step < self._back:
            if self._disproved(step, late, arrival_ns):
                return self._begin(timestamp, arrival_ns)
        elif media_ns >= self._due_ns:
            if arrival_ns - self._followed_ns > _PAUSE_NS:
                return self._begin(timestamp, arrival_ns)
            self._follow(media_ns, arrival_ns, step * _SECOND // self._rate)
        return media_ns + self._offset_ns

    def continues(self, timestamp: int, arrival_ns: int) -> bool:
        """Whether a packet belongs to this stream: its timestamp says about the time of its arrival, as another stream's hardly would."""
        if self._last is None or arrival_ns - self._followed_ns > _PAUSE_NS:
            return False
        media_ns = (self._ticks + _step(self._last, timestamp)) * _SECOND // self._rate
        return abs(arrival_ns - media_ns - self._offset_ns) <= IMPLAUSIBLE_NS

    def gives(self, timestamp: int, giver: object) -> bool:
        """Whether a session may give the frame of this timestamp: not when another one has given it, or a later one, already."""
        if self.giver is not giver:
            if self.giver is not None and _step(self.given, timestamp) <= 0:
                return False
            self.giver = giver
        self.given = timestamp
        return True

    def report(self, timestamp: int, ntp_ns: int) -> None:
        """Take a sender report: at this RTP timestamp the sender's wall clock showed `ntp_ns`. Only its course counts: where it
        counts from, and whether it begins anew as NTP's seconds do in 2036, is all the same."""
        if self._last is None:  # before any media, as some senders do
            return
        step = _step(self._last, timestamp)
        step_ns = step * _SECOND // self._rate
        if ntp_ns == _NTP_ZERO_NS or not -_REPORT_BEHIND_NS <= step_ns <= _REPORT_AHEAD_NS:
            self.reports_refused += 1
            return
        media_ns = (self._ticks + step) * _SECOND // self._rate
        wall_ns = ntp_ns - media_ns
        is_burst = self._is_burst()
        if media_ns - self._reported_ns > _REPORT_AGE_NS or self._stood_still(wall_ns, is_burst):
            self._reports.clear()
        self._reports.append((wall_ns, self._unusually_late_ns() if is_burst else 0))
        self._reported_ns = media_ns
        self._wall_ns = self._majority()

    def _unusually_late_ns(self) -> int:
        """By how much the last packet was later than this path explains."""
        least = min(self._least.value, self._before_ns, self._recent_ns)
        usual = max(0, int(median(self._delays)) - least) if self._delays else 0
        return max(0, self._delay_ns - least - _SPREAD * usual)

    def _is_burst(self) -> bool:
        """Whether what is late now has not been so for long."""
        arrival_ns = self._delay_ns + self._ticks * _SECOND // self._rate
        return self._behind_since_ns is None or arrival_ns - self._behind_since_ns < _STILL_NS

    def _majority(self) -> int | None:
        """What most of the reports say that came with punctual packets, or with the least late ones; None: nothing."""
        least = min(late_ns for _, late_ns in self._reports)
        if least > _REPORT_NOISE_NS and len(self._reports) < _LATE_REPORTS:
            return None
        told = [wall_ns for wall_ns, late_ns in self._reports if late_ns - least <= _AS_LATE_NS]
        middle = int(median(told))
        near = sum(abs(wall_ns - middle) <= _REPORT_NOISE_NS for wall_ns in told)
        return middle if 2 * near > len(told) else None

    def _disproved(self, step: int, late_ns: int, arrival_ns: int) -> bool:
        """Whether this lateness, early when negative, shows that the timestamps are not what they were."""
        if arrival_ns - self._followed_ns > _PAUSE_NS:
            return True
        if late_ns > IMPLAUSIBLE_NS and self._late_since_ns is None:
            self._late_since_ns = arrival_ns
        too_long = self._late_since_ns is not None and arrival_ns - self._late_since_ns > _LATE_FOR_NS
        if not (late_ns < -IMPLAUSIBLE_NS or late_ns > _STALL_NS or step < self._back or too_long):
            return False
        self.jumps += 1
        return True

    def _follow(self, media_ns: int, arrival_ns: int, step_ns: int) -> None:
        """Correct the offset by as much as the media time that has passed allows; `step_ns` of it since the packet before, which the
        correction does not turn round."""
        passed = media_ns - self._applied_ns
        if self._voice and passed > _VOICE_STEP_NS:
            passed = _VOICE_STEP_NS
        self._before_ns = recent = self._recent_ns
        self._recent_ns = _NEVER
        least = self._least.add(recent, arrival_ns)
        self._applied_ns, self._followed_ns, self._late_since_ns = media_ns, arrival_ns, None
        if arrival_ns - self._sampled_ns >= _SAMPLE_NS:
            self._sampled_ns = arrival_ns
            self._delays.append(self._delay_ns)
        if recent - self._offset_ns <= _REPORT_NOISE_NS:
            self._behind_since_ns = None
        elif self._behind_since_ns is None:
            self._behind_since_ns = arrival_ns
        room = int(passed * SLEW)
        if not self._voice and arrival_ns - max(self._begun_ns, self._sender.begun_ns) < SETTLING_NS:
            room = int(passed * PICTURE_SETTLING_SLEW)
        target = self._by_reports(recent, least, arrival_ns)
        if target is None:
            target = least if self._voice else least + self._sender.voice_late_ns(arrival_ns)
            if arrival_ns - self._begun_ns >= SETTLING_NS:
                room = _gentle(target - self._offset_ns, passed)
        error = target - self._offset_ns
        self._offset_ns += max(_limited(error, room), -max(step_ns, 0))
        if self._voice:
            self._sender.voice_is(self._offset_ns - least, arrival_ns)
        self._due_ns = media_ns + (_STEP_NS if -_LITTLE_NS < error < _LITTLE_NS else _QUICK_STEP_NS)
        if arrival_ns - (self._checkpoints[-1][0] if self._checkpoints else self._begun_ns) >= _CHECKPOINT_NS:
            self._checkpoints.append((arrival_ns, self._offset_ns))

    def _by_reports(self, recent: int, least: int, arrival_ns: int) -> int | None:
        """The offset that the sender's reports ask for, or None when they are missing or nonsense."""
        sender = self._sender
        # In the first seconds, until the voice has reported, too, arrivals tell more of what the two have to do with each other.
        awaits_voice = not self._voice and not sender.follows_voice and sender.has_voice(arrival_ns)
        if self._wall_ns is not None and not (awaits_voice and arrival_ns - self._begun_ns < SETTLING_NS):
            unused_ns = arrival_ns - sender.used_ns  # also when it never was
            abandoned = unused_ns > _PAUSE_NS or (unused_ns > _UNUSED_NS and not self._agrees(sender.offset_ns, least))
            if abandoned or (self._voice and not sender.follows_voice):
                sender.begin(self._offset_ns - self._wall_ns, least - self._wall_ns, arrival_ns, voice=self._voice)
            if self._agrees(sender.offset_ns, least):
                target = sender.follow(recent - self._wall_ns, arrival_ns) + self._wall_ns
                if len(self._reports) > _REPORTS // 2:
                    self._trusted_ns, self._coast_ns = arrival_ns, self._offset_ns - sender.slewed_ns
                return target
        if arrival_ns - self._trusted_ns < _COAST_NS:
            return self._coast_ns + sender.slewed_ns
        return None

    def _agrees(self, offset_ns: int | None, least: int) -> bool:
        """Whether the reports put this stream where its arrivals suggest, give or take different paths."""
        return offset_ns is not None and self._wall_ns is not None and abs(offset_ns + self._wall_ns - least) < IMPLAUSIBLE_NS

    def _stood_still(self, wall_ns: int, is_burst: bool) -> bool:
        """Whether the media clock stopped for a moment since the reports before (a device was changed, a track muted): then the
        packets are late by as much as the new report differs, and the others are void."""
        if self._wall_ns is None:
            return False
        change = wall_ns - self._wall_ns
        late = min(self._recent_ns, self._before_ns) - self._offset_ns
        if is_burst and late > 0:
            return False
        return abs(change) > _REPORT_NOISE_NS and abs(late - change) < abs(change) // 2


def _step(before: int, timestamp: int) -> int:
    """From one 32-bit timestamp to another, in ticks; negative when it goes back."""
    return ((timestamp - before + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _gentle(error_ns: int, passed_ns: int) -> int:
    return passed_ns // _GENTLE if abs(error_ns) <= _FAR_NS else int(passed_ns * SLEW)


def _limited(error_ns: int, room_ns: int) -> int:
    return max(-room_ns, min(room_ns, error_ns))
