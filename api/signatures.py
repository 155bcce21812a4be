"""What proves to a receiver that a notice is ours: the signatures of the original service, and those of Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"  # of a secret that Standard Webhooks takes for base64
_SECRET_BYTES: Final = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(notice_id: str, body: bytes, signers: Sequence[str], *, now_ms: int) -> dict[str, str]:
    """The headers of one attempt. `signers`: the secrets that are valid, of which the original's headers have room for the first."""
    timestamp = str(now_ms // 1000)
    key = signers[0].encode()
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return {
        "Content-Type": "application/json",
        "Agora-Signature": hmac.digest(key, body, "sha1").hex(),
        "Agora-Signature-V2": hmac.digest(key, body, "sha256").hex(),
        "webhook-id": notice_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_base64(hmac.digest(_standard_key(secret), signed, 'sha256'))}" for secret in signers),
    }


def standard_secret(secret: str) -> str:
    """The secret as libraries of Standard Webhooks take it."""
    return PREFIX + _base64(_standard_key(secret))


def _standard_key(secret: str) -> bytes:
    """One of ours holds its key in base64; any other, such as one that was in use before, is the key itself."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
