"""resourceIds: sealed notes to ourselves, so that acquire stores nothing and nobody can make or read one."""

import base64
import binascii
import json
import secrets
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.masterkey import Key, MasterKey

NONCE_BYTES = 12
LONGEST_ID = 1024  # ours are about 300 characters

_PURPOSE = "resource id"


class ResourceIdError(ValueError):
    """Not made by this deployment."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What acquire promised."""

    customer_id: str
    app_id: str
    channel: str
    uid: str
    scene: int
    expires_hours: int  # how long the recording can be controlled, from its start
    parameter_digest: str | None  # of `startParameter`
    issued_ms: int


@dataclass(frozen=True, slots=True)
class OpenedId:
    resource: Resource
    key: str  # equal for equal ids only
    master_key_id: str  # of the master key that opened it


class ResourceIds:
    def __init__(self, key: MasterKey) -> None:
        self._key = key

    def seal(self, resource: Resource) -> str:
        """A new id, different each time, of characters that need no escaping in a URL."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = json.dumps(list(asdict(resource).values()), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(nonce + _cipher(self._key.current).encrypt(nonce, plain, _PURPOSE.encode())).rstrip(b"=").decode()

    def open(self, text: str) -> OpenedId:
        """
        Raises:
            ResourceIdError: it is not one of ours.
        """
        if len(text) > LONGEST_ID:
            raise ResourceIdError
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            plain, key = self._key.open(lambda key: _cipher(key).decrypt(nonce, body, _PURPOSE.encode()))
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise ResourceIdError from error
        return OpenedId(Resource(*json.loads(plain)), nonce.hex(), key.id)


def _cipher(key: Key) -> AESGCM:
    return AESGCM(key.derive(_PURPOSE))
