"""Keeps the secrets of a recording (token, storage keys) at rest: sealed with a key of its own, bound to app id and sid."""

import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.masterkey import MasterKey
from recorder.spec import RecordingSpec

_SALT_BYTES = 16
_NONCE_BYTES = 12


class Vault:
    def __init__(self, key: MasterKey) -> None:
        self._key = key

    def seal(self, spec: RecordingSpec) -> bytes:
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        return salt + nonce + self._cipher(salt).encrypt(nonce, spec.with_secrets(), _context(spec.app_id, spec.sid))

    def open(self, sealed: bytes, *, app_id: str, sid: str) -> RecordingSpec:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed for another recording, with another key, or was changed.
        """
        salt, nonce, body = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES], sealed[_SALT_BYTES + _NONCE_BYTES :]
        return RecordingSpec.model_validate_json(self._cipher(salt).decrypt(nonce, body, _context(app_id, sid)))

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(self._key.derive("recording spec", salt))


def _context(app_id: str, sid: str) -> bytes:
    return f"{app_id}/{sid}".encode()
