"""Tencent COS, through cos-python-sdk-v5. Every PUT carries Content-MD5, which the store enforces."""

import base64
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from types import MethodType, SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from storage import CheckAddress, ObjectInfo, ObjectStore, StoreOptions
from storage.clock import StoreClock, with_names
from storage.endpoints import endpoint_url
from storage.errors import BadOptions, ChecksumMismatch, StorageError, TransientStorageError
from storage.pinned import CONNECT_SECONDS, READ_SECONDS, requests_session
from storage.refusals import refusal, unanswered
from storage.regions import TENCENT, region_name
from storage.remote import Content, Head, Part, RemoteStore

NUMBERS = (3,)


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    """With an endpoint, the bucket stands in front of its name; an address is taken for the bucket's own."""
    region = region_name(TENCENT, options.region)
    url = endpoint_url(options.endpoint) if options.endpoint else f"https://cos.{region}.myqcloud.com"
    return RemoteStore(CosClient(options, region, url, check_address if options.endpoint else None))


class CosClient:
    """See `storage.remote.Client`."""

    multipart_over_bytes = 64 << 20
    part_bytes = 8 << 20  # held in memory; 10,000 parts at most, so 80 GB

    def __init__(self, options: StoreOptions, region: str, url: str, check: CheckAddress | None) -> None:
        import qcloud_cos

        logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL + 1)  # it logs signing keys and what the store answers
        place = urlsplit(url)
        host = {"Domain" if _is_address(place.hostname or "") else "Endpoint": place.netloc}
        try:
            config = qcloud_cos.CosConfig(
                Region=region,
                SecretId=options.access_key,
                SecretKey=options.secret_key,
                Token=options.sts_token or None,
                Scheme=place.scheme,
                Timeout=(CONNECT_SECONDS, READ_SECONDS),
                **host,
            )
        except qcloud_cos.CosClientError as error:
            raise BadOptions("the storage keys are none of the store") from error
        self.clock = StoreClock()
        self._session = requests_session(check, url, self.clock)
        _sign_by(self.clock, self._session)
        self._client = qcloud_cos.CosS3Client(config, retry=0, session=self._session)
        self._bucket = options.bucket

    def error(self, failure: Exception) -> StorageError | None:
        import qcloud_cos
        import requests

        match failure:
            case qcloud_cos.CosServiceError():
                code = failure.get_digest_msg().get("code") if isinstance(failure.get_digest_msg(), Mapping) else ""
                return refusal(failure.get_status_code(), str(code or ""))
            case qcloud_cos.CosClientError():
                cause = failure.__context__  # it forgets what it wraps
                if isinstance(cause, StorageError):
                    return cause
                if isinstance(cause, requests.RequestException):
                    return unanswered(cause)
                return BadOptions("the bucket's name or the object key is not valid")
            case requests.RequestException() | SyntaxError() | ValueError() | AttributeError() | KeyError() | TypeError():
                # While it reads an answer; the latter when that is no XML, or other XML than it expects.
                return TransientStorageError(f"the exchange with the store failed: {type(failure).__name__}")
        return None

    def put(self, key: str, body: bytes | BinaryIO, content: Content) -> str:
        answer = self._client.put_object(Bucket=self._bucket, Body=body, Key=key, **_described(content), ContentMD5=_md5(content.md5))
        return _same_md5(_headers(answer), content.md5)

    def begin(self, key: str, content: Content) -> str:
        return str(self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **_described(content))["UploadId"])

    def put_part(self, key: str, upload: str, part: Part) -> dict[str, Any]:
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=key, Body=part.data, PartNumber=part.number, UploadId=upload, ContentMD5=_md5(part.md5)
        )
        return {"PartNumber": part.number, "ETag": f'"{_same_md5(_headers(answer), part.md5)}"'}

    def complete(self, key: str, upload: str, parts: Sequence[Any], content: Content) -> str:
        answer = self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Part": list(parts)}
        )
        return str(answer["ETag"]).strip('"').lower()

    def abort(self, key: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def unfinished(self, key: str) -> Sequence[str]:
        found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Upload", ())
        return [str(one["UploadId"]) for one in found if one["Key"] == key]

    def head(self, key: str) -> Head:
        answer = _headers(self._client.head_object(Bucket=self._bucket, Key=key))
        size = int(answer["content-length"])
        return Head(ObjectInfo(key, size, answer.get("x-cos-meta-sha256"), answer.get("content-type")), _etag(answer))

    def get(self, key: str, file: BinaryIO) -> None:
        for chunk in self._client.get_object(Bucket=self._bucket, Key=key, KeySimplifyCheck=False)["Body"].get_stream(1 << 20):
            file.write(chunk)

    def page(self, prefix: str, after: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        answer = self._client.list_objects(Bucket=self._bucket, Prefix=prefix, Marker=after or "")
        found = [ObjectInfo(one["Key"], int(one["Size"])) for one in answer.get("Contents", ())]
        return found, answer["NextMarker"] if answer.get("IsTruncated") == "true" else None

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)

    def close(self) -> None:
        self._session.close()


def _sign_by(clock: StoreClock, session: Any) -> None:
    """Have the SDK's signatures, which come with each request, made for the time of `clock`."""
    import qcloud_cos.cos_auth

    sign = with_names(qcloud_cos.cos_auth.CosS3Auth.__call__, time=SimpleNamespace(time=clock.now))
    send = session.request

    def request(method: str, url: str, *, auth: Any, **options: Any) -> Any:
        return send(method, url, auth=MethodType(sign, auth), **options)

    session.request = request


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _described(content: Content) -> dict[str, Any]:
    return {
        "ContentType": content.content_type,
        "CacheControl": content.cache_control,
        "Metadata": {"x-cos-meta-sha256": content.sha256},
    }


def _md5(md5: bytes) -> str:
    return base64.b64encode(md5).decode()


def _headers(answer: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.items()}


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").strip('"').lower()


def _same_md5(headers: Mapping[str, str], md5: bytes) -> str:
    """The ETag, which is the MD5 unless the bucket encrypts by KMS."""
    etag = _etag(headers)
    if not etag or (etag != md5.hex() and headers.get("x-cos-server-side-encryption") != "cos/kms"):
        raise ChecksumMismatch("the store's ETag is not that of the bytes sent")
    return etag
