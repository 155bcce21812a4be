"""Signs the manifests of recordings with the deployment's Ed25519 key, which is derived from the master key."""

import hashlib
from collections.abc import Awaitable, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.masterkey import MasterKey
from recorder import manifest
from recorder.protocol import Refused, Sign, Signed

OwnerOf = Callable[[str], Awaitable[str | None]]


class Signer:
    def __init__(self, key: MasterKey) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key.derive("manifest signature"))
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    @property
    def public_pem(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    async def answer(self, request: Sign, node: str, owner_of: OwnerOf) -> Signed | Refused:
        """Sign for the node that owns the recording, and for no other."""
        if await owner_of(request.sid) != node:
            return Refused(reason="not_yours")
        return Signed(key=self.key_id, signature=manifest.sign(self._key, request.sid, request.sha256))
