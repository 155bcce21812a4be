"""`cloud-recorder callbacks`, beside a control plane that runs."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from standardwebhooks import Webhook

from cli.main import group
from recorder.settings import Callbacks
from tests.contract.conftest import World, a_deployment, open_world
from tests.notices import LOOPBACK
from tests.receiver import Receiver, receiver


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    callbacks = Callbacks(allow_http=True, allowed_networks=LOOPBACK)
    variables = {"DATA_DIR": str(tmp_path / "data"), "CALLBACKS__ALLOW_HTTP": "true", "CALLBACKS__ALLOWED_NETWORKS": json.dumps(LOOPBACK)}
    for name, value in variables.items():
        monkeypatch.setenv(f"CLOUD_RECORDER_{name}", value)
    async with open_world(a_deployment(tmp_path / "data").model_copy(update={"callbacks": callbacks})) as world:
        yield world


async def run(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, group, ["callbacks", *arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result.output


async def test_an_endpoint_by_command_line(world: World, there: Receiver) -> None:
    app = world.caller.app_id
    assert "has no endpoint" in await run("show", app, code=1)
    made = json.loads(await run("set", app, there.url("/a"), "--events", "31,40", "--json"))
    assert made["secret"] == made["standard_secret"]
    assert (await run("show", app)).splitlines() == [
        f"url        {there.url('/a')}",
        "state      on",
        "events     31,40",
        "waiting    0",
        "dead       0",
    ]
    assert await run("test", app) == "delivered\n"
    rotated = (await run("rotate", app, "--secret-file", "-", stdin="an-old-secret\n")).splitlines()
    assert rotated[0].split() == ["secret", "an-old-secret"]
    standard = rotated[1].split()[1]
    assert await run("test", app) == "delivered\n"
    _, second = await there.received("/a")
    for secret in (made["secret"], standard):
        assert Webhook(secret).verify(second.body, second.headers)
    await there.behave("/a", then="418")
    assert await run("test", app, code=1) == "not delivered: 418 (code 418)\n"
    assert await run("remove", app) == "removed\n"


async def test_dead_letters_by_command_line(world: World, there: Receiver) -> None:
    """What a command replays is sent by the control plane that runs."""
    app = world.caller.app_id
    await run("set", app, there.url("/a"))
    await there.behave("/a", then="410")
    async with world.plane.store.write() as session:
        await world.plane.outbox.add(session, app_id=app, sid=None, event_type=40, payload={}, now_ms=world.clock())
    async with asyncio.timeout(10):
        while not (await run("dead", app)):
            await asyncio.sleep(0.05)
    (letter,) = json.loads(await run("dead", app, "--json"))
    assert (letter["failure"], letter["event_type"], letter["attempts"]) == ("410", 40, 1)
    assert "left alone since" in await run("show", app)
    assert "is off" in await run("replay", app, "--all", code=1)
    await there.behave("/a")
    assert await run("set", app, there.url("/a")) == "set\n"
    assert await run("replay", app, letter["notice_id"]) == "replayed: 1\n"
    async with asyncio.timeout(10):
        while not await there.accepted():
            await asyncio.sleep(0.05)
    (one,) = await there.accepted()
    assert one.notice["noticeId"] == letter["notice_id"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("set", "{app}", "ftp://x/", "--events", "5"), "url: not a http or https URL; events: "),
        (("set", "{app}", "http://8.8.8.8/", "--events", "a"), "--events"),
        (("set", "nobody", "http://8.8.8.8/"), "no app"),
        (("set", "{app}", "http://10.0.0.1/"), "not allowed"),
        (("replay", "{app}"), "--all"),
        (("rotate", "{app}"), "no endpoint"),
    ],
)
async def test_what_is_wrong_is_said_in_a_line(world: World, arguments: tuple[str, ...], word: str) -> None:
    given = [argument.replace("{app}", world.caller.app_id) for argument in arguments]
    result = await asyncio.to_thread(CliRunner().invoke, group, ["callbacks", *given])
    assert result.exit_code in (1, 2)
    assert word in result.output
    assert "Traceback" not in result.output


async def test_authorities_that_cannot_be_read_are_told_at_the_start(tmp_path: Path) -> None:
    for text in (None, "no PEM"):
        file = tmp_path / "authorities.pem"
        if text:
            file.write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "api"),
            env={"CLOUD_RECORDER_DATA_DIR": str(tmp_path / "data"), "CLOUD_RECORDER_CALLBACKS__AUTHORITIES": str(file)},
            cwd=Path(__file__).parents[2],
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert process.returncode == 2
        assert said.decode() == f"cloud-recorder: callbacks.authorities: {file} is no PEM file that can be read\n"
