"""Secrets as the database holds them: digests keyed by the master key, from which nobody can guess back."""

import hmac
import secrets
from hmac import compare_digest
from typing import Final, Literal

from api.masterkey import MasterKey

Role = Literal["customer", "operator"]

SECRET_BYTES: Final = 16
MOST_SECRETS: Final = 5  # of one owner; as many are compared for everybody, so that time tells nothing

_PURPOSES: Final[dict[Role, str]] = {"customer": "customer secrets", "operator": "operator secrets"}
_NOBODYS: Final = b"\0" * 32


class Digests:
    def __init__(self, key: MasterKey) -> None:
        self._keys = {role: key.derive(purpose) for role, purpose in _PURPOSES.items()}

    def of(self, role: Role, owner_id: str, secret: str) -> bytes:
        return hmac.digest(self._keys[role], f"{owner_id}:{secret}".encode(errors="surrogatepass"), "sha256")

    def fits(self, role: Role, owner_id: str, secret: str, known: list[bytes]) -> bool:
        """Whether `secret` is one of the `known`, in a time that depends on neither."""
        given = self.of(role, owner_id, secret)
        compared = [*known[:MOST_SECRETS], *(_NOBODYS for _ in range(MOST_SECRETS - len(known)))]
        return any([compare_digest(given, digest) for digest in compared])  # noqa: C419  # a generator would stop at the first


def new_secret() -> str:
    return secrets.token_hex(SECRET_BYTES)
