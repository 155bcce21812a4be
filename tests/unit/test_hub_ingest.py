"""Whose packets a publisher's tracks take when its SSRCs change (rows N15, N16 of the faults)."""

from typing import Any, cast

from recorder.hub.channel import Channel
from recorder.hub.ingest import Ingest
from recorder.hub.session import Session
from recorder.hub.source import Outlet
from tests.unit.test_hub_source import media, rtp

MS = 1_000_000
SECOND = 1000 * MS


class _Tap:
    def media(self) -> list[Any]:
        return [media()]

    def send_rtcp(self, packet: bytes) -> None: ...


class _Session:
    """A session whose packets are given by hand."""

    is_over = True  # no timers

    def __init__(self) -> None:
        self.tap = _Tap()

    def listen(self, on_rtp: object, on_rtcp: object) -> None: ...


class Publisher:
    def __init__(self) -> None:
        self.ingest = Ingest(7, Channel("room"), cast(Session, _Session()))
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
    assert len(publisher.ingest._by_ssrc) + len(publisher.ingest._retired) <= 18
