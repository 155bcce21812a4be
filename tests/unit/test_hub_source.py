"""The way of packets through the hub: one unbroken stream for subscribers, whatever the publisher does."""

import struct

import pytest

from recorder.hub.feedback import SenderInfo
from recorder.hub.source import AUDIO_LEVEL, MID, Outlet, Repair, Source
from recorder.rtp.negotiation import VIDEO_ORIENTATION, CodecParameters, Media
from recorder.rtp.packet import Header, extensions, parse_header

MS = 1_000_000


def media(kind: str = "video", payload_type: int = 96, ssrc: int = 900, ids: dict[str, int] | None = None, mid: str = "0") -> Media:
    codec = ("vp8", 90000) if kind == "video" else ("opus", 48000)
    return Media(
        mid=mid,
        kind="video" if kind == "video" else "audio",
        direction="recvonly",
        codecs=(CodecParameters(payload_type, codec[0], codec[1], 0, {}), CodecParameters(97, "rtx", codec[1], 0, {"apt": payload_type})),
        extensions=ids or {},
        ssrc=ssrc,
        remote_ssrcs=(),
    )


def rtp(
    sequence: int, payload: bytes = b"payload", *, ssrc: int = 1, payload_type: int = 96, marker: bool = False, block: bytes = b""
) -> bytes:
    head = struct.pack("!BBHII", 0x90 if block else 0x80, marker << 7 | payload_type, sequence & 0xFFFF, sequence * 100 & 0xFFFFFFFF, ssrc)
    return head + block + payload


def parsed(packet: bytes) -> Header:
    header = parse_header(packet)
    assert header
    return header


class Stream:
    """A source with one subscriber."""

    def __init__(self, published: Media | None = None, subscribed: Media | None = None) -> None:
        self.changes = 0
        self.packets: list[bytes] = []
        self.reports: list[bytes] = []
        self.source = Source(published or media(), self._changed)
        self.outlet = Outlet(self.source, subscribed or media(payload_type=120, ssrc=777), self.packets.append, self.reports.append)
        self.source.attach(self.outlet)

    def _changed(self) -> None:
        self.changes += 1

    def push(self, packet: bytes, at_ns: int = 0) -> None:
        self.source.receive(packet, parsed(packet), at_ns)

    @property
    def sequences(self) -> list[int]:
        return [parsed(packet).sequence for packet in self.packets]


def test_packet_gets_the_subscribers_numbers_and_keeps_the_rest() -> None:
    stream = Stream()
    stream.push(rtp(65535, b"first"))
    stream.push(rtp(65536, b"second", marker=True))
    first, second = (parsed(packet) for packet in stream.packets)
    assert (first.payload_type, first.ssrc, first.sequence, first.timestamp, first.marker) == (120, 777, 65535, 65535 * 100, False)
    assert (second.sequence, second.timestamp, second.marker) == (0, 65536 * 100, True)
    assert [packet[12:] for packet in stream.packets] == [b"first", b"second"]


def test_padding_is_cut_off() -> None:
    stream = Stream()
    packet = bytearray(rtp(5, b"data" + b"\0\0\3"))
    packet[0] |= 0x20
    stream.push(bytes(packet))
    assert stream.packets[0][0] & 0x20 == 0
    assert stream.packets[0][12:] == b"data"


def test_extensions_are_rebuilt_with_the_subscribers_ids() -> None:
    stream = Stream(
        media(ids={MID: 1, VIDEO_ORIENTATION: 4, "urn:other": 5}),
        media(payload_type=120, ssrc=777, ids={MID: 9, VIDEO_ORIENTATION: 2}, mid="v"),
    )
    block = struct.pack("!HH", 0xBEDE, 2) + bytes([0x10, ord("0"), 0x40, 0x02, 0x51, 7, 7, 0])
    stream.push(rtp(1, block=block))
    stream.push(rtp(2))
    found = [extensions(packet, parsed(packet)) for packet in stream.packets]
    assert found == [{9: b"v", 2: b"\x02"}, {9: b"v"}]
    assert [packet[parsed(packet).payload_offset :] for packet in stream.packets] == [b"payload", b"payload"]


def test_audio_level_passes_and_unwanted_extensions_do_not() -> None:
    block = struct.pack("!HH", 0xBEDE, 1) + bytes([0x20, 0x99, 0, 0])
    wanted = Stream(media("audio", 111, ids={AUDIO_LEVEL: 2}), media("audio", 111, 777, ids={AUDIO_LEVEL: 3}))
    wanted.push(rtp(1, payload_type=111, block=block))
    assert extensions(wanted.packets[0], parsed(wanted.packets[0])) == {3: b"\x99"}
    unwanted = Stream(media("audio", 111, ids={AUDIO_LEVEL: 2}), media("audio", 111, 777))
    unwanted.push(rtp(1, payload_type=111, block=block))
    assert parsed(unwanted.packets[0]).payload_offset == 12


def test_damaged_extensions_do_no_harm() -> None:
    stream = Stream(media(ids={VIDEO_ORIENTATION: 4}), media(payload_type=120, ssrc=777, ids={VIDEO_ORIENTATION: 2}))
    stream.push(rtp(1, block=struct.pack("!HH", 0xBEDE, 1) + b"\x4f\x01\x02\x03"))
    assert stream.packets[0][12:] == b"payload"


def test_duplicates_are_dropped_and_late_ones_pass() -> None:
    stream = Stream()
    for sequence in (10, 11, 13, 13, 12, 12, 11):
        stream.push(rtp(sequence))
    assert stream.sequences == [10, 11, 13, 12]


def test_nack_is_answered_from_the_history() -> None:
    stream = Stream()
    for sequence in range(65000, 65000 + 2000):
        stream.push(rtp(sequence, b"%d" % sequence))
    stream.packets.clear()
    stream.source.resend(stream.outlet, ((65000 + 1999) & 0xFFFF, (65000 + 1500) & 0xFFFF, (65000 + 100) & 0xFFFF, 12345))
    assert [packet[12:] for packet in stream.packets] == [b"66999", b"66500"]  # the third is too old, the fourth never was


@pytest.mark.parametrize("cause", ["ssrc", "restart", "mute"])
def test_stream_goes_on_without_a_hole(cause: str) -> None:
    stream = Stream()
    for sequence in range(100, 110):
        stream.push(rtp(sequence))
    ssrc, start, dropped = 1, 110, 0
    if cause == "ssrc":
        ssrc, start = 2, 40000
    elif cause == "restart":
        start, dropped = 33000 + 30000, 2  # far behind: two packets must agree before it is believed
    else:
        stream.source.set_muted(True, 0)
        stream.push(rtp(110))
        stream.push(rtp(111))
        stream.source.set_muted(False, 0)
        start = 112
    for sequence in range(start, start + 10):
        stream.push(rtp(sequence, b"%d" % sequence, ssrc=ssrc))
    assert stream.sequences == list(range(100, 120 - dropped))
    assert stream.packets[-1][12:] == b"%d" % (start + 9)
    assert stream.source.keyframe_due(0)  # nobody would notice that the new stream's first one is lost
    stream.packets.clear()
    stream.source.resend(stream.outlet, (115,))
    assert len(stream.packets) == 1


def test_muted_source_passes_nothing_on() -> None:
    stream = Stream()
    stream.source.set_muted(True, 0)
    stream.push(rtp(1))
    assert stream.packets == []


def test_silence_ends_with_the_first_packet() -> None:
    stream = Stream()
    stream.push(rtp(1))
    stream.source.silent = True
    stream.push(rtp(2))
    assert (stream.source.silent, stream.changes) == (False, 1)


def test_reports_keep_their_times_and_reach_late_subscribers() -> None:
    stream = Stream()
    info = struct.pack("!QIII", 0x0123456789ABCDEF, 4711, 8, 9)
    stream.source.receive_report(SenderInfo(1, info), 0)
    assert stream.reports == []  # of a stream nobody has seen yet
    stream.push(rtp(1))
    stream.source.receive_report(SenderInfo(1, info), 0)
    stream.source.receive_report(SenderInfo(2, info), 0)
    assert stream.reports == [struct.pack("!BBHI", 0x80, 200, 6, 777) + info]
    late: list[bytes] = []
    stream.source.attach(Outlet(stream.source, media(ssrc=778), late.append, late.append))
    assert late == [struct.pack("!BBHI", 0x80, 200, 6, 778) + info]


def test_keyframes_are_asked_for_at_most_twice_a_second() -> None:
    stream = Stream()
    stream.source.request_keyframe()
    assert not stream.source.keyframe_due(0)  # nobody to ask yet
    stream.push(rtp(1))
    asked = []
    for now_ms in range(0, 3000, 10):
        if now_ms < 2000:
            stream.source.request_keyframe()
        if stream.source.keyframe_due(now_ms * MS):
            asked.append(now_ms)
    assert asked == [0, 500, 1000, 1500, 2000]


def test_audio_has_no_keyframes() -> None:
    stream = Stream(media("audio", 111), media("audio", 111, 777))
    stream.push(rtp(1, payload_type=111))
    stream.source.request_keyframe()
    assert not stream.source.keyframe_due(MS)


def test_retransmission_is_unwrapped() -> None:
    stream = Stream()
    repair = Repair(stream.source, {97: 96})
    for sequence in (1, 2, 4):
        stream.push(rtp(sequence, b"%d" % sequence))
    for payload in (b"\0\3" + b"3", b"", b"\0", b"\0\3"):  # the others only probe the bandwidth
        packet = rtp(500, payload, ssrc=55, payload_type=97, marker=True)
        repair.receive(packet, parsed(packet), 0)
    assert stream.sequences == [1, 2, 4, 3]
    assert stream.packets[-1][12:] == b"3"
    assert parsed(stream.packets[-1]).marker


def test_detached_subscriber_gets_nothing() -> None:
    stream = Stream()
    stream.source.detach(stream.outlet)
    stream.push(rtp(1))
    assert stream.packets == []
