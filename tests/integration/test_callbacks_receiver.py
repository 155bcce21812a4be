"""Delivery to a receiver in another process, over real sockets and in real time, and from processes that are killed."""

import asyncio
import contextlib
import hashlib
import hmac
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from recorder.outbound_http import MOST_REPLY_BYTES
from recorder.settings import Callbacks
from tests.callback_plane import LEASE_MS
from tests.certificates import self_signed
from tests.notices import LOOPBACK, Office, delivering, office
from tests.receiver import HOSTS, Received, Receiver, receiver

ROOT = Path(__file__).parents[2]
QUICK = Callbacks(allow_http=True, allowed_networks=LOOPBACK, retries="quick")


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


def once_each(accepted: list[Received], said: Sequence[str | None]) -> None:
    """Everything arrived, once by its id, and duplicates are told by it."""
    assert {one.notice["noticeId"] for one in accepted} == set(said)


def in_order(accepted: list[Received]) -> None:
    """Without a hole in any recording."""
    sequences = defaultdict(list)
    for one in accepted:
        sequences[one.notice["sid"]].append(one.notice["payload"]["sequence"])
    assert all(numbers == list(range(len(numbers))) for numbers in sequences.values()), sequences


async def test_what_a_receiver_gets(tmp_path: Path, there: Receiver) -> None:
    async with office(tmp_path) as post, delivering(post):
        app = await post.app(there.url("/hook?a=b%20c"))
        said = await post.say(app, await post.recording(app), 40, 43)
        await post.until_none_waits()
    received = await there.received()
    once_each(received, said)
    in_order(received)
    for one in received:
        assert one.path == "/hook?a=b%20c"
        assert one.headers[":method"] == "POST"
        assert one.headers["content-type"] == "application/json"
        assert one.headers["host"] == f"127.0.0.1:{there.port}"
        assert [*one.notice] == ["noticeId", "productId", "eventType", "notifyMs", "sid", "payload"]
        assert abs(one.notice["notifyMs"] - one.at * 1000) < 5000
        verified(one, post.secrets[app])


def verified(one: Received, secret: str) -> None:
    assert Webhook(secret).verify(one.body, one.headers) == one.notice
    assert one.headers["webhook-id"] == one.notice["noticeId"]
    assert one.headers["agora-signature"] == hmac.new(secret.encode(), one.body, hashlib.sha1).hexdigest()
    assert one.headers["agora-signature-v2"] == hmac.new(secret.encode(), one.body, hashlib.sha256).hexdigest()


@pytest.mark.timeout(120)
async def test_receivers_that_misbehave_get_everything_and_delay_nobody(tmp_path: Path, there: Receiver) -> None:
    """Rows H1, H2, H6. Each misbehaves twice, on a host of its own."""
    bad = ["500", "301 Location: /canary", "404", "429 Retry-After: 3", "204", "hang", "reset", "close", "garbage", "endless-head", "drip"]
    async with office(tmp_path) as post, delivering(post):
        apps = []
        for number, like in enumerate(bad):
            await there.behave(f"/{number}", like, like)
            apps.append(await post.app(there.url(f"/{number}", HOSTS[number])))
        healthy = await post.app(there.url("/healthy", HOSTS[-1]))
        said = {app: await post.say(app, await post.recording(app), 40, 43, 41) for app in apps}
        sid, fine = await post.recording(healthy), []
        for _ in range(30):
            fine += await post.say(healthy, sid, 43)
            await asyncio.sleep(0.3)
        await post.until_none_waits(90)
        created = {notice.notice_id: notice.created_ms for notice in await post.notices(app_id=healthy)}
    for number, app in enumerate(apps):
        tried, accepted = await there.received(f"/{number}"), await there.accepted(f"/{number}")
        once_each(accepted, said[app])
        in_order(accepted)
        assert Counter(one.answered for one in tried) == {bad[number]: 2, "200": 3}, bad[number]
        first = [one for one in tried if one.notice["noticeId"] == said[app][0]]
        assert len({one.notice["notifyMs"] for one in first}) == 3
        assert len({tuple((key, str(value)) for key, value in one.notice.items() if key != "notifyMs") for one in first}) == 1
        for one in tried:
            verified(one, post.secrets[app])
    rested = await there.received(f"/{bad.index('429 Retry-After: 3')}")
    assert all(later.at - earlier.at >= 3 for earlier, later in pairwise(rested[:3]))
    at_healthy = await there.received("/healthy")
    once_each(at_healthy, fine)
    assert max(one.at * 1000 - created[one.notice["noticeId"]] for one in at_healthy) < 7000  # others hang for 10 s
    assert await there.received("/canary") == []


async def test_a_receiver_that_was_down_gets_everything_in_order(tmp_path: Path, there: Receiver) -> None:
    async with office(tmp_path) as post, delivering(post):
        app = await post.app(there.url("/hook"))
        sids = [await post.recording(app) for _ in range(2)]
        await there.down()
        said = []
        for sid in sids * 3:
            said += await post.say(app, sid, 43)
            await asyncio.sleep(0.2)
        assert await post.count("sent") == 0
        await there.up()
        await post.until_none_waits(50)
    accepted = await there.accepted()
    once_each(accepted, said)
    assert len(accepted) == len(said)
    in_order(accepted)


async def test_quick_retries_then_a_dead_letter_and_its_replay(tmp_path: Path, there: Receiver) -> None:
    await there.behave("/hook", then="500")
    async with office(tmp_path, settings=QUICK) as post, delivering(post):
        app = await post.app(there.url("/hook"))
        (notice,) = await post.say(app, await post.recording(app), 40)
        await post.until_none_waits(50)
        tries = await there.received()
        gaps = [later.at - earlier.at for earlier, later in pairwise(tries)]
        assert [limit <= gap < limit * 1.1 + 4.5 for limit, gap in zip((0, 5, 30), gaps, strict=True)] == [True] * 3
        assert [(dead.notice_id, dead.failure) for dead in await post.endpoints.dead_letters(app)] == [(notice, "500")]
        await there.behave("/hook")
        assert await post.endpoints.replay(app, [notice or ""]) == 1
        post.outbox.filled.set()
        await post.until_none_waits()
    assert [one.notice["noticeId"] for one in await there.accepted()] == [notice]


async def test_an_endless_answer_is_read_no_further_than_needed(tmp_path: Path, there: Receiver) -> None:
    await there.behave("/hook", then="endless")
    async with office(tmp_path) as post:
        app = await post.app(there.url("/hook"))
        began = asyncio.get_running_loop().time()
        assert (await post.endpoints.test(app)).delivered
        assert asyncio.get_running_loop().time() - began < 8
    assert MOST_REPLY_BYTES <= 64 * 1024


async def test_plain_text_is_an_answer_too(tmp_path: Path, there: Receiver) -> None:
    await there.behave("/hook", then="text")
    async with office(tmp_path) as post:
        assert (await post.endpoints.test(await post.app(there.url("/hook")))).delivered


async def test_connections_are_used_again(tmp_path: Path, there: Receiver) -> None:
    """Of ten notices in a row nine need no new connection: the receiver would see other ports otherwise."""
    async with office(tmp_path) as post, delivering(post):
        app = await post.app(there.url("/hook"))
        await post.say(app, await post.recording(app), *[43] * 10)
        await post.until_none_waits()
    received = await there.received()
    assert len(received) == 10
    assert len({one.peer for one in received}) == 1


async def test_certificates_are_checked(tmp_path: Path) -> None:
    own, another = (self_signed(tmp_path, name) for name in ("own", "another"))
    async with receiver(*own) as there:
        trusting = Callbacks(allowed_networks=(*LOOPBACK, "::1/128"), authorities=own[0])
        codes: list[tuple[int, str | None]] = []
        for settings, host in (
            (trusting, "127.0.0.1"),
            (trusting, "localhost"),  # a name that the certificate is not for
            (trusting, "127.0.0.2"),
            (trusting.model_copy(update={"authorities": another[0]}), "127.0.0.1"),
            (trusting.model_copy(update={"authorities": None}), "127.0.0.1"),
        ):
            folder = tmp_path / str(len(codes))
            folder.mkdir()
            async with office(folder, settings=settings) as post:
                tested = await post.endpoints.test(await post.app(there.url("/hook", host)))
                codes.append((tested.code, tested.failure))
        assert codes == [(200, None)] + [(592, "tls")] * 4
        assert len(await there.received()) == 1


@pytest.mark.parametrize(
    ("host", "like", "code"),
    [("127.0.0.1", "503", 503), ("nowhere.invalid", "200", 591), ("127.0.0.1", "hang", 590), ("127.0.0.1", "reset", 0)],
)
async def test_a_test_event_says_what_it_met(tmp_path: Path, there: Receiver, host: str, like: str, code: int) -> None:
    await there.behave("/hook", then=like)
    async with office(tmp_path) as post:
        tested = await post.endpoints.test(await post.app(there.url("/hook", host)))
    assert (tested.code, tested.delivered) == (code, False)


async def test_during_a_rotation_receivers_with_either_secret_are_served(tmp_path: Path, there: Receiver) -> None:
    """The original's headers have room for one signature: a receiver that refuses the other one gets its own at once."""
    await there.behave("/hook", "401")
    async with office(tmp_path) as post, delivering(post):
        app = await post.app(there.url("/hook"))
        old, new = post.secrets[app], (await post.endpoints.rotate(app)).secret
        await post.say(app, await post.recording(app), 40)
        await post.until_none_waits()
    first, second = await there.received()
    assert second.at - first.at < 4.5  # not the second retry, after 5 s
    for one, secret in ((first, new), (second, old)):
        verified(one, secret)
        assert Webhook(new).verify(one.body, one.headers) == Webhook(old).verify(one.body, one.headers)


# ---- kill -9 -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def plane(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.callback_plane", *map(str, arguments)), stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said_by(process: asyncio.subprocess.Process, word: str) -> bool:
    assert process.stdout
    while line := await process.stdout.readline():
        if line.decode().startswith(word):
            return True
    return False


@pytest.mark.parametrize("dies", ["claimed", "sent"])
async def test_a_process_killed_between_commit_and_send_or_send_and_mark_loses_nothing(tmp_path: Path, there: Receiver, dies: str) -> None:
    """Row H4."""
    async with office(tmp_path) as post:
        app = await post.app(there.url("/hook"))
        sid = await post.recording(app)
        async with plane(tmp_path, app, sid, 5, dies) as process:
            await process.wait()
        assert process.returncode == -9
        assert len(await there.received()) == (dies == "sent")
        committed = [notice.notice_id for notice in await post.notices()]
        assert 1 <= len(committed) <= 5
        assert await post.count("sent") == 0
        async with plane(tmp_path, app, sid, 1, "never"):
            await post.until_none_waits(LEASE_MS / 1000 + 30)
        said = [notice.notice_id for notice in await post.notices()]
    assert set(committed) < set(said)
    accepted = await there.accepted()
    once_each(accepted, said)
    assert len(accepted) == len(said) + (dies == "sent")
    assert [one.notice["payload"]["sequence"] for one in accepted if one not in accepted[: dies == "sent"]] == list(range(len(said)))


@pytest.mark.timeout(180)
async def test_processes_killed_at_random_lose_nothing(tmp_path: Path, there: Receiver) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    async with office(tmp_path) as post:
        app = await post.app(there.url("/hook"))
        sids = [await post.recording(app) for _ in range(5)]
        for _ in range(6):
            async with plane(tmp_path, app, ",".join(sids), 1000, "never") as process:
                assert await said_by(process, "committed")
                await asyncio.sleep(chance.uniform(0, 0.5))
        async with plane(tmp_path, app, ",".join(sids), 5, "never"):
            await post.until_none_waits(100)
        notices = await post.notices()
    once_each(await there.accepted(), [notice.notice_id for notice in notices])
    for sid in sids:
        mine = [notice.sequence for notice in notices if notice.sid == sid]
        assert mine == list(range(len(mine)))


async def test_two_processes_on_one_database_send_each_notice_once(tmp_path: Path, there: Receiver) -> None:
    async with office(tmp_path) as post:
        app = await post.app(there.url("/hook"))
        sids = [await post.recording(app) for _ in range(10)]
        async with (
            plane(tmp_path, app, ",".join(sids), 100, "never") as first,
            plane(tmp_path, app, ",".join(sids), 100, "never") as second,
        ):
            assert await said_by(first, "written")
            assert await said_by(second, "written")
            await post.until_none_waits(50)
        said = [notice.notice_id for notice in await post.notices()]
    received = await there.received()
    assert (len(received), len(said)) == (200, 200)
    once_each(received, said)
    in_order(received)


async def test_delivery_goes_on_when_the_database_does(tmp_path: Path, there: Receiver) -> None:
    """Row D1: what happened while it was locked is written down later, and nothing is sent twice for it."""
    await there.behave("/hook", "500")

    async def locked(post: Office) -> None:
        async with post.store.write():
            await asyncio.sleep(1)

    async with office(tmp_path) as post, delivering(post):
        app = await post.app(there.url("/hook"))
        said = await post.say(app, await post.recording(app), 40)
        await locked(post)
        await post.until_none_waits()
    assert Counter(one.answered for one in await there.received()) == {"500": 1, "200": 1}
    once_each(await there.accepted(), said)
