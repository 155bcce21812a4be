"""Holds recordings in a folder or bucket against their manifests. Knows nothing of the service that made them."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from recorder import manifest
from recorder.manifest import Manifest, ManifestError
from storage import ObjectStore
from storage.errors import PermanentStorageError, StorageError

log = logging.getLogger(__name__)

SUFFIX: Final = "_manifest.json"


@dataclass(frozen=True, slots=True)
class Checked:
    """One manifest and what is wrong with it or with the objects it names."""

    key: str  # of the manifest's object
    objects: int
    size: int  # bytes that were read and are right
    problems: tuple[str, ...]
    lost: tuple[str, ...] = ()  # said so by the manifest itself


def verify(store: ObjectStore, keys: Sequence[Ed25519PublicKey], *, prefix: str = "", sid: str | None = None) -> Iterator[Checked]:
    """Check every manifest below `prefix`, or the one of recording `sid`; without `keys` signatures are not looked at.

    Raises:
        StorageError: the store cannot be listed.
    """
    found = [one.key for one in store.list(prefix) if one.key.endswith(SUFFIX)]
    with tempfile.TemporaryDirectory(prefix="cloud-recorder-verify-") as folder:
        for key in found:
            if sid is None or key.rpartition("/")[2].startswith(f"{sid}_"):
                yield _check(store, key, keys, Path(folder) / "object")


def _check(store: ObjectStore, key: str, keys: Sequence[Ed25519PublicKey], path: Path) -> Checked:
    try:
        signed = _read(store, key, path)
        if keys:
            manifest.check_signature(signed, keys)
    except (ManifestError, StorageError) as error:
        return Checked(key, 0, 0, (str(error),))
    folder, slash, _ = key.rpartition("/")
    problems, right = [], 0
    for one in signed.objects:
        problem = _problem(store, folder + slash + one.name, one, path)
        if problem:
            problems.append(f"{one.name}: {problem}")
        else:
            right += one.size
    return Checked(key, len(signed.objects), right, tuple(problems), signed.lost)


def _read(store: ObjectStore, key: str, path: Path) -> Manifest:
    store.get(key, path)
    return manifest.read(path.read_bytes())


def _problem(store: ObjectStore, key: str, wanted: manifest.Object, path: Path) -> str | None:
    try:
        there = store.head(key)
        if there is None:
            return "is missing"
        if there.size != wanted.size:
            return f"has {there.size} bytes instead of {wanted.size}"
        store.get(key, path)
    except PermanentStorageError as error:
        return f"cannot be read: {error}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path.unlink()
    return None if digest == wanted.sha256 else "has other bytes"
