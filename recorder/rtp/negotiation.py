"""What connections negotiate: codecs and header extensions beyond aiortc's own, and which addresses are offered.

Beside the tap the only module that uses private members of aiortc; its version is pinned in pyproject.toml.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aioice.ice
from aiortc import RTCRtpSender, rtp
from aiortc.codecs import CODECS, HEADER_EXTENSIONS
from aiortc.codecs.base import Encoder
from aiortc.rtcrtpparameters import (
    ParametersDict,
    RTCRtcpFeedback,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
)

from recorder.frames import Kind

VIDEO_ORIENTATION = "urn:3gpp:video-orientation"

_VIDEO_CLOCK_HZ = 90_000
_MORE_VIDEO: dict[str, ParametersDict] = {"video/VP9": {"profile-id": "0"}, "video/AV1": {}}  # which we can read and aiortc can't
_PAYLOAD_TYPES = (*range(35, 64), *range(96, 128))  # dynamic ones (RFC 5761 section 4): browsers offer AV1 below 64
_FEEDBACK = (("nack", None), ("nack", "pli"), ("ccm", "fir"))


@dataclass(frozen=True, slots=True)
class CodecParameters:
    payload_type: int
    name: str  # lower case: "h264", "vp8", "opus", "rtx", …
    clock_rate: int
    channels: int
    fmtp: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Media:
    """One negotiated m-line."""

    mid: str
    kind: Kind
    direction: str  # ours: "sendonly", "recvonly", "sendrecv", "inactive"
    codecs: tuple[CodecParameters, ...]
    extensions: dict[str, int]  # header extension URI -> id
    ssrc: int  # of our sender
    remote_ssrcs: tuple[int, ...]


def use_addresses(addresses: Sequence[str]) -> None:
    """Offer these local addresses as ICE candidates, in this process; aioice itself never offers loopback.

    An empty list leaves aioice's choice: every interface but loopback.
    """
    if not addresses:
        return
    chosen = list(addresses)

    def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return [address for address in chosen if (use_ipv6 if ":" in address else use_ipv4)]

    aioice.ice.get_host_addresses = get_host_addresses


def offer_extension(kind: Kind, uri: str) -> None:
    """Let aiortc negotiate a header extension that it does not know by itself; process-wide, harmless when repeated."""
    known = HEADER_EXTENSIONS[kind]
    if not any(extension.uri == uri for extension in known):
        taken = {extension.id for extensions in HEADER_EXTENSIONS.values() for extension in extensions}
        known.append(RTCRtpHeaderExtensionParameters(id=max(taken) + 1, uri=uri))


def offer_codecs() -> None:
    """Let aiortc negotiate VP9 and AV1 too; process-wide, harmless when repeated."""
    rtp.DYNAMIC_PAYLOAD_TYPES = _PAYLOAD_TYPES  # type: ignore[assignment]  # aiortc's own is a range, asked only for members
    known = CODECS["video"]
    for name, parameters in _MORE_VIDEO.items():
        if any(codec.mimeType == name for codec in known):
            continue
        number = max(codec.payloadType or 0 for codecs in CODECS.values() for codec in codecs) + 1
        known += [
            RTCRtpCodecParameters(
                mimeType=name,
                clockRate=_VIDEO_CLOCK_HZ,
                payloadType=number,
                rtcpFeedback=[RTCRtcpFeedback(type=kind, parameter=parameter) for kind, parameter in _FEEDBACK],
                parameters=parameters,
            ),
            RTCRtpCodecParameters(mimeType="video/rtx", clockRate=_VIDEO_CLOCK_HZ, payloadType=number + 1, parameters={"apt": number}),
        ]


def pack_with(sender: RTCRtpSender, packetiser: Encoder) -> None:
    """Let an ordinary aiortc sender put encoded media into packets by `packetiser`, because it has none of its own."""
    sender._RTCRtpSender__encoder = packetiser  # type: ignore[attr-defined]  # aiortc has no public hook


class _WithOrientation(rtp.HeaderExtensionsMap):
    """Writes the camera's rotation (3GPP TS 26.114 section 7.4.5) beside the extensions that aiortc knows."""

    def __init__(self, degrees: Callable[[], int]) -> None:
        super().__init__()
        self._degrees = degrees
        self._id = 0

    def configure(self, parameters: RTCRtpParameters) -> None:
        super().configure(parameters)
        self._id = next((extension.id for extension in parameters.headerExtensions if extension.uri == VIDEO_ORIENTATION), 0)

    def set(self, values: rtp.HeaderExtensions) -> tuple[int, bytes]:
        known = super().set(values)
        if not self._id:
            return known
        orientation = bytes([self._degrees() // 90 & 3])
        return rtp.pack_header_extensions([*rtp.unpack_header_extensions(*known), (self._id, orientation)])


def tell_orientation(sender: RTCRtpSender, degrees: Callable[[], int]) -> None:
    """Let an ordinary aiortc sender say with each packet how far its picture is to be turned clockwise: 0, 90, 180 or 270.

    Call it before the session is negotiated, and `offer_extension` before that.
    """
    sender._RTCRtpSender__rtp_header_extensions_map = _WithOrientation(degrees)  # type: ignore[attr-defined]  # aiortc has no public hook


def on_keyframe_request(sender: RTCRtpSender, callback: Callable[[], None]) -> None:
    """Call `callback` when the peer of an ordinary aiortc sender asks for a keyframe (PLI or FIR)."""
    sender._send_keyframe = callback  # type: ignore[method-assign]  # aiortc has no public hook
