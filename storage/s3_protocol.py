"""A bucket of any store that speaks Amazon's protocol, through boto3.

The store enforces a checksum on every PUT: SHA-256 on Amazon, Content-MD5 elsewhere, which every compatible store knows.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from types import MethodType
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl, urlencode

from storage import CheckAddress, ObjectInfo, StoreOptions
from storage.clock import StoreClock, with_names
from storage.errors import BadOptions, ChecksumMismatch, StorageError, TransientStorageError
from storage.pinned import CONNECT_SECONDS, READ_SECONDS, REFUSED, botocore_session
from storage.refusals import refusal, unanswered
from storage.remote import Content, Head, Part

_MD5_ETAG: Final = re.compile(r"[0-9a-f]{32}")


class S3Client:
    """See `storage.remote.Client`."""

    multipart_over_bytes = 64 << 20
    part_bytes = 8 << 20  # held in memory; 10,000 parts at most, so 80 GB

    def __init__(
        self, options: StoreOptions, *, region: str, url: str | None, path_style: bool, check: CheckAddress | None, sha256_enforced: bool
    ) -> None:
        """`url`: None for the hosts of Amazon's region; `check`: None when the vendor's own hosts are asked."""
        self.clock = StoreClock()
        self._client = _boto3_client(options, region, url, path_style, check)
        _sign_by(self.clock, self._client._request_signer)
        self._bucket = options.bucket
        self._sha256_enforced = sha256_enforced
        self._fixed: dict[str, str] = {}  # arguments of every object
        if options.sse:
            self._fixed["ServerSideEncryption"] = "aws:kms" if options.sse == "kms" else "AES256"
        if options.tag:
            self._fixed["Tagging"] = urlencode(parse_qsl(options.tag, keep_blank_values=True))

    def error(self, failure: Exception) -> StorageError | None:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError, SSLError
        from botocore.parsers import ResponseParserError

        match failure:
            case ClientError():
                answer = failure.response
                told = answer.get("ResponseMetadata", {})
                status = told.get("HTTPStatusCode", 0)
                if status in REFUSED:
                    self.clock.learn(told.get("HTTPHeaders", {}).get("date"))
                return refusal(status, str(answer.get("Error", {}).get("Code", "")))
            case ParamValidationError():
                return BadOptions("the bucket's name is not valid")
            case HTTPClientError() | SSLError():
                cause = failure.kwargs.get("error")
                if isinstance(cause, StorageError):  # raised by the connection
                    return cause
                return unanswered(failure)
            case BotoCoreError() | ResponseParserError() | KeyError():  # such as for a proxy's page with status 200
                return TransientStorageError(f"the exchange with the store failed: {type(failure).__name__}")
        return None

    def put(self, key: str, body: bytes | BinaryIO, content: Content) -> str:
        checksum = self._enforced(bytes.fromhex(content.sha256), content.md5)
        answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **self._described(content), **checksum)
        etag = _etag(answer)
        # A KMS ETag is not an MD5: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        is_md5 = _MD5_ETAG.fullmatch(etag) and not str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
        if not etag or (is_md5 and etag != content.md5.hex()):
            raise ChecksumMismatch("the store's ETag is not that of the bytes sent")
        return etag

    def begin(self, key: str, content: Content) -> str:
        extra = {"ChecksumAlgorithm": "SHA256"} if self._sha256_enforced else {}
        return str(self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **self._described(content), **extra)["UploadId"])

    def put_part(self, key: str, upload: str, part: Part) -> dict[str, Any]:
        checksum = self._enforced(hashlib.sha256(part.data).digest(), part.md5)
        answer = self._client.upload_part(Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=part.number, Body=part.data, **checksum)
        kept = {name: value for name, value in checksum.items() if name == "ChecksumSHA256"}
        return {"PartNumber": part.number, "ETag": answer["ETag"], **kept}

    def complete(self, key: str, upload: str, parts: Sequence[Any], content: Content) -> str:
        answer = self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": list(parts)}
        )
        if not _etag(answer):
            raise ChecksumMismatch("the store does not say what it made of the parts")
        return _etag(answer)

    def abort(self, key: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def unfinished(self, key: str) -> Sequence[str]:
        found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", ())
        return [upload["UploadId"] for upload in found if upload["Key"] == key]

    def head(self, key: str) -> Head:
        answer = self._client.head_object(Bucket=self._bucket, Key=key)
        sha256 = answer.get("Metadata", {}).get("sha256")
        return Head(ObjectInfo(key, answer["ContentLength"], sha256, answer.get("ContentType")), _etag(answer))

    def get(self, key: str, file: BinaryIO) -> None:
        for chunk in self._client.get_object(Bucket=self._bucket, Key=key)["Body"].iter_chunks(1 << 20):
            file.write(chunk)

    def page(self, prefix: str, after: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        more = {"ContinuationToken": after} if after else {}
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
        found = [ObjectInfo(one["Key"], one["Size"]) for one in answer.get("Contents", ())]
        return found, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)

    def close(self) -> None:
        self._client.close()

    def _described(self, content: Content) -> dict[str, Any]:
        described = {"ContentType": content.content_type, "CacheControl": content.cache_control, "Metadata": {"sha256": content.sha256}}
        return described | self._fixed

    def _enforced(self, sha256: bytes, md5: bytes) -> dict[str, str]:
        """The checksum that makes the store refuse other bytes than these."""
        if self._sha256_enforced:
            return {"ChecksumSHA256": base64.b64encode(sha256).decode()}
        return {"ContentMD5": base64.b64encode(md5).decode()}


def _boto3_client(options: StoreOptions, region: str, url: str | None, path_style: bool, check: CheckAddress | None) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},  # the uploader retries
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if path_style else "virtual", "us_east_1_regional_endpoint": "regional"},
        ignore_configured_endpoint_urls=True,  # no customer's file goes where a variable of the environment points
    )
    try:
        client = boto3.session.Session(
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            aws_session_token=options.sts_token,
            region_name=region.replace("_", "-"),
        ).client("s3", endpoint_url=url, config=config)
    except ValueError as error:
        raise BadOptions("the storage endpoint is not a host name or URL") from error
    client.meta.events.register("choose-signer.s3", partial(_sign_for, region))
    # The endpoint closes its session with the client.
    client._endpoint.http_session.close()
    client._endpoint.http_session = botocore_session(check, client.meta.endpoint_url)
    return client


def _sign_by(clock: StoreClock, signer: Any) -> None:
    """Have boto3 sign for the time of `clock`."""
    make = signer.get_auth_instance

    def get_auth_instance(*args: Any, **options: Any) -> Any:
        auth = make(*args, **options)
        now = partial(_utc, clock)
        auth.add_auth = MethodType(with_names(type(auth).add_auth, get_current_datetime=now), auth)
        return auth

    signer.get_auth_instance = signer.get_auth = get_auth_instance


def _utc(clock: StoreClock, **_: object) -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)


def _sign_for(region: str, context: dict[str, Any], **_: object) -> None:
    """boto3 takes no region with an underscore, of which Kingsoft has some."""
    context.setdefault("signing", {})["region"] = region


def _etag(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"').lower()
