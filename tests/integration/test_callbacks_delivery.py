"""When notices are sent, in which order, and when they are given up; the clock and the receivers are the test's."""

import asyncio
import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import delete, insert

from api.accounts import AccountError
from api.delivery import KEEP_DEAD_MS, KEEP_SENT_MS, LEASE_MS, Delivery
from api.endpoints import Signers
from api.hosts import MOST_AT_ONCE, OPEN_SECONDS, Hosts
from api.outbox import Outbox
from api.sending import Destination, Letter, Outcome, Sender
from api.tables import Endpoint, Notice
from recorder.settings import Callbacks
from tests.notices import KEY, Clock, Office, office

LONG = [0, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 72000]
OK = Outcome(None, answered=True)
DOWN = Outcome("no_answer", answered=False)
BROKEN = Outcome("500", answered=True)
URL = "https://8.8.8.8/hook"


class FakeSender(Sender):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answers: Callable[[Letter], Outcome] = lambda _letter: OK
        self.sent: list[tuple[float, Letter, Destination]] = []
        self.at_once: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.gate: asyncio.Event | None = None

    async def check(self, url: str) -> None:
        pass

    async def send(self, letter: Letter, destination: Destination, *, attempt: int, now_ms: int) -> Outcome:
        self.sent.append((self._clock.seconds(), letter, destination))
        self.at_once[destination.url] += 1
        self.most_at_once[destination.url] = max(self.most_at_once[destination.url], self.at_once[destination.url])
        if self.gate:
            await self.gate.wait()
        self.at_once[destination.url] -= 1
        return self.answers(letter)

    def times(self, notice_id: str | None) -> list[float]:
        return [time for time, letter, _ in self.sent if letter.notice_id == notice_id]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sender(clock: Clock) -> FakeSender:
    return FakeSender(clock)


@pytest.fixture
def hosts(clock: Clock) -> Hosts:
    return Hosts(now=clock.seconds)


@pytest.fixture
async def post(tmp_path: Path, clock: Clock, sender: FakeSender, hosts: Hosts) -> AsyncIterator[Office]:
    async with office(tmp_path, settings=Callbacks(), now_ms=clock, sender=sender, hosts=hosts) as opened:
        yield opened


async def pass_time(post: Office, clock: Clock, seconds: float, step: float = 1.0) -> None:
    """Rounds at steps of the clock."""
    end = clock.now_ms + round(seconds * 1000)
    while clock.now_ms < end:
        await post.round()
        clock.now_ms = min(end, clock.now_ms + round(step * 1000))
    await post.round()


async def to_next(post: Office, clock: Clock) -> None:
    """The clock goes on to what is due next."""
    waiting = await post.notices(state="waiting")
    clock.now_ms = max(clock.now_ms, min(notice.next_ms for notice in waiting))
    await post.round()


# ---- the schedule ------------------------------------------------------------------------------------------------


async def test_a_receiver_that_is_down_for_three_days(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda _letter: BROKEN
    app = await post.app(URL)
    (notice,) = await post.say(app, await post.recording(app), 40)
    began = clock.seconds()
    while await post.count("waiting"):
        await to_next(post, clock)
    times = sender.times(notice)
    assert len(times) == 12
    for gap, delay in zip((later - earlier for earlier, later in pairwise(times)), LONG, strict=True):
        assert delay <= gap <= delay * 1.1 + 0.01
    assert 2.9 < (times[-1] - began) / 86_400 < 3.4
    (dead,) = await post.endpoints.dead_letters(app)
    assert (dead.notice_id, dead.attempts, dead.failure, dead.sequence) == (notice, 12, "500", 0)
    sender.answers = lambda _letter: OK
    assert await post.endpoints.replay(app) == 1
    await post.round()
    assert await post.count("sent") == 1
    assert {letter.notice_id for _, letter, _ in sender.sent} == {notice}
    assert len({letter.payload for _, letter, _ in sender.sent}) == 1
    assert await post.endpoints.replay(app) == 0


async def test_all_that_comes_while_a_receiver_is_down_arrives(post: Office, clock: Clock, sender: FakeSender) -> None:
    """Ten minutes, an event every ten seconds for each of three recordings; another app's receiver is well."""
    sender.answers = lambda letter: DOWN if letter.sid != healthy_sid and clock.seconds() < back else OK
    app, healthy = await post.app(URL), await post.app("https://1.1.1.1/hook")
    sids = [await post.recording(app) for _ in range(3)]
    healthy_sid = await post.recording(healthy)
    back = clock.seconds() + 600
    said: list[str | None] = []
    for _ in range(60):
        for sid in sids:
            said += await post.say(app, sid, 43)
        (fine,) = await post.say(healthy, healthy_sid, 43)
        await post.round()
        assert sender.times(fine) == [clock.seconds()]
        await pass_time(post, clock, 10, step=5)
    for _ in range(2000):
        if not await post.count("waiting"):
            break
        await pass_time(post, clock, 30, step=30)
    assert Counter(notice.state for notice in await post.notices(app_id=app)) == {"sent": len(said)}
    assert {letter.notice_id for _, letter, _ in sender.sent} >= set(said)
    in_order = sorted((int(re.findall(r'"sequence":(\d+)', letter.payload)[0]), letter.sid) for letter in {l_ for _, l_, _ in sender.sent})
    assert in_order == sorted([(number, sid) for number in range(60) for sid in (*sids, healthy_sid)], key=lambda one: (one[0], one[1]))


# ---- order -------------------------------------------------------------------------------------------------------


async def test_notices_of_a_recording_go_one_after_the_other(post: Office, sender: FakeSender) -> None:
    app = await post.app(URL)
    sids = [await post.recording(app) for _ in range(4)]
    for sid in sids:
        await post.say(app, sid, *range(40, 46))
    while await post.count("waiting"):
        await post.round()
    order = defaultdict(list)
    for _, letter, _ in sender.sent:
        order[letter.sid].append(letter.event_type)
    assert order == {sid: [40, 41, 42, 43, 44, 45] for sid in sids}
    assert [notice.sequence for notice in await post.notices(sid=sids[0])] == [0, 1, 2, 3, 4, 5]


async def test_one_that_fails_holds_the_later_ones_for_a_minute(post: Office, clock: Clock, sender: FakeSender) -> None:
    app = await post.app(URL)
    sid, other = await post.recording(app), await post.recording(app)
    first, *later = await post.say(app, sid, 42, 43, 44)
    sender.answers = lambda letter: BROKEN if letter.notice_id == first else OK
    began = clock.seconds()
    await pass_time(post, clock, 20)
    (of_other,) = await post.say(app, other, 40)
    await pass_time(post, clock, 100)
    assert sender.times(of_other) == [began + 20]
    for notice in later:
        assert [60 <= time - began <= 63 for time in sender.times(notice)] == [True]
    sender.answers = lambda _letter: OK
    await pass_time(post, clock, 400, step=20)
    assert [notice.state for notice in await post.notices(sid=sid)] == ["sent"] * 3
    assert [notice.sequence for notice in await post.notices(sid=sid)] == [0, 1, 2]


async def test_the_minute_is_not_waited_once_for_each_notice(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda _letter: BROKEN
    app = await post.app(URL)
    notices = await post.say(app, await post.recording(app), *[43] * 10)
    began = clock.seconds()
    await pass_time(post, clock, 90)
    assert max(sender.times(notice)[0] - began for notice in notices) <= 75


async def test_one_that_recovers_in_time_keeps_the_order(post: Office, clock: Clock, sender: FakeSender) -> None:
    app = await post.app(URL)
    sid = await post.recording(app)
    first, second = await post.say(app, sid, 42, 43)
    back = clock.seconds() + 30
    sender.answers = lambda _letter: OK if clock.seconds() >= back else BROKEN
    await pass_time(post, clock, 50)
    assert max(sender.times(first)) <= min(sender.times(second))
    assert [notice.state for notice in await post.notices(sid=sid)] == ["sent", "sent"]


async def test_a_run_ends_before_its_lease(post: Office, clock: Clock, sender: FakeSender) -> None:
    """A slow receiver: what would be tried too late is left to whoever claims it next."""

    def slow(_letter: Letter) -> Outcome:
        clock.now_ms += 5_000
        return OK

    sender.answers = slow
    app = await post.app(URL)
    said = await post.say(app, await post.recording(app), *[43] * 10)
    async with asyncio.TaskGroup() as group:
        await post.delivery.look(group)
    assert len(sender.sent) == 2
    while await post.count("waiting"):
        await post.round()
    assert [letter.notice_id for _, letter, _ in sender.sent] == said


# ---- receivers that trouble others -------------------------------------------------------------------------------


async def test_a_host_gets_so_many_requests_at_once_and_no_more(post: Office, sender: FakeSender) -> None:
    app, other = await post.app(URL), await post.app("https://1.1.1.1/hook")
    for _ in range(40):
        await post.say(app, await post.recording(app), 40)
    await post.say(other, await post.recording(other), 40)
    sender.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        await post.delivery.look(group)
        await asyncio.sleep(0)
        await post.delivery.look(group)
        await asyncio.sleep(0)
        assert dict(sender.at_once) == {URL: MOST_AT_ONCE, "https://1.1.1.1/hook": 1}
        sender.gate.set()
    while await post.count("waiting"):
        await post.round()
    assert sender.most_at_once[URL] == MOST_AT_ONCE


async def test_ten_thousand_of_one_app_do_not_keep_others_waiting(post: Office, clock: Clock, sender: FakeSender) -> None:
    app, other = await post.app(URL), await post.app("https://1.1.1.1/hook")
    now_ms = clock()
    queued = [
        {"notice_id": f"{number:032x}", "app_id": app, "event_type": 40, "product_id": 3, "payload": "{}"}
        | {"created_ms": now_ms, "next_ms": now_ms}
        for number in range(10_000)
    ]
    async with post.store.write() as session:
        await session.execute(insert(Notice), queued)
    await post.round()
    (mine,) = await post.say(other, await post.recording(other), 40)
    before = len(sender.sent)
    await post.round()
    assert sender.times(mine)
    assert len(sender.sent) - before <= 2 * MOST_AT_ONCE + 1


async def test_a_host_that_does_not_answer_is_left_alone(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda _letter: DOWN
    app = await post.app(URL)
    for _ in range(50):
        await post.say(app, await post.recording(app), 40)
    await post.round()
    opened = len(sender.sent)
    await pass_time(post, clock, OPEN_SECONDS - 1)
    assert len(sender.sent) == opened
    await pass_time(post, clock, 3 * OPEN_SECONDS)
    assert 3 <= len(sender.sent) - opened <= 4  # one each time
    sender.answers = lambda _letter: OK
    await pass_time(post, clock, OPEN_SECONDS + 300, step=5)
    assert await post.count("waiting") == 0


async def test_answers_of_any_kind_keep_a_host_open(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda letter: BROKEN if letter.sid == refused_sid else OK
    bad, good = await post.app(URL), await post.app(URL)
    refused_sid = await post.recording(bad)
    await post.say(bad, refused_sid, *[43] * 20)
    await pass_time(post, clock, 100)
    (mine,) = await post.say(good, await post.recording(good), 40)
    await post.round()
    assert sender.times(mine) == [clock.seconds()]


async def test_an_overloaded_receiver_is_left_alone_for_as_long_as_it_asks(post: Office, clock: Clock, sender: FakeSender) -> None:
    until = clock.now_ms + 40_000
    sender.answers = lambda _letter: Outcome("429", answered=True, rest_until_ms=until) if clock.now_ms < until else OK
    app, other = await post.app(URL), await post.app(URL)
    await post.say(app, await post.recording(app), 40)
    await post.round()
    (later,) = await post.say(app, await post.recording(app), 40)
    sender.answers = lambda letter: OK
    (others,) = await post.say(other, await post.recording(other), 40)
    await pass_time(post, clock, 45)
    assert sender.times(later)[0] * 1000 >= until
    assert sender.times(others)[0] * 1000 < until
    assert await post.count("sent") == 3


async def test_410_turns_the_endpoint_off_and_keeps_everything(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda _letter: Outcome("410", answered=True)
    app = await post.app(URL)
    sid = await post.recording(app)
    await post.say(app, sid, 40, 43)
    await post.round()
    await post.say(app, sid, 41)
    await pass_time(post, clock, 100)
    assert len(sender.sent) == 1
    view = await post.endpoints.show(app)
    assert (view.gone_ms is not None, view.waiting, view.dead) == (True, 0, 3)
    with pytest.raises(Exception, match="off"):
        await post.endpoints.replay(app)
    sender.answers = lambda _letter: OK
    assert await post.endpoints.set(app, url=URL) is None
    assert await post.endpoints.replay(app) == 3
    for _ in range(3):
        await post.round()
    assert [(notice.sequence, notice.state) for notice in await post.notices(sid=sid)] == [(0, "sent"), (1, "sent"), (2, "sent")]
    assert [letter.event_type for _, letter, _ in sender.sent] == [40, 40, 43, 41]


# ---- endpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "wanted"),
    [(None, {40, 2}), ([2, 40, 10_001], {40, 2, 10_001}), ([10_001], {10_001}), ([2], {2}), ([], set())],
)
async def test_only_what_is_selected_is_sent_and_counted(post: Office, clock: Clock, events: list[int] | None, wanted: set[int]) -> None:
    app = await post.app(URL, events)
    sid = await post.recording(app)
    taken = set()
    async with post.store.write() as session:
        for event_type, alarm in ((40, None), (2, None), (2, 10_001)):
            added = await post.outbox.add(session, app_id=app, sid=sid, event_type=event_type, alarm=alarm, payload={}, now_ms=clock())
            taken |= {alarm or event_type} if added else set()
    assert taken == wanted
    assert [notice.sequence for notice in await post.notices()] == list(range(len(wanted)))


async def test_nothing_is_written_without_an_endpoint_or_when_it_is_off(post: Office) -> None:
    app = await post.app(URL)
    sid = await post.recording(app)
    assert await post.say("unknown", None, 40) == [None]
    await post.endpoints.set(app, url=URL, enabled=False)
    assert await post.say(app, sid, 40) == [None]
    await post.endpoints.set(app, url=URL)
    assert await post.say(app, sid, 40) != [None]
    await post.endpoints.set(app, url=URL, enabled=False)
    assert [(notice.state, notice.sequence, notice.failure) for notice in await post.notices()] == [("dead", 0, "off")]
    await post.endpoints.remove(app)
    assert await post.say(app, sid, 40) == [None]


async def test_a_transaction_that_fails_takes_no_number(post: Office, clock: Clock) -> None:
    app = await post.app(URL)
    sid = await post.recording(app)
    await post.say(app, sid, 40)
    with contextlib.suppress(ZeroDivisionError):
        async with post.store.write() as session:
            assert await post.outbox.add(session, app_id=app, sid=sid, event_type=42, payload={}, now_ms=clock())
            raise ZeroDivisionError
    await post.say(app, sid, 43)
    assert [(notice.sequence, notice.event_type) for notice in await post.notices()] == [(0, 40), (1, 43)]


async def test_what_waits_is_sent_to_a_new_url_at_once(post: Office, clock: Clock, sender: FakeSender) -> None:
    sender.answers = lambda _letter: BROKEN
    app = await post.app(URL)
    await post.say(app, await post.recording(app), 40)
    await pass_time(post, clock, 60)
    sender.answers = lambda _letter: OK
    await post.endpoints.set(app, url="https://1.1.1.1/hook")
    await post.round()
    assert await post.count("sent") == 1
    assert sender.sent[-1][2].url == "https://1.1.1.1/hook"


@pytest.mark.parametrize("outcome", [BROKEN, Outcome("410", answered=True), Outcome("429", answered=True, rest_until_ms=1 << 50)])
async def test_a_failure_at_a_former_url_holds_up_nothing_at_the_new_one(
    post: Office, clock: Clock, sender: FakeSender, outcome: Outcome
) -> None:
    """The endpoint moves while an attempt at its former place is under way."""
    app = await post.app(URL)
    sid = await post.recording(app)
    (first,) = await post.say(app, sid, 40)
    sender.answers = lambda _letter: BROKEN
    await pass_time(post, clock, 400)  # the next attempt is far away
    clock.now_ms += 2_000_000
    sender.answers, sender.gate = lambda _letter: outcome, asyncio.Event()
    before = len(sender.sent)
    async with asyncio.TaskGroup() as group:
        await post.delivery.look(group)
        await asyncio.sleep(0)
        assert len(sender.sent) == before + 1
        await post.endpoints.set(app, url="https://1.1.1.1/hook")
        sender.gate.set()
    sender.answers, sender.gate = lambda _letter: OK, None
    (second,) = await post.say(app, sid, 41)
    before = len(sender.sent)
    for _ in range(3):
        await post.round()
    assert [(letter.notice_id, where.url) for _, letter, where in sender.sent[before:]] == [
        (first, "https://1.1.1.1/hook"),
        (second, "https://1.1.1.1/hook"),
    ]
    assert (await post.endpoints.show(app)).gone_ms is None


async def test_the_page_of_dead_letters_after_one_that_is_none(post: Office, sender: FakeSender) -> None:
    sender.answers = lambda _letter: Outcome("410", answered=True)
    app, other = await post.app(URL), await post.app(URL)
    said = await post.say(app, await post.recording(app), 40, 43)
    (foreign,) = await post.say(other, await post.recording(other), 40)
    await post.round()
    first, second = await post.endpoints.dead_letters(app)
    assert [first, second] == await post.endpoints.dead_letters(app, limit=1) + await post.endpoints.dead_letters(
        app, after=first.notice_id
    )
    await post.endpoints.set(app, url=URL)
    assert await post.endpoints.replay(app, [first.notice_id]) == 1
    for after in (first.notice_id, foreign, "nobody's"):
        with pytest.raises(AccountError, match="after: "):
            await post.endpoints.dead_letters(app, after=after)
    assert {first.notice_id, second.notice_id} == set(said)


async def test_both_secrets_sign_for_a_day_and_take_turns(post: Office, clock: Clock, sender: FakeSender) -> None:
    app = await post.app(URL)
    old = post.secrets[app]
    new = (await post.endpoints.rotate(app)).secret
    for hours, expected in ((0, (new, old)), (23.9, (new, old)), (24.1, (new,))):
        clock.now_ms = 1_700_000_000_000 + round(hours * 3_600_000)
        await post.say(app, await post.recording(app), 40)
        await post.round()
        assert sender.sent[-1][2].signers == expected


async def test_a_notice_under_way_is_left_to_its_control_plane(post: Office, clock: Clock, sender: FakeSender, hosts: Hosts) -> None:
    """Two on one database; one dies while it sends."""
    app = await post.app(URL)
    (notice,) = await post.say(app, await post.recording(app), 40)
    sender.gate = asyncio.Event()
    other = Delivery(store=post.store, outbox=Outbox(), sender=sender, signers=Signers(KEY), schedule="long", now_ms=clock, hosts=hosts)
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as dying:
            await post.delivery.look(dying)
            async with asyncio.TaskGroup() as group:
                await other.look(group)
            await asyncio.sleep(0)
            raise ZeroDivisionError
    assert len(sender.times(notice)) == 1
    sender.gate = None
    clock.now_ms += LEASE_MS
    async with asyncio.TaskGroup() as group:
        await other.look(group)
    async with asyncio.TaskGroup() as group:
        await other.look(group)
    assert len(sender.times(notice)) == 2
    assert await post.count("sent") == 1


async def test_delivery_ends_though_a_notice_comes_at_the_same_moment(post: Office) -> None:
    running = asyncio.create_task(post.delivery.run())
    await asyncio.sleep(0.3)  # it waits for a notice
    post.outbox.filled.set()
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=5)
    assert done


async def test_old_notices_are_forgotten_and_orphans_given_up(post: Office, clock: Clock, sender: FakeSender) -> None:
    app, orphaned = await post.app(URL), await post.app(URL)
    await post.say(app, await post.recording(app), 40)
    await post.round()
    await post.say(orphaned, await post.recording(orphaned), 40)
    async with post.store.write() as session:  # as a race of two control planes leaves it
        await session.execute(delete(Endpoint).where(Endpoint.app_id == orphaned))
    await post.delivery.tidy()
    assert (await post.count("sent"), await post.count("dead")) == (1, 1)
    clock.now_ms += KEEP_SENT_MS + 1
    await post.delivery.tidy()
    assert (await post.count("sent"), await post.count("dead")) == (0, 1)
    clock.now_ms += KEEP_DEAD_MS
    await post.delivery.tidy()
    assert await post.count("dead") == 0
