"""Where connections to hosts that users name may go: public addresses, and the networks the operator allows.

The one place that resolves users' host names. Whoever connects uses the addresses `check` returned, not the name again: a
name can change its address between two look-ups.
"""

import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 inside IPv6


class ForbiddenAddress(PermissionError):
    """The host has an address that is neither public nor allowed by the operator."""


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
        return inner.is_global and not inner.is_multicast


def _embedded(address: Address) -> Address:
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
