"""What a receiver reports of one stream: RFC 3550 section 6.4.1 and appendix A.3, A.8. Pure."""

from typing import Any

from recorder.rtp.jitter import JitterBuffer
from recorder.rtp.packet import ReportBlock


class ReceiverStatistics:
    def __init__(self) -> None:
        self.timestamp = -1  # RTP, of the last packet measured
        self._transit = 0  # of that packet, in RTP time units
        self._jitter = 0.0
        self._last_sr = 0
        self._last_sr_ns = 0
        self._first = -1  # of the sequence numbers that the next two count from
        self._expected_before = 0
        self._received_before = 0

    def arrived(self, timestamp: int, now_ns: int, clock_rate: int) -> None:
        """Measure the jitter by the first packet of a timestamp."""
        transit = now_ns * clock_rate // 1_000_000_000 - timestamp
        if self.timestamp >= 0:
            difference = abs(((transit - self._transit + 0x80000000) & 0xFFFFFFFF) - 0x80000000)
            self._jitter += (difference - self._jitter) / 16
        self.timestamp, self._transit = timestamp, transit

    def reported(self, ntp: int, now_ns: int) -> None:
        """A sender report with this 64-bit NTP time has come."""
        self._last_sr, self._last_sr_ns = ntp >> 16 & 0xFFFFFFFF, now_ns

    def block(self, ssrc: int, packets: JitterBuffer[Any], now_ns: int) -> ReportBlock:
        """The figures since the last call."""
        if self._first != packets.first:  # the sender began anew
            self._first, self._expected_before, self._received_before = packets.first, 0, 0
        expected, received = packets.highest - packets.first + 1, packets.received
        interval = expected - self._expected_before
        lost = interval - (received - self._received_before)
        self._expected_before, self._received_before = expected, received
        return ReportBlock(
            ssrc=ssrc,
            fraction_lost=max(0, min(255, (lost << 8) // interval)) if interval > 0 else 0,
            cumulative_lost=expected - received,
            highest_sequence=packets.highest,
            jitter=int(self._jitter),
            last_sr=self._last_sr,
            delay_since_last_sr=(now_ns - self._last_sr_ns) * 65536 // 1_000_000_000 if self._last_sr else 0,
        )
