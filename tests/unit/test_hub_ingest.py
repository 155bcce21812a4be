"""Whose packets a publisher's tracks take when its SSRCs change (rows N15, N16 of the faults)."""

import struct
from dataclasses import replace
from typing import Any, cast

from recorder.hub.channel import Channel
from recorder.hub.ingest import MID, Ingest
from recorder.hub.session import Session
from recorder.hub.source import Outlet
from tests.unit.test_hub_source import media, rtp

MS = 1_000_000
SECOND = 1000 * MS


class _Tap:
    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def media(self) -> list[Any]:
        return self._lines

    def send_rtcp(self, packet: bytes) -> None: ...


class _Session:
    """A session whose packets are given by hand."""

    is_over = True  # no timers

    def __init__(self, lines: list[Any]) -> None:
        self.tap = _Tap(lines)

    def listen(self, on_rtp: object, on_rtcp: object) -> None: ...


class Publisher:
    def __init__(self) -> None:
        self.ingest = Ingest(7, Channel("room"), cast(Session, _Session([media()])))
        self.ingest.negotiated()
        self.packets: list[bytes] = []
        source = self.ingest.sources["video"]
        source.attach(Outlet(source, media(payload_type=120, ssrc=777), self.packets.append, lambda report: None))

    def send(self, sequence: int, ssrc: int, at_ms: int) -> int:
        """Returns how many packets came out."""
        before = len(self.packets)
        self.ingest._on_rtp(rtp(sequence, ssrc=ssrc), at_ms * MS)
        return len(self.packets) - before


def test_one_stray_packet_of_another_ssrc_does_not_end_the_track() -> None:
    publisher = Publisher()
    assert sum(publisher.send(number, 1, number * 20) for number in range(50)) == 50
    assert publisher.send(9000, 2, 1000) == 1
    after = [publisher.send(number, 1, number * 20) for number in range(50, 250)]
    assert after[:49] == [0] * 49  # late ones must not bring it back at once
    assert after[60:] == [1] * 140


def test_late_packets_of_an_ssrc_that_was_replaced_are_dropped_however_many_there_were() -> None:
    publisher = Publisher()
    for ssrc in range(1, 41):
        assert publisher.send(1000 * ssrc, ssrc, 20 * ssrc) == 1
        assert publisher.send(1000 * ssrc + 1, ssrc, 20 * ssrc) == 1
        assert publisher.send(1000 * (ssrc - 1) + 2, ssrc - 1, 20 * ssrc + 1) == (ssrc == 1)
    assert len(publisher.ingest._bound) + len(publisher.ingest._retired) <= 18


def test_picture_and_sound_under_one_ssrc_are_told_apart_by_payload_type() -> None:
    ingest = Ingest(7, Channel("room"), cast(Session, _Session([media(), media("audio", 111, 901, mid="1")])))
    ingest.negotiated()
    came: dict[str, list[bytes]] = {"video": [], "audio": []}
    for kind, payload_type in (("video", 96), ("audio", 111)):
        source = ingest.sources[kind]  # type: ignore[index]  # a Kind
        source.attach(Outlet(source, media(kind, payload_type, 777), came[kind].append, lambda report: None))
    for sequence in range(20):
        for payload_type, first in ((96, 100), (111, 30000)):
            ingest._on_rtp(rtp(first + sequence, b"%d" % payload_type, ssrc=5, payload_type=payload_type), sequence * MS)
    assert [packet[12:] for packet in came["video"]] == [b"96"] * 20
    assert [packet[12:] for packet in came["audio"]] == [b"111"] * 20
    assert all(source.reception and not source.reception.has_gaps for source in ingest.sources.values())
    assert ingest._retired == {}


def _block(identifier: int, value: bytes) -> bytes:
    return struct.pack("!HH", 0xBEDE, 1) + bytes([identifier << 4 | len(value) - 1]) + value.ljust(3, b"\0")


def test_two_pictures_of_one_codec_are_told_apart_by_ssrc_or_mid() -> None:
    named = replace(media(mid="1"), remote_ssrcs=(11, 12), extensions={MID: 3})
    low = replace(media(mid="2"), remote_ssrcs=(21, 22), extensions={MID: 3})
    ingest = Ingest(7, Channel("room"), cast(Session, _Session([named, low])))
    ingest.negotiated(1)
    high = ingest.sources["video"]
    assert ingest.low
    for sequence, packet in enumerate(
        (
            rtp(1, ssrc=11),
            rtp(1, ssrc=21),
            rtp(2, ssrc=31, block=_block(3, b"2")),  # SSRCs that the offer does not name
            rtp(2, ssrc=41, block=_block(3, b"1")),
            rtp(3, ssrc=51),  # whose?
            rtp(3, ssrc=51, block=_block(3, b"9")),
        )
    ):
        ingest._on_rtp(packet, sequence * MS)
    assert [source.reception.ssrc for source in (high, ingest.low) if source.reception] == [41, 31]
    assert (ingest.picture(low=True), ingest.picture(low=False)) == (ingest.low, high)
    assert ingest.participant().video_low
    ingest.low.silent = True
    assert ingest.picture(low=True) is high
    assert not ingest.participant().video_low


def test_a_low_stream_without_the_high_one_is_the_only_one() -> None:
    ingest = Ingest(7, Channel("room"), cast(Session, _Session([replace(media(), direction="inactive"), media(mid="1")])))
    ingest.negotiated(1)
    assert ingest.low is None
    assert ingest.participant().video == "vp8"
