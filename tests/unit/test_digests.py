"""Secrets are compared in a time that tells nothing."""

import hmac

import pytest

from api import digests
from api.digests import MOST_SECRETS, Digests, Role, new_secret
from api.masterkey import MasterKey

KEYED = Digests(MasterKey(b"k" * 32))


def known(*secrets: str, role: Role = "customer") -> list[bytes]:
    return [KEYED.of(role, "me", secret) for secret in secrets]


def test_each_of_several_secrets_fits() -> None:
    mine = [new_secret() for _ in range(MOST_SECRETS)]
    assert len(set(mine)) == MOST_SECRETS
    assert all(len(secret) == 32 for secret in mine)
    assert all(KEYED.fits("customer", "me", secret, known(*mine)) for secret in mine)
    assert not KEYED.fits("customer", "me", new_secret(), known(*mine))


@pytest.mark.parametrize(
    ("role", "owner"), [("operator", "me"), ("customer", "you"), ("customer", "m")], ids=["another role", "another id", "a shifted id"]
)
def test_a_secret_is_good_for_its_owner_and_role_only(role: Role, owner: str) -> None:
    assert not KEYED.fits(role, owner, "s", known("s"))
    assert not Digests(MasterKey(b"o" * 32)).fits("customer", "me", "s", known("s"))


def test_the_digest_is_not_the_secret_and_nobody_has_none() -> None:
    assert b"canary" not in KEYED.of("customer", "me", "canary")
    assert not KEYED.fits("customer", "me", "", [])


@pytest.mark.parametrize("secrets", [(), ("right",), ("wrong", "right"), ("a", "b", "c", "d", "right")])
def test_as_many_digests_are_compared_for_everybody(secrets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, digest: bytes) -> bool:
        compared.append(digest)
        return hmac.compare_digest(given, digest)

    monkeypatch.setattr(digests, "compare_digest", compare)  # how often it is called is what an attacker would measure
    assert KEYED.fits("customer", "me", "right", known(*secrets)) == bool(secrets)
    assert len(compared) == MOST_SECRETS
