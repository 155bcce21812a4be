"""The HTTP client for URLs that users name: what `recorder.outbound` admits, at the address that was checked, and no further.

A name is resolved once for a connection, and the connection made to the address that was admitted; the certificate is checked
against the name. No redirect is followed, no proxy used, no cookie kept, and little of an answer is read.

    OSError
    └── Unanswered
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpcore
from httpcore import SOCKET_OPTION, AsyncNetworkBackend, AsyncNetworkStream

from recorder.outbound import AddressPolicy, BadUrl, ForbiddenAddress, Place

ANSWER_SECONDS: Final = 10.0  # for everything: look-up, connection, request, answer
MOST_REPLY_BYTES: Final = 64 * 1024
_DRAIN_SECONDS: Final = 1.0  # for a body that nobody needs, so that the connection can be used again
_IDLE_SECONDS: Final = 4.0  # less than servers wait before they close: Node and uvicorn 5 s
_CHECK_SECONDS: Final = 3.0  # for a look-up that only tells somebody early what is wrong
_LOOK_UPS: Final = 64  # at the same time: a name server that is silent holds one for many seconds
_MOST_ADDRESSES: Final = 4  # of a host, tried in turn

Why = Literal["bad_url", "forbidden", "unresolved", "tls", "timeout", "no_answer"]


class Unanswered(OSError):
    """There was no HTTP answer."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Final = why


class Unresolved(OSError):
    """The host has no address."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after: str | None = None  # that header, as it came


class OutboundClient:
    """Connections are kept for a few seconds and used again for the same host. Use it inside `open_client`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, resolver: "_Resolver", *, plain_http: bool, seconds: float) -> None:
        self._pool = pool
        self._resolver = resolver
        self._plain_http = plain_http
        self._seconds = seconds

    async def check(self, url: str) -> None:
        """See that this URL may be asked for. A host that nobody knows may be known later: that is not wrong.

        Raises:
            BadUrl, ForbiddenAddress
        """
        place = self._place(url)
        with contextlib.suppress(Unresolved, TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._resolver.check(place.host)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises:
        Unanswered
        """
        try:
            place = self._place(url)
            async with asyncio.timeout(self._seconds) as limit:
                return await self._post(place, body, headers, limit)
        except BadUrl as error:
            raise Unanswered("bad_url") from error
        except ForbiddenAddress as error:
            raise Unanswered("forbidden") from error
        except Unresolved as error:
            raise Unanswered("unresolved") from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise Unanswered("timeout") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise Unanswered("tls" if _is_tls(error) else "no_answer") from error

    async def _post(self, place: Place, body: bytes, headers: Mapping[str, str], limit: asyncio.Timeout) -> Answer:
        url = httpcore.URL(scheme=b"https" if place.secure else b"http", host=place.host, port=place.port, target=place.target)
        sent = {"Host": place.authority, "User-Agent": "cloud-recorder", "Accept-Encoding": "identity", "Content-Length": str(len(body))}
        async with self._pool.stream("POST", url, headers=list((sent | dict(headers)).items()), content=body) as response:
            answer = Answer(response.status, _header(response, b"retry-after"))
            limit.reschedule(None)  # it has answered in time
            with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await _drain(response)
            return answer

    def _place(self, url: str) -> Place:
        place = Place.of(url)
        if not place.secure and not self._plain_http:
            raise BadUrl("not a https URL")
        return place


@contextlib.asynccontextmanager
async def open_client(
    policy: AddressPolicy, *, plain_http: bool = False, authorities: Path | None = None, seconds: float = ANSWER_SECONDS
) -> AsyncIterator[OutboundClient]:
    """`plain_http`: URLs need not be https. `authorities`: PEM file with authorities that are trusted beside those of the system.

    Raises:
        OSError, ssl.SSLError: that file cannot be read.
    """
    tls = ssl.create_default_context()
    if authorities:
        tls.load_verify_locations(authorities)
    resolver = _Resolver(policy)
    pool = httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=None,
        max_keepalive_connections=100,
        keepalive_expiry=_IDLE_SECONDS,
        network_backend=_Pinned(resolver),
    )
    try:
        async with pool:
            yield OutboundClient(pool, resolver, plain_http=plain_http, seconds=seconds)
    finally:
        resolver.close()


class _Resolver:
    """Looks names up in threads of its own: others' work does not wait behind silent name servers."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._threads = ThreadPoolExecutor(_LOOK_UPS, "look-up")

    async def check(self, host: str) -> list[str]:
        """Its addresses, all admitted.

        Raises:
            ForbiddenAddress, Unresolved
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._policy.check, host)
        except ForbiddenAddress:
            raise
        except OSError as error:
            raise Unresolved from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Pinned(AsyncNetworkBackend):
    """Connects to the addresses that were checked."""

    def __init__(self, resolver: _Resolver) -> None:
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the contract of httpcore
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        addresses = (await self._resolver.check(host))[:_MOST_ADDRESSES]
        failure: Exception = Unresolved()
        for address in addresses:
            patience = ANSWER_SECONDS / 2 / len(addresses)  # one that is silent leaves time for the next
            try:
                return await self._inner.connect_tcp(address, port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _drain(response: httpcore.Response) -> None:
    left = MOST_REPLY_BYTES
    async for chunk in response.aiter_stream():
        left -= len(chunk)
        if left < 0:
            return


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


def _is_tls(error: BaseException | None) -> bool:
    """httpcore tells a failed handshake as a failed connection; the reason hangs behind."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
