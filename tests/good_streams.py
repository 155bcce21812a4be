"""Short good streams in every codec, as RTP payloads: what broken ones are made from."""

from fractions import Fraction
from functools import cache

from aiortc.codecs.base import Encoder
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.packet import Packet

from recorder.frames import Codec
from recorder.tools.packetise import Av1Packetiser, Vp9Packetiser
from tests.coded import video_payloads
from tests.hostile import Payload, in_order

PACKETISERS: dict[Codec, type[Encoder]] = {"h264": H264Encoder, "vp8": Vp8Encoder, "vp9": Vp9Packetiser, "av1": Av1Packetiser}
_PICTURES = 6
_TIME_BASE = Fraction(1, 30)
_VIDEO_TICKS, _OPUS_TICKS, _TELEPHONE_TICKS = 3000, 960, 160
# 20 ms packets of Opus as encoders make them: SILK, hybrid, CELT, two frames, discontinuous (RFC 6716 section 3.1).
_OPUS = [bytes.fromhex(text) for text in ("08af1b0cc5", "7803c1d2e4a6b9", "fc7f3b5a90817263544536", "f9112233445566", "08")]


@cache
def good_streams() -> dict[Codec, list[Payload]]:
    streams: dict[Codec, list[Payload]] = {codec: _video(codec) for codec in PACKETISERS}
    streams["opus"] = in_order([[data] for data in _OPUS], _OPUS_TICKS)
    telephone: tuple[Codec, ...] = ("pcmu", "pcma", "g722")
    for codec in telephone:
        streams[codec] = in_order([[bytes((7 * n + i) % 256 for i in range(160))] for n in range(5)], _TELEPHONE_TICKS)
    return streams


def _video(codec: Codec) -> list[Payload]:
    packetiser = PACKETISERS[codec]()
    pictures = []
    for number, data in enumerate(video_payloads(codec, 160, 90, _PICTURES, noise=24)):
        packet = Packet(data)
        packet.pts = number
        packet.time_base = _TIME_BASE
        pictures.append(packetiser.pack(packet)[0])
    return in_order(pictures, _VIDEO_TICKS)
