"""One published track on its way through the hub: from the publisher's packets to every subscriber's.

The path of a packet is `Source.receive` → `Outlet.send`, one synchronous line. Sequence numbers keep their order through
mutes and changes of SSRC, so a subscriber sees one unbroken stream and its NACKs name packets of the history directly.
"""

import struct
from collections.abc import Callable

from recorder.frames import Kind
from recorder.hub.feedback import SenderInfo
from recorder.hub.reception import Reception
from recorder.rtp.negotiation import VIDEO_ORIENTATION, Media
from recorder.rtp.packet import ONE_BYTE_EXTENSIONS, Header, extensions, parse_header

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
_PASSED_ON = (VIDEO_ORIENTATION, AUDIO_LEVEL)

KEYFRAME_INTERVAL_NS = 500_000_000
_HISTORY: dict[Kind, int] = {"audio": 128, "video": 1024}  # packets, 2–3 s: what may still be asked for
_HEADER = struct.Struct("!BBHII")

Transmit = Callable[[bytes], None]


class Outlet:
    """A source as one subscriber gets it: payload type, SSRC and header extensions of that subscriber's session."""

    def __init__(self, source: "Source", media: Media, transmit: Transmit, transmit_rtcp: Transmit) -> None:
        self.source = source
        self.ssrc = media.ssrc
        self._payload_type = next(codec.payload_type for codec in media.codecs if codec.name == source.codec)
        self._transmit = transmit
        self._transmit_rtcp = transmit_rtcp
        ids = {uri: number for uri, number in media.extensions.items() if 0 < number < 15}
        self._ids = {source.extensions[uri]: ids[uri] for uri in _PASSED_ON if uri in source.extensions and uri in ids}
        mid = media.mid.encode()
        self._mid = bytes([ids[MID] << 4 | len(mid) - 1]) + mid if MID in ids and 0 < len(mid) <= 16 else b""
        self._usual = _extension_block(self._mid)

    def send(self, packet: bytes, header: Header, sequence: int) -> None:
        block = self._usual
        if self._ids and header.extension_offset:
            values = extensions(packet, header)
            passed = [(out, values[id_]) for id_, out in self._ids.items() if id_ in values and 0 < len(values[id_]) <= 16]
            block = _extension_block(self._mid + b"".join(bytes([out << 4 | len(value) - 1]) + value for out, value in passed))
        self._transmit(
            _HEADER.pack(0x90 if block else 0x80, header.marker << 7 | self._payload_type, sequence, header.timestamp, self.ssrc)
            + block
            + packet[header.payload_offset : header.payload_end]
        )

    def report(self, report: SenderInfo) -> None:
        self._transmit_rtcp(report.under(self.ssrc))


class Source:
    """One track of one publisher."""

    def __init__(self, media: Media, on_change: Callable[[], None]) -> None:
        self.kind: Kind = media.kind
        codec = next(codec for codec in media.codecs if codec.name != "rtx")
        self.codec = codec.name
        self.payload_types = tuple(c.payload_type for c in media.codecs if c.name == self.codec)
        self.extensions = media.extensions
        self.feedback_ssrc = media.ssrc  # whose feedback it is, towards the publisher
        self.reception: Reception | None = None  # None until the first packet
        self.muted = False  # by request
        self.silent = False  # no packets for a while
        self.last_packet_ns = 0
        self.outlets: tuple[Outlet, ...] = ()
        self._clock_hz = codec.clock_rate
        self._on_change = on_change
        self._shift = 0
        self._newest = -1  # outgoing sequence number
        self._interrupted = False
        self._last_report: SenderInfo | None = None
        self._size = _HISTORY[self.kind]
        self._packets: list[bytes] = [b""] * self._size
        self._sequences = [-1] * self._size
        self._keyframe_asked_ns = -KEYFRAME_INTERVAL_NS
        self._wants_keyframe = False

    def receive(self, packet: bytes, header: Header, arrival_ns: int) -> None:
        """Pass one packet on to every subscriber."""
        if self.muted:
            self._interrupted = True
            return
        reception = self.reception
        if reception is None or self._interrupted or reception.ssrc != header.ssrc or reception.restarted:
            reception = self._begin(header)
        if not reception.arrived(header.sequence, header.timestamp, arrival_ns):
            return
        self.last_packet_ns = arrival_ns
        if self.silent:
            self.silent = False
            self._on_change()
        sequence = (header.sequence + self._shift) & 0xFFFF
        if (sequence - self._newest) & 0xFFFF < 0x8000:
            self._newest = sequence
        self._packets[sequence % self._size] = packet
        self._sequences[sequence % self._size] = sequence
        for outlet in self.outlets:
            outlet.send(packet, header, sequence)

    def receive_report(self, report: SenderInfo, arrival_ns: int) -> None:
        if self.reception is None or self.reception.ssrc != report.ssrc:
            return
        self.reception.note_report(report, arrival_ns)
        self._last_report = report
        for outlet in self.outlets:
            outlet.report(report)

    def resend(self, outlet: Outlet, sequences: tuple[int, ...]) -> None:
        """Answer a subscriber's NACK from the history."""
        for sequence in sequences:
            if self._sequences[sequence % self._size] == sequence:
                packet = self._packets[sequence % self._size]
                header = parse_header(packet)
                if header:
                    outlet.send(packet, header, sequence)

    def attach(self, outlet: Outlet) -> None:
        self.outlets += (outlet,)
        if self._last_report:
            outlet.report(self._last_report)  # it can be placed in time from its first packet on

    def detach(self, outlet: Outlet) -> None:
        self.outlets = tuple(other for other in self.outlets if other is not outlet)

    def set_muted(self, muted: bool, now_ns: int) -> None:
        """Muted by request: whatever still comes is dropped."""
        if self.muted and not muted:
            self.last_packet_ns = now_ns
        self.muted = muted

    def request_keyframe(self) -> None:
        self._wants_keyframe = self.kind == "video"

    def keyframe_due(self, now_ns: int) -> bool:
        """Whether to ask the publisher for a keyframe now; True at most twice a second."""
        if not self._wants_keyframe or self.reception is None or now_ns - self._keyframe_asked_ns < KEYFRAME_INTERVAL_NS:
            return False
        self._wants_keyframe = False
        self._keyframe_asked_ns = now_ns
        return True

    def _begin(self, header: Header) -> Reception:
        """A new stream: go on where the last one ended, so that subscribers see no loss. A keyframe is asked for: they cannot miss it."""
        if self._newest >= 0:
            self._shift = (self._newest + 1 - header.sequence) & 0xFFFF
            self.request_keyframe()
        self._interrupted = False
        self._last_report = None
        self.reception = Reception(header.ssrc, self._clock_hz, header.sequence)
        return self.reception


class Repair:
    """Retransmissions (RFC 4588) of a source: unwrapped, they are packets like all others."""

    def __init__(self, source: Source, payload_types: dict[int, int]) -> None:
        self._source = source
        self._payload_types = payload_types  # of the retransmission -> of the media

    def receive(self, packet: bytes, header: Header, arrival_ns: int) -> None:
        reception = self._source.reception
        start = header.payload_offset + 2
        if reception is None or start >= header.payload_end:  # an empty one only probes the bandwidth
            return
        sequence = int.from_bytes(packet[start - 2 : start], "big")
        original = (
            _HEADER.pack(
                packet[0] & 0xDF,  # the padding is cut off below
                header.marker << 7 | self._payload_types[header.payload_type],
                sequence,
                header.timestamp,
                reception.ssrc,
            )
            + packet[12 : header.payload_offset]
            + packet[start : header.payload_end]
        )
        parsed = parse_header(original)
        if parsed:
            self._source.receive(original, parsed, arrival_ns)


def _extension_block(elements: bytes) -> bytes:
    """A one-byte header extension (RFC 8285 section 4.2); nothing when there are no elements."""
    if not elements:
        return b""
    words = (len(elements) + 3) // 4
    return struct.pack("!HH", ONE_BYTE_EXTENSIONS, words) + elements.ljust(4 * words, b"\0")
