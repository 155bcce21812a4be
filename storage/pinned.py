"""An HTTP session for botocore that connects only to addresses that were checked.

The name is resolved by the check and the connection made to the address it returned, so a name that changes its address
between check and use gains nothing. The certificate is still checked against the name. Proxy variables of the environment
are not used: a proxy would resolve the name itself.
"""

import socket
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.httpsession import URLLib3Session
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.connection import create_connection

from storage import CheckAddress
from storage.errors import AddressForbidden


def pinned_session(check: CheckAddress, **options: Any) -> URLLib3Session:
    """A session whose every new connection, redirected or not, asks `check`; `options` are those of `URLLib3Session`."""

    def connect(connection: AWSHTTPConnection) -> socket.socket:
        # Errors are urllib3's, so that botocore takes them for what it knows. Not OSError for the forbidden address:
        # that would look like a network fault.
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

    class PlainConnection(AWSHTTPConnection):  # type: ignore[misc]  # botocore is untyped
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class TlsConnection(AWSHTTPSConnection):  # type: ignore[misc]  # botocore is untyped
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc]  # botocore is untyped
        ConnectionCls = PlainConnection

    class TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]  # botocore is untyped
        ConnectionCls = TlsConnection

    session = URLLib3Session(proxies=None, **options)
    session._manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    return session
