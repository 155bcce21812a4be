"""The channel hub asks the control plane who may come in: two real processes' worth of code over the real socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api.accounts import AppChange
from recorder.channels import ChannelRefused, TokenExpired
from recorder.channels.hub import _refused
from recorder.hub.access import AppRights, Refused
from recorder.hub.messages import Denial
from recorder.hub.rights import AskedRights
from recorder.settings import Hub
from tests.canary import secret
from tests.contract.conftest import World, a_deployment, open_world
from tests.integration.hub_room import running_hub
from tests.tokens import token_006, token_007

CERTIFICATE = secret("certificate-of-app")


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path / "data")) as world:
        yield world


async def test_what_the_command_line_changes_holds_within_a_second(world: World) -> None:
    clock, app_id = Clock(), world.caller.app_id
    rights = AskedRights(Hub(), world.settings.control_socket, now=clock)
    assert await rights.of(app_id) == AppRights(None, open=False)
    await world.accounts.set_app(app_id, AppChange(certificate=CERTIFICATE))
    clock.seconds += 1
    assert await rights.of(app_id) == AppRights(SecretStr(CERTIFICATE), open=False)
    await world.accounts.set_app(app_id, AppChange(drop_certificate=True, open_channels=True))
    clock.seconds += 1
    assert await rights.of(app_id) == AppRights(None, open=True)
    await world.accounts.remove_app(app_id)
    clock.seconds += 1
    for gone in (app_id, "never", "x" * 65, ""):
        with pytest.raises(Refused) as caught:
            await rights.of(gone)
        assert caught.value.status == 403


async def test_the_settings_come_first(world: World) -> None:
    hub = Hub(certificates={"configured": SecretStr(CERTIFICATE)}, allow_open_channels=True)
    rights = AskedRights(hub, world.settings.control_socket)
    assert await rights.of("configured") == AppRights(SecretStr(CERTIFICATE), open=False)
    assert await rights.of(world.caller.app_id) == AppRights(None, open=True)


async def test_while_the_control_plane_is_away_the_last_word_counts(tmp_path: Path) -> None:
    settings, clock = a_deployment(tmp_path / "data"), Clock()
    rights = AskedRights(Hub(), settings.control_socket, now=clock)
    async with open_world(settings) as world:
        app_id = world.caller.app_id
        await world.accounts.set_app(app_id, AppChange(certificate=CERTIFICATE))
        known = await rights.of(app_id)
    clock.seconds += 1000
    assert await rights.of(app_id) == known
    with pytest.raises(Refused) as caught:
        await rights.of("another")
    assert caught.value.status == 503


async def test_strangers_cannot_fill_the_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.hub.rights.APPS_REMEMBERED", 5)
    rights = AskedRights(Hub(), world.settings.control_socket)
    for number in range(20):
        with pytest.raises(Refused):
            await rights.of(f"app{number}")
    assert list(rights._known) == [f"app{number}" for number in range(15, 20)]


async def test_a_control_plane_that_says_nothing_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.hub.rights.ANSWER_SECONDS", 0.2)
    for answer in (None, b"what?\n", b'{"id": 0, "answer": true, "body": {"type": "done"}}\n'):

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes | None = answer) -> None:
            await reader.readline()
            if said:
                writer.write(said)
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / "s"):
            with pytest.raises(Refused):
                await AskedRights(Hub(), tmp_path / "s").of("app")
        (tmp_path / "s").unlink(missing_ok=True)


def roster(url: str, app_id: str, uid: int, token: str) -> connect:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(f"{url.replace('http', 'ws', 1)}/roster/{app_id}/{quote('room')}?uid={uid}", additional_headers=headers, proxy=None)


async def test_tokens_of_both_formats_open_the_roster(world: World) -> None:
    app_id, now = world.caller.app_id, int(time.time())
    await world.accounts.set_app(app_id, AppChange(certificate=CERTIFICATE))
    rights = AskedRights(Hub(), world.settings.control_socket)
    wanted = (app_id, CERTIFICATE, "room", 900, {1: 0})
    good = (token_006(*wanted, ends_at=now + 60), token_007(*wanted, issued_at=now, seconds=60))
    expired = (token_006(*wanted, ends_at=now - 1), token_007(*wanted, issued_at=now - 60, seconds=59))
    forged = ("", "006", "007", token_006(app_id, "d" * 32, "room", 900, {1: 0}, ends_at=now + 60))
    foreign = (
        token_006(app_id, CERTIFICATE, "other", 900, {1: 0}, ends_at=now + 60),
        token_007(app_id, CERTIFICATE, "room", 901, {1: 0}, issued_at=now, seconds=60),
        token_006(app_id, CERTIFICATE, "room", 900, {2: 0}, ends_at=now + 60),
    )
    async with running_hub(Hub(), rights) as url:
        for token in good:
            async with roster(url, app_id, 900, token) as socket:
                assert '"roster"' in str(await socket.recv())
        for tokens, status, error in ((expired, 401, TokenExpired), (forged, 401, ChannelRefused), (foreign, 403, ChannelRefused)):
            for token in tokens:
                with pytest.raises(InvalidStatus) as caught:
                    await roster(url, app_id, 900, token)
                answer = caught.value.response
                assert answer.status_code == status
                assert type(_refused(bytes(answer.body))) is error
                assert CERTIFICATE not in bytes(answer.body).decode()
        with pytest.raises(InvalidStatus) as caught:
            await roster(url, "nobodys", 900, "")
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"reason": 7}', b'{"reason": "x", "error": "new"}'])
def test_a_denial_in_another_language_is_a_refusal(body: bytes) -> None:
    assert type(_refused(body)) is ChannelRefused


def test_a_denial_says_what_is_wrong() -> None:
    assert str(_refused(Denial(reason="why", error="token").model_dump_json().encode())) == "why"
