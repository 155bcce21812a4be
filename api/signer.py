"""Signs the manifests of recordings with the deployment's Ed25519 key, which is derived from the current master key."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.masterkey import Key, MasterKey
from recorder import manifest
from recorder.protocol import Refused, Sign, Signed

OwnerOf = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Published:
    id: str  # as `key` of a manifest names it
    pem: str


class Signer:
    def __init__(self, key: MasterKey) -> None:
        self._key = key

    def published(self) -> list[Published]:
        """What verifies manifests: the key that signs now, then those that did before."""
        raw = [*(public_key(key) for key in self._key.all()), *self._key.former]
        return [Published(_id(one), _pem(one)) for one in raw]

    async def answer(self, request: Sign, node: str, owner_of: OwnerOf) -> Signed | Refused:
        """Sign for the node that owns the recording, and for no other."""
        if await owner_of(request.sid) != node:
            return Refused(reason="not_yours")
        key = self._key.current
        return Signed(key=_id(public_key(key)), signature=manifest.sign(_private(key), request.sid, request.sha256))


def public_key(key: Key) -> bytes:
    """The raw key that verifies what this master key signs."""
    return _private(key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _private(key: Key) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key.derive("manifest signature"))


def _id(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _pem(raw: bytes) -> str:
    return Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
