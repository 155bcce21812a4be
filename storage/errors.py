"""What can go wrong on the way to a store.

StorageError
├── TransientStorageError      trying again may help
│   ├── ChecksumMismatch
│   └── Busy
├── PermanentStorageError      the destination's: no use trying again until its owner changes something
│   ├── AccessDenied
│   ├── AddressForbidden
│   ├── AlreadyThere
│   ├── BadOptions
│   └── NotFound
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


class Busy(TransientStorageError):
    """Somebody else works on the same object at this moment."""


class PermanentStorageError(StorageError):
    """The store refuses us."""


class AccessDenied(PermanentStorageError):
    """The credentials are wrong or lack a right."""


class AddressForbidden(PermanentStorageError):
    """The endpoint is at an address that is neither public nor allowed by the operator."""


class AlreadyThere(PermanentStorageError):
    """The store lets nobody replace the object that has this key, whose bytes are not those that were to be stored."""


class BadOptions(PermanentStorageError):
    """The vendor, region, endpoint or bucket does not exist."""


class NotFound(PermanentStorageError):
    """There is no such object."""


class LocalFileError(StorageError):
    """The file is gone from the spool or is no longer what was committed."""


class SpoolError(StorageError):
    """The disk of the spool failed; what was being written is not committed."""
