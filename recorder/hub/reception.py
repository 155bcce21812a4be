"""What of one publisher's SSRC has arrived: order, gaps to be repaired, and the figures of receiver reports. Pure."""

from dataclasses import dataclass

from recorder.hub.feedback import SenderInfo
from recorder.rtp.packet import ReportBlock

_LONGEST_GAP = 512  # packets; a larger jump is a restart of the sender, not loss
_FIRST_NACK_NS = 10_000_000  # after the gap was seen: reordered packets fill it without help
_NACK_INTERVAL_NS = 60_000_000  # at least: longer where repairs take longer, or each would come several times
_UNKNOWN_REPAIR_NS = 200_000_000  # the pause until a repair was seen: on a narrow path requests that come too soon would choke it
_NACK_TRIES = 10
_GIVEN_UP_NS = 1_000_000_000  # no recorder waits longer


@dataclass(slots=True)
class _Missing:
    due_ns: int  # when to ask
    first_ns: int = 0  # when it was asked for first
    tries: int = 0


class Reception:
    """State of one SSRC, started by its first packet."""

    def __init__(self, ssrc: int, clock_hz: int, first_sequence: int) -> None:
        self.ssrc = ssrc
        self.restarted = False  # the sender began anew somewhere else: nothing more can be said of its packets
        self._clock_hz = clock_hz
        self._base = self._highest = first_sequence - 1  # extended: without wrap
        self._received = 0
        self._far_back = -1  # the last sequence number far behind
        self._missing: dict[int, _Missing] = {}  # by extended sequence number
        self._repair_ns = 0.0  # how long repairs take, smoothed
        self._expected_before = self._received_before = 0
        self._transit = 0
        self._jitter = 0.0
        self._report: SenderInfo | None = None
        self._report_ns = 0

    @property
    def has_gaps(self) -> bool:
        return bool(self._missing)

    def arrived(self, sequence: int, timestamp: int, arrival_ns: int) -> bool:
        """Take note of a packet; False: it came before and is to be dropped."""
        step = (sequence - self._highest) & 0xFFFF
        if 0 < step < 0x8000:
            extended = self._highest + step
            if step > 1:
                self._note_gap(extended, arrival_ns)
            self._highest = extended
        elif (missing := self._missing.pop(self._highest - (-step & 0xFFFF), None)) is not None:
            if missing.tries:
                self._note_repair(arrival_ns - missing.first_ns, missing.tries)
        else:
            if -step & 0xFFFF > _LONGEST_GAP:  # two in a row are no stray packet (RFC 3550 appendix A.1)
                self.restarted = sequence == (self._far_back + 1) & 0xFFFF
                self._far_back = sequence
            return False
        self._received += 1
        self._note_jitter(timestamp, arrival_ns)
        return True

    def lost(self, now_ns: int) -> list[int]:
        """The 16-bit sequence numbers to be asked for now, in order; what was asked for in vain too often is given up."""
        due = []
        pause_ns = max(_NACK_INTERVAL_NS, int(self._repair_ns * 1.25)) if self._repair_ns else _UNKNOWN_REPAIR_NS
        for extended, missing in list(self._missing.items()):
            if missing.due_ns > now_ns:
                continue
            if missing.tries == _NACK_TRIES or (missing.tries and now_ns - missing.first_ns > _GIVEN_UP_NS):
                del self._missing[extended]
                continue
            missing.first_ns = missing.first_ns if missing.tries else now_ns
            missing.tries += 1
            missing.due_ns = now_ns + pause_ns
            due.append(extended & 0xFFFF)
        return due

    def note_report(self, report: SenderInfo, arrival_ns: int) -> None:
        self._report, self._report_ns = report, arrival_ns

    def report_block(self, now_ns: int) -> ReportBlock:
        """The figures since the last call, RFC 3550 section 6.4.1 and appendix A.3."""
        expected = self._highest - self._base
        expected_now, received_now = expected - self._expected_before, self._received - self._received_before
        self._expected_before, self._received_before = expected, self._received
        lost_now = max(0, expected_now - received_now)
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=min(255, (lost_now << 8) // expected_now) if expected_now > 0 else 0,
            cumulative_lost=expected - self._received,
            highest_sequence=self._highest,
            jitter=int(self._jitter),
            last_sr=self._report.middle_ntp if self._report else 0,
            delay_since_last_sr=((now_ns - self._report_ns) << 16) // 1_000_000_000 if self._report else 0,
        )

    def _note_repair(self, took_ns: int, tries: int) -> None:
        # Asked for more than once, it can't be told which request was answered (Karn's algorithm): that says little, but on a path
        # that became slower nothing else would say anything.
        weight = 1 if not self._repair_ns else 8 if tries == 1 else 16
        self._repair_ns += (took_ns - self._repair_ns) / weight

    def _note_gap(self, newest: int, arrival_ns: int) -> None:
        if newest - self._highest > _LONGEST_GAP:
            self._missing.clear()
            self._base += newest - self._highest - 1  # these packets were never sent
            return
        for extended in range(self._highest + 1, newest):
            self._missing[extended] = _Missing(arrival_ns + _FIRST_NACK_NS)
        while len(self._missing) > _LONGEST_GAP:
            del self._missing[next(iter(self._missing))]

    def _note_jitter(self, timestamp: int, arrival_ns: int) -> None:
        transit = arrival_ns * self._clock_hz // 1_000_000_000 - timestamp
        difference = abs((transit - self._transit + 0x80000000) % 0x100000000 - 0x80000000)
        if self._received > 1:
            self._jitter += (difference - self._jitter) / 16
        self._transit = transit
