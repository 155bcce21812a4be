"""Secrets as the database holds them: digests keyed by the master key, from which nobody can guess back."""

import hmac
import secrets
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final, Literal, NamedTuple

from api.masterkey import Key, MasterKey

Role = Literal["customer", "operator"]

SECRET_BYTES: Final = 16
MOST_SECRETS: Final = 5  # of one owner; as many are compared for everybody, so that time tells nothing

_PURPOSES: Final[dict[Role, str]] = {"customer": "customer secrets", "operator": "operator secrets"}
_NOBODYS: Final = b"\0" * 32


class Known(NamedTuple):
    """A digest as it is kept."""

    digest: bytes
    key_id: str | None  # of the master key that it was made with; None: not known


class Fit(NamedTuple):
    position: int  # among the known
    again: Known | None  # to be kept in its place, where that was made with an older key


class Digests:
    def __init__(self, key: MasterKey) -> None:
        self._key = key

    def of(self, role: Role, owner_id: str, secret: str) -> Known:
        return _digest(self._key.current, role, owner_id, secret)

    def fit(self, role: Role, owner_id: str, secret: str, known: Sequence[Known]) -> Fit | None:
        """Which of the `known` is that of `secret`, in a time that depends on neither."""
        keys = self._key.all(naming=[one.key_id for one in known if one.key_id])
        given = [_digest(key, role, owner_id, secret) for key in keys]
        compared = [*(one.digest for one in known[:MOST_SECRETS]), *(_NOBODYS for _ in range(MOST_SECRETS - len(known)))]
        found = [at for at, digest in enumerate(compared) for one in given if compare_digest(one.digest, digest)]
        if not found:
            return None
        return Fit(found[0], None if known[found[0]].key_id == given[0].key_id else given[0])


def new_secret() -> str:
    return secrets.token_hex(SECRET_BYTES)


def _digest(key: Key, role: Role, owner_id: str, secret: str) -> Known:
    keyed = key.derive(_PURPOSES[role])
    return Known(hmac.digest(keyed, f"{owner_id}:{secret}".encode(errors="surrogatepass"), "sha256"), key.id)
