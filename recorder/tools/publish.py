"""A participant that publishes generated media into a channel by WHIP (RFC 9725), over an ordinary aiortc connection."""

import asyncio
import contextlib
import dataclasses
import ipaddress
import ssl
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import httpx
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from pydantic import SecretStr

from recorder.rtp.negotiation import VIDEO_ORIENTATION, offer_codecs, offer_extension, on_keyframe_request, pack_with, tell_orientation
from recorder.tools.content import Style
from recorder.tools.packetise import Av1Packetiser, Vp9Packetiser
from recorder.tools.publish_media import AudioCodec, Library, VideoCodec
from recorder.tools.publish_tracks import AudioTrack, LiveVideo, LoopedVideo, MediaClock, VideoSource, VideoTrack

CONNECT_SECONDS = 15.0
_PACKETISERS = {"vp9": Vp9Packetiser, "av1": Av1Packetiser}  # aiortc has none for them
_LEAST_KBPS = 50
_NOBODY = 0  # whose content is shown when all publishers share one encode


class PublishError(ConnectionError):
    """The channel did not take the publisher."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published, where, and as whom."""

    hub: str  # URL
    app_id: str
    channel: str
    uid: int
    token: SecretStr | None = None
    video: VideoCodec | None = "h264"
    audio: AudioCodec | None = "opus"
    width: int = 640
    height: int = 360
    fps: int = 30
    bitrate_kbps: int = 600
    live: bool = False  # encode while publishing instead of playing a loop
    low: tuple[int, int] | None = None  # size of a second, smaller video of the same content; None: there is none
    own_content: bool = True  # False: one encode for all, without colour, number and tone of its own

    @property
    def style(self) -> Style:
        return Style(self.uid if self.own_content else _NOBODY, self.width, self.height, self.fps)

    @property
    def low_style(self) -> Style | None:
        return dataclasses.replace(self.style, width=self.low[0], height=self.low[1]) if self.low else None

    @property
    def low_kbps(self) -> int:
        """Of the low stream: as many bits for a pixel as the high one."""
        width, height = self.low or (0, 0)
        return max(_LEAST_KBPS, self.bitrate_kbps * width * height // (self.width * self.height))


class Publisher:
    """One participant. Publishers that share a library encode equal media once."""

    def __init__(self, publication: Publication, library: Library | None = None) -> None:
        self.publication = publication
        self.closed = asyncio.Event()  # the connection is over, whoever ended it
        self.audio: AudioTrack | None = None
        self.video: VideoTrack | None = None
        self.low_video: VideoTrack | None = None
        self._library = library or Library()
        self._connected = asyncio.Event()
        self._resource: str | None = None
        token = publication.token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        authorities = ssl.create_default_context()  # the system's, or those in SSL_CERT_FILE
        self._http = httpx.AsyncClient(headers=headers, timeout=CONNECT_SECONDS, trust_env=False, verify=authorities)
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._pc.on("connectionstatechange", self._watch)

    async def start(self) -> None:
        """Join and publish; returns when media flows.

        Raises:
            PublishError: refused, or no connection in time.
        """
        try:
            await self._join()
        except (httpx.HTTPError, TimeoutError) as error:
            await self.stop()
            raise PublishError(f"no connection to the hub: {type(error).__name__}") from error
        except BaseException:
            await self.stop()
            raise

    async def mute(self, *, audio: bool | None = None, video: bool | None = None) -> None:
        """Stop or resume sending a track (None: leave it) and tell the channel.

        Raises:
            PublishError: the channel was not told.
        """
        if self.audio and audio is not None:
            self.audio.muted = audio
        for track in (self.video, self.low_video):
            if track and video is not None:
                track.muted = video
        state = {"audio": bool(self.audio and self.audio.muted), "video": bool(self.video and self.video.muted)}
        try:
            answer = await self._http.put(f"{self._resource}/mute", json=state)
        except httpx.HTTPError as error:
            raise PublishError(f"no connection to the hub: {type(error).__name__}") from error
        if not answer.is_success:
            raise PublishError(f"the hub answers {answer.status_code} to mute")

    async def change_picture(self, *, size: tuple[int, int], rotation: int = 0) -> None:
        """Go on with pictures of this size, from a camera that is turned: receivers shall turn them by `rotation` degrees clockwise."""
        codec = self.publication.video
        assert self.video
        assert codec
        self.publication = dataclasses.replace(self.publication, width=size[0], height=size[1])
        self.video.change(await self._source(codec, self.publication.style, self.publication.bitrate_kbps), rotation)

    async def stop(self) -> None:
        """Leave the channel. May be called more than once."""
        resource, self._resource = self._resource, None
        if resource:
            with contextlib.suppress(httpx.HTTPError):
                await self._http.delete(resource)
        await self._pc.close()
        await self._http.aclose()
        self.closed.set()

    async def _join(self) -> None:
        await self._add_tracks()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        answer = await self._post(_labelled(self._pc.localDescription.sdp))
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._connected.wait()
        if self.closed.is_set():
            raise PublishError("the connection failed")

    async def _add_tracks(self) -> None:
        offer_codecs()
        offer_extension("video", VIDEO_ORIENTATION)
        wanted = self.publication
        clock = MediaClock()
        if wanted.audio:
            self.audio = AudioTrack(clock, await self._library.audio(wanted.style.uid, codec=wanted.audio))
            transceiver = self._pc.addTransceiver(self.audio, "sendonly")
            codecs = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([codec for codec in codecs if codec.name.lower() == wanted.audio])
        if wanted.video:
            self.video = await self._add_video(clock, wanted.video, wanted.style, wanted.bitrate_kbps)
            if wanted.low_style:
                self.low_video = await self._add_video(clock, wanted.video, wanted.low_style, wanted.low_kbps)

    async def _add_video(self, clock: MediaClock, codec: VideoCodec, style: Style, kbps: int) -> VideoTrack:
        video = VideoTrack(clock, await self._source(codec, style, kbps))
        transceiver = self._pc.addTransceiver(video, "sendonly")
        tell_orientation(transceiver.sender, lambda: video.rotation)
        names = (f"video/{codec}", "video/rtx")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() in names])
        on_keyframe_request(transceiver.sender, video.request_keyframe)
        if codec in _PACKETISERS:
            pack_with(transceiver.sender, _PACKETISERS[codec]())
        return video

    async def _source(self, codec: VideoCodec, style: Style, kbps: int) -> VideoSource:
        if self.publication.live:
            return LiveVideo(style, codec, kbps)
        return LoopedVideo(await self._library.video(style, codec, kbps))

    async def _post(self, offer: str) -> str:
        wanted = self.publication
        path = f"/whip/{quote(wanted.app_id, safe='')}/{quote(wanted.channel, safe='')}/{wanted.uid}"
        answer = await self._http.post(wanted.hub.rstrip("/") + path, content=offer, headers={"Content-Type": "application/sdp"})
        if answer.status_code != httpx.codes.CREATED:
            raise PublishError(f"the hub answers {answer.status_code}: {answer.text[:200]}")
        self._resource = urljoin(str(answer.url), answer.headers["Location"])
        return answer.text

    def _watch(self) -> None:
        if self._pc.connectionState in ("closed", "failed"):
            self.closed.set()
        if self._pc.connectionState in ("connected", "closed", "failed"):
            self._connected.set()


def _labelled(sdp: str) -> str:
    """With the second video line labelled as the low stream (RFC 4574)."""
    head, *sections = sdp.split("\r\nm=")
    videos = [number for number, section in enumerate(sections) if section.startswith("video")]
    if len(videos) > 1:
        sections[videos[1]] = sections[videos[1]].removesuffix("\r\n") + "\r\na=label:low" + "\r\n" * (videos[1] == len(sections) - 1)
    return "\r\nm=".join((head, *sections))


def local_addresses(hub: str) -> tuple[str, ...]:
    """The local addresses to offer for a hub at this URL: loopback for one on this machine, else every other (empty)."""
    host = urlsplit(hub).hostname or ""
    with contextlib.suppress(ValueError):
        return (host,) if ipaddress.ip_address(host).is_loopback else ()
    return ("127.0.0.1",) if host == "localhost" else ()
