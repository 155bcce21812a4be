"""Customers side by side: nobody sees, asks for or ends what is another's, and nobody has more than a quota."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from api.accounts import AccountError, AppChange
from api.auth import Gatekeeper
from api.errors import Gate, GatewayError
from api.lockout import Lockout
from api.masterkey import load_master_key
from recorder.protocol import Ended
from tests.contract.conftest import STORAGE, Caller, Task, World, a_deployment, counted, eventually, open_world
from tests.contract.fake_agent import FakeAgent

HOUR_MS = 3_600_000
BAD_CREDENTIALS = {"message": "Invalid authentication credentials"}
UPDATE = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["1"]}}}
VERBS = ("query", "update", "updateLayout", "stop")


async def call(task: Task, verb: str) -> httpx.Response:
    match verb:
        case "query":
            return await task.query()
        case "update":
            return await task.post("update", UPDATE)
        case "updateLayout":
            return await task.post("updateLayout", {"mixedVideoLayout": 1})
        case _:
            return await task.stop(async_stop=True)


async def sign_in(http: httpx.AsyncClient) -> int:
    return (await http.get("/v1/ncs/ip")).status_code


# ---- what is another's -------------------------------------------------------------------------------------------


@pytest.fixture
async def mine(world: World, agent: FakeAgent) -> Task:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    return task


@pytest.fixture
async def theirs(world: World, agent: FakeAgent) -> Task:
    """Another customer's, in a channel of the same name and with the same uid."""
    task = await (await world.another_customer()).started()
    await eventually(lambda: task.sid in agent.claimed)
    return task


@pytest.mark.parametrize("verb", VERBS)
async def test_another_customers_recording_is_an_unknown_one(world: World, agent: FakeAgent, mine: Task, theirs: Task, verb: str) -> None:
    me = world.caller
    unknown = await call(Task(me, mine.resource, "0" * 32), verb)
    assert unknown.status_code == 404
    attempts = {
        "all of theirs": Task(me, theirs.resource, theirs.sid),
        "their sid with my resource": Task(me, mine.resource, theirs.sid),
        "their resource with my sid": Task(me, theirs.resource, mine.sid),
        "their resource with no sid": Task(me, theirs.resource, "0" * 32),
    }
    for name, attempt in attempts.items():
        before = counted("recorder_authz_denied", what="recording")
        answer = await call(attempt, verb)
        assert (answer.status_code, strip(answer)) == (404, strip(unknown)), name
        assert counted("recorder_authz_denied", what="recording") == before + 1, name
    # The path of their app is closed before anything of the recording is looked at.
    for app_id in (theirs.caller.app_id, "f" * 32):
        before = counted("recorder_authz_denied", what="app")
        answer = await call(Task(replace(me, app_id=app_id), theirs.resource, theirs.sid), verb)
        assert (answer.status_code, answer.json()) == (400, {"message": "appid is invalid"})
        assert counted("recorder_authz_denied", what="app") == before + 1
    assert agent.commands(theirs.sid) == []
    assert (await theirs.query()).json()["serverResponse"]["status"] > 0
    assert (await call(mine, verb)).status_code == 200  # the verb as such works


def strip(answer: httpx.Response) -> dict[str, object]:
    """Without what the caller itself said."""
    return {key: value for key, value in answer.json().items() if key in ("code", "reason", "message", "serverResponse")}


async def test_another_customers_resource_is_an_unreadable_one(world: World, agent: FakeAgent, theirs: Task) -> None:
    resource, before = await theirs.caller.resource(), counted("recorder_authz_denied", what="recording")
    foreign, unknown = await world.caller.start(resource), await world.caller.start("A" * len(resource))
    assert counted("recorder_authz_denied", what="recording") == before + 2
    assert foreign.status_code == unknown.status_code == 400
    assert strip(foreign) == strip(unknown) == {"code": 1001, "reason": "resourceId cannot be decoded"}


async def test_mistakes_are_not_counted_as_calls_for_what_is_anothers(world: World, mine: Task, theirs: Task) -> None:
    http, before = world.caller.http, counted("recorder_authz_denied", what="recording")
    mistakes = (await http.get(f"/v1/ext/recordings/{'0' * 32}"), await Task(world.caller, mine.resource, "0" * 32).query())
    assert {answer.status_code for answer in mistakes} == {404}
    assert (await http.get(f"/v1/ext/recordings/{mine.sid}")).status_code == 200
    foreign = f"/v1/ext/recordings/{theirs.sid}"
    answers = (await http.get(foreign), await http.post(f"{foreign}/storage", json={"storageConfig": STORAGE}))
    assert {answer.status_code for answer in answers} == {404}
    assert counted("recorder_authz_denied", what="recording") == before + 2


async def test_apps_of_one_customer_are_apart_too(world: World, agent: FakeAgent, mine: Task) -> None:
    (account,) = [one for one in await world.accounts.list_all("customer") if world.caller.app_id in one.apps]
    second = replace(world.caller, app_id=await world.accounts.create_app(account.id))
    for verb in VERBS:
        assert (await call(replace(mine, caller=second), verb)).status_code == 404
    assert (await second.start(mine.resource)).json()["code"] == 432
    assert (await second.started()).sid  # the same channel and uid are another recording there


# ---- secrets -----------------------------------------------------------------------------------------------------


async def test_rotation_while_calls_come_in(world: World) -> None:
    first = await world.accounts.create("customer")
    old = world.http(first.id, first.secret)
    new = world.http(first.id, (await world.accounts.rotate("customer", first.id)).secret)
    assert [await sign_in(http) for http in (old, new)] == [200, 200]
    assert await world.accounts.revoke("customer", first.id, first.secret_id) == 1
    assert [await sign_in(http) for http in (old, new)] == [401, 200]


async def test_old_secrets_end_when_their_time_is_over(world: World) -> None:
    first = await world.accounts.create("customer")
    old = world.http(first.id, first.secret)
    second = await world.accounts.rotate("customer", first.id, old_end_in_ms=2 * HOUR_MS)
    third = await world.accounts.rotate("customer", first.id, old_end_in_ms=24 * HOUR_MS)
    new = [world.http(first.id, issued.secret) for issued in (second, third)]
    world.clock.ahead_ms = HOUR_MS
    assert [await sign_in(http) for http in (old, *new)] == [200, 200, 200]
    world.clock.ahead_ms = 3 * HOUR_MS  # a later rotation does not lengthen what was to end
    assert [await sign_in(http) for http in (old, *new)] == [401, 200, 200]
    world.clock.ahead_ms = 25 * HOUR_MS
    assert [await sign_in(http) for http in (old, *new)] == [401, 401, 200]


async def test_what_has_ended_does_not_come_back_with_the_clock(world: World) -> None:
    first = await world.accounts.create("customer")
    await world.accounts.rotate("customer", first.id, old_end_in_ms=HOUR_MS)
    old = world.http(first.id, first.secret)
    await world.plane.recovery.look()
    assert await sign_in(old) == 200
    world.clock.ahead_ms = 2 * HOUR_MS
    await world.plane.recovery.look()
    world.clock.ahead_ms = 0
    assert await sign_in(old) == 401


async def test_a_customer_without_secrets_cannot_sign_in(world: World) -> None:
    issued = await world.accounts.create("customer")
    assert await world.accounts.revoke("customer", issued.id, None) == 0
    assert await sign_in(world.http(issued.id, issued.secret)) == 401
    assert await sign_in(world.http(issued.id, "")) == 401
    again = await world.accounts.rotate("customer", issued.id)
    assert await sign_in(world.http(issued.id, again.secret)) == 200


async def test_no_more_than_five_secrets(world: World) -> None:
    issued = [await world.accounts.create("customer")]
    owner = issued[0].id
    issued += [await world.accounts.rotate("customer", owner) for _ in range(4)]
    with pytest.raises(AccountError, match="5 secrets"):
        await world.accounts.rotate("customer", owner)
    assert [await sign_in(world.http(owner, one.secret)) for one in issued] == [200] * 5


async def test_the_roles_are_apart(world: World) -> None:
    customer, operator = await world.accounts.create("customer"), await world.accounts.create("operator")
    twin = await world.accounts.create("operator", owner_id=customer.id)
    keeper = Gatekeeper(world.plane.store, load_master_key(world.settings.key_file))
    assert await sign_in(world.http(operator.id, operator.secret)) == 401
    assert await sign_in(world.http(twin.id, twin.secret)) == 401
    assert await keeper.operator(header(operator.id, operator.secret), "192.0.2.1") == operator.id
    for name, secret in ((customer.id, customer.secret), (operator.id, customer.secret)):
        with pytest.raises(GatewayError) as caught:
            await keeper.operator(header(name, secret), "192.0.2.1")
        assert caught.value.gate is Gate.BAD_CREDENTIALS


def header(name: str, secret: str) -> str:
    return httpx.BasicAuth(name, secret)._auth_header


async def test_the_first_operator_is_in_a_file_of_its_own(world: World) -> None:
    first = world.settings.operator_file
    assert first.stat().st_mode & 0o777 == 0o600
    kept = httpx.Response(200, content=first.read_bytes()).json()
    keeper = Gatekeeper(world.plane.store, load_master_key(world.settings.key_file))
    assert await keeper.operator(header(kept["operator_id"], kept["operator_secret"]), "") == kept["operator_id"]
    assert kept["operator_secret"] not in world.settings.credentials_file.read_text()


# ---- guessing ----------------------------------------------------------------------------------------------------


class Ticks:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_the_lock_is_told_and_ends(world: World) -> None:
    ticks = Ticks()
    world.plane.app.state.gatekeeper = Gatekeeper(world.plane.store, load_master_key(world.settings.key_file), lockout=Lockout(now=ticks))
    issued = await world.accounts.create("customer")
    right, wrong = world.http(issued.id, issued.secret), world.http(issued.id, "guess")
    assert [await sign_in(wrong) for _ in range(10)] == [401] * 10
    ticks.seconds = 0.5
    for locked in (wrong, right):  # the right secret is not told from a wrong one
        answer = await locked.get("/v1/ncs/ip")
        assert (answer.status_code, answer.json()) == (429, {"message": "API rate limit exceeded"})
        assert answer.headers["retry-after"] == "30"
    assert await sign_in(world.caller.http) == 200
    ticks.seconds = 30
    assert await sign_in(right) == 200


async def test_many_guesses_at_once_are_ten(world: World) -> None:
    issued = await world.accounts.create("customer")
    wrong = world.http(issued.id, "guess")
    answers = await asyncio.gather(*(sign_in(wrong) for _ in range(100)))
    assert sorted(answers) == [401] * 10 + [429] * 90


async def test_unknown_ids_and_wrong_secrets_are_answered_alike(world: World) -> None:
    issued = await world.accounts.create("customer")
    gone = await world.accounts.create("customer")
    await world.accounts.revoke("customer", gone.id, None)
    for name in (issued.id, gone.id, "0" * 32):
        wrong = world.http(name, "guess")
        answers = [await wrong.get("/v1/ncs/ip") for _ in range(11)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429], name
        assert answers[0].json() == BAD_CREDENTIALS
        assert answers[0].headers["www-authenticate"] == "Basic"


# ---- apps --------------------------------------------------------------------------------------------------------


async def test_a_removed_app_is_an_unknown_one(world: World, agent: FakeAgent) -> None:
    caller = await world.another_customer()
    task = await caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    with pytest.raises(AccountError, match="1 live recordings"):
        await world.accounts.remove_app(caller.app_id)
    resource = await caller.resource()
    await agent.emit(task.sid, Ended(outcome="complete", reason="idle"))
    await world.accounts.remove_app(caller.app_id)
    answers = (await caller.acquire(), await caller.start(resource), await task.query())
    assert [(answer.status_code, answer.json()) for answer in answers] == [(400, {"message": "appid is invalid"})] * 3
    owner = next(one.id for one in await world.accounts.list_all("customer") if one.secrets and not one.apps)
    with pytest.raises(AccountError, match="taken"):
        await world.accounts.create_app((await world.accounts.create("customer")).id, app_id=caller.app_id)
    await world.accounts.create_app(owner, app_id=caller.app_id)
    assert (await caller.acquire()).status_code == 200


@pytest.mark.parametrize(
    ("certificate", "good"),
    [
        ("c" * 32, True),
        ("c" * 16, True),
        ("c" * 128, True),
        ("c" * 15, False),
        ("c" * 129, False),
        ("c" * 31 + " ", False),
        ("é" * 32, False),
    ],
)
async def test_certificates(world: World, certificate: str, good: bool) -> None:
    app_id = world.caller.app_id
    if good:
        await world.accounts.set_app(app_id, AppChange(certificate=certificate))
    else:
        with pytest.raises(AccountError, match="16 to 128") as caught:
            await world.accounts.set_app(app_id, AppChange(certificate=certificate))
        assert certificate not in str(caught.value)
    (app,) = await world.accounts.list_apps()
    assert app.certificate == good


# ---- quotas ------------------------------------------------------------------------------------------------------

OVER_QUOTA = (400, 406, "vendor_over_load")


def refusal(answer: httpx.Response) -> tuple[int, int, str]:
    return answer.status_code, answer.json()["code"], answer.json()["reason"]


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[World]:
    """A deployment in which an app may have two recordings."""
    async with open_world(a_deployment(tmp_path / "data", max_recordings=2)) as world:
        yield world


def in_room(caller: Caller, number: int) -> Caller:
    return replace(caller, cname=f"room{number}")


async def test_over_the_quota_of_an_app(narrow: World) -> None:
    async with narrow.agent() as agent:
        tasks = [await in_room(narrow.caller, number).started() for number in range(2)]
        waiting = in_room(narrow.caller, 2)
        answer = await waiting.acquire()
        assert refusal(answer) == OVER_QUOTA
        assert answer.json()["cname"] == waiting.cname
        await (await narrow.another_customer()).started()  # others are not held up
        await eventually(lambda: tasks[0].sid in agent.claimed)
        await agent.emit(tasks[0].sid, Ended(outcome="complete", reason="idle"))
        assert (await waiting.started()).sid
        await narrow.accounts.set_app(narrow.caller.app_id, AppChange(max_recordings=3))
        assert (await in_room(narrow.caller, 3).started()).sid
        await narrow.accounts.set_app(narrow.caller.app_id, AppChange(max_recordings="none"))
        assert refusal(await in_room(narrow.caller, 4).acquire()) == OVER_QUOTA


async def test_what_was_acquired_in_time_is_still_counted_at_start(narrow: World) -> None:
    async with narrow.agent():
        callers = [in_room(narrow.caller, number) for number in range(8)]
        resources = [await caller.resource() for caller in callers]
        answers = await asyncio.gather(*(caller.start(resource) for caller, resource in zip(callers, resources, strict=True)))
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [400] * 6
        assert {refusal(answer) for answer in answers if answer.status_code == 400} == {OVER_QUOTA}
        first = next(number for number, answer in enumerate(answers) if answer.status_code == 200)
        assert (await callers[first].start(resources[first])).status_code == 201  # a repeat is no second one


async def test_over_the_quota_of_a_customer(world: World, agent: FakeAgent) -> None:
    issued = await world.accounts.create("customer", max_recordings=2)
    one, other = [Caller(world.http(issued.id, issued.secret), await world.accounts.create_app(issued.id)) for _ in range(2)]
    await one.started()
    await other.started()
    assert [refusal(await in_room(caller, 5).acquire()) for caller in (one, other)] == [OVER_QUOTA] * 2
    await world.accounts.set_customer(issued.id, max_recordings=None)
    assert (await in_room(one, 5).started()).sid


async def test_a_quota_of_nothing(world: World) -> None:
    await world.accounts.set_app(world.caller.app_id, AppChange(max_recordings=0))
    assert refusal(await world.caller.acquire()) == OVER_QUOTA
    answer = await world.caller.http.post(f"{world.caller.base}/acquire", json={"cname": "room", "uid": 7, "clientRequest": {}})
    assert answer.json()["code"] == 2  # what is wrong with the call is told first


@pytest.mark.parametrize(
    ("text", "words"), [("", "id of the app"), ("a/b", "id of the app"), ("x" * 65, "id of the app"), ("ä", "id of the app")]
)
async def test_ids_that_cannot_be(world: World, text: str, words: str) -> None:
    issued = await world.accounts.create("customer")
    if text:
        with pytest.raises(AccountError, match=words):
            await world.accounts.create_app(issued.id, app_id=text)
    else:
        assert len(await world.accounts.create_app(issued.id, app_id=text)) == 32


async def test_what_is_not_there_is_named(world: World) -> None:
    accounts = world.accounts
    for wrong in (
        accounts.rotate("customer", "nobody"),
        accounts.revoke("operator", "nobody", None),
        accounts.set_customer("nobody", max_recordings=1),
        accounts.create_app("nobody"),
        accounts.list_apps("nobody"),
    ):
        with pytest.raises(AccountError, match="'nobody'"):
            await wrong
    for missing in (accounts.set_app("gone", AppChange(open_channels=True)), accounts.remove_app("gone")):
        with pytest.raises(AccountError, match="'gone'"):
            await missing
    with pytest.raises(AccountError, match="no secret 'xyz'"):
        await accounts.revoke("customer", (await accounts.create("customer")).id, "xyz")
