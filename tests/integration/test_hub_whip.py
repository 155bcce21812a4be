"""The hub's HTTP and WebSocket contract: what is refused, how, and what a session's URL can do."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from recorder.access_token import JOIN_CHANNEL, MediaService, build
from recorder.settings import ConfigError, Hub
from recorder.tools.publish import PublishError
from recorder.tools.publish_media import Library
from tests.canary import secret
from tests.integration.hub_room import APP, CHANNEL, Roster, publishing, running_hub, until, whip_path

SDP = {"Content-Type": "application/sdp"}
CERTIFICATE = secret("certificate-of-app")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with running_hub() as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


async def offer(direction: str = "sendonly", *, channel: bool = False) -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    for kind in ("audio", "video"):
        connection.addTransceiver(kind, direction)
    if channel:
        connection.createDataChannel("chat")
    await connection.setLocalDescription(await connection.createOffer())
    text = connection.localDescription.sdp
    await connection.close()
    return text


async def test_session_is_created_as_whip_says(client: httpx.AsyncClient) -> None:
    answer = await client.post(whip_path(7), content=await offer(), headers=SDP)
    assert answer.status_code == 201
    assert answer.headers["Content-Type"] == "application/sdp"
    assert answer.headers["Location"].startswith("/sessions/")
    assert answer.headers["ETag"].strip('"')
    assert "a=recvonly" in answer.text
    assert "a=candidate:" in answer.text
    assert " 127.0.0.1 " in answer.text
    videos = [line for line in answer.text.splitlines() if line.startswith("a=rtpmap:") and "90000" in line]
    assert {line.partition(" ")[2] for line in videos} == {"VP8/90000", "rtx/90000"}  # the first codec of the offer, alone
    assert (await client.delete(answer.headers["Location"])).status_code == 200
    async with asyncio.timeout(5):
        while (await client.delete(answer.headers["Location"])).status_code != 404:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/whip/demo/room/0", 400),
        ("/whip/demo/room/4294967296", 400),
        ("/whip/demo/room/bob", 400),
        ("/whip/de%20mo/room/1", 400),
        (f"/whip/demo/{quote('räum')}/1", 400),
        (f"/whip/demo/{'x' * 65}/1", 400),
        ("/whep/demo/room/1", 404),
        ("/whep/demo/room/1?uid=x", 400),
        ("/whip/demo/room", 404),
    ],
)
async def test_wrong_names_are_refused(client: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await client.post(path, content=await offer(), headers=SDP)).status_code == status


async def test_wrong_bodies_are_refused(client: httpx.AsyncClient) -> None:
    good = await offer()
    for content, headers, status in (
        (good, {"Content-Type": "text/plain"}, 415),
        (good, {}, 415),
        ("", SDP, 400),
        ("v=0\r\n", SDP, 400),
        ("nonsense", SDP, 400),
        (b"\xff\xfe", SDP, 400),
        (good.replace("a=ice-ufrag", "a=x"), SDP, 400),
        (re.sub(r"m=video \d+", "m=video x", good), SDP, 400),
        (re.sub(r"(m=video \d+ \S+) \d+", r"\1 300", good), SDP, 400),
        (good.replace("a=rtcp-mux\r\n", ""), SDP, 400),
        (good.replace("a=setup:actpass", "a=setup:nonsense"), SDP, 400),
        (await offer("recvonly"), SDP, 406),
        (await offer(channel=True), SDP, 406),
        (re.sub(r"(a=rtpmap:\d+) [^/]+", r"\1 theora", good), SDP, 406),
        (good + "a=x\r\n" * 40_000, SDP, 413),
    ):
        answer = await client.post(whip_path(7), content=content, headers=headers)
        assert answer.status_code == status, (answer.text, content[:2000])
        assert "reason" in answer.json()


async def test_offers_cut_anywhere_do_no_harm(client: httpx.AsyncClient) -> None:
    good = await offer()
    for length in range(0, len(good), 97):
        answer = await client.post(whip_path(7), content=good[:length], headers=SDP)
        assert answer.status_code in (201, 400, 406)
    assert (await client.get("/healthz")).status_code == 200


async def test_candidates_may_come_later(client: httpx.AsyncClient) -> None:
    text = await offer()
    ufrag = next(line.partition(":")[2] for line in text.splitlines() if line.startswith("a=ice-ufrag"))
    created = await client.post(whip_path(7), content=text, headers=SDP)
    location, etag = created.headers["Location"], created.headers["ETag"]
    fragment = f"a=ice-ufrag:{ufrag}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\n"
    kind = {"Content-Type": "application/trickle-ice-sdpfrag"}

    async def patch(content: str, headers: dict[str, str]) -> int:
        return (await client.patch(location, content=content, headers=headers)).status_code

    assert await patch(fragment, kind | {"If-Match": etag}) == 204
    assert await patch(fragment, kind) == 428
    assert await patch(fragment, kind | {"If-Match": '"other"'}) == 412
    assert await patch(fragment, {"If-Match": etag}) == 415
    assert await patch(fragment.replace(ufrag, "abcd"), kind | {"If-Match": etag}) == 422
    assert await patch("a=candidate:1 1 udp x 127.0.0.1 4 typ host\r\n", kind | {"If-Match": etag}) == 400
    assert (await client.patch("/sessions/none", content=fragment, headers=kind)).status_code == 404


async def test_mute_bodies_are_checked(client: httpx.AsyncClient) -> None:
    created = await client.post(whip_path(7), content=await offer(), headers=SDP)
    path = created.headers["Location"] + "/mute"
    assert (await client.put(path, json={"audio": True, "video": False})).status_code == 204
    for wrong in ('{"audio": true}', '{"audio": "loud", "video": false}', '{"audio": true, "video": true, "x": 1}', "[]", ""):
        assert (await client.put(path, content=wrong)).status_code == 400
    assert (await client.put("/sessions/none/mute", json={"audio": True, "video": False})).status_code == 404


async def test_browsers_may_call_from_pages_of_this_machine(client: httpx.AsyncClient) -> None:
    preflight = {"Origin": "http://127.0.0.1:1", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = await client.options(whip_path(7), headers=preflight)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    created = await client.post(whip_path(7), content=await offer(), headers=SDP | {"Origin": "http://127.0.0.1:1"})
    assert created.status_code == 201
    assert "Location" in created.headers["Access-Control-Expose-Headers"]
    for stranger in ({"Origin": "https://example.org"}, {"Origin": "http://["}, {"Host": "hub.example"}, {"X-Forwarded-For": "192.0.2.1"}):
        assert (await client.post(whip_path(7), content=await offer(), headers=SDP | stranger)).status_code == 403, stranger
    plain = await client.options(whip_path(7))
    assert (plain.status_code, plain.headers["Accept-Post"]) == (204, "application/sdp")


async def test_a_channel_takes_so_many_sessions_and_leaves_room_for_others(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recorder.hub.hub._CHANNEL_LIMIT", 2)
    text = await offer()
    statuses = [(await client.post(whip_path(uid), content=text, headers=SDP)).status_code for uid in (1, 2, 3)]
    assert statuses == [201, 201, 503]
    assert (await client.post(whip_path(3, "other"), content=text, headers=SDP)).status_code == 201


async def test_a_channel_takes_so_many_watchers(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.hub.channel._WATCHERS_LIMIT", 1)
    url = str(client.base_url).rstrip("/")
    async with Roster().watching(url, 900):
        with pytest.raises(InvalidStatus) as caught:
            async with Roster().watching(url, 901):
                pass
        assert caught.value.response.status_code == 503
        async with Roster().watching(url, 900):  # the same recorder again
            pass


async def test_an_answer_that_nobody_can_connect_to_is_none(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["192.0.2.123"])  # as when no socket is left
    answer = await client.post(whip_path(7), content=await offer(), headers=SDP)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "hub.addresses" in caplog.text


async def test_addresses_of_other_machines_are_refused_at_the_start() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with running_hub(Hub(addresses=("127.0.0.1", "192.0.2.123"))):
            pass
    assert caught.group_contains(ConfigError, match=r"192\.0\.2\.123 is no address of this machine")


async def test_session_without_a_connection_goes_away(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.hub.session.CONNECT_SECONDS", 0.3)
    created = await client.post(whip_path(7), content=await offer(), headers=SDP)
    async with asyncio.timeout(5):
        while (await client.put(created.headers["Location"] + "/mute", json={"audio": False, "video": False})).status_code != 404:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("query", "status"), [("", 400), ("?uid=0", 400), ("?uid=x", 400)])
async def test_wrong_roster_requests_are_refused(client: httpx.AsyncClient, query: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://{client.base_url.host}:{client.base_url.port}/roster/demo/room{query}", proxy=None)
    assert caught.value.response.status_code == status


async def test_roster_refuses_a_publishers_uid(client: httpx.AsyncClient) -> None:
    url = str(client.base_url)
    async with publishing(url, 7, Library(), video=None), Roster().watching(url) as roster:
        await until(lambda: 7 in roster.people)
        with pytest.raises(InvalidStatus) as caught:
            async with Roster().watching(url, 7):
                pass
        assert caught.value.response.status_code == 409


def token(uid: int, seconds: int = 600) -> str:
    media = MediaService(CHANNEL, str(uid), {JOIN_CHANNEL: seconds})
    return build(APP, CERTIFICATE, media, issued_at=int(time.time()), lifetime=seconds, salt=1)


async def test_app_with_certificate_needs_tokens() -> None:
    library = Library()
    async with running_hub(Hub(certificates={APP: SecretStr(CERTIFICATE)})) as url:
        for wrong in (None, SecretStr("007nonsense"), SecretStr(token(8))):
            with pytest.raises(PublishError, match=r"40[13]"):
                async with publishing(url, 7, library, video=None, token=wrong):
                    pass
        with pytest.raises(InvalidStatus) as caught:
            async with Roster().watching(url):
                pass
        assert caught.value.response.status_code == 401
        good = SecretStr(token(7))
        async with publishing(url, 7, library, video=None, token=good), Roster().watching(url, 900, token(900)) as roster:
            await until(lambda: 7 in roster.people)


async def test_expired_tokens_end_sessions() -> None:
    async with running_hub(Hub(certificates={APP: SecretStr(CERTIFICATE)})) as url:
        roster, library = Roster(), Library()
        await library.audio(7)  # encoding takes time, and the token's time is short
        async with roster.watching(url, 900, token(900)), Roster().watching(url, 901, token(901, 4)) as short:
            async with publishing(url, 7, library, video=None, token=SecretStr(token(7, 4))) as publisher:
                async with asyncio.timeout(10):
                    await publisher.closed.wait()
            await until(lambda: short.close_code == 4003)
            await until(lambda: 7 not in roster.people)
            assert roster.close_code is None
