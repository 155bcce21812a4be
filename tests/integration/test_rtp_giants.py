"""Pictures beyond all measure (row M3 of the faults): refused by their headers, before a decoder allocates anything."""

from fractions import Fraction

import pytest
from av.packet import Packet

from recorder.frames import Codec, EncodedFrame
from recorder.media.decode import MAX_SIDE, VideoDecoder
from recorder.rtp.receiver import Route, SessionReceiver
from tests.coded import video_payloads
from tests.good_streams import PACKETISERS
from tests.hostile import as_packets, in_order

LIMIT_PIXELS = (MAX_SIDE + 104, 64)


def _received(codec: Codec, width: int, height: int) -> tuple[list[EncodedFrame], SessionReceiver]:
    packetiser, pictures = PACKETISERS[codec](), []
    for number, data in enumerate(video_payloads(codec, width, height, 3)):
        packet = Packet(data)
        packet.pts, packet.time_base = number, Fraction(1, 30)
        pictures.append(packetiser.pack(packet)[0])
    frames: list[EncodedFrame] = []
    receiver = SessionReceiver(
        7, routes={96: Route("video", codec, 90000)}, retransmissions={}, on_frame=frames.append, patience_ns=500_000_000, zero_ns=0
    )
    for number, data in enumerate(as_packets(in_order(pictures, 3000), payload_type=96)):
        receiver.packet(data, number * 1_000_000)
    return frames, receiver


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "av1"])
def test_a_giant_never_reaches_a_decoder(codec: Codec) -> None:
    frames, receiver = _received(codec, *LIMIT_PIXELS)
    assert frames == []
    assert receiver.counters.malformed
    frames, receiver = _received(codec, 128, 72)
    assert len(frames) == 3
    assert receiver.counters.malformed == 0


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "av1"])
def test_a_decoder_refuses_a_giant_by_itself(codec: Codec) -> None:
    decoder = VideoDecoder(codec)  # type: ignore[arg-type]  # a video codec
    for number, data in enumerate(video_payloads(codec, *LIMIT_PIXELS, 3)):
        assert decoder.decode(data, number) == []
    assert decoder.errors
