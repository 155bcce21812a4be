"""Where connections to hosts that users name may go: public addresses, and the networks the operator allows.

The one place that resolves users' host names. Whoever connects uses the addresses `check` returned, not the name again: a
name can change its address between two look-ups.

Standard library only: the helper that downloads images loads it, and shall be small. Requests of the control plane go through
`recorder.outbound_http`, which connects by the same rules.

    OSError
    ├── PermissionError ── ForbiddenAddress
    ├── BadUrl
    └── DownloadFailed
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 inside IPv6
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")  # RFC 6890; some Pythons count most of it as global, a cloud has its secrets there
_WEB_PORTS = (80, 443)
_FIRST_FREE_PORT = 1024  # below it live mail, remote login and the like
_CHUNK_BYTES = 64 * 1024
# Everything that may stand in the target of a request, RFC 3986 section 3.3 and 3.4; "%" because it is encoded already.
_TARGET_CHARACTERS = "/?:@!$&'()*+,;=~-._%"


class ForbiddenAddress(PermissionError):
    """The host has an address that is neither public nor allowed by the operator."""


class BadUrl(OSError):
    """The URL is not one that may be asked for; the message says why and quotes nothing of it."""


class DownloadFailed(OSError):
    """The server did not give what was asked for; the message says what happened and quotes nothing of it."""


class AddressPolicy:
    """Which addresses users' hosts may have."""

    def __init__(self, allowed_networks: Iterable[str]) -> None:
        """`allowed_networks`: CIDR blocks that may be connected to although they are not public.

        Raises:
            ValueError: one of them is not a CIDR block.
        """
        self._allowed = tuple(ipaddress.ip_network(network) for network in allowed_networks)

    def check(self, host: str) -> list[str]:
        """Resolve `host`, a name or an address in whatever notation; blocks.

        Raises:
            ForbiddenAddress: one of its addresses is not admitted.
            OSError: it cannot be resolved.
        """
        try:
            found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # labels that IDNA cannot encode
            raise OSError("not a host name") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not all(self.admits(address) for address in addresses):
            raise ForbiddenAddress
        return addresses

    def admits(self, address: str) -> bool:
        """Whether this address is public or allowed. One that carries an IPv4 address inside is judged by that."""
        outer = ipaddress.ip_address(address.partition("%")[0])
        inner = _embedded(outer)
        if any(one in network for one in (outer, inner) for network in self._allowed):
            return True
        if isinstance(inner, ipaddress.IPv6Address) and (inner.is_reserved or inner.is_site_local):
            return False
        return inner.is_global and not inner.is_multicast and inner not in _PROTOCOLS


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart, once: what is checked is what is asked for."""

    secure: bool
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, url: str) -> "Place":
        """Raises:
        BadUrl
        """
        try:
            parts = urlsplit(url)
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError as error:  # UnicodeError is one: labels that IDNA cannot encode
            raise BadUrl("not a URL") from error
        if parts.scheme not in ("http", "https") or not host or not url.isprintable():
            raise BadUrl("not a http or https URL")
        if parts.username is not None or parts.password is not None:
            raise BadUrl("a URL with a login")
        if port not in _WEB_PORTS and port < _FIRST_FREE_PORT:
            raise BadUrl("not a port of the web")
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_TARGET_CHARACTERS)
        return cls(secure, host, port, target)

    @property
    def authority(self) -> str:
        """For the header Host, RFC 9110 section 7.2."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def download(url: str, policy: AddressPolicy, *, most_bytes: int, seconds: float) -> bytes:
    """What GET answers with 200; follows no redirect and uses no proxy. Blocks.

    The look-up of the name and a server that drips its headers may take longer than `seconds`: be ready to end the process.

    Raises:
        ForbiddenAddress: the host may not be connected to.
        DownloadFailed: everything else, also more than `most_bytes`.
    """
    deadline = time.monotonic() + seconds
    try:
        place = Place.of(url)
        with closing(_connected(place, policy.check(place.host), deadline)) as connection:
            return _get(connection, place, most_bytes, deadline)
    except (ForbiddenAddress, DownloadFailed):
        raise
    except BadUrl as error:
        raise DownloadFailed(str(error)) from error
    except TimeoutError as error:
        raise DownloadFailed("the server is too slow") from error
    except ssl.SSLError as error:
        raise DownloadFailed("the server's certificate or its TLS is not good") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadFailed(f"no answer from the server ({type(error).__name__})") from error


def _connected(place: Place, addresses: Iterable[str], deadline: float) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        try:
            plain = socket.create_connection((address, place.port), _left(deadline))
        except OSError as error:
            failure = error
            continue
        if not place.secure:
            return plain
        try:
            plain.settimeout(_left(deadline))
            return ssl.create_default_context().wrap_socket(plain, server_hostname=place.host)
        except BaseException:
            plain.close()
            raise
    raise failure


def _get(sock: socket.socket, place: Place, most_bytes: int, deadline: float) -> bytes:
    kind = http.client.HTTPSConnection if place.secure else http.client.HTTPConnection
    connection = kind(place.host, place.port)
    connection.auto_open = 0  # else it could look the name up again
    connection.sock = sock
    sock.settimeout(_left(deadline))
    headers = {"Accept-Encoding": "identity", "User-Agent": "cloud-recorder", "Connection": "close"}
    connection.request("GET", place.target, headers=headers)
    with connection.getresponse() as response:
        if response.status != http.client.OK:
            raise DownloadFailed(f"the server answers {response.status}")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise DownloadFailed("the server's answer is compressed")
        if response.length is not None and response.length > most_bytes:
            raise DownloadFailed(f"larger than {most_bytes} bytes")
        body = bytearray()
        while True:
            sock.settimeout(_left(deadline))
            chunk = response.read1(_CHUNK_BYTES)
            if not chunk:
                break
            body += chunk
            if len(body) > most_bytes:
                raise DownloadFailed(f"larger than {most_bytes} bytes")
        if response.length:
            raise DownloadFailed("the server's answer is cut off")
        return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _embedded(address: Address) -> Address:
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
