"""Stores of recorded files: the contract of a vendor, and the loader.

Every file in `vendors/` is one vendor. It states the numbers of the public API it answers to in `NUMBERS` and offers
`create(options, check_address) -> ObjectStore`; its SDK is imported only there and only inside calls. All calls of a store
block: run them in threads. Nothing here knows what a recording is.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from storage.errors import BadOptions
from storage.sealed import Source

CheckAddress = Callable[[str], Sequence[str]]
"""Takes a host name, returns the addresses that may be connected to.

Raises PermissionError when one of them must not be, another OSError when the name cannot be resolved.
"""

Verification = Literal["put", "head"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where files go, and with which credentials. Safe to print."""

    vendor: int
    bucket: str
    region: int = 0  # the public API's code, see `storage.regions`
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    sts_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None  # S3-compatible stores: host name, or URL with scheme and port
    sse: Literal["kms", "aes256"] | None = None
    tag: str | None = None  # `KEY=value`
    root: Path | None = None  # of the local folder


@dataclass(frozen=True, slots=True)
class Stored:
    """An object the store has accepted."""

    key: str
    size: int
    sha256: str  # of the bytes sent
    verified: Verification  # put: the store enforced a checksum; head: and was asked afterwards what it has


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int
    sha256: str | None = None  # when the store keeps it
    content_type: str | None = None


class ObjectStore(Protocol):
    """One bucket. Safe to use from several threads.

    Every call returns or raises within a time that depends on the size alone. All raise `TransientStorageError` or
    `PermanentStorageError`.
    """

    def put(self, key: str, source: Source, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        """Store a file under `key`, replacing what is there; returns when the store has verified the bytes.

        Raises:
            LocalFileError: `source` cannot be read or does not have this `sha256`.
        """

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored: ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is stored under `key`; None when nothing is."""

    def get(self, key: str, path: Path) -> None:
        """Write the object to `path`, which appears whole or not at all."""

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """Every object whose key starts with `prefix`, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""

    def close(self) -> None: ...


def vendor_numbers() -> frozenset[int]:
    """The vendor numbers that recordings can be stored with."""
    return frozenset(number for module in _modules() for number in module.NUMBERS)


def open_store(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    """Load the vendor and open the bucket. Connects to nothing yet.

    `check_address` is asked before every connection to an endpoint that the customer chose.

    Raises:
        BadOptions: there is no such vendor, region or endpoint.
    """
    for module in _modules():
        if options.vendor in module.NUMBERS:
            store: ObjectStore = module.create(options, check_address)
            return store
    raise BadOptions(f"there is no storage vendor {options.vendor}")


def _modules() -> Iterator[ModuleType]:
    """One module per vendor; a vendor's SDK is loaded only when a store is made."""
    folder = importlib.import_module("storage.vendors").__path__
    return (importlib.import_module(f"storage.vendors.{found.name}") for found in pkgutil.iter_modules(folder))
