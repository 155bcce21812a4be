"""The manifest beside a recording: every object with size and SHA-256, each bound to those before it, signed by the deployment.

`docs/storage-reliability.md` describes it for its readers.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_DOMAIN: Final = b"cloud-recorder manifest 1\n"


class ManifestError(Exception):
    """The manifest is not what a deployment of ours wrote."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Object(_Part):
    name: str  # without the customer's prefix
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Link(Object):
    chain: str = Field(pattern=r"^[0-9a-f]{64}$")  # over this object and the chain so far


class Manifest(_Part):
    version: Literal[1] = 1
    sid: str
    channel: str
    created_ms: int  # Unix ms
    objects: tuple[Link, ...]  # media in the order of their commits, then lists
    lost: tuple[str, ...] = ()  # recorded, and in no store
    key: str = ""  # which key of the deployment has signed
    signature: str = ""  # base64

    def digest(self) -> str:
        """SHA-256 of what is signed: all fields but key and signature, as JSON with sorted keys and without blanks."""
        content = self.model_dump(mode="json", exclude={"key", "signature"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode() + b"\n"


def build(sid: str, channel: str, objects: Iterable[Object], lost: Sequence[str], *, created_ms: int) -> Manifest:
    """A manifest that is not signed yet."""
    given = list(objects)
    links = [Link(**one.model_dump(), chain=chain) for one, chain in zip(given, _chain(sid, given), strict=True)]
    return Manifest(sid=sid, channel=channel, created_ms=created_ms, objects=tuple(links), lost=tuple(lost))


def opening(sid: str) -> bytes:
    """What stands in the manifest's place until the recording is complete."""
    return json.dumps({"sid": sid, "complete": False}).encode() + b"\n"


def read(data: bytes) -> Manifest:
    """Parse a manifest and check its chain.

    Raises:
        ManifestError: it is none, or its chain is broken.
    """
    try:
        found = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise ManifestError("not a complete manifest") from error
    if [one.chain for one in found.objects] != list(_chain(found.sid, found.objects)):
        raise ManifestError("the chain of objects is broken")
    return found


def check_signature(manifest: Manifest, keys: Iterable[Ed25519PublicKey]) -> None:
    """
    Raises:
        ManifestError: none of the keys has signed it.
    """
    try:
        signature = base64.b64decode(manifest.signature, validate=True)
    except ValueError as error:
        raise ManifestError("the signature is not base64") from error
    for key in keys:
        try:
            key.verify(signature, _statement(manifest.sid, manifest.digest()))
        except InvalidSignature:
            continue
        return
    raise ManifestError("the signature is not by this key")


def sign(key: Ed25519PrivateKey, sid: str, digest: str) -> str:
    """The signature of the manifest of recording `sid`, in base64."""
    return base64.b64encode(key.sign(_statement(sid, digest))).decode()


def _statement(sid: str, digest: str) -> bytes:
    return _DOMAIN + f"{sid}\n{digest}".encode()


def _chain(sid: str, objects: Iterable[Object]) -> Iterable[str]:
    chain = hashlib.sha256(_DOMAIN + sid.encode())
    for one in objects:
        text = json.dumps([one.name, one.size, one.sha256], separators=(",", ":"))
        chain = hashlib.sha256(chain.digest() + text.encode())
        yield chain.hexdigest()
