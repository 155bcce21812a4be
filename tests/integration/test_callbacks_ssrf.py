"""No URL of a callback leads inside, however it is written, wherever its name leads, whatever a receiver answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.accounts import AccountError
from api.tables import Endpoint
from recorder import metrics
from recorder.outbound import AddressPolicy
from recorder.outbound_http import Unanswered, open_client
from recorder.settings import Callbacks
from tests.hostile_urls import hostile_urls
from tests.notices import Office, delivering, office
from tests.receiver import receiver


class Canaries:
    def __init__(self) -> None:
        self.connections = 0
        self.ports: list[int] = []

    def hit(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@contextlib.asynccontextmanager
async def canaries() -> AsyncIterator[Canaries]:
    """They listen on every address of this machine."""
    found = Canaries()
    servers = [await asyncio.start_server(found.hit, host, 0) for host in ("0.0.0.0", "::")]
    found.ports = [server.sockets[0].getsockname()[1] for server in servers]
    yield found
    await asyncio.sleep(0.1)  # for what is under way
    for server in servers:
        server.close()


async def test_no_form_reaches_a_canary() -> None:
    room = asyncio.Semaphore(16)
    async with canaries() as seen, open_client(AddressPolicy(()), plain_http=True) as client:

        async def tried(url: str) -> None:
            async with room:
                with pytest.raises(Unanswered) as caught:
                    await client.post(url, b"{}", {})
                assert caught.value.why in ("bad_url", "forbidden", "unresolved"), url

        async with asyncio.TaskGroup() as group:
            for port in seen.ports:
                for url in hostile_urls(port):
                    group.create_task(tried(url))
    assert seen.connections == 0


async def test_an_endpoint_takes_none_of_them(tmp_path: Path) -> None:
    """What it takes because nobody knows the name yet is stopped when it is sent to."""
    async with canaries() as seen, office(tmp_path, settings=Callbacks(allow_http=True)) as post:
        app = await post.app("https://8.8.8.8/")
        refused = []
        for url in hostile_urls(seen.ports[0]):
            try:
                await post.endpoints.set(app, url=url)
            except AccountError as error:
                refused.append(str(error).partition(" ")[0])
            else:
                assert (await post.endpoints.test(app)).failure == "unresolved", url
        assert len(refused) >= 250
        assert set(refused) == {"url:"}
        assert seen.connections == 0


async def test_a_row_that_is_in_the_database_is_checked_again(tmp_path: Path) -> None:
    """An operator may narrow the networks after an endpoint was set."""
    async with canaries() as seen, office(tmp_path, settings=Callbacks(allow_http=True)) as post, delivering(post):
        app = await _at(post, f"http://127.0.0.1:{seen.ports[0]}/")
        blocked = metrics.SSRF_BLOCKED.labels("callback")._value.get()
        await post.say(app, await post.recording(app), 40)
        async with asyncio.timeout(10):
            while not (await post.notices())[0].attempts:
                await asyncio.sleep(0.02)
        assert (await post.notices())[0].failure == "forbidden"
        assert metrics.SSRF_BLOCKED.labels("callback")._value.get() > blocked
        assert seen.connections == 0


async def _at(post: Office, url: str) -> str:
    app = await post.app("https://8.8.8.8/")
    async with post.store.write() as session:
        await session.execute(update(Endpoint).where(Endpoint.app_id == app).values(url=url))
    return app


async def test_a_name_that_changes_its_address_is_connected_where_it_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, *rest: Any, **options: Any) -> Any:
        if host != "rebind.test":
            return real(host, *rest, **options)
        asked.append(host)
        return real("127.0.0.2" if len(asked) == 1 else "127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)  # no name server here answers so
    async with receiver() as there, open_client(AddressPolicy(("127.0.0.2/32",)), plain_http=True) as client:
        url = there.url("/hook", "rebind.test")
        assert (await client.post(url, b"{}", {})).status == 200
        assert len(asked) == 1
        await asyncio.sleep(5)  # the connection is not kept for longer
        with pytest.raises(Unanswered, match="forbidden"):
            await client.post(url, b"{}", {})
        (received,) = await there.received()
        assert received.headers["host"] == f"rebind.test:{there.port}"


async def test_one_bad_address_of_several_forbids_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    async with canaries() as seen, open_client(AddressPolicy(("127.0.0.2/32",)), plain_http=True) as client:
        with pytest.raises(Unanswered, match="forbidden"):
            await client.post(f"http://two.test:{seen.ports[0]}/", b"{}", {})
    assert seen.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with canaries() as seen, receiver() as there, open_client(AddressPolicy(("127.0.0.1/32",)), plain_http=True) as client:
        await there.behave("/hook", then=f"{status} Location: http://127.0.0.1:{seen.ports[0]}/")
        assert (await client.post(there.url("/hook"), b"{}", {})).status == status
        assert len(await there.received()) == 1
    assert seen.connections == 0


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canaries() as seen, receiver() as there, open_client(AddressPolicy(("127.0.0.1/32",)), plain_http=True) as client:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{seen.ports[0]}")
        assert (await client.post(there.url("/hook"), b"{}", {})).status == 200
    assert seen.connections == 0


async def test_plain_http_needs_the_operators_leave(tmp_path: Path) -> None:
    async with receiver() as there:
        settings = Callbacks(allowed_networks=("127.0.0.0/8",))
        async with office(tmp_path, settings=settings) as post:
            app = await _at(post, there.url("/hook"))
            assert (await post.endpoints.test(app)).failure == "bad_url"
            with pytest.raises(AccountError, match="https"):
                await post.endpoints.set(app, url=there.url("/hook"))
        assert await there.received() == []
