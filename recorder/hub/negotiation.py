"""Offers of publishers and subscribers, and the hub's answers to them. Offers are hostile until aiortc has taken them."""

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from aiortc import (
    InvalidAccessError,
    InvalidStateError,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceCandidate,
    RTCPeerConnection,
    RTCRtpCodecCapability,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import InternalError, OperationError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from recorder.frames import Kind
from recorder.rtp import depacketisers

log = logging.getLogger(__name__)

CANDIDATES_LIMIT = 20
_MEDIA_LIMIT = 8  # m-lines
_SENDING = ("sendonly", "sendrecv")
_LOW = "a=label:low"

# What aiortc raises for broken descriptions, besides its own errors.
_BROKEN = (ValueError, AssertionError, AttributeError, LookupError, TypeError, StopIteration, RecursionError)
_REFUSED = (InvalidStateError, InvalidAccessError, InternalError)


class OfferMalformed(Exception):  # read as a sentence, like the other errors of this project
    """Not a session description, or not one of WebRTC media."""


class OfferUnacceptable(Exception):
    """A good offer, but without anything both sides can do."""


class NoCandidate(Exception):
    """No socket could be opened on any address of the hub: nobody could ever connect to this answer."""


@dataclass(frozen=True, slots=True)
class Line:
    """One m-line of an offer."""

    kind: Kind
    direction: str
    codecs: tuple[str, ...]  # lower case, in the offer's order, without profiles that can't be read
    low: bool = False  # the small one of two pictures of the same camera: labelled so (RFC 4574)


@dataclass(frozen=True, slots=True)
class Offer:
    sdp: str  # with the candidates that may be tried, and codecs that may be taken
    lines: tuple[Line, ...]
    ufrag: str
    candidates: int

    @property
    def low(self) -> int | None:
        """Which line is the low stream; None when there is none, or nothing that it would be the low stream of."""
        videos = [number for number, line in enumerate(self.lines) if line.kind == "video" and line.direction in _SENDING]
        low = [number for number in videos if self.lines[number].low]
        return low[0] if low and len(videos) > 1 else None


def read_offer(text: str, *, allow_loopback: bool) -> Offer:
    """Parse an offer; candidates that must not be tried are taken out.

    Raises:
        OfferMalformed: it can't be read.
        OfferUnacceptable: more than audio and video, or too much of it.
    """
    kept, candidates = [], 0
    for line in text.splitlines():
        if line.startswith("a=candidate:"):
            if candidates == CANDIDATES_LIMIT or not may_try(line[len("a=candidate:") :], allow_loopback=allow_loopback):
                continue
            candidates += 1
        if line.strip() != "a=end-of-candidates":  # peer-reflexive ones may still come; the connection has a time limit anyway
            kept.append(line)
    try:
        description = SessionDescription.parse("\r\n".join(kept) + "\r\n")
        sdp = "\r\n".join(_without_unreadable(kept, description)) + "\r\n"
        lines = tuple(map(_line, description.media, _labels(kept)))
        ufrag = description.media[0].ice.usernameFragment if description.media and description.media[0].ice else None
    except _BROKEN as error:
        raise OfferMalformed("the body is no WebRTC offer") from error
    if not lines or not ufrag:
        raise OfferMalformed("the offer has no media or no ICE credentials")
    if len(lines) > _MEDIA_LIMIT:
        raise OfferUnacceptable("the offer has too many m-lines")
    return Offer(sdp, lines, ufrag, candidates)


def may_try(candidate: str, *, allow_loopback: bool) -> bool:
    """Whether checks may be sent to this candidate: the hub is no scanner of its host, and resolves no names for a peer."""
    fields = candidate.split()
    try:
        address = ipaddress.ip_address(fields[4])
    except (IndexError, ValueError):
        return False
    if address.is_loopback:
        return allow_loopback
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved)


def read_candidates(fragment: str, *, ufrag: str, allow_loopback: bool) -> list[RTCIceCandidate]:
    """The candidates of a trickle-ice-sdpfrag (RFC 8840).

    Raises:
        OfferMalformed: it can't be read.
        OfferUnacceptable: it restarts ICE.
    """
    found = []
    for line in fragment.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "a=ice-ufrag" and value != ufrag:
            raise OfferUnacceptable("ICE restarts are not supported: open a new session")
        if name == "a=candidate" and may_try(value, allow_loopback=allow_loopback):
            try:
                candidate = candidate_from_sdp(value)
            except _BROKEN as error:
                raise OfferMalformed("a candidate can't be read") from error
            candidate.sdpMLineIndex = 0  # everything is bundled with the first m-line
            found.append(candidate)
    return found


def for_publisher(offer: Offer) -> RTCPeerConnection:
    """A connection that will receive the first audio, the first video and the low stream of the offer, each in the first usable codec.

    Raises:
        OfferUnacceptable: nothing of it can be received.
    """
    connection = _connection()
    taken: set[tuple[Kind, bool]] = set()
    for number, line in enumerate(offer.lines):
        codec = next((name for name in line.codecs if name in _usable(line.kind)), None)
        what = (line.kind, number == offer.low)
        if what in taken or line.direction not in _SENDING or codec is None:
            connection.addTransceiver(line.kind, "inactive")
            continue
        taken.add(what)
        _prefer(connection, line.kind, "recvonly", (codec, "rtx"))
    if not taken:
        raise OfferUnacceptable("the offer sends nothing in a codec known here")
    return connection


def for_subscriber(offer: Offer, published: Mapping[Kind, str]) -> RTCPeerConnection:
    """A connection that will send what is published (kind → codec) and offered to be received, and nothing else.

    Raises:
        OfferUnacceptable: nothing published can be received.
    """
    connection = _connection()
    taken: set[Kind] = set()
    for line in offer.lines:
        codec = published.get(line.kind)
        if line.kind in taken or line.direction not in ("recvonly", "sendrecv") or codec is None or codec not in line.codecs:
            connection.addTransceiver(line.kind, "inactive")
            continue
        taken.add(line.kind)
        # Repeated packets go out as they were: no rtx, which costs an SSRC and brings nothing here.
        _prefer(connection, line.kind, "sendonly", (codec,))
    if not taken:
        raise OfferUnacceptable("the participant publishes nothing that the offer can receive")
    return connection


async def answer(connection: RTCPeerConnection, offer: Offer) -> str:
    """Apply the offer and return the answer, with all candidates of the hub.

    Raises:
        OfferMalformed: aiortc can't read it.
        OfferUnacceptable: there is no codec in common.
        NoCandidate: aioice leaves addresses out on which it can't open a socket.
    """
    try:
        await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
    except OperationError as error:
        raise OfferUnacceptable("no codec in common") from error
    except (*_BROKEN, *_REFUSED) as error:
        raise OfferMalformed("the body is no WebRTC offer") from error
    text: str = connection.localDescription.sdp
    if "\na=candidate:" not in text:
        log.error("no address to offer: hub.addresses may be wrong, or no socket is left")
        raise NoCandidate
    return text


def _connection() -> RTCPeerConnection:
    # Without max-bundle the second m-line of a kind never gets a packet in aiortc.
    return RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


def _prefer(connection: RTCPeerConnection, kind: Kind, direction: str, names: tuple[str, ...]) -> None:
    codecs = [codec for codec in _codecs(kind) if codec.name.lower() in names]
    connection.addTransceiver(kind, direction).setCodecPreferences(codecs)


def _usable(kind: Kind) -> set[str]:
    """What aiortc negotiates and recorders can read: to forward anything else would only look like a call that is recorded."""
    return {codec.name.lower() for codec in _codecs(kind)} & depacketisers.CODECS


def _codecs(kind: Kind) -> list[RTCRtpCodecCapability]:
    capabilities = RTCRtpReceiver.getCapabilities(kind)
    return capabilities.codecs if capabilities else []


def _labels(lines: list[str]) -> list[bool]:
    """For each m-line whether it is labelled as the low stream."""
    low: list[bool] = []
    for line in lines:
        if line.startswith("m="):
            low.append(False)
        elif low and line.strip() == _LOW:
            low[-1] = True
    return low


def _line(media: MediaDescription, low: bool) -> Line:
    if media.kind not in ("audio", "video"):
        raise OfferUnacceptable("only audio and video are taken")
    kind: Kind = "audio" if media.kind == "audio" else "video"
    names = tuple(codec.name.lower() for codec in media.rtp.codecs if _is_readable(codec))
    return Line(kind, media.direction or "sendrecv", names, low)


def _is_readable(codec: RTCRtpCodecParameters) -> bool:
    """Whether it is 4:2:0 in 8 bits, as the other profiles of VP9 and AV1 are not; aiortc does not look at them."""
    profile = {"vp9": "profile-id", "av1": "profile"}.get(codec.name.lower())
    return profile is None or str(codec.parameters.get(profile, "0")) == "0"


def _without_unreadable(lines: list[str], description: SessionDescription) -> list[str]:
    left_out = [{codec.payloadType for codec in media.rtp.codecs if not _is_readable(codec)} for media in description.media]
    kept, section = [], -1
    for line in lines:
        section += line.startswith("m=")
        name, _, value = line.partition(":")
        if section >= 0 and name in ("a=rtpmap", "a=fmtp", "a=rtcp-fb") and left_out[section]:
            number = value.split(" ", 1)[0]
            if number.isdecimal() and int(number) in left_out[section]:
                continue
        kept.append(line)
    return kept
