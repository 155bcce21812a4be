"""Alibaba OSS, through oss2. Every PUT carries Content-MD5, which the store enforces."""

import base64
import ipaddress
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MethodType, SimpleNamespace
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from storage import CheckAddress, ObjectInfo, ObjectStore, StoreOptions
from storage.clock import StoreClock, with_names
from storage.endpoints import endpoint_url
from storage.errors import BadOptions, ChecksumMismatch, StorageError, TransientStorageError
from storage.pinned import CONNECT_SECONDS, READ_SECONDS, requests_session
from storage.refusals import refusal, unanswered
from storage.regions import ALIBABA, region_name
from storage.remote import Content, Head, Part, RemoteStore

NUMBERS = (2,)

_DOMAIN: Final = ".aliyuncs.com"


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    """With an endpoint, the bucket stands in front of its name, or in the path when it is an address."""
    region = region_name(ALIBABA, options.region)
    url = endpoint_url(options.endpoint) if options.endpoint else f"https://oss-{region}{_DOMAIN}"
    return RemoteStore(OssClient(options, region, url, check_address if options.endpoint else None))


class OssClient:
    """See `storage.remote.Client`."""

    multipart_over_bytes = 64 << 20
    part_bytes = 8 << 20  # held in memory; 10,000 parts at most, so 80 GB

    def __init__(self, options: StoreOptions, region: str, url: str, check: CheckAddress | None) -> None:
        import oss2

        logging.getLogger("oss2").setLevel(logging.CRITICAL)  # it logs tokens and what the store answers
        self.clock = StoreClock()
        self._session = requests_session(check, url, self.clock)
        session = oss2.Session()
        session.session.close()
        session.session = self._session
        # Private clouds may know no newer signature than the first, Alibaba's own hosts want the newest.
        version = "v4" if (urlsplit(url).hostname or "").endswith(_DOMAIN) else "v1"
        self._fixed = {"x-oss-tagging": urlencode(parse_qsl(options.tag, keep_blank_values=True))} if options.tag else {}
        try:
            self._bucket = oss2.Bucket(
                _auth(options, version, self.clock),
                url,
                options.bucket,
                session=session,
                connect_timeout=(CONNECT_SECONDS, READ_SECONDS),
                enable_crc=False,  # slow without its C extension; MD5 does the same
                region=region,
                is_path_style=_is_address(url),
            )
        except oss2.exceptions.ClientError as error:
            raise BadOptions("the bucket or the endpoint is none of the store") from error

    def error(self, failure: Exception) -> StorageError | None:
        import oss2
        import requests

        match failure:
            case oss2.exceptions.ServerError():
                return refusal(failure.status, str(failure.code))
            case oss2.exceptions.RequestError():
                return unanswered(failure.exception)
            case oss2.exceptions.OssError():
                return BadOptions("the bucket's name or the object key is not valid")
            case requests.RequestException() | RuntimeError() | SyntaxError() | ValueError() | AttributeError() | KeyError() | TypeError():
                # While it reads an answer; the latter when that is no XML, or other XML than it expects.
                return TransientStorageError(f"the exchange with the store failed: {type(failure).__name__}")
        return None

    def put(self, key: str, body: bytes | BinaryIO, content: Content) -> str:
        answer = self._bucket.put_object(key, body, headers=self._described(content) | _md5_header(content.md5))
        answer.resp.read()
        return _same_md5(answer.etag, content.md5, answer.headers)

    def begin(self, key: str, content: Content) -> str:
        upload = str(self._bucket.init_multipart_upload(key, headers=self._described(content)).upload_id or "")
        if not upload:
            raise TransientStorageError("the store begins no upload")
        return upload

    def put_part(self, key: str, upload: str, part: Part) -> Any:
        from oss2.models import PartInfo

        answer = self._bucket.upload_part(key, upload, part.number, part.data, headers=_md5_header(part.md5))
        answer.resp.read()
        return PartInfo(part.number, _same_md5(answer.etag, part.md5, answer.headers))

    def complete(self, key: str, upload: str, parts: Sequence[Any], content: Content) -> str:
        answer = self._bucket.complete_multipart_upload(key, upload, list(parts))
        if b"<Error>" in answer.resp.read() or not answer.etag:
            raise ChecksumMismatch("the store does not say what it made of the parts")
        return _etag(answer.etag)

    def abort(self, key: str, upload: str) -> None:
        self._bucket.abort_multipart_upload(key, upload)

    def unfinished(self, key: str) -> Sequence[str]:
        return [one.upload_id for one in self._bucket.list_multipart_uploads(prefix=key).upload_list if one.key == key]

    def head(self, key: str) -> Head:
        answer = self._bucket.head_object(key)
        if answer.content_length is None:
            raise TransientStorageError("the store's answer makes no sense")
        sha256 = answer.headers.get("x-oss-meta-sha256")
        return Head(ObjectInfo(key, answer.content_length, sha256, answer.content_type), _etag(answer.etag))

    def get(self, key: str, file: BinaryIO) -> None:
        answer = self._bucket.get_object(key).resp
        for chunk in iter(lambda: answer.read(1 << 20), b""):
            file.write(chunk)

    def page(self, prefix: str, after: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        answer = self._bucket.list_objects(prefix, marker=after or "", max_keys=1000)
        found = [ObjectInfo(one.key, one.size) for one in answer.object_list]
        return found, answer.next_marker if answer.is_truncated else None

    def delete(self, key: str) -> None:
        self._bucket.delete_object(key)

    def close(self) -> None:
        self._session.close()

    def _described(self, content: Content) -> dict[str, str]:
        described = {"Content-Type": content.content_type, "Cache-Control": content.cache_control, "x-oss-meta-sha256": content.sha256}
        return described | self._fixed


def _auth(options: StoreOptions, version: str, clock: StoreClock) -> Any:
    """Signs for the time of `clock`."""
    import oss2
    from oss2.credentials import StaticCredentialsProvider

    keys = StaticCredentialsProvider(options.access_key, options.secret_key, options.sts_token or "")
    auth = (oss2.ProviderAuthV4 if version == "v4" else oss2.ProviderAuth)(keys)
    utils = SimpleNamespace(http_date=lambda: oss2.utils.http_date(clock.now()))
    moment = SimpleNamespace(utcnow=lambda: datetime.fromtimestamp(clock.now(), UTC))
    auth._sign_request = MethodType(with_names(type(auth)._sign_request, utils=utils, datetime=moment), auth)
    return auth


def _is_address(url: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def _md5_header(md5: bytes) -> dict[str, str]:
    return {"Content-MD5": base64.b64encode(md5).decode()}


def _etag(text: str | None) -> str:
    return (text or "").strip('"').lower()


def _same_md5(etag: str | None, md5: bytes, headers: Any) -> str:
    """The ETag, which is the MD5 unless the bucket encrypts by KMS."""
    encrypted = headers.get("x-oss-server-side-encryption") == "KMS"
    if not etag or (_etag(etag) != md5.hex() and not encrypted):
        raise ChecksumMismatch("the store's ETag is not that of the bytes sent")
    return _etag(etag)
