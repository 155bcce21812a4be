"""Secrets are compared in a time that tells nothing."""

import hmac

import pytest

from api import digests
from api.digests import MOST_SECRETS, Digests, Known, Role, new_secret
from api.masterkey import MasterKey

KEYED = Digests(MasterKey(b"k" * 32))


def known(*secrets: str, role: Role = "customer", keyed: Digests = KEYED) -> list[Known]:
    return [keyed.of(role, "me", secret) for secret in secrets]


def test_each_of_several_secrets_fits() -> None:
    mine = [new_secret() for _ in range(MOST_SECRETS)]
    assert len(set(mine)) == MOST_SECRETS
    assert all(len(secret) == 32 for secret in mine)
    assert [KEYED.fit("customer", "me", secret, known(*mine)) for secret in mine] == [(at, None) for at in range(MOST_SECRETS)]
    assert not KEYED.fit("customer", "me", new_secret(), known(*mine))


@pytest.mark.parametrize(
    ("role", "owner"), [("operator", "me"), ("customer", "you"), ("customer", "m")], ids=["another role", "another id", "a shifted id"]
)
def test_a_secret_is_good_for_its_owner_and_role_only(role: Role, owner: str) -> None:
    assert not KEYED.fit(role, owner, "s", known("s"))
    assert not Digests(MasterKey(b"o" * 32)).fit("customer", "me", "s", known("s"))


def test_the_digest_is_not_the_secret_and_nobody_has_none() -> None:
    assert b"canary" not in KEYED.of("customer", "me", "canary").digest
    assert not KEYED.fit("customer", "me", "", [])


@pytest.mark.parametrize("secrets", [(), ("right",), ("wrong", "right"), ("a", "b", "c", "d", "right")])
def test_as_many_digests_are_compared_for_everybody(secrets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, digest: bytes) -> bool:
        compared.append(digest)
        return hmac.compare_digest(given, digest)

    monkeypatch.setattr(digests, "compare_digest", compare)  # how often it is called is what an attacker would measure
    assert (KEYED.fit("customer", "me", "right", known(*secrets)) is not None) == bool(secrets)
    assert len(compared) == MOST_SECRETS
    compared.clear()
    rotated = Digests(MasterKey(b"n" * 32, b"k" * 32))
    assert (rotated.fit("customer", "me", "right", known(*secrets)) is not None) == bool(secrets)
    assert len(compared) == 2 * MOST_SECRETS


def test_a_digest_of_an_older_key_fits_and_is_to_be_made_again() -> None:
    rotated = Digests(MasterKey(b"n" * 32, b"k" * 32))
    again = rotated.of("customer", "me", "s")
    assert again.digest != KEYED.of("customer", "me", "s").digest
    assert rotated.fit("customer", "me", "s", known("other", "s")) == (1, again)
    assert rotated.fit("customer", "me", "s", [again]) == (0, None)
    assert not Digests(MasterKey(b"n" * 32)).fit("customer", "me", "s", known("s"))


def test_a_digest_from_before_keys_had_ids_gets_one() -> None:
    digest, key_id = KEYED.of("customer", "me", "s")
    assert KEYED.fit("customer", "me", "s", [Known(digest, None)]) == (0, (digest, key_id))
