"""Keeps secrets at rest: each sealed with a key of its own, bound to what it belongs to."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.masterkey import Key, MasterKey
from recorder.spec import RecordingSpec

_SALT_BYTES = 16
_NONCE_BYTES = 12


class Safe:
    """Seals bytes for one purpose: AES-256-GCM under a key derived from the master key with a new salt each time."""

    def __init__(self, key: MasterKey, purpose: str) -> None:
        self._key = key
        self._purpose = purpose

    def seal(self, plain: bytes, context: str) -> bytes:
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        return salt + nonce + self._cipher(self._key.current, salt).encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed in another context, with a key that is not in the file, or was changed.
        """
        return self._open(sealed, context)[0]

    def reseal(self, sealed: bytes, context: str) -> bytes | None:
        """The same under the current key; None: it is. Raises as `open`."""
        plain, key = self._open(sealed, context)
        return None if key.id == self._key.current.id else self.seal(plain, context)

    def is_current(self, sealed: bytes, context: str) -> bool:
        """Whether it was sealed with the current key. Raises as `open`."""
        return self._open(sealed, context)[1].id == self._key.current.id

    def _open(self, sealed: bytes, context: str) -> tuple[bytes, Key]:
        """Nothing in front says which key it needs: there are few, and each tells whether it is the one."""
        salt, nonce, body = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES], sealed[_SALT_BYTES + _NONCE_BYTES :]
        return self._key.open(lambda key: self._cipher(key, salt).decrypt(nonce, body, context.encode()))

    def _cipher(self, key: Key, salt: bytes) -> AESGCM:
        return AESGCM(key.derive(self._purpose, salt))


class Vault:
    """Seals the secrets of a recording (token, storage keys), bound to app id and sid."""

    def __init__(self, key: MasterKey) -> None:
        self.safe = Safe(key, "recording spec")

    def seal(self, spec: RecordingSpec) -> bytes:
        return self.safe.seal(spec.with_secrets(), f"{spec.app_id}/{spec.sid}")

    def open(self, sealed: bytes, *, app_id: str, sid: str) -> RecordingSpec:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed for another recording, with another key, or was changed.
        """
        return RecordingSpec.model_validate_json(self.safe.open(sealed, f"{app_id}/{sid}"))
