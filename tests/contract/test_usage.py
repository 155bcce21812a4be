"""What customers have used, from the workers' reports to the answer and the command."""

import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

import cli.usage
from recorder.protocol import Done, Message, Metered, Refused, UsedTime
from recorder.settings import Usage
from recorder.tools.api_client import Credentials
from recorder.usage import Category
from tests.contract.conftest import Caller, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent

URL = "/v1/ext/usage"
CLIENT = httpx.Client
ALWAYS = {"from": "2026-01-01", "to": "2026-12-31"}


def report(*used: tuple[str, Category, int], epoch: int = 1) -> Metered:
    return Metered(epoch=epoch, used=tuple(UsedTime(day=day, category=category, milliseconds=ms) for day, category, ms in used))


async def recorded(world: World, agent: FakeAgent, *reports: Metered, caller: Caller | None = None, cname: str = "room1") -> str:
    caller = caller or world.caller
    caller.cname = cname
    task = await caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    for each in reports:
        assert await agent.emit(task.sid, each) == Done()
    return task.sid


async def asked(caller: Caller, **query: str) -> dict[str, Any]:
    answer = await caller.http.get(URL, params={**ALWAYS, **query})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def refused(caller: Caller, query: str) -> str:
    answer = await caller.http.get(f"{URL}?{query}")
    assert (answer.status_code, answer.json().get("code")) == (400, 2), answer.text
    return str(answer.json()["reason"])


async def test_an_answer_in_full(world: World, agent: FakeAgent) -> None:
    sid = await recorded(world, agent, report(("2026-03-01", "audio", 1500), ("2026-03-02", "hd", 61_000), ("2026-04-01", "2k+", 1)))
    assert await asked(world.caller, groupBy="session,day") == {
        **ALWAYS,
        "groupBy": ["session", "day"],
        "rows": [
            {"day": day, "appId": world.caller.app_id, "cname": "room1", "sid": sid, "mode": "mix", "sessions": 1, "seconds": seconds}
            for day, seconds in (("2026-03-01", {"audio": 1.5}), ("2026-03-02", {"hd": 61.0}), ("2026-04-01", {"2k+": 0.001}))
        ],
        "months": [
            {"month": "2026-03", "seconds": {"audio": 1.5, "hd": 61.0}, "minutes": {"audio": 1, "hd": 2}},
            {"month": "2026-04", "seconds": {"2k+": 0.001}, "minutes": {"2k+": 1}},
        ],
    }


async def test_repeated_and_overtaken_reports_change_nothing(world: World, agent: FakeAgent) -> None:
    reports = [report(("2026-03-01", "hd", n * 1000), ("2026-03-01", "audio", n * 10)) for n in range(1, 9)]
    shuffled = [*reports, *reports]
    random.Random(1).shuffle(shuffled)  # repeatable
    await recorded(world, agent, *shuffled)
    assert (await asked(world.caller))["rows"] == [{"day": "2026-03-01", "sessions": 1, "seconds": {"audio": 0.08, "hd": 8.0}}]


async def test_each_epoch_counts_for_itself(world: World, agent: FakeAgent) -> None:
    sid = await recorded(world, agent, report(("2026-03-01", "hd", 5000)))
    await agent.claim(sid)
    assert agent.claimed[sid].epoch == 2
    late = report(("2026-03-01", "hd", 6000))  # of the first worker, found in its journal after the second was claimed
    for each in (report(("2026-03-01", "hd", 2000), epoch=2), late, report(("2026-03-01", "hd", 2500), epoch=2)):
        assert await agent.emit(sid, each) == Done()
    assert (await asked(world.caller))["rows"][0]["seconds"] == {"hd": 8.5}
    answer: Message = await agent.emit(sid, report(("2026-03-01", "hd", 1), epoch=3))
    assert isinstance(answer, Refused)


async def test_days_months_channels_and_apps(world: World, agent: FakeAgent) -> None:
    await recorded(world, agent, report(("2026-03-31", "hd", 1000), ("2026-04-01", "hd", 2000)), cname="a")
    await recorded(world, agent, report(("2026-04-01", "hd", 4000)), cname="b")
    app = world.caller.app_id
    rows: dict[str, list[dict[str, Any]]] = {
        "day": [{"day": "2026-03-31", "sessions": 1}, {"day": "2026-04-01", "sessions": 2}],
        "month": [{"month": "2026-03", "sessions": 1}, {"month": "2026-04", "sessions": 2}],
        "app": [{"appId": app, "sessions": 2}],
        "channel": [{"appId": app, "cname": "a", "sessions": 1}, {"appId": app, "cname": "b", "sessions": 1}],
    }
    seconds = {"day": (1, 6), "month": (1, 6), "app": (7,), "channel": (3, 4)}
    for group, expected in rows.items():
        found = (await asked(world.caller, groupBy=group))["rows"]
        assert [row.pop("seconds")["hd"] for row in found] == list(seconds[group])
        assert found == expected
    assert [row["seconds"]["hd"] for row in (await asked(world.caller, channel="a", app=app))["rows"]] == [1, 2]
    only = await asked(world.caller, **{"from": "2026-04-01", "to": "2026-04-01"})
    assert [row["seconds"]["hd"] for row in only["rows"]] == [6]
    assert [month["minutes"] for month in only["months"]] == [{"hd": 1}]


@pytest.mark.parametrize("groups", ["day", "session,day", "channel", "app", "day,month,session"])
async def test_pages_make_the_whole(world: World, agent: FakeAgent, groups: str) -> None:
    for cname in ("b", "a", "[c]"):
        days = [(f"2026-03-{day:02}", category, 1000 + day) for day in range(1, 5) for category in ("hd", "audio")]
        await recorded(world, agent, report(*days), cname=cname)  # type: ignore[arg-type]  # they are categories
    whole = await asked(world.caller, groupBy=groups)
    assert "next" not in whole
    rows: list[dict[str, Any]] = []
    query = {"groupBy": groups, "limit": "3"}
    while True:
        page = await asked(world.caller, **query)
        rows += page["rows"]
        assert page["months"] == whole["months"]
        if "next" not in page:
            break
        assert len(page["rows"]) == 3
        query["after"] = page["next"]
    assert rows == whole["rows"]


async def test_only_ones_own(world: World, agent: FakeAgent) -> None:
    other = await world.another_customer()
    await recorded(world, agent, report(("2026-03-01", "hd", 1000)))
    await recorded(world, agent, report(("2026-03-01", "hd", 2000)), caller=other)
    assert [(await asked(caller))["months"][0]["seconds"]["hd"] for caller in (world.caller, other)] == [1, 2]
    for app_id in (other.app_id, "none"):
        assert await refused(world.caller, f"app={app_id}") == "app: is not one of your app ids"
    assert (await world.caller.http.get(URL, auth=("a", "b"))).status_code == 401


async def test_every_wrong_parameter_is_named_at_once(world: World) -> None:
    wrong = "from=2026-02-30&to=today&app=x&channel=%00&groupBy=day,week&limit=0&after=%21&colour=red&limit=2"
    named = {part.partition(": ")[0] for part in (await refused(world.caller, wrong)).split("; ")}
    assert named == {"from", "to", "app", "channel", "groupBy", "limit", "colour"}
    assert await refused(world.caller, "from=2026-02-02&to=2026-02-01") == "from: must not be later than to"
    for after in ("e30", "WzFd", "WyJhIiwiYiJd", "x", "WyJcdTAwMDAiXQ", "é"):
        assert (await refused(world.caller, f"after={after}")).startswith("after: ")
    for day in ("20260201", "2026-W05-1", "2026-2-1", ""):
        assert await refused(world.caller, f"to={day}") == "to: must be a day, YYYY-MM-DD"


async def test_this_month_is_the_default(world: World) -> None:
    body = (await world.caller.http.get(URL)).json()
    today = datetime.now(UTC).date().isoformat()
    assert (body["to"], body["from"], body["rows"], body["months"]) == (today, f"{today[:8]}01", [], [])
    assert (await world.caller.http.get(f"{URL}?to=2026-02-10")).json()["from"] == "2026-02-01"
    assert (await world.caller.http.get(f"{URL}?from=2999-01-05")).json()["to"] == "2999-01-05"


@pytest.fixture
async def priced(tmp_path: Path) -> AsyncIterator[World]:
    prices: dict[Category, Decimal] = {"audio": Decimal("0.00149"), "hd+": Decimal("0.02249")}
    settings = a_deployment(tmp_path / "data").model_copy(update={"usage": Usage(prices=prices, currency="US$", merge_above_hd=True)})
    async with open_world(settings) as world:
        yield world


async def test_money_is_by_whole_minutes_of_the_month(priced: World) -> None:
    async with priced.agent() as agent:
        await recorded(priced, agent, report(("2026-03-01", "fhd", 30_000_000), ("2026-03-02", "2k", 30_000_000), ("2026-03-02", "hd", 1)))
        body = await asked(priced.caller)
    assert body["rows"][1]["seconds"] == {"hd": 0.001, "hd+": 30_000.0}
    assert body["months"] == [
        {
            "month": "2026-03",
            "seconds": {"hd": 0.001, "hd+": 60_000.0},
            "minutes": {"hd": 1, "hd+": 1000},
            "price": "22.49",
            "currency": "US$",
        }
    ]


# ---- the command -----------------------------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {
    "from": "2026-03-01",
    "to": "2026-03-31",
    "groupBy": ["channel"],
    "rows": [
        {"appId": "app", "cname": "=1+1", "sessions": 1, "seconds": {"hd": 1234.5}},
        {"appId": "app", "cname": "[bold]", "sessions": 2, "seconds": {"audio": 0.25, "2k+": 1.0}},
    ],
    "months": [
        {
            "month": "2026-03",
            "seconds": {"audio": 0.25, "hd": 1234.5, "2k+": 1.0},
            "minutes": {"audio": 1, "hd": 21, "2k+": 1},
            "price": "0.13",
            "currency": "[US$]",
        }
    ],
}


def test_the_table_shows_hostile_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli.usage._show(ANSWER, Console(width=100))
    text = capsys.readouterr().out
    assert [word in text for word in ("=1+1", "[bold]", "1,234.500", "0.13 [US$]")] == [True] * 4
    assert "fhd" not in text


def test_csv_has_always_the_same_columns_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    cli.usage._write_csv(ANSWER)
    cli.usage._write_csv({**ANSWER, "rows": []})
    header, first, second, again = capsys.readouterr().out.splitlines()
    assert header == "appId,cname,sessions,audio,hd,fhd,2k,2k+,hd+,snapshot,web-hd,web-fhd"
    assert first == "app,'=1+1,1,0,1234.5,0,0,0,0,0,0,0"
    assert second == "app,[bold],2,0.25,0,0,0,1.0,0,0,0,0"
    assert again == header


def test_the_command_follows_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {None: {**ANSWER, "next": "x"}, "x": {**ANSWER, "rows": ANSWER["rows"][:1]}}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"].startswith("Basic ")
        return httpx.Response(200, json=pages[request.url.params.get("after")])

    _route(monkeypatch, answer)
    who = Credentials.model_validate({"customer_id": "a", "customer_secret": "b", "app_id": "app"})
    whole = cli.usage.fetch("http://api.test", who, {"groupBy": "channel"})
    assert whole == {**ANSWER, "rows": [*ANSWER["rows"], ANSWER["rows"][0]]}


def test_the_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials.json"
    options = ("--url", "http://api.test", "--credentials", str(path))
    assert "cannot be read: No such file" in _run(*options)
    path.write_text("{}")
    assert "is no file of credentials" in _run(*options)
    path.write_text(json.dumps({"customer_id": "a", "customer_secret": "secret", "app_id": "app"}))
    _route(monkeypatch, lambda _: httpx.Response(400, json={"code": 2, "reason": "to: must be a day"}))
    assert _run(*options) == "Error: the API answers 400: to: must be a day\n"
    assert "do not go together" in _run(*options, "--csv", "--json")
    _route(monkeypatch, lambda _: httpx.Response(200, json=ANSWER))
    assert json.loads(_run(*options, "--json", ok=True)) == ANSWER


def _run(*arguments: str, ok: bool = False) -> str:
    command: click.Command = cli.usage.command
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code == 0) == ok, result.output
    return result.output


def _route(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Lead the command's calls to `answer`."""

    def client(**options: Any) -> httpx.Client:
        return CLIENT(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(httpx, "Client", client)
