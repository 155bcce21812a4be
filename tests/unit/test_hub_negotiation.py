"""What the hub makes of offers before anything is sent."""

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from recorder.hub.negotiation import (
    Offer,
    OfferMalformed,
    OfferUnacceptable,
    for_publisher,
    for_subscriber,
    may_try,
    read_candidates,
    read_offer,
)
from recorder.rtp.negotiation import offer_codecs

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:frag\r\na=ice-pwd:passwordpasswordpassword\r\n"
HEAD += "a=fingerprint:sha-256 " + ":".join(["AA"] * 32) + "\r\na=setup:actpass\r\n"
VP8 = "a=rtpmap:96 VP8/90000\r\n"
H264 = "a=rtpmap:97 H264/90000\r\na=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"


def media(kind: str, mid: int, codecs: str, direction: str = "sendonly", more: str = "") -> str:
    numbers = " ".join(line[len("a=rtpmap:") :].split()[0] for line in codecs.splitlines() if line.startswith("a=rtpmap:"))
    return f"m={kind} 9 UDP/TLS/RTP/SAVPF {numbers}\r\na={direction}\r\na=mid:{mid}\r\na=rtcp-mux\r\n{codecs}{more}"


def opus(direction: str = "sendonly") -> str:
    return media("audio", 0, "a=rtpmap:111 opus/48000/2\r\n", direction)


def directions(connection: RTCPeerConnection) -> list[tuple[str, str]]:
    return [(transceiver.kind, transceiver.direction) for transceiver in connection.getTransceivers()]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("printer.local", False),
        ("127.1", False),
    ],
)
def test_only_proper_addresses_are_tried(address: str, allowed: bool) -> None:
    assert may_try(f"1 1 udp 2130706431 {address} 5000 typ host", allow_loopback=False) is allowed
    assert may_try(f"1 1 udp 2130706431 {address} 5000 typ host", allow_loopback=True) is (allowed or address in ("127.0.0.1", "::1"))


def test_candidates_are_limited_and_never_said_to_be_complete() -> None:
    candidates = "".join(f"a=candidate:{i} 1 udp 1 192.0.2.{i} 5000 typ host\r\n" for i in range(1, 60))
    offer = read_offer(
        HEAD + opus() + candidates + "a=candidate:9 1 udp 1 127.0.0.1 22 typ host\r\na=end-of-candidates\r\n", allow_loopback=False
    )
    assert offer.candidates == offer.sdp.count("a=candidate:") == 20
    assert "127.0.0.1" not in offer.sdp
    assert "end-of-candidates" not in offer.sdp
    assert offer.ufrag == "frag"


async def test_publisher_is_taken_in_its_first_usable_codec() -> None:
    other = "a=rtpmap:98 H265/90000\r\n"
    offer = read_offer(HEAD + opus() + media("video", 1, other + H264 + VP8), allow_loopback=True)
    connection = for_publisher(offer)
    assert directions(connection) == [("audio", "recvonly"), ("video", "recvonly")]
    await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
    text = (await connection.createAnswer()).sdp
    assert "H264" in text
    assert "VP8" not in text
    assert "H265" not in text
    await connection.close()


async def test_what_recorders_cannot_read_is_refused() -> None:
    for line in (
        media("audio", 0, "a=rtpmap:63 red/48000/2\r\na=rtpmap:13 CN/8000\r\n"),
        media("video", 0, "a=rtpmap:118 red/90000\r\na=rtpmap:120 ulpfec/90000\r\na=rtpmap:121 flexfec-03/90000\r\n"),
        media("video", 0, "a=rtpmap:100 VP9/90000\r\na=fmtp:100 profile-id=2\r\n"),
        media("video", 0, "a=rtpmap:41 AV1/90000\r\na=fmtp:41 level-idx=5;profile=1;tier=0\r\n"),
    ):
        with pytest.raises(OfferUnacceptable):
            for_publisher(read_offer(HEAD + line, allow_loopback=True))


def _browser_codec(number: int, name: str, fmtp: str = "") -> str:
    feedback = "".join(f"a=rtcp-fb:{number} {kind}\r\n" for kind in ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"))
    parameters = f"a=fmtp:{number} {fmtp}\r\n" if fmtp else ""
    return (
        f"a=rtpmap:{number} {name}/90000\r\n{feedback}{parameters}a=rtpmap:{number + 1} rtx/90000\r\na=fmtp:{number + 1} apt={number}\r\n"
    )


# As Chromium 156 offers them, payload types included.
BROWSER_AUDIO = (
    "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
    "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    "a=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n"
)
BROWSER_VIDEO = {
    "vp8": _browser_codec(96, "VP8"),
    "h264": _browser_codec(108, "H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    "av1": _browser_codec(45, "AV1", "level-idx=5;profile=0;tier=0"),
    "vp9 in 10 bits": _browser_codec(100, "VP9", "profile-id=2"),
    "vp9": _browser_codec(98, "VP9", "profile-id=0"),
    "repair": _browser_codec(118, "red") + "a=rtpmap:120 ulpfec/90000\r\na=rtpmap:35 flexfec-03/90000\r\n",
}
NEGOTIATED = {"vp8": (96, "VP8"), "h264": (108, "H264"), "vp9": (98, "VP9"), "av1": (45, "AV1")}


@pytest.mark.parametrize("codec", NEGOTIATED)
async def test_browsers_are_answered_without_what_nobody_here_decodes(codec: str) -> None:
    offer_codecs()
    first = ["repair", "vp9 in 10 bits", codec]
    video = "".join(BROWSER_VIDEO[name] for name in (*first, *(name for name in BROWSER_VIDEO if name not in first)))
    offer = read_offer(HEAD + media("audio", 0, BROWSER_AUDIO) + media("video", 1, video), allow_loopback=True)
    text = await _answer_of(for_publisher(offer), offer)
    number, name = NEGOTIATED[codec]
    assert _codecs(text) == {"111 opus/48000/2", f"{number} {name}/90000", f"{number + 1} rtx/90000"}
    assert f"a=fmtp:{number + 1} apt={number}" in text
    assert f"a=rtcp-fb:{number} nack\r\n" in text
    assert f"a=rtcp-fb:{number} nack pli\r\n" in text
    for unwanted in ("useinbandfec", "red", "ulpfec", "flexfec", "profile-id=2", "transport-cc"):
        assert unwanted not in text


@pytest.mark.parametrize("codec", NEGOTIATED)
async def test_subscribers_get_every_codec(codec: str) -> None:
    offer_codecs()
    text = HEAD + media("audio", 0, BROWSER_AUDIO, "recvonly") + media("video", 1, "".join(BROWSER_VIDEO.values()), "recvonly")
    offer = read_offer(text, allow_loopback=True)
    answer = await _answer_of(for_subscriber(offer, {"audio": "pcma", "video": codec}), offer)
    number, name = NEGOTIATED[codec]
    assert _codecs(answer) == {"8 PCMA/8000", f"{number} {name}/90000"}


@pytest.mark.parametrize(("number", "name"), [(9, "G722"), (0, "PCMU"), (8, "PCMA")])
async def test_publishers_without_opus_are_taken(number: int, name: str) -> None:
    offer = read_offer(HEAD + media("audio", 0, f"a=rtpmap:13 CN/8000\r\na=rtpmap:{number} {name}/8000\r\n"), allow_loopback=True)
    assert _codecs(await _answer_of(for_publisher(offer), offer)) == {f"{number} {name}/8000"}


async def test_our_own_offer_has_every_codec_once() -> None:
    for _ in range(2):
        offer_codecs()
    connection = RTCPeerConnection()
    connection.addTransceiver("audio", "recvonly")
    connection.addTransceiver("video", "recvonly")
    text = (await connection.createOffer()).sdp
    await connection.close()
    lines = [line[len("a=rtpmap:") :] for line in text.splitlines() if line.startswith("a=rtpmap:")]
    names = [line.split()[1].split("/")[0] for line in lines]
    assert sorted(names) == sorted(["opus", "G722", "PCMU", "PCMA", "VP8", "H264", "H264", "VP9", "AV1", *["rtx"] * 5])
    assert len({line.split()[0] for line in lines}) == len(lines)
    for name in ("VP9", "AV1"):
        number = next(line.split()[0] for line in lines if name in line)
        assert all(f"a=rtcp-fb:{number} {feedback}\r\n" in text for feedback in ("nack", "nack pli", "ccm fir"))


async def _answer_of(connection: RTCPeerConnection, offer: Offer) -> str:
    await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
    text: str = (await connection.createAnswer()).sdp
    await connection.close()
    return text


def _codecs(text: str) -> set[str]:
    return {line[len("a=rtpmap:") :] for line in text.splitlines() if line.startswith("a=rtpmap:")}


async def test_second_video_and_unsent_kinds_stay_inactive() -> None:
    text = HEAD + opus("recvonly") + media("video", 1, VP8) + media("video", 2, VP8)
    assert directions(for_publisher(read_offer(text, allow_loopback=True))) == [
        ("audio", "inactive"),
        ("video", "recvonly"),
        ("video", "inactive"),
    ]


async def test_subscriber_gets_what_is_published_and_nothing_else() -> None:
    text = HEAD + opus("recvonly") + media("video", 1, VP8 + H264, "recvonly")
    offer = read_offer(text, allow_loopback=True)
    connection = for_subscriber(offer, {"video": "h264"})
    assert directions(connection) == [("audio", "inactive"), ("video", "sendonly")]
    await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
    answer = (await connection.createAnswer()).sdp
    assert "a=rtpmap:97 H264/90000" in answer
    assert "VP8" not in answer
    await connection.close()
    with pytest.raises(OfferUnacceptable):
        for_subscriber(offer, {"video": "av1"})
    with pytest.raises(OfferUnacceptable):
        for_subscriber(offer, {})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", OfferMalformed),
        (HEAD, OfferMalformed),
        (HEAD.replace("a=ice-ufrag:frag\r\n", "") + opus(), OfferMalformed),
        (HEAD + "m=audio\r\n", OfferMalformed),
        (HEAD + opus() + "a=fmtp:1 x=y\r\n", OfferMalformed),
        (HEAD + opus() * 9, OfferUnacceptable),
        (HEAD + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n", OfferUnacceptable),
        (HEAD + "m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:0\r\n", OfferUnacceptable),
    ],
)
def test_bad_offers(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_offer(text, allow_loopback=True)


async def test_offer_without_a_known_codec_is_refused() -> None:
    with pytest.raises(OfferUnacceptable):
        for_publisher(read_offer(HEAD + media("video", 0, "a=rtpmap:98 theora/90000\r\n"), allow_loopback=True))


def test_trickled_candidates() -> None:
    fragment = "a=ice-ufrag:frag\r\na=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\na=candidate:2 1 udp 1 127.0.0.1 22 typ host\r\n"
    found = read_candidates(fragment, ufrag="frag", allow_loopback=False)
    assert [candidate.ip for candidate in found] == ["192.0.2.1"]
    with pytest.raises(OfferUnacceptable):
        read_candidates(fragment, ufrag="new", allow_loopback=False)


LOW = "a=label:low\r\n"


@pytest.mark.parametrize(
    ("lines", "low", "taken"),
    [
        ((opus(), media("video", 1, H264), media("video", 2, H264, more=LOW)), 2, ["recvonly", "recvonly", "recvonly"]),
        ((media("video", 0, H264, more=LOW), media("video", 1, VP8)), 0, ["recvonly", "recvonly"]),
        ((media("video", 0, H264), media("video", 1, H264)), None, ["recvonly", "inactive"]),  # which is which cannot be known
        ((media("video", 0, H264, more=LOW),), None, ["recvonly"]),  # the only one
        ((media("video", 0, H264), media("video", 1, H264, "recvonly", more=LOW)), None, ["recvonly", "inactive"]),
        ((media("video", 0, H264), *(media("video", i, H264, more=LOW) for i in (1, 2))), 1, ["recvonly", "recvonly", "inactive"]),
    ],
)
async def test_the_low_stream_is_the_second_video_that_is_labelled_so(lines: tuple[str, ...], low: int | None, taken: list[str]) -> None:
    offer = read_offer(HEAD + "".join(lines), allow_loopback=True)
    assert offer.low == low
    assert [direction for _, direction in directions(for_publisher(offer))] == taken
