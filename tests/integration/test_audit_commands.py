"""Each command that changes something leaves one row in the audit log, and no secret."""

import asyncio
import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import text

import cli
from api import audit
from api.audit import Action
from api.masterkey import load_master_key
from api.store import open_store
from tests.canary import MARK, secret
from tests.rotation import make_old

SID: Final = "0123456789abcdef" * 2
ME: Final = audit.command_line().name


@dataclass(frozen=True)
class Step:
    """A command and the row it is to leave. What is in braces was learnt from the JSON of an earlier one, or of this one."""

    command: str
    arguments: str
    action: Action
    target: str
    details: Mapping[str, object] = field(default_factory=dict)
    learns: Mapping[str, str] = field(default_factory=dict)  # key of the JSON → name
    given: str = ""


STEPS: Final = (
    Step("keys add", "--json", Action.KEYS_ADD, "{key}", learns={"key": "key"}),
    Step("keys rotate", "--to {key}", Action.KEYS_ROTATE, "{key}"),
    Step("keys rotate", "--json", Action.KEYS_ROTATE, "{current}", learns={"current": "current"}),
    Step("keys reseal", "", Action.KEYS_RESEAL, "{current}", {"sealed": 0, "digests": 0}),
    Step("keys drop", "", Action.KEYS_DROP, "{current}", {"dropped": ["{key}", "{first}"]}),
    Step(
        "customers create",
        "--name ACME --json",
        Action.CUSTOMER_CREATE,
        "{customer}",
        {"secret": "{one}"},
        {"customer_id": "customer", "secret_id": "one"},
    ),
    Step("customers set", "{customer} --max-recordings 5", Action.CUSTOMER_SET, "{customer}", {"max_recordings": 5}),
    Step(
        "customers rotate",
        "{customer} --old-hours 1 --json",
        Action.CUSTOMER_ROTATE,
        "{customer}",
        {"secret": "{two}", "old_end_in_ms": 3_600_000},
        {"secret_id": "two"},
    ),
    Step("customers revoke", "{customer} --secret {one}", Action.CUSTOMER_REVOKE, "{customer}", {"secrets": ["{one}"]}),
    Step("customers revoke", "{customer} --all", Action.CUSTOMER_REVOKE, "{customer}", {"secrets": ["{two}"]}),
    Step(
        "operators create",
        "--json",
        Action.OPERATOR_CREATE,
        "{operator}",
        {"secret": "{one}"},
        {"operator_id": "operator", "secret_id": "one"},
    ),
    Step(
        "operators rotate",
        "{operator} --json",
        Action.OPERATOR_ROTATE,
        "{operator}",
        {"secret": "{two}", "old_end_in_ms": None},
        {"secret_id": "two"},
    ),
    Step("operators revoke", "{operator} --secret {two}", Action.OPERATOR_REVOKE, "{operator}", {"secrets": ["{two}"]}),
    Step("apps create", "{customer} --json", Action.APP_CREATE, "{app}", {"customer": "{customer}"}, {"app_id": "app"}),
    Step(
        "apps set",
        "{app} --certificate-file - --open-channels --max-recordings none",
        Action.APP_SET,
        "{app}",
        {"certificate": "set", "open_channels": True, "max_recordings": "none"},
        given=secret("audited-certificate"),
    ),
    Step("apps set", "{app} --new-certificate", Action.APP_SET, "{app}", {"certificate": "set"}),
    Step("apps set", "{app} --no-certificate", Action.APP_SET, "{app}", {"certificate": "dropped"}),
    Step(
        "callbacks set",
        "{app} https://1.1.1.1/in-path?key=in-query --events 31,40 --secret-file -",
        Action.CALLBACKS_SET,
        "{app}",
        {"new": True, "host": "1.1.1.1", "events": [31, 40], "enabled": True},
        given=secret("audited-callbacks"),
    ),
    Step("callbacks rotate", "{app} --json", Action.CALLBACKS_ROTATE, "{app}", {"overlap_ms": 86_400_000}),
    Step("callbacks replay", "{app} --all", Action.CALLBACKS_REPLAY, "{app}", {"notices": 0}),
    Step("callbacks remove", "{app}", Action.CALLBACKS_REMOVE, "{app}"),
    Step("apps remove", "{app}", Action.APP_REMOVE, "{app}"),
    Step("erase", f"{SID} --yes", Action.RECORDING_ERASE, audit.erased(SID)),
)
LOOKING: Final = frozenset(  # commands of the same groups that change nothing
    {"customers list", "operators list", "apps list", "callbacks show", "callbacks dead", "callbacks test", "keys list"}
)
OTHERS: Final = frozenset(  # they run something, or read
    {"agent", "api", "audit", "convert", "demo", "hub", "merge", "publish", "replay", "serve", "usage", "verify"}
)


def run(data: Path, command: str, *arguments: str, given: str = "", good: bool = True) -> str:
    module, *rest = command.split()
    called = CliRunner().invoke(
        importlib.import_module(f"cli.{module}").command,
        [*rest, *arguments],
        input=given,
        env={"CLOUD_RECORDER_DATA_DIR": str(data)},
        catch_exceptions=False,
    )
    assert (called.exit_code == 0) == good, called.output
    return called.stdout if good else called.output


def rows(data: Path) -> list[Any]:
    """The newest last."""

    async def read() -> list[Any]:
        async with open_store(f"sqlite+aiosqlite:///{data / 'recorder.db'}") as store, store.read() as session:
            return list((await session.execute(text("SELECT * FROM audit ORDER BY id"))).all())

    return asyncio.run(read())


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    load_master_key(tmp_path / "master.key")
    assert rows(tmp_path) == []
    return tmp_path


@pytest.mark.timeout(120)
def test_each_command_leaves_one_row_and_no_secret(deployment: Path) -> None:
    learnt = {"first": load_master_key(deployment / "master.key").current.id}
    printed: list[str] = []
    for number, step in enumerate(STEPS, 1):
        if step.command == "keys drop":
            make_old(deployment / "master.key")
        said = run(deployment, step.command, *step.arguments.format(**learnt).split(), given=step.given)
        if step.learns:
            answer = json.loads(said)
            learnt |= {name: answer[key] for key, name in step.learns.items()}
        printed += secrets_of(said)
        (*_, row) = kept = rows(deployment)
        assert len(kept) == number, step
        assert (row.actor, row.address, row.action, row.target) == (ME, "", step.action, step.target.format(**learnt))
        assert json.loads(row.details) == filled(step.details, learnt), step
    assert len(printed) == 6
    everything = repr(kept)
    for hidden in (*printed, MARK, "in-path", "in-query", "ACME", SID):
        assert hidden not in everything


def secrets_of(said: str) -> list[str]:
    """What a command has shown this once."""
    if said.startswith("certificate"):
        return [said.split()[1]]
    if not said.startswith("{"):
        return []
    answer = json.loads(said)
    return [answer[key] for key in ("customer_secret", "operator_secret", "secret") if key in answer]


def filled(details: Mapping[str, object], learnt: Mapping[str, str]) -> object:
    whole = json.dumps(details)
    for name, value in learnt.items():
        whole = whole.replace(f"{{{name}}}", value)
    return json.loads(whole)


def test_no_command_is_forgotten() -> None:
    modules = {module.name for module in pkgutil.iter_modules(cli.__path__) if module.name != "main" and module.name[0] != "_"}
    there = set()
    for name in modules - OTHERS:
        command = importlib.import_module(f"cli.{name}").command
        there |= {f"{name} {sub}" for sub in command.commands} if isinstance(command, click.Group) else {name}
    assert modules >= OTHERS
    assert there == {step.command for step in STEPS} | LOOKING
    told_elsewhere = {Action.CUSTOMER_LOCKED, Action.OPERATOR_LOCKED, Action.RECORDING_STORAGE}
    assert {step.action for step in STEPS} == set(Action) - told_elsewhere


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("customers set", "nobody --max-recordings 1"),
        ("customers rotate", "nobody"),
        ("customers revoke", "nobody --all"),
        ("apps create", "nobody"),
        ("apps set", "none --open-channels"),
        ("apps remove", "none"),
        ("callbacks set", "none https://1.1.1.1/"),
        ("callbacks remove", "none"),
        ("keys rotate", "--to none"),
        ("erase", "not-a-sid --yes"),
    ],
)
def test_what_was_refused_leaves_none(deployment: Path, command: str, arguments: str) -> None:
    run(deployment, command, *arguments.split(), good=False)
    assert rows(deployment) == []


@pytest.mark.timeout(60)
def test_the_log_is_shown(deployment: Path) -> None:
    customer = json.loads(run(deployment, "customers create", "--json"))["customer_id"]
    app = json.loads(run(deployment, "apps create", customer, "--json"))["app_id"]
    run(deployment, "apps set", app, "--open-channels")
    shown = json.loads(run(deployment, "audit", "--json"))
    assert [one["action"] for one in shown] == ["app.set", "app.create", "customer.create"]
    assert shown[0].keys() == {"at_ms", "actor", "address", "action", "target", "details"}
    assert (shown[0]["actor"], shown[0]["target"], shown[0]["details"]) == (ME, app, {"open_channels": True})
    assert json.loads(run(deployment, "audit", "--json", "--limit", "1")) == shown[:1]
    assert json.loads(run(deployment, "audit", "--json", "--action", "app.create")) == shown[1:2]
    assert json.loads(run(deployment, "audit", "--json", "--since", "2020-01-01")) == shown
    assert json.loads(run(deployment, "audit", "--json", "--since", "2999-01-01T10:30")) == []
    head, first, *rest = run(deployment, "audit").splitlines()
    assert head.split() == ["time", "(UTC)", "actor", "address", "action", "target", "details"]
    assert first.split()[2:] == [ME, "-", "app.set", app, "open_channels", "true"]
    assert len(rest) == 2
    assert "app.create" in run(deployment, "audit", "--action", "nothing", good=False)  # what there is
    assert len(rows(deployment)) == 3
