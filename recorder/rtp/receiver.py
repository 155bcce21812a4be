"""The receive path of one participant's session: RTP packets in, encoded frames on the timeline out, feedback back.

A packet that comes in order takes one straight path (`packet`); gaps wait in the jitter buffer; NACK, PLI and receiver
reports leave on a timer (`tick`), never per packet. Pure: sockets belong to the tap, the clock is a parameter.
"""

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from recorder.frames import Codec, EncodedFrame, Kind, Track
from recorder.media.timeline import SenderClock, StreamClock
from recorder.rtp import packet as rtp
from recorder.rtp.depacketisers import AccessUnit, create
from recorder.rtp.jitter import JitterBuffer

log = logging.getLogger(__name__)

PLI_INTERVAL_NS = 500_000_000
REPORT_INTERVAL_NS = 1_000_000_000
ROUND_TRIP_NS = 100_000_000  # assumed: a receiver that sends nothing can't measure it
MAX_STREAMS = 16  # SSRCs of one session; more are a fault of the sender


@dataclass(frozen=True, slots=True)
class Route:
    """What a payload type carries."""

    kind: Kind
    codec: Codec
    clock_rate: int


@dataclass(slots=True)
class Counters:
    packets: int = 0
    malformed: int = 0
    unrouted: int = 0
    frames: int = 0
    frames_undecodable: int = 0  # complete, but a frame they refer to is missing
    bytes: int = 0


@dataclass(slots=True)
class _Reporting:
    """State of receiver reports, RFC 3550 section 6.4.1 and appendix A.3, A.8."""

    last_sr: int = 0
    last_sr_ns: int = 0
    expected_before: int = 0
    received_before: int = 0
    transit: int | None = None
    jitter: float = 0.0
    next_ns: int = 0
    keyframe_asked_ns: int = field(default=-PLI_INTERVAL_NS)


class _Stream:
    """One SSRC."""

    def __init__(self, ssrc: int, track: Track, route: Route, sender: SenderClock, patience_ns: int) -> None:
        self.ssrc = ssrc
        self.track = track
        self.route = route
        self.clock = StreamClock(route.clock_rate, sender)
        self.depacketiser = create(route.codec)
        self.jitter: JitterBuffer[tuple[bytes, rtp.Header, int]] = JitterBuffer(patience_ns=patience_ns)
        self.reporting = _Reporting()
        self.wants_keyframe = track.kind == "video"
        self.size = (0, 0)
        self.rotation = 0  # told by some packets, valid for all that follow
        self.last_arrival_ns = 0


class SessionReceiver:
    """All streams one participant sends over one peer connection."""

    def __init__(
        self,
        uid: int,
        *,
        routes: dict[int, Route],
        retransmissions: dict[int, int],  # RTX payload type -> the payload type it repeats (RFC 4588)
        orientation_id: int = 0,  # of the header extension for the camera's rotation; 0: not negotiated
        on_frame: Callable[[EncodedFrame], None],
        patience_ns: int,
        zero_ns: int,
    ) -> None:
        self._uid = uid
        self._routes = routes
        self._retransmissions = retransmissions
        self._orientation_id = orientation_id
        self._on_frame = on_frame
        self._patience_ns = patience_ns
        self._zero_ns = zero_ns
        self._sender = SenderClock()
        self._streams: dict[int, _Stream] = {}
        self._newest: dict[Kind, _Stream] = {}
        self._ssrc = random.getrandbits(32) or 1
        self.counters = Counters()

    def packet(self, data: bytes, arrival_ns: int) -> None:
        """Take one RTP packet; `arrival_ns` is of the monotonic clock."""
        header = rtp.parse_header(data)
        if header is None:
            self.counters.malformed += 1
            return
        now = arrival_ns - self._zero_ns
        stream = self._streams.get(header.ssrc)
        if stream is None or self._routes.get(header.payload_type) is not stream.route:
            stream = self._route(data, header, now)
            if stream is None:
                return
            if header.payload_type in self._retransmissions:
                self._repaired(stream, data, header, now)
                return
        self.counters.packets += 1
        self.counters.bytes += len(data)
        self._measure_jitter(stream, header, now)
        stream.last_arrival_ns = now
        self._deliver(stream, stream.jitter.push(header.sequence, (data, header, now), now))

    def control(self, data: bytes, arrival_ns: int) -> None:
        """Take one compound RTCP packet."""
        for report in rtp.parse_rtcp(data):
            stream = self._streams.get(report.ssrc)
            if stream and isinstance(report, rtp.SenderReport):
                stream.clock.report(report.rtp, rtp.ntp_to_ns(report.ntp))
                stream.reporting.last_sr = report.ntp >> 16 & 0xFFFFFFFF
                stream.reporting.last_sr_ns = arrival_ns - self._zero_ns

    def tick(self, now_ns: int) -> list[bytes]:
        """Give up on what is too late, and return the RTCP packets to send now. Call it every 10 to 50 ms."""
        now = now_ns - self._zero_ns
        feedback = []
        for stream in self._newest.values():
            self._deliver(stream, stream.jitter.expire(now))
            lost = stream.jitter.wanted(now, ROUND_TRIP_NS)
            if lost:
                feedback.append(rtp.nack(self._ssrc, stream.ssrc, [number & 0xFFFF for number in lost]))
            if stream.wants_keyframe and now - stream.reporting.keyframe_asked_ns >= PLI_INTERVAL_NS:
                stream.reporting.keyframe_asked_ns = now
                feedback.append(rtp.picture_loss_indication(self._ssrc, stream.ssrc))
            if now >= stream.reporting.next_ns:
                stream.reporting.next_ns = now + REPORT_INTERVAL_NS
                feedback.append(rtp.receiver_report(self._ssrc, self._report(stream, now)))
        return feedback

    def request_keyframe(self) -> bytes | None:
        """The PLI for the video stream, or None when there is none or one was asked for less than half a second ago."""
        stream = self._newest.get("video")
        if stream is None or stream.last_arrival_ns - stream.reporting.keyframe_asked_ns < PLI_INTERVAL_NS:
            return None
        stream.reporting.keyframe_asked_ns = stream.last_arrival_ns
        return rtp.picture_loss_indication(self._ssrc, stream.ssrc)

    def flush(self) -> None:
        """Hand over what is still held, at the end of the session."""
        for stream in self._newest.values():
            self._deliver(stream, stream.jitter.flush())

    # ---- inside ----

    def _route(self, data: bytes, header: rtp.Header, now: int) -> _Stream | None:
        """The stream of a packet whose SSRC or payload type is new."""
        repeats = self._retransmissions.get(header.payload_type)
        route = self._routes.get(header.payload_type if repeats is None else repeats)
        if route is None:
            self.counters.unrouted += 1
            return None
        if repeats is not None:
            stream = self._newest.get(route.kind)
            return stream if stream and stream.route is route else None
        if len(self._streams) >= MAX_STREAMS:
            idlest = min(self._streams.values(), key=lambda s: s.last_arrival_ns)
            del self._streams[idlest.ssrc]
        stream = _Stream(header.ssrc, Track(self._uid, route.kind), route, self._sender, self._patience_ns)
        stream.last_arrival_ns = now
        previous = self._newest.get(route.kind)
        if previous:
            self._deliver(previous, previous.jitter.flush())
            self._streams.pop(previous.ssrc, None)
        self._streams[header.ssrc] = self._newest[route.kind] = stream
        return stream

    def _repaired(self, stream: _Stream, data: bytes, header: rtp.Header, now: int) -> None:
        """A retransmission: the original sequence number stands in front of the payload (RFC 4588 section 4)."""
        start = header.payload_offset
        if header.payload_end - start < 2:
            return  # padding used to probe the bandwidth
        header.sequence = int.from_bytes(data[start : start + 2], "big")
        header.payload_offset += 2
        self.counters.packets += 1
        self._deliver(stream, stream.jitter.push(header.sequence, (data, header, now), now))

    def _deliver(self, stream: _Stream, packets: Iterable[tuple[tuple[bytes, rtp.Header, int], bool]]) -> None:
        for (data, header, arrival), after_loss in packets:
            if after_loss:
                stream.depacketiser.reset()
                stream.wants_keyframe = stream.track.kind == "video"
            if header.extension_end and self._orientation_id and stream.track.kind == "video":
                stream.rotation = self._rotation(data, header, stream.rotation)
            try:
                unit = stream.depacketiser.push(
                    data[header.payload_offset : header.payload_end], timestamp=header.timestamp, marker=header.marker
                )
            except ValueError:
                self.counters.malformed += 1
                stream.wants_keyframe = stream.track.kind == "video"
                continue
            if unit is not None:
                self._emit(stream, unit, arrival)

    def _emit(self, stream: _Stream, unit: AccessUnit, arrival: int) -> None:
        time_ns = stream.clock.capture_ns(unit.timestamp, arrival)
        if stream.wants_keyframe:
            if not unit.keyframe:
                self.counters.frames_undecodable += 1
                return
            stream.wants_keyframe = False
        if unit.width:
            stream.size = (unit.width, unit.height)
        self.counters.frames += 1
        width, height = stream.size
        rotation = stream.rotation
        self._on_frame(EncodedFrame(stream.track, stream.route.codec, unit.payload, unit.keyframe, time_ns, width, height, rotation))

    def _rotation(self, data: bytes, header: rtp.Header, before: int) -> int:
        """Degrees clockwise (3GPP TS 26.114 section 7.4.5)."""
        value = rtp.extensions(data, header).get(self._orientation_id)
        return 90 * (value[0] & 3) if value else before

    @staticmethod
    def _measure_jitter(stream: _Stream, header: rtp.Header, now: int) -> None:
        transit = now * stream.route.clock_rate // 1_000_000_000 - header.timestamp
        reporting = stream.reporting
        if reporting.transit is not None:
            reporting.jitter += (abs(((transit - reporting.transit + 0x80000000) & 0xFFFFFFFF) - 0x80000000) - reporting.jitter) / 16
        reporting.transit = transit

    @staticmethod
    def _report(stream: _Stream, now: int) -> rtp.ReportBlock:
        reporting, jitter = stream.reporting, stream.jitter
        expected = jitter.highest - jitter.first + 1
        received = jitter.counters.received
        interval = expected - reporting.expected_before
        lost = interval - (received - reporting.received_before)
        reporting.expected_before, reporting.received_before = expected, received
        return rtp.ReportBlock(
            ssrc=stream.ssrc,
            fraction_lost=max(0, min(255, (lost << 8) // interval)) if interval > 0 else 0,
            cumulative_lost=expected - received,
            highest_sequence=jitter.highest,
            jitter=int(reporting.jitter),
            last_sr=reporting.last_sr,
            delay_since_last_sr=(now - reporting.last_sr_ns) * 65536 // 1_000_000_000 if reporting.last_sr else 0,
        )
