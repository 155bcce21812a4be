"""The receive path of one participant's session: RTP packets in, encoded frames on the timeline out, feedback back.

A packet that comes in order takes one straight path (`packet`, `_take`); gaps wait in the jitter buffer; NACK, PLI and receiver
reports leave on a timer (`tick`), never per packet. Pure: sockets belong to the tap, the clock is a parameter. Whatever is
received, nothing is raised: it is counted.
"""

import math
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from recorder.frames import Codec, EncodedFrame, Figures, Kind, Track
from recorder.media.timeline import SenderClock, StreamClock
from recorder.rtp import packet as rtp
from recorder.rtp.depacketisers import AccessUnit, create
from recorder.rtp.jitter import Counters as JitterCounters
from recorder.rtp.jitter import JitterBuffer
from recorder.rtp.statistics import ReceiverStatistics

PLI_INTERVAL_NS = 500_000_000
REPORT_INTERVAL_NS = 1_000_000_000
VOICE_REPORT_INTERVAL_NS = 5_000_000_000  # without video, as browsers do: to send one costs as much as to receive ten packets
SETTLED_NS = 1_500_000_000  # after its first packet, which is often late, a stream is where the least delay of its arrivals puts it
REPAIR_SECONDS = 0.1  # a packet that is missing has mostly come by then, late or because it was asked for …
URGENT_SECONDS = 0.03  # … else there is not much time left: so of half a second, and in proportion of a shorter patience
_USUAL_PATIENCE_NS = 500_000_000
SILENT_NS = 1_000_000_000  # a stream that was replaced may come back when its successor has been silent for so long
MAX_STREAMS = 16  # SSRCs remembered; more are a fault of the sender
MAX_SIDE = 4096  # of a picture, as the decoders take it

_FIXED_HEADER = struct.Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class Route:
    """What a payload type carries. Raises ValueError for a clock that no media has."""

    kind: Kind
    codec: Codec
    clock_rate: int

    def __post_init__(self) -> None:
        if not 8000 <= self.clock_rate <= 192_000:
            raise ValueError("impossible clock rate")


@dataclass(slots=True)
class Counters:
    packets: int = 0
    malformed: int = 0
    unrouted: int = 0  # payload types that were not negotiated
    retired: int = 0  # of an SSRC that another one has replaced
    frames: int = 0
    frames_repeated: int = 0  # another session with the participant gave them
    frames_undecodable: int = 0  # complete, but a frame they refer to is missing
    bytes: int = 0
    streams: int = 0  # SSRCs so far


class _Packet(NamedTuple):
    """What is kept of a packet until its turn comes."""

    route: Route | None  # None: nothing to be read, but it is not missing
    payload: bytes
    timestamp: int
    marker: bool
    rotation: int  # degrees; -1: not told
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class Reception:
    """What came of one stream."""

    kind: Kind
    ssrc: int
    expected: int  # packets: the span of their sequence numbers
    counters: JitterCounters


class _Stream:
    """One SSRC."""

    def __init__(self, ssrc: int, track: Track, route: Route, clock: StreamClock, *, patience_ns: int, begun_ns: int) -> None:
        self.ssrc = ssrc
        self.track = track
        self.kind = track.kind
        self.jitter: JitterBuffer[_Packet] = JitterBuffer(patience_ns=patience_ns)
        self.statistics = ReceiverStatistics()
        self.keyframe_asked_ns = -PLI_INTERVAL_NS
        self.last_arrival_ns = 0
        self.begun_ns = begun_ns
        self.early_report: rtp.SenderReport | None = None  # it waits until the stream is settled, if nothing is known of the sender yet
        self.tells_rotation = False
        self.extension = b""  # the header extension last looked at, and the rotation it told; -1: none
        self.extension_rotation = -1
        self.rotation = 0  # told by some packets, valid for all that follow
        self.set_codec(route, clock)

    def set_codec(self, route: Route, clock: StreamClock) -> None:
        """From the next packet on it carries this."""
        self.route = route
        self.clock = clock
        self._jumps_before = clock.jumps
        self.depacketiser = create(route.codec)
        self.wants_keyframe = self.kind == "video"
        self.size = (0, 0)

    def figures(self) -> dict[str, int]:
        jumps = self.clock.jumps - self._jumps_before
        return asdict(self.jitter.counters) | {"clock_jumps": jumps, "reports_refused": self.clock.reports_refused}


class SessionReceiver:
    """All streams one participant sends over one peer connection; of each kind, the newest SSRC counts."""

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
        part = min(1.0, patience_ns / _USUAL_PATIENCE_NS)
        self._repair_seconds, self._urgent_seconds = REPAIR_SECONDS * part, URGENT_SECONDS * part
        self.sender = SenderClock()  # may be replaced before the first packet, by that of an earlier session with the same participant
        self._early_reports: dict[int, rtp.SenderReport] = {}  # by SSRC: they came before its first packet
        self._streams: dict[Kind, _Stream] = {}
        self._by_ssrc: dict[int, _Stream] = {}  # those of `_streams`
        self._retired: dict[int, Kind] = {}  # SSRCs that were replaced, the oldest first
        self._reported_ns = -VOICE_REPORT_INTERVAL_NS
        self._ssrc = random.getrandbits(32) or 1
        self._past: Counter[str] = Counter()  # the jitter buffers' counters of streams that were replaced
        self._past_packets: dict[Kind, tuple[int, int]] = {}  # of those: received and lost
        self.counters = Counters()

    def packet(self, data: bytes, arrival_ns: int) -> None:
        """Take one RTP packet; `arrival_ns` is of the monotonic clock."""
        counters, end = self.counters, len(data)
        if end < rtp.FIXED_HEADER_BYTES:
            counters.malformed += 1
            return
        first, second, sequence, timestamp, ssrc = _FIXED_HEADER.unpack_from(data)
        now = arrival_ns - self._zero_ns
        number = second & 0x7F
        route = self._routes.get(number)
        stream = self._by_ssrc.get(ssrc)
        if stream is None or route is None or route.kind != stream.kind:
            stream = self._find(ssrc, number, timestamp, now)
            if stream is None:
                return
        start, extension = rtp.FIXED_HEADER_BYTES, b""
        if first == 0x90 and end >= 16:  # nothing optional but header extensions, as on most packets
            start = 16 + 4 * (data[14] << 8 | data[15])
            extension = data[12:start]
        elif first != 0x80:
            start, end, extension = _parts(data)
        if start > end:
            counters.malformed += 1
            return
        rotation = self._rotation(stream, extension) if extension and stream.tells_rotation else -1
        if number in self._retransmissions:
            if end - start < 2:
                return  # padding used to probe the bandwidth
            sequence = int.from_bytes(data[start : start + 2], "big")  # RFC 4588 section 4
            start += 2
            route = self._routes.get(self._retransmissions[number])
        elif timestamp != stream.statistics.timestamp:
            stream.statistics.arrived(timestamp, now, stream.route.clock_rate)
        counters.packets += 1
        counters.bytes += len(data)
        stream.last_arrival_ns = now
        if stream.jitter.passes(sequence):
            self._take(stream, route, data[start:end], timestamp, second >= 0x80, rotation, now)
        else:
            held = _Packet(route, data[start:end], timestamp, second >= 0x80, rotation, now)
            self._deliver(stream, stream.jitter.push(sequence, held, now))

    def control(self, data: bytes, arrival_ns: int) -> None:
        """Take one compound RTCP packet."""
        for report in rtp.parse_rtcp(data):
            stream = self._by_ssrc.get(report.ssrc)
            if not isinstance(report, rtp.SenderReport):
                continue
            if stream is None:
                self._early_reports.pop(report.ssrc, None)
                self._early_reports[report.ssrc] = report
                if len(self._early_reports) > MAX_STREAMS:
                    del self._early_reports[next(iter(self._early_reports))]
            else:
                stream.clock.report(report.rtp, rtp.ntp_to_ns(report.ntp))
                stream.statistics.reported(report.ntp, arrival_ns - self._zero_ns)

    def tick(self, now_ns: int) -> list[bytes]:
        """Give up on what is too late, and return the RTCP packets to send now, as parts of one datagram; `next_tick_seconds` says when."""
        now = now_ns - self._zero_ns
        feedback = []
        interval_ns = REPORT_INTERVAL_NS if "video" in self._streams else VOICE_REPORT_INTERVAL_NS
        if now - self._reported_ns >= interval_ns and self._streams:
            self._reported_ns = now
            feedback.append(rtp.receiver_report(self._ssrc, *(s.statistics.block(s.ssrc, s.jitter, now) for s in self._streams.values())))
        for stream in self._streams.values():
            if stream.jitter.has_gap:
                self._deliver(stream, stream.jitter.expire(now))
                lost = stream.jitter.wanted(now)
                if lost:
                    feedback.append(rtp.nack(self._ssrc, stream.ssrc, [number & 0xFFFF for number in lost]))
            if stream.wants_keyframe and (request := self._keyframe_request(stream, now)):
                feedback.append(request)
        return feedback

    def request_keyframe(self, now_ns: int) -> bytes | None:
        """The PLI for the video stream, or None when there is none or one was asked for less than half a second ago."""
        stream = self._streams.get("video")
        return self._keyframe_request(stream, now_ns - self._zero_ns) if stream else None

    @property
    def next_tick_seconds(self) -> float:
        """How soon packets should be read and `tick` be called again, at the latest."""
        gaps = [stream.jitter for stream in self._streams.values() if stream.jitter.has_gap]
        if not gaps:
            return math.inf
        return self._urgent_seconds if any(jitter.asks_in_vain for jitter in gaps) else self._repair_seconds

    def last_packet_ns(self, kind: Kind) -> int:
        """When the last packet of this kind arrived, on the monotonic clock; 0: none yet."""
        stream = self._streams.get(kind)
        return self._zero_ns + stream.last_arrival_ns if stream else 0

    def flush(self) -> None:
        """Hand over what is still held, at the end of the session."""
        for stream in self._streams.values():
            self._deliver(stream, stream.jitter.flush())

    def receptions(self) -> list[Reception]:
        """What came of each stream so far."""
        return [Reception(s.kind, s.ssrc, s.jitter.highest - s.jitter.first + 1, s.jitter.counters) for s in self._streams.values()]

    def figures(self) -> dict[str, int]:
        """What came and what was dropped, of all streams so far."""
        figures = Counter(self._past)
        for stream in self._streams.values():
            figures.update(stream.figures())
        return asdict(self.counters) | dict(figures)

    def measured(self) -> dict[Kind, Figures]:
        """What is known of each track so far."""
        laid = {kind: stream.clock.laid_ns for kind, stream in self._streams.items()}
        picture, sound = laid.get("video"), laid.get("audio")
        offset = None if picture is None or sound is None else picture - sound
        return {
            kind: Figures(*self._packets(stream), stream.clock.drift_ppm or None, offset if kind == "video" else None)
            for kind, stream in self._streams.items()
        }

    # ---- inside ----

    def _packets(self, stream: _Stream) -> tuple[int, int]:
        """Received and lost of this kind so far."""
        received, lost = self._past_packets.get(stream.kind, (0, 0))
        return received + stream.jitter.counters.received, lost + stream.jitter.counters.lost

    def _find(self, ssrc: int, number: int, timestamp: int, now: int) -> _Stream | None:
        """The stream of a packet that is not simply the next of one known, or None when it is none of ours."""
        repeated = self._retransmissions.get(number)
        route = self._routes.get(number if repeated is None else repeated)
        known = self._by_ssrc.get(ssrc)
        if route is None:
            self.counters.unrouted += 1
            return known  # a packet of a known stream is at least not missing
        newest = self._streams.get(route.kind)
        if repeated is not None:  # retransmissions come under an SSRC of their own
            self.counters.unrouted += newest is None
            return newest
        if newest and newest.ssrc == ssrc:  # picture and sound have picked the same one
            return newest
        if newest and ssrc in self._retired and now - newest.last_arrival_ns < SILENT_NS:
            self.counters.retired += 1
            return None
        return self._begin(ssrc, route, timestamp, now)

    def _begin(self, ssrc: int, route: Route, timestamp: int, now: int) -> _Stream:
        """Follow a new SSRC; the one before it ends."""
        previous = self._streams.get(route.kind)
        clock = self.sender.stream(route.clock_rate, timestamp, now)
        stream = _Stream(ssrc, Track(self._uid, route.kind), route, clock, patience_ns=self._patience_ns, begun_ns=now)
        self.counters.streams += 1
        if previous:
            self._deliver(previous, previous.jitter.flush())
            self._past.update(previous.figures())
            self._past_packets[route.kind] = self._packets(previous)
            if self._by_ssrc.get(previous.ssrc) is previous:
                del self._by_ssrc[previous.ssrc]
            stream.keyframe_asked_ns = previous.keyframe_asked_ns  # an SSRC that changes all the time asks no more often
            self._retired.pop(previous.ssrc, None)
            self._retired[previous.ssrc] = route.kind
            if len(self._retired) > MAX_STREAMS:
                del self._retired[next(iter(self._retired))]
        self._retired.pop(ssrc, None)
        stream.early_report = self._early_reports.pop(ssrc, None)
        stream.tells_rotation = route.kind == "video" and self._orientation_id > 0
        self._streams[route.kind] = self._by_ssrc[ssrc] = stream
        return stream

    def _deliver(self, stream: _Stream, packets: Iterable[tuple[_Packet, bool]]) -> None:
        for packet, after_loss in packets:
            if after_loss:
                stream.depacketiser.reset()
                stream.wants_keyframe = stream.kind == "video"
            self._take(stream, *packet)

    def _take(  # noqa: PLR0917  # once per packet: names would cost a tenth of it
        self, stream: _Stream, route: Route | None, payload: bytes, timestamp: int, marker: bool, rotation: int, arrival: int
    ) -> None:
        """Take the next packet of a stream."""
        if route is not stream.route:
            if route is None:
                return
            if route != stream.route:  # several payload types may carry the same
                same = route.clock_rate == stream.route.clock_rate
                stream.set_codec(route, stream.clock if same else self.sender.stream(route.clock_rate, timestamp, arrival))
        if rotation >= 0:
            stream.rotation = rotation
        try:
            unit = stream.depacketiser.push(payload, timestamp=timestamp, marker=marker)
        except ValueError:
            self.counters.malformed += 1
            stream.wants_keyframe = stream.kind == "video"
            return
        if unit is not None:
            self._emit(stream, unit, arrival)

    def _emit(self, stream: _Stream, unit: AccessUnit, arrival: int) -> None:
        time_ns = stream.clock.capture_ns(unit.timestamp, arrival)
        if stream.early_report and (self.sender.has_report or arrival - stream.begun_ns >= SETTLED_NS):
            report, stream.early_report = stream.early_report, None
            stream.clock.report(report.rtp, rtp.ntp_to_ns(report.ntp))
        if unit.width:
            if max(unit.width, unit.height) > MAX_SIDE:  # decoders would refuse it, and players choke
                self.counters.malformed += 1
                stream.wants_keyframe = True
                return
            stream.size = (unit.width, unit.height)
        if stream.wants_keyframe:
            if not unit.keyframe:
                self.counters.frames_undecodable += 1
                return
            stream.wants_keyframe = False
        if not stream.clock.gives(unit.timestamp, self):
            self.counters.frames_repeated += 1
            return
        self.counters.frames += 1
        width, height = stream.size
        self._on_frame(EncodedFrame(stream.track, stream.route.codec, unit.payload, unit.keyframe, time_ns, width, height, stream.rotation))

    def _rotation(self, stream: _Stream, extension: bytes) -> int:
        """What a header extension says of the camera: degrees clockwise (3GPP TS 26.114 section 7.4.5), or -1."""
        if extension != stream.extension:  # most packets carry the same as the one before
            value = rtp.extension_values(extension).get(self._orientation_id)
            stream.extension, stream.extension_rotation = extension, 90 * (value[0] & 3) if value else -1
        return stream.extension_rotation

    def _keyframe_request(self, stream: _Stream, now: int) -> bytes | None:
        if now - stream.keyframe_asked_ns < PLI_INTERVAL_NS:
            return None
        stream.keyframe_asked_ns = now
        return rtp.picture_loss_indication(self._ssrc, stream.ssrc)


def _parts(data: bytes) -> tuple[int, int, bytes]:
    """Where the payload of a packet with any header begins and ends, and its header extension; the begin is beyond the end when the
    header is broken."""
    header = rtp.parse_header(data)
    return (header.payload_offset, header.payload_end, header.extension(data)) if header else (1, 0, b"")
