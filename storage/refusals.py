"""What a vendor's refusal means to us: the one place where status codes and error codes become errors of ours."""

import re
from typing import Final

from storage.errors import (
    AccessDenied,
    AlreadyThere,
    BadOptions,
    Busy,
    ChecksumMismatch,
    NotFound,
    PermanentStorageError,
    StorageError,
    TransientStorageError,
)

# Amazon and those who took over its words. Only what the status alone does not tell.
_BY_CODE: Final[dict[str, type[StorageError]]] = {
    **dict.fromkeys(("BadDigest", "InvalidDigest", "InvalidPart"), ChecksumMismatch),
    **dict.fromkeys(("XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"), ChecksumMismatch),
    # The clock, a pause in the upload, and an upload in parts that somebody else has cleared away.
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestTimeout", "SlowDown", "NoSuchUpload"), TransientStorageError),
    **dict.fromkeys(("OperationAborted", "ConditionalRequestConflict"), Busy),
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"), AccessDenied),
    **dict.fromkeys(("FileAlreadyExists", "FileImmutable"), AlreadyThere),  # Alibaba, with 409
    **dict.fromkeys(("NoSuchBucket", "PermanentRedirect", "AuthorizationHeaderMalformed"), BadOptions),
    **dict.fromkeys(("NoSuchKey", "NoSuchResource", "NotFound"), NotFound),
}
# From 600 on they are Qiniu's own: https://developer.qiniu.com/kodo/3928/error-responses
_BY_STATUS: Final[dict[int, type[StorageError]]] = {
    **dict.fromkeys((401, 403, 419), AccessDenied),
    404: NotFound,
    406: ChecksumMismatch,
    **dict.fromkeys((408, 425, 429), TransientStorageError),
    409: Busy,
    412: AlreadyThere,
    608: Busy,
    612: NotFound,
    614: AlreadyThere,
    631: BadOptions,
    701: TransientStorageError,
}


def refusal(status: int, code: str = "") -> StorageError:
    """The error for an answer with this HTTP status and the vendor's error code, which may be anything."""
    clean = re.sub(r"[^A-Za-z0-9.]", "", code)[:64]
    told = f"the store answers {status} {clean}".rstrip()
    kind = _BY_CODE.get(clean) or _BY_STATUS.get(status)
    if kind is NotFound and clean not in ("", "404") and clean not in _BY_CODE:
        kind = BadOptions  # something else than the object is not there
    if kind is None and 300 <= status < 400:
        kind = BadOptions  # the bucket is in another region
    if kind is None and (status < 400 or 500 <= status < 600):
        kind = TransientStorageError  # also an error in an answer that says 200
    return (kind or PermanentStorageError)(told)


def unanswered(failure: Exception) -> TransientStorageError:
    """For what requests or botocore raises when there is no answer: told by its type, for its words may name URLs."""
    if type(failure).__name__ == "SSLError":
        return TransientStorageError("the store's certificate or its TLS is not good")
    return TransientStorageError(f"the store cannot be reached: {type(failure).__name__}")
