"""A hub in this process and the peers that tests send into it."""

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import httpx
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from recorder.frames import Kind
from recorder.hub import messages, server
from recorder.hub.feedback import SenderInfo, parse
from recorder.hub.rights import Rights
from recorder.rtp.packet import Header, parse_header
from recorder.rtp.tap import MediaTap
from recorder.settings import Hub
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library

APP = "demo"
CHANNEL = "room %2F#?[1]"  # hostile, but allowed


@contextlib.asynccontextmanager
async def running_hub(settings: Hub | None = None, rights: Rights | None = None) -> AsyncIterator[str]:
    """A hub on a free port; gives its URL."""
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(settings or Hub(), stop, rights=rights, listener=listener))
            try:
                async with httpx.AsyncClient(trust_env=False) as client:
                    while True:
                        with contextlib.suppress(httpx.HTTPError):
                            if (await client.get(f"{url}/healthz")).is_success:
                                break
                        await asyncio.sleep(0.02)
                yield url
            finally:
                stop.set()


def whip_path(uid: int, channel: str = CHANNEL, kind: str = "whip") -> str:
    return f"/{kind}/{APP}/{quote(channel, safe='')}/{uid}"


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def publishing(url: str, uid: int, library: Library, **options: object) -> AsyncIterator[Publisher]:
    wanted = {"app_id": APP, "width": 160, "height": 90, "fps": 15, "bitrate_kbps": 200} | options
    publisher = Publisher(Publication(hub=url, channel=CHANNEL, uid=uid, **wanted), library)  # type: ignore[arg-type]  # options of all types
    try:
        await publisher.start()
        yield publisher
    finally:
        await publisher.stop()


class Roster:
    """Follows the roster of the channel."""

    def __init__(self) -> None:
        self.people: dict[int, messages.Participant] = {}
        self.history: list[str] = []
        self.close_code: int | None = None

    @contextlib.asynccontextmanager
    async def watching(self, url: str, uid: int = 900, token: str = "") -> AsyncIterator["Roster"]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        address = f"{url.replace('http', 'ws', 1)}/roster/{APP}/{quote(CHANNEL, safe='')}?uid={uid}"
        async with connect(address, additional_headers=headers, proxy=None) as socket:
            task = asyncio.create_task(self._read(socket))
            try:
                await until(lambda: bool(self.history))
                yield self
            finally:
                task.cancel()

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            try:
                text = await socket.recv()
            except ConnectionClosed:
                self.close_code = socket.close_code
                return
            message = messages.parse(text)
            if isinstance(message, messages.Roster):
                self.people = {person.uid: person for person in message.participants}
            elif isinstance(message, messages.Left):
                del self.people[message.participant.uid]
            else:
                self.people[message.participant.uid] = message.participant
            self.history.append(message.type)


class Subscriber:
    """A WHEP client that counts what it gets."""

    def __init__(self, url: str, uid: int, kinds: tuple[Kind, ...] = ("audio", "video"), token: str = "") -> None:
        self._uid = uid
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, headers={"Authorization": f"Bearer {token}"} if token else {})
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        for kind in kinds:
            self._pc.addTransceiver(kind, "recvonly")
        self.packets: dict[int, list[tuple[Header, bytes]]] = defaultdict(list)  # by payload type
        self.reports: dict[int, list[SenderInfo]] = defaultdict(list)
        self.payload_types: dict[str, int] = {}
        self.tap = MediaTap(self._pc)
        self.tap.listen(self._on_rtp, self._on_rtcp)
        self.resource = ""

    async def start(self) -> None:
        await self._pc.setLocalDescription(await self._pc.createOffer())
        async with asyncio.timeout(5):
            while (response := await self._post()).status_code == 404:  # the publisher is up a moment before the hub is
                await asyncio.sleep(0.02)
        assert response.status_code == 201, response.text
        self.resource = response.headers["Location"]
        await self._pc.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        for media in self.tap.media():
            if media.direction == "recvonly":
                self.payload_types[media.kind] = media.codecs[0].payload_type
                assert len({codec.name for codec in media.codecs}) == 1
        await self.tap.connected(10)

    async def _post(self) -> httpx.Response:
        headers = {"Content-Type": "application/sdp"}
        return await self._http.post(whip_path(self._uid, kind="whep"), content=self._pc.localDescription.sdp, headers=headers)

    async def stop(self) -> None:
        if self.resource:
            await self._http.delete(self.resource)
        await self.tap.close()
        await self._http.aclose()

    async def __aenter__(self) -> "Subscriber":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def of(self, kind: Kind) -> list[tuple[Header, bytes]]:
        return self.packets[self.payload_types[kind]] if kind in self.payload_types else []

    def ssrc(self, kind: Kind) -> int:
        return self.of(kind)[0][0].ssrc

    def keyframes(self, codec: str) -> int:
        """How many keyframes began."""
        begins = {"h264": starts_h264_keyframe, "vp8": starts_vp8_keyframe, "vp9": starts_vp9_keyframe, "av1": starts_av1_keyframe}[codec]
        return sum(begins(payload) for _, payload in self.of("video"))

    def _on_rtp(self, packet: bytes, arrival_ns: int) -> None:
        header = parse_header(packet)
        assert header
        self.packets[header.payload_type].append((header, packet[header.payload_offset : header.payload_end]))

    def _on_rtcp(self, packet: bytes, arrival_ns: int) -> None:
        for message in parse(packet):
            if isinstance(message, SenderInfo):
                self.reports[message.ssrc].append(message)


def starts_h264_keyframe(payload: bytes) -> bool:
    return bool(payload) and payload[0] & 0x1F == 24 and payload[3] & 0x1F == 7  # STAP-A that begins with an SPS


def starts_vp8_keyframe(payload: bytes) -> bool:
    if not payload or not payload[0] & 0x10 or payload[0] & 0x07:
        return False
    offset = 1
    if payload[0] & 0x80:
        flags = payload[1]
        offset = 2 + (2 if flags & 0x80 and payload[2] & 0x80 else 1 if flags & 0x80 else 0) + bool(flags & 0x40) + bool(flags & 0x30)
    return len(payload) > offset and payload[offset] & 1 == 0


def starts_vp9_keyframe(payload: bytes) -> bool:
    """RFC 9628 section 4.2: the beginning of a frame that is predicted from no other picture."""
    return bool(payload) and payload[0] & 0x48 == 0x08


def starts_av1_keyframe(payload: bytes) -> bool:
    """The N bit: the first packet of a coded video sequence."""
    return bool(payload) and payload[0] & 0x08 != 0
