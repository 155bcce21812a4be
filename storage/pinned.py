"""HTTP sessions for the vendors' SDKs: connections go only to addresses that were checked, and end when their time is over.

The name is resolved by the check and the connection made to the address it returned, so a name that changes its address
between check and use gains nothing. The certificate is still checked against the name. Proxy variables of the environment
are not used then: a proxy would resolve the name itself. Without a check they are.

An SDK's timeouts bound the wait for the next packet; a store that sends one byte now and then is bounded by `limited` alone.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

from storage import CheckAddress
from storage.clock import StoreClock
from storage.errors import AddressForbidden, TransientStorageError
from storage.refusals import refusal

if TYPE_CHECKING:
    from botocore.httpsession import URLLib3Session
    from requests import Session

CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 30  # between two packets of an answer
REFUSED: Final = frozenset({400, 401, 403})  # what stores answer to a signature of another time

_current = threading.local()  # .watch: of the call that this thread makes


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Cut the connections that this thread uses in the block when `seconds` are over.

    Raises:
        TransientStorageError: they were over before the block's end.
    """
    watch = _Watch()
    timer = threading.Timer(seconds, watch.cut)
    timer.daemon = True
    _current.watch = watch
    timer.start()
    try:
        yield
    except Exception as error:
        if not watch.over:
            raise
        raise TransientStorageError("the exchange with the store took too long") from error
    finally:
        timer.cancel()
        _current.watch = None
        watch.close()
    if watch.over:  # what was read until then may look like a whole answer
        raise TransientStorageError("the exchange with the store took too long")


class _Watch:
    """The connections of one call, by descriptors of its own: the SDK may close its ones while it still reads."""

    def __init__(self) -> None:
        self.over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def use(self, descriptor: int) -> None:
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(descriptor)))
        if self.over:
            self.cut()

    def cut(self) -> None:
        self.over = True
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):  # it ended by itself
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets.clear()


def _used(sock: socket.socket | None) -> None:
    watch: _Watch | None = getattr(_current, "watch", None)
    if watch and sock:
        watch.use(sock.fileno())


def _pools(check: CheckAddress | None, bases: tuple[type[Any], type[Any], type[Any], type[Any]]) -> dict[str, type[Any]]:
    """Pools by scheme whose connections ask `check` and are watched. `bases`: plain and TLS connection, plain and TLS pool."""

    class Watched:
        """Comes before one of urllib3's connections."""

        def _new_conn(self) -> socket.socket:
            sock: socket.socket = _connected(self, check) if check else super()._new_conn()  # type: ignore[misc]  # see above
            _used(sock)
            return sock

        def request(self, *args: Any, **options: Any) -> Any:
            _used(self.sock)  # type: ignore[attr-defined]  # the same; None unless the connection is used again
            return super().request(*args, **options)  # type: ignore[misc]  # the same

    plain, tls, plain_pool, tls_pool = bases
    return {
        "http": type("PlainPool", (plain_pool,), {"ConnectionCls": type("Plain", (Watched, plain), {})}),
        "https": type("TlsPool", (tls_pool,), {"ConnectionCls": type("Tls", (Watched, tls), {})}),
    }


def _connected(connection: Any, check: CheckAddress) -> socket.socket:
    """Connect to one of the addresses that `check` gives.

    Errors are urllib3's, so that the SDKs take them for what they know. Not OSError for the forbidden address: that would
    look like a network fault.
    """
    try:
        addresses = check(connection.host)
    except PermissionError as error:
        raise AddressForbidden("the endpoint's address is not allowed") from error
    except OSError as error:
        raise NewConnectionError(connection, "the endpoint's name cannot be resolved") from error
    failure: OSError = OSError("no address")
    for address in addresses:
        try:
            return create_connection((address, connection.port), connection.timeout, socket_options=connection.socket_options)
        except TimeoutError as error:
            raise ConnectTimeoutError(connection, "the endpoint does not accept the connection") from error
        except OSError as error:
            failure = error
    raise NewConnectionError(connection, "the endpoint cannot be reached") from failure


def botocore_session(check: CheckAddress | None, url: str) -> "URLLib3Session":
    """A session for boto3 whose every new connection, redirected or not, asks `check`; `url` is where the store is."""
    from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    proxies = None if check else get_environ_proxies(url)
    session = URLLib3Session(proxies=proxies, timeout=(CONNECT_SECONDS, READ_SECONDS))
    pools = _pools(check, (AWSHTTPConnection, AWSHTTPSConnection, AWSHTTPConnectionPool, AWSHTTPSConnectionPool))
    session._pool_classes_by_scheme = pools
    session._manager.pool_classes_by_scheme = pools
    return session


def requests_session(check: CheckAddress | None, url: str, clock: StoreClock) -> "Session":
    """The same for SDKs that use requests. Follows no redirect and tries nothing again; `clock` learns from refusals."""
    import requests
    from requests.adapters import HTTPAdapter

    pools = _pools(check, (HTTPConnection, HTTPSConnection, HTTPConnectionPool, HTTPSConnectionPool))

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(*args, **options)
            manager.pool_classes_by_scheme = pools
            return manager

    class Straight(requests.Session):
        def request(self, *args: Any, **options: Any) -> requests.Response:
            answer = super().request(*args, **(options | {"allow_redirects": False}))
            if answer.is_redirect:
                answer.close()
                raise refusal(answer.status_code)
            if answer.status_code in REFUSED:
                clock.learn(answer.headers.get("Date"))
            return answer

    session = Straight()
    session.trust_env = False  # a login from ~/.netrc would replace the signature
    if check is None:
        session.proxies = requests.utils.get_environ_proxies(url)
    session.mount("http://", Adapter())
    session.mount("https://", Adapter())
    return session
