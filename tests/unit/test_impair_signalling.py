"""What the relay tells of packets, and what the proxy does to session descriptions."""

import pytest

from tests.impair.packets import Sighting, sight
from tests.impair.proxy import hub_address, through, without_candidates

ANSWER = """v=0\r
m=audio 40001 UDP/TLS/RTP/SAVPF 96\r
a=mid:0\r
a=candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active\r
a=candidate:2 1 udp 2130706431 ::1 40000 typ host\r
a=candidate:3 1 udp 2130706431 10.0.0.1 40001 typ host\r
a=end-of-candidates\r
a=ice-ufrag:abcd\r
m=video 40001 UDP/TLS/RTP/SAVPF 97\r
a=mid:1\r
"""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x00\x01\x00\x00", Sighting("stun")),
        (b"\x16\xfe\xff", Sighting("dtls")),
        (b"\x90\xe1\x12\x34" + bytes(4) + b"\0\0\0\7", Sighting("rtp", 97, 0x1234, 7)),
        (b"\x81\xcd\x00\x03\0\0\0\7" + bytes(8 + 14), Sighting("rtcp", 205, 0, 7)),
        (b"\x81\xcd\x00\x03\0\0\0\7" + bytes(8 + 20), Sighting("rtcp", 205, 0, 7)),
        (b"\x80\xc9\x00\x01\0\0\0\7" + bytes(12 + 14), Sighting("rtcp", 201, 0, 7, compound=True)),  # and a PLI
        (b"\x80\x61", Sighting("other")),
        (b"", Sighting("other")),
    ],
)
def test_sighting(data: bytes, expected: Sighting) -> None:
    assert sight(data) == expected


def test_only_candidates_are_taken_out() -> None:
    left = without_candidates(ANSWER)
    assert "candidate" not in left
    assert [line for line in ANSWER.splitlines() if "candidate" not in line] == left.splitlines()


def test_the_relay_takes_the_place_of_all_candidates() -> None:
    assert hub_address(ANSWER) == ("10.0.0.1", 40001)
    changed = through(ANSWER, ("127.0.0.1", 5000))
    assert [line for line in changed.splitlines() if "candidate:" in line] == ["a=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host"]
    assert without_candidates(changed) == without_candidates(ANSWER)


def test_an_answer_without_candidates_is_refused() -> None:
    with pytest.raises(LookupError):
        hub_address(without_candidates(ANSWER))
