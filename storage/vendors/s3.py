"""Amazon S3 and every store that speaks its protocol, through boto3.

The store enforces a checksum on every PUT: SHA-256 on Amazon, Content-MD5 elsewhere, which every compatible store knows.
Afterwards it is asked what it has, as far as the keys allow: customers' keys may be write-only.
"""

import base64
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from storage import CheckAddress, ObjectInfo, ObjectStore, Stored, StoreOptions, Verification
from storage.errors import (
    AccessDenied,
    BadOptions,
    ChecksumMismatch,
    LocalFileError,
    PermanentStorageError,
    StorageError,
    TransientStorageError,
)
from storage.regions import AMAZON, region_name

NUMBERS = (1, 11)

CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 30  # between two packets of an answer
SLOWEST_BYTES_PER_SECOND: Final = 32 << 10  # an upload that stays below is given up and tried again
MULTIPART_OVER_BYTES: Final = 64 << 20
PART_BYTES: Final = 8 << 20  # held in memory; 10,000 parts at most, so 80 GB
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")

_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "Forbidden"})
_TRANSIENT = frozenset({"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "OperationAborted", "ConditionalRequestConflict"})
_MISMATCH = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidPart"})

T = TypeVar("T")

log = logging.getLogger(__name__)


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    import boto3
    from botocore.config import Config

    region = region_name(AMAZON, options.region) if options.vendor == AMAZON else "us-east-1"
    endpoint = None if options.vendor == AMAZON else endpoint_url(options.endpoint)
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},  # the uploader retries
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "virtual"},
        ignore_configured_endpoint_urls=True,  # no customer's file goes where a variable of the environment points
    )
    try:
        client = boto3.session.Session(
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            aws_session_token=options.sts_token,
            region_name=region,
        ).client("s3", endpoint_url=endpoint, config=config)
    except ValueError as error:
        raise BadOptions("the storage endpoint is not a host name or URL") from error
    if endpoint:
        from storage.pinned import pinned_session

        session = pinned_session(check_address, timeout=(CONNECT_SECONDS, READ_SECONDS))
        # botocore sends by itself unless a handler of this event returns an answer.
        client.meta.events.register("before-send.s3", lambda request, **_: session.send(request))
    return S3Store(client, options)


def endpoint_url(endpoint: str | None) -> str:
    """`host`, `host:port` or a URL of these; https unless it says http.

    Raises:
        BadOptions: it is something else.
    """
    text = endpoint or ""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"[\s\x00-\x1f\\]", text)
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.password is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadOptions("the storage endpoint is not a host name or URL")
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class _Digests:
    size: int
    sha256: bytes
    md5: bytes


class S3Store:
    """One bucket of an S3 store."""

    def __init__(self, client: Any, options: StoreOptions) -> None:
        self._client = client
        self._bucket = options.bucket
        self._sha256_enforced = options.vendor == AMAZON
        self._may_head = True
        self._fixed: dict[str, str] = {}  # arguments of every object
        if options.sse:
            self._fixed["ServerSideEncryption"] = "aws:kms" if options.sse == "kms" else "AES256"
        if options.tag:
            self._fixed["Tagging"] = urlencode(parse_qsl(options.tag, keep_blank_values=True))

    def put(self, key: str, path: Path, *, content_type: str, cache_control: str, sha256: str) -> Stored:
        try:
            digests = _digests_of_file(path)
            if digests.sha256.hex() != sha256:
                raise LocalFileError("the file is no longer what was committed")
            described = self._described(content_type, cache_control, sha256)
            if digests.size > MULTIPART_OVER_BYTES:
                return self._put_parts(key, path, digests, described)
            with _Body(path, digests.size) as body:
                return self._put(key, body, digests, described)
        except OSError as error:
            raise LocalFileError(f"the file cannot be read: {error.strerror}") from error

    def put_bytes(self, key: str, data: bytes, *, content_type: str, cache_control: str) -> Stored:
        digests = _digests_of(data)
        return self._put(key, data, digests, self._described(content_type, cache_control, digests.sha256.hex()))

    def head(self, key: str) -> ObjectInfo | None:
        answer = self._head(key)
        if answer is None:
            return None
        return ObjectInfo(key, answer["ContentLength"], answer.get("Metadata", {}).get("sha256"), answer.get("ContentType"))

    def get(self, key: str, path: Path) -> None:
        beside = path.with_name(f".{path.name}.part")

        def fetch() -> None:
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
            with beside.open("wb") as file:
                for chunk in body.iter_chunks(1 << 20):
                    file.write(chunk)

        try:
            _translated(fetch)
            beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return _translated(lambda: [ObjectInfo(found["Key"], found["Size"]) for page in pages for found in page.get("Contents", ())])

    def delete(self, key: str) -> None:
        _translated(lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    def close(self) -> None:
        self._client.close()

    def _described(self, content_type: str, cache_control: str, sha256: str) -> dict[str, Any]:
        return {"ContentType": content_type, "CacheControl": cache_control, "Metadata": {"sha256": sha256}, **self._fixed}

    def _enforced(self, digests: _Digests) -> dict[str, str]:
        """The checksum that makes the store refuse other bytes than these."""
        if self._sha256_enforced:
            return {"ChecksumSHA256": base64.b64encode(digests.sha256).decode()}
        return {"ContentMD5": base64.b64encode(digests.md5).decode()}

    def _put(self, key: str, body: bytes | io.RawIOBase, digests: _Digests, described: dict[str, Any]) -> Stored:
        answer = _translated(
            lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **described, **self._enforced(digests))
        )
        etag = _etag(answer)
        # A KMS ETag is not an MD5: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        is_md5 = _MD5_ETAG.fullmatch(etag) and not str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
        if is_md5 and etag != digests.md5.hex():
            raise ChecksumMismatch
        return Stored(key, digests.size, digests.sha256.hex(), self._verify(key, digests.size, etag))

    def _put_parts(self, key: str, path: Path, digests: _Digests, described: dict[str, Any]) -> Stored:
        self._abort_leftovers(key)
        extra = {"ChecksumAlgorithm": "SHA256"} if self._sha256_enforced else {}
        target = {"Bucket": self._bucket, "Key": key}
        target["UploadId"] = _translated(lambda: str(self._client.create_multipart_upload(**target, **described, **extra)["UploadId"]))
        try:
            with path.open("rb") as file:
                parts = [self._put_part(target, number, data) for number, data in enumerate(iter(lambda: file.read(PART_BYTES), b""), 1)]
            answer = _translated(lambda: self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}))
        except (StorageError, OSError):
            self._abort(target)
            raise
        return Stored(key, digests.size, digests.sha256.hex(), self._verify(key, digests.size, _etag(answer)))

    def _put_part(self, target: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
        checksum = self._enforced(_digests_of(data))
        etag = _translated(lambda: self._client.upload_part(**target, PartNumber=number, Body=data, **checksum)["ETag"])
        kept = {name: value for name, value in checksum.items() if name == "ChecksumSHA256"}
        return {"PartNumber": number, "ETag": etag, **kept}

    def _abort_leftovers(self, key: str) -> None:
        """Earlier tries that died half-way cost the customer money until they are aborted."""
        try:
            found = _translated(lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key)).get("Uploads", ())
        except StorageError:  # the right to list them is not ours to demand
            return
        for upload in found:
            if upload["Key"] == key:
                self._abort({"Bucket": self._bucket, "Key": key, "UploadId": upload["UploadId"]})

    def _abort(self, target: dict[str, str]) -> None:
        try:
            _translated(lambda: self._client.abort_multipart_upload(**target))
        except StorageError as error:
            log.warning("an unfinished multipart upload stays in the store", extra={"error": str(error)})

    def _verify(self, key: str, size: int, etag: str) -> Verification:
        if not self._may_head:
            return "put"
        try:
            answer = self._head(key)
        except AccessDenied:
            self._may_head = False
            log.info("the storage keys are write-only, uploads are verified by the checksum of the PUT alone")
            return "put"
        if answer is None or answer.get("ContentLength") != size or _etag(answer) != etag:
            raise ChecksumMismatch
        return "head"

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = _translated(lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        except _NotFound:
            return None
        return answer


class _NotFound(PermanentStorageError):
    """There is no such object."""


class _Body(io.FileIO):
    """A file that is being sent and must be read to its end in a time that its size allows."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        self._deadline = time.monotonic() + READ_SECONDS + size / SLOWEST_BYTES_PER_SECOND

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise TransientStorageError("the upload is too slow")
        return super().read(-1 if size is None else size) or b""


def _digests_of(data: bytes) -> _Digests:
    return _Digests(len(data), hashlib.sha256(data).digest(), hashlib.md5(data, usedforsecurity=False).digest())


def _digests_of_file(path: Path) -> _Digests:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for data in iter(lambda: file.read(1 << 20), b""):
            sha256.update(data)
            md5.update(data)
        return _Digests(file.tell(), sha256.digest(), md5.digest())


def _etag(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"').lower()


def _translated(call: Callable[[], T]) -> T:
    """What `call` returns; an error of the SDK becomes one of ours, without a word of the store's answer but its code."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
    from botocore.parsers import ResponseParserError

    try:
        return call()
    except ClientError as error:
        raise _refusal(error.response) from error
    except ParamValidationError as error:
        raise BadOptions("the bucket's name is not valid") from error
    except HTTPClientError as error:
        cause = error.kwargs.get("error")
        if isinstance(cause, StorageError):  # raised by the connection or the body
            raise cause from error
        raise TransientStorageError(f"the store cannot be reached: {type(error).__name__}") from error
    except (ResponseParserError, KeyError) as error:  # such as a proxy's page with status 200
        raise TransientStorageError("the store's answer makes no sense") from error
    except BotoCoreError as error:
        raise TransientStorageError(f"the exchange with the store failed: {type(error).__name__}") from error


def _refusal(response: dict[str, Any]) -> StorageError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = re.sub(r"[^A-Za-z0-9.]", "", str(response.get("Error", {}).get("Code", "")))[:64]
    told = f"the store answers {status} {code}"
    if code in _MISMATCH:
        return ChecksumMismatch(told)
    if code in _TRANSIENT or status in (408, 409, 429) or status >= 500:
        return TransientStorageError(told)
    if code in _DENIED or status in (401, 403):
        return AccessDenied(told)
    if status == 404 and code in ("404", "NoSuchKey", "NotFound"):
        return _NotFound(told)
    return PermanentStorageError(told)
