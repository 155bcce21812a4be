"""Keeps secrets at rest: each sealed with a key of its own, bound to what it belongs to."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.masterkey import MasterKey
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
        return salt + nonce + self._cipher(salt).encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed in another context, with another key, or was changed.
        """
        salt, nonce, body = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES], sealed[_SALT_BYTES + _NONCE_BYTES :]
        return self._cipher(salt).decrypt(nonce, body, context.encode())

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(self._key.derive(self._purpose, salt))


class Vault:
    """Seals the secrets of a recording (token, storage keys), bound to app id and sid."""

    def __init__(self, key: MasterKey) -> None:
        self._safe = Safe(key, "recording spec")

    def seal(self, spec: RecordingSpec) -> bytes:
        return self._safe.seal(spec.with_secrets(), f"{spec.app_id}/{spec.sid}")

    def open(self, sealed: bytes, *, app_id: str, sid: str) -> RecordingSpec:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed for another recording, with another key, or was changed.
        """
        return RecordingSpec.model_validate_json(self._safe.open(sealed, f"{app_id}/{sid}"))
