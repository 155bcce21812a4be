"""The calls about callbacks: whose they are, what they take, and what they never tell."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from recorder.settings import Callbacks
from tests.contract.conftest import Caller, World, a_deployment, open_world
from tests.notices import LOOPBACK
from tests.receiver import Receiver, receiver


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[World]:
    callbacks = Callbacks(allow_http=True, allowed_networks=LOOPBACK, retries="quick", addresses=("203.0.113.5", "2001:db8::5"))
    async with open_world(a_deployment(tmp_path / "data").model_copy(update={"callbacks": callbacks})) as world:
        yield world


def path(caller: Caller, call: str = "") -> str:
    return f"/v1/ext/apps/{caller.app_id}/callbacks{call}"


async def put(caller: Caller, **body: object) -> httpx.Response:
    return await caller.http.put(path(caller), json=body)


async def say(world: World, *event_types: int) -> None:
    async with world.plane.store.write() as session:
        for event_type in event_types:
            await world.plane.outbox.add(
                session, app_id=world.caller.app_id, sid=None, event_type=event_type, payload={"sendts": 1}, now_ms=world.clock()
            )


async def settled(caller: Caller) -> httpx.Response:
    async with asyncio.timeout(20):
        while (answer := await caller.http.get(path(caller))).json()["waiting"]:
            await asyncio.sleep(0.02)
    return answer


async def test_the_life_of_an_endpoint(own: World, there: Receiver) -> None:
    caller = own.caller
    assert (await caller.http.get(path(caller))).status_code == 404
    answer = (await put(caller, url=there.url("/a"), events=[40, 31, 40])).json()
    secret = answer.pop("secret")
    assert answer == {
        "url": there.url("/a"),
        "events": [31, 40],
        "enabled": True,
        "waiting": 0,
        "dead": 0,
        "standardSecret": secret,
    }
    changed = (await put(caller, url=there.url("/b"))).json()
    assert changed == {"url": there.url("/b"), "enabled": True, "waiting": 0, "dead": 0}
    assert (await caller.http.get(path(caller))).json() == changed
    assert (await caller.http.post(path(caller, "/test"))).json() == {"code": 200, "delivered": True}
    await say(own, 40)
    await settled(caller)
    rotated = (await caller.http.post(path(caller, "/secret"), json={})).json()
    assert rotated["secret"] != secret
    assert rotated["oldSecretUntilMs"] > own.clock() + 23 * 3_600_000
    await say(own, 41)
    await settled(caller)
    tested, first, second = await there.received("/b")
    assert (tested.notice["payload"]["cname"], first.notice["eventType"], second.notice["eventType"]) == ("test_webhook", 40, 41)
    for one, valid in ((tested, secret), (first, secret), (second, secret), (second, rotated["secret"])):
        assert Webhook(valid).verify(one.body, one.headers) == one.notice
    assert (await caller.http.delete(path(caller))).json() == {}
    for call, method in (("", "GET"), ("", "DELETE"), ("/test", "POST"), ("/secret", "POST"), ("/replay", "POST")):
        answer = await caller.http.request(method, path(caller, call), json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (404, 404)


async def test_a_secret_in_use_is_taken_over(own: World, there: Receiver) -> None:
    await put(own.caller, url=there.url("/a"))
    answer = (await own.caller.http.post(path(own.caller, "/secret"), json={"secret": "an-old-secret", "oldHours": 0})).json()
    assert (answer["secret"], "oldSecretUntilMs" in answer) == ("an-old-secret", False)
    assert (await own.caller.http.post(path(own.caller, "/test"))).json()["delivered"]
    (one,) = await there.received("/a")
    assert Webhook(answer["standardSecret"]).verify(one.body, one.headers) == one.notice


async def test_dead_letters_are_listed_in_pages_and_replayed(own: World, there: Receiver) -> None:
    caller = own.caller
    await put(caller, url=there.url("/gone"))
    await there.behave("/gone", then="410")
    await say(own, 40)
    view = (await settled(caller)).json()
    assert (view["dead"], view["goneMs"] > 0) == (1, True)
    await say(own, 41, 31, 11)  # kept, though nobody is there
    page = (await caller.http.get(path(caller, "/dead"), params={"limit": 3})).json()
    rest = (await caller.http.get(path(caller, "/dead"), params={"limit": 3, "after": page["next"]})).json()
    letters = page["notices"] + rest["notices"]
    assert (len(page["notices"]), "next" in rest) == (3, False)
    assert sorted(letter["eventType"] for letter in letters) == [11, 31, 40, 41]
    assert {letter["failure"] for letter in letters} == {"410", "gone"}
    assert all(letter["payload"] == {"sendts": 1} for letter in letters)
    refused = await caller.http.post(path(caller, "/replay"), json={})
    assert (refused.status_code, refused.json()["code"]) == (400, 2)
    await there.behave("/gone")
    assert "goneMs" not in (await put(caller, url=there.url("/gone"))).json()
    one = letters[0]["noticeId"]
    assert (await caller.http.post(path(caller, "/replay"), json={"noticeIds": [one, "0" * 32]})).json() == {"replayed": 1}
    assert (await caller.http.post(path(caller, "/replay"), json={})).json() == {"replayed": 3}
    await settled(caller)
    assert sorted(one.notice["noticeId"] for one in await there.accepted()) == sorted(letter["noticeId"] for letter in letters)


async def test_a_foreign_app_is_one_that_does_not_exist(own: World, there: Receiver) -> None:
    await put(own.caller, url=there.url("/a"))
    stranger = await own.another_customer()
    for call, method in (
        ("", "GET"),
        ("", "PUT"),
        ("", "DELETE"),
        ("/test", "POST"),
        ("/secret", "POST"),
        ("/dead", "GET"),
        ("/replay", "POST"),
    ):
        body = {"url": "https://8.8.8.8/"} if method == "PUT" else {} if method == "POST" else None
        foreign = await stranger.http.request(method, path(own.caller, call), json=body)
        unknown = await stranger.http.request(method, f"/v1/ext/apps/{'0' * 32}/callbacks{call}", json=body)
        assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content) == (400, b'{"message":"appid is invalid"}')
    assert (await own.caller.http.get(path(own.caller))).json()["url"] == there.url("/a")
    assert await there.received() == []


async def test_a_letter_of_another_app_is_neither_shown_nor_replayed(own: World) -> None:
    await put(own.caller, url="http://127.0.0.1:9999/")
    await say(own, 40)
    stranger = await own.another_customer()
    await stranger.http.put(path(stranger), json={"url": "http://127.0.0.1:9999/"})
    await put(own.caller, url="http://127.0.0.1:9999/", enabled=False)
    (letter,) = (await own.caller.http.get(path(own.caller, "/dead"))).json()["notices"]
    assert (await stranger.http.get(path(stranger, "/dead"))).json() == {"notices": []}
    for after in (letter["noticeId"], "0" * 32):  # another's, and nobody's
        refused = await stranger.http.get(path(stranger, "/dead"), params={"after": after})
        assert (refused.status_code, "after: " in refused.json()["reason"]) == (400, True)
    answer = await stranger.http.post(path(stranger, "/replay"), json={"noticeIds": [letter["noticeId"]]})
    assert answer.json() == {"replayed": 0}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, ["url"]),
        ({"url": "ftp://example.com/"}, ["url"]),
        ({"url": "http://user:canary-pw@example.com/"}, ["url"]),
        ({"url": "http://10.0.0.1/"}, ["url"]),
        ({"url": "http://127.0.0.1:22/"}, ["url"]),
        ({"url": "http://8.8.8.8/" + "x" * 2048}, ["url"]),
        ({"url": 7, "events": [5], "enabled": "yes"}, ["url", "events[0]", "enabled"]),
        ({"url": "http://8.8.8.8/", "events": [40, 10_007, True]}, ["events[1]", "events[2]"]),
    ],
)
async def test_every_wrong_field_is_named(own: World, body: dict[str, object], names: list[str]) -> None:
    answer = await put(own.caller, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, 2)
    reason = answer.json()["reason"]
    assert [sentence.partition(":")[0] for sentence in reason.split("; ")] == names
    assert "canary" not in reason
    assert (await own.caller.http.get(path(own.caller))).status_code == 404


async def test_wrong_bodies_of_the_other_calls(own: World) -> None:
    await put(own.caller, url="http://127.0.0.1:9999/")
    for call, body, name in (
        ("/secret", {"secret": "canary7"}, "secret"),
        ("/secret", {"secret": "canary with spaces"}, "secret"),
        ("/secret", {"oldHours": -1}, "oldHours"),
        ("/replay", {"noticeIds": "all"}, "noticeIds"),
    ):
        answer = await own.caller.http.post(path(own.caller, call), json=body)
        assert (answer.status_code, answer.json()["reason"].partition(":")[0]) == (400, name)
        assert "canary" not in answer.text
    for limit in ("0", "1001", "x"):
        answer = await own.caller.http.get(path(own.caller, "/dead"), params={"limit": limit})
        assert answer.json()["reason"].startswith("limit: ")


async def test_no_secret_is_kept_in_clear_or_logged(own: World, there: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    for logger in ("api", "recorder"):
        caplog.set_level("DEBUG", logger)
    secret = (await put(own.caller, url=there.url("/a"))).json()["secret"]
    await there.behave("/a", then="410")
    await say(own, 40)
    await settled(own.caller)
    kept = b"".join(file.read_bytes() for file in own.settings.data_dir.glob("recorder.db*"))
    assert b"/a" in kept
    assert secret.encode() not in kept
    said = " ".join(str(record.__dict__) for record in caplog.records if record.name.startswith(("api", "recorder")))
    assert "endpoint disabled" in said
    assert secret not in said
    assert str(there.port) not in said  # nor the URL, which may hold what only its owner knows


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_where_callbacks_come_from(own: World, world: World, version: str) -> None:
    told = (await own.caller.http.get(f"/{version}/ncs/ip")).json()
    assert told == {"data": {"service": {"hosts": [{"primaryIP": "203.0.113.5"}, {"primaryIP": "2001:db8::5"}]}}}
    (host,) = (await world.caller.http.get(f"/{version}/ncs/ip")).json()["data"]["service"]["hosts"]
    assert host["primaryIP"].count(".") == 3
