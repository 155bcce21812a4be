"""Which addresses users' hosts may have."""

import socket

import pytest

from recorder.outbound import AddressPolicy, ForbiddenAddress

INSIDE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%lo",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a00:1::",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_storage_outbound_refuses_addresses_inside(address: str) -> None:
    assert not AddressPolicy(()).admits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_storage_outbound_admits_public_addresses(address: str) -> None:
    assert AddressPolicy(()).admits(address)


def test_storage_outbound_admits_what_the_operator_lists() -> None:
    policy = AddressPolicy(("10.0.0.0/8", "127.0.0.1/32", "fd00::/8"))
    assert all(policy.admits(address) for address in ("10.9.9.9", "127.0.0.1", "::ffff:10.0.0.1", "fd00::5", "8.8.8.8"))
    assert not any(policy.admits(address) for address in ("127.0.0.2", "192.168.0.1", "fc00::1", "169.254.169.254"))


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]", "0"])
def test_storage_outbound_refuses_loopback_in_every_notation(host: str) -> None:
    with pytest.raises(ForbiddenAddress):
        AddressPolicy(()).check(host)


def test_storage_outbound_returns_what_was_checked() -> None:
    assert AddressPolicy(("127.0.0.0/8",)).check("127.1") == ["127.0.0.1"]


def test_storage_outbound_refuses_a_name_with_one_address_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # no name server here answers so
    with pytest.raises(ForbiddenAddress):
        AddressPolicy(()).check("two.example")
    assert AddressPolicy(("10.0.0.0/8",)).check("two.example") == ["8.8.8.8", "10.0.0.1"]


@pytest.mark.parametrize("host", ["", "a" * 70 + ".example", "a..b", "\udcff"])
def test_storage_outbound_names_that_are_none(host: str) -> None:
    with pytest.raises(OSError):
        AddressPolicy(()).check(host)


def test_storage_outbound_wrong_network_is_told() -> None:
    with pytest.raises(ValueError):
        AddressPolicy(("10.0.0.1/8",))
