"""What can go wrong on the way to a store.

StorageError
├── TransientStorageError      trying again may help
│   └── ChecksumMismatch
├── PermanentStorageError      the destination's: no use trying again until its owner changes something
│   ├── AccessDenied
│   ├── AddressForbidden
│   └── BadOptions
├── LocalFileError             ours: one file of the spool
└── SpoolError                 ours: the disk of the spool

Messages carry no secret and nothing a store's answer could smuggle into a log.
"""


class StorageError(Exception):
    """Something went wrong on the way to a store."""


class TransientStorageError(StorageError):
    """The store cannot be reached or is busy."""


class ChecksumMismatch(TransientStorageError):
    """The store has, or says it received, other bytes than were sent."""


class PermanentStorageError(StorageError):
    """The store refuses us."""


class AccessDenied(PermanentStorageError):
    """The credentials are wrong or lack a right."""


class AddressForbidden(PermanentStorageError):
    """The endpoint is at an address that is neither public nor allowed by the operator."""


class BadOptions(PermanentStorageError):
    """The vendor, region, endpoint or bucket does not exist."""


class LocalFileError(StorageError):
    """The file is gone from the spool or is no longer what was committed."""


class SpoolError(StorageError):
    """The disk of the spool failed; what was being written is not committed."""
