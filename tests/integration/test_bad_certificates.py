"""Servers whose certificates are not good, and everybody who connects to servers: they say so, and nothing of theirs was said.

What callbacks do is in test_callbacks_receiver.py.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import pytest
from pydantic import SecretStr

from cli.usage import fetch
from recorder.channels import ChannelError, Listener, Place
from recorder.channels.hub import HubConnector
from recorder.outbound import AddressPolicy, DownloadFailed, download
from recorder.spec import RecordingSpec
from recorder.tools.api_client import Credentials
from recorder.tools.publish import Publication, Publisher, PublishError
from storage import ObjectStore, StoreOptions, open_store
from storage.errors import TransientStorageError
from tests.canary import secret
from tests.certificates import Authority, self_signed
from tests.tls_trap import Trap, trap

SECRET = SecretStr(secret("for-nobody"))
MEDIA = b"media-for-nobody"
LOOPBACK = AddressPolicy(("127.0.0.0/8",))
VENDORS = {"qiniu": 0, "amazon": 1, "oss": 2, "cos": 3, "ks3": 4, "s3": 11}
NOT_GOOD = "certificate or its TLS is not good"
GOOD = "good"


@dataclass(frozen=True)
class Servers:
    """One of each certificate; `trusted` signed all but those of nobody."""

    trusted: Path
    traps: dict[str, Trap]


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    ours, others = Authority(tmp_path), Authority(tmp_path, "unknown")
    certificates = {
        GOOD: ours.server("good"),
        "self-signed": self_signed(tmp_path),
        "expired": ours.server("expired", ended=timedelta(minutes=1)),
        "another name": ours.server("name", host="there.example"),
        "unknown authority": others.server("stranger"),
    }
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.file))
    with ExitStack() as stack:
        yield Servers(ours.file, {name: stack.enter_context(trap(*files)) for name, files in certificates.items()})


Call = Callable[[str, Path], Awaitable[object]]  # with the URL of a server, and the authority to trust


async def image(url: str, _: Path) -> None:
    await asyncio.to_thread(download, f"{url}/{SECRET.get_secret_value()}.png", LOOPBACK, most_bytes=1000, seconds=10)


@asynccontextmanager
async def connector(url: str) -> AsyncIterator[HubConnector]:
    spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=900, mode="mix", token=SECRET)
    one = HubConnector(Place("hub", url, time.monotonic_ns()), spec, Mock(spec=Listener))
    try:
        yield one
    finally:
        await one.leave()


async def roster(url: str, _: Path) -> None:
    async with connector(url) as one:
        await one._connect()  # `join` tries again for ten seconds


async def session(url: str, _: Path) -> None:
    """As a connector opens one with a participant."""
    async with connector(url) as one:
        await one.whep(101).offer("v=0", low=False)


async def publisher(url: str, _: Path) -> None:
    await Publisher(Publication(url, "app", "room", 101, token=SECRET, video=None)).start()


async def usage(url: str, _: Path) -> None:
    await asyncio.to_thread(fetch, url, Credentials(customer_id="me", customer_secret=SECRET, app_id="app"), {})


def trusting(store: ObjectStore, authority: Path) -> None:
    """Vendors' SDKs come with authorities of their own, and the tests' is none of them."""
    client: Any = store._client  # type: ignore[attr-defined]  # a RemoteStore
    if hasattr(client, "_session"):
        client._session.verify = str(authority)
    else:
        client._client._endpoint.http_session._verify = str(authority)


def stored(vendor: int) -> Call:
    options = StoreOptions(vendor, "rec-1250000000", access_key="AKcanary", secret_key=SECRET.get_secret_value(), sts_token=None)

    def put(url: str, authority: Path) -> None:
        with closing(open_store(replace(options, endpoint=url), LOOPBACK.check)) as store:
            trusting(store, authority)
            store.put_bytes("slice.ts", MEDIA, content_type="video/MP2T", cache_control="max-age=1")

    async def call(url: str, authority: Path) -> None:
        await asyncio.to_thread(put, url, authority)

    return call


@dataclass(frozen=True)
class Client:
    call: Call
    failure: type[Exception]  # for a store a passing one: certificates are renewed, and the spool waits for it
    words: str  # of the failure
    said: bytes  # to a server whose certificate is good


CLIENTS = {
    "image": Client(image, DownloadFailed, NOT_GOOD, SECRET.get_secret_value().encode()),
    "roster of the hub": Client(roster, ChannelError, NOT_GOOD, SECRET.get_secret_value().encode()),
    "session of the hub": Client(session, ConnectionError, "WHEP: ConnectError", SECRET.get_secret_value().encode()),
    "publisher": Client(publisher, PublishError, "no connection to the hub: ConnectError", SECRET.get_secret_value().encode()),
    **{name: Client(stored(vendor), TransientStorageError, NOT_GOOD, b"AKcanary") for name, vendor in VENDORS.items()},
}


@pytest.mark.parametrize("name", CLIENTS)
async def test_nothing_is_said_to_a_server_that_may_be_another(servers: Servers, name: str) -> None:
    client = CLIENTS[name]
    for certificate, server in servers.traps.items():
        with pytest.raises(Exception if certificate == GOOD else client.failure) as failed:  # a good one is no hub and no store either
            await client.call(f"https://127.0.0.1:{server.port}", servers.trusted)
        told = "".join(traceback.format_exception(failed.value))
        assert SECRET.get_secret_value() not in told
        assert server.connections, certificate
        if certificate == GOOD:  # it was the certificate that others were refused for
            assert client.words not in str(failed.value)
            assert client.said in server.heard
            assert name not in VENDORS or MEDIA in server.heard
        else:
            assert client.words in str(failed.value), certificate
            assert server.heard == b"", certificate


async def test_the_command_line_trusts_no_authority_that_it_does_not_know(servers: Servers) -> None:
    for server in servers.traps.values():
        with pytest.raises(click.ClickException, match=r"no answer from https://127\.0\.0\.1:[0-9]+: ConnectError") as failed:
            await usage(f"https://127.0.0.1:{server.port}", servers.trusted)
        assert SECRET.get_secret_value() not in "".join(traceback.format_exception(failed.value))
        assert server.connections
        assert server.heard == b""
