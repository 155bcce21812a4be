"""Qiniu Kodo: qiniu's SDK signs, the requests are ours.

The SDK's transport is one for the whole process, asks for regions, and tries other hosts by itself; none of that can be
bounded. Of its rules this keeps: small files as a form with their CRC-32, larger ones in parts of 4 MiB with MD5; with
parts of that size the answer's hash is the one of the file: https://developer.qiniu.com/kodo/1231/appendix
"""

import hashlib
import logging
import re
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MethodType, SimpleNamespace
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode, urlsplit

from storage import CheckAddress, ObjectInfo, ObjectStore, StoreOptions
from storage.clock import StoreClock, with_names
from storage.endpoints import endpoint_url
from storage.errors import BadOptions, ChecksumMismatch, StorageError, TransientStorageError
from storage.pinned import CONNECT_SECONDS, READ_SECONDS, requests_session
from storage.refusals import refusal, unanswered
from storage.regions import QINIU, region_name
from storage.remote import Content, Head, Part, RemoteStore

NUMBERS = (0,)

_BLOCK_BYTES: Final = 4 << 20
_TOKEN_SECONDS: Final = 3600


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    """An endpoint stands for all hosts of the vendor."""
    region = region_name(QINIU, options.region)
    return RemoteStore(QiniuClient(options, region, check_address))


class QiniuClient:
    """See `storage.remote.Client`. What the vendor calls hash is the ETag here."""

    multipart_over_bytes = 2 * _BLOCK_BYTES  # a form is held in memory
    part_bytes = _BLOCK_BYTES

    def __init__(self, options: StoreOptions, region: str, check: CheckAddress) -> None:
        from qiniu.auth import Auth, QiniuMacAuth, QiniuMacRequestsAuth

        logging.getLogger("qiniu").setLevel(logging.CRITICAL)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", options.bucket):
            raise BadOptions("the bucket's name is not valid")
        try:
            self._auth = Auth(options.access_key, options.secret_key)
            self._management = QiniuMacRequestsAuth(QiniuMacAuth(options.access_key, options.secret_key))
        except ValueError as error:
            raise BadOptions("the storage keys are missing") from error
        own = endpoint_url(options.endpoint) if options.endpoint else None
        self._scheme = urlsplit(own).scheme if own else "https"
        upload = "upload.qiniup.com" if region == "z0" else f"upload-{region}.qiniup.com"
        self._upload_url = own or f"https://{upload}"
        self._objects_url = own or f"https://rs-{region}.qiniuapi.com"
        self._list_url = own or f"https://rsf-{region}.qiniuapi.com"
        self._buckets_url = own or "https://uc.qiniuapi.com"
        self._bucket = options.bucket
        # Downloads go to a domain that the bucket's owner has named: checked even without an endpoint.
        self.clock = StoreClock()
        self._session = requests_session(check, self._upload_url, self.clock)
        moment = SimpleNamespace(utcnow=lambda: datetime.fromtimestamp(self.clock.now(), UTC))
        self._sign = MethodType(with_names(QiniuMacRequestsAuth.__call__, datetime=moment), self._management)

    def error(self, failure: Exception) -> StorageError | None:
        import requests

        match failure:
            case requests.RequestException():
                return unanswered(failure)
            case ValueError() | KeyError() | TypeError():  # no JSON, or other JSON than expected
                return TransientStorageError("the store's answer makes no sense")
        return None

    def put(self, key: str, body: bytes | BinaryIO, content: Content) -> str:
        data = body if isinstance(body, bytes) else body.read()
        fields = {"token": self._upload_token(key, content), "key": key, "crc32": str(zlib.crc32(data)), **_metadata(content)}
        files = {"file": ("file", data, content.content_type)}
        answer = self._exchange("POST", f"{self._upload_url}/", data=fields, files=files).json()
        return _same_hash(answer, _hash(_digests(data)))

    def begin(self, key: str, content: Content) -> str:
        upload = self._uploads("POST", key).json()["uploadId"]
        return str(upload)

    def put_part(self, key: str, upload: str, part: Part) -> dict[str, Any]:
        headers = {"Content-MD5": part.md5.hex(), "Content-Type": "application/octet-stream"}
        answer = self._uploads("PUT", key, f"/{upload}/{part.number}", data=part.data, headers=headers).json()
        if answer["md5"] != part.md5.hex():
            raise ChecksumMismatch("the store's MD5 is not that of the bytes sent")
        return {"partNumber": part.number, "etag": answer["etag"], "_sha1": _digests(part.data)}

    def complete(self, key: str, upload: str, parts: Sequence[Any], content: Content) -> str:
        named = [{name: value for name, value in part.items() if not name.startswith("_")} for part in parts]
        told = {"parts": named, "mimeType": content.content_type, "metadata": _metadata(content)}
        answer = self._uploads("POST", key, f"/{upload}", json=told).json()
        return _same_hash(answer, _hash([digest for part in parts for digest in part["_sha1"]]))

    def abort(self, key: str, upload: str) -> None:
        self._uploads("DELETE", key, f"/{upload}")

    def unfinished(self, key: str) -> Sequence[str]:
        return ()  # the vendor cannot be asked; it clears them away after seven days

    def head(self, key: str) -> Head:
        answer = self._manage("GET", f"{self._objects_url}/stat/{self._entry(key)}").json()
        sha256 = answer.get("x-qn-meta", {}).get("sha256")
        return Head(ObjectInfo(key, int(answer["fsize"]), sha256, answer.get("mimeType")), str(answer["hash"]))

    def get(self, key: str, file: BinaryIO) -> None:
        domains = self._manage("GET", f"{self._buckets_url}/v2/domains?{urlencode({'tbl': self._bucket})}").json()
        if not domains:
            raise BadOptions("the bucket has no domain to download from")
        url = self._auth.private_download_url(f"{self._scheme}://{domains[0]}/{quote(key)}", expires=self._expires())
        for chunk in self._exchange("GET", url, stream=True).iter_content(1 << 20):
            file.write(chunk)

    def page(self, prefix: str, after: str | None) -> tuple[Sequence[ObjectInfo], str | None]:
        query = {"bucket": self._bucket, "prefix": prefix, "limit": "1000"} | ({"marker": after} if after else {})
        answer = self._manage("GET", f"{self._list_url}/list?{urlencode(query)}").json()
        return [ObjectInfo(one["key"], int(one["fsize"])) for one in answer["items"] or ()], answer.get("marker") or None

    def delete(self, key: str) -> None:
        self._manage("POST", f"{self._objects_url}/delete/{self._entry(key)}")

    def close(self) -> None:
        self._session.close()

    def _entry(self, key: str) -> str:
        return urlsafe_b64encode(f"{self._bucket}:{key}".encode()).decode()

    def _upload_token(self, key: str, content: Content | None = None) -> str:
        """Good for this key alone, for replacing it too; with `content` for nothing larger or smaller."""
        sizes = {"fsizeMin": content.size, "fsizeLimit": content.size} if content and content.size else {}
        return str(self._auth.upload_token(self._bucket, key, expires=self._expires(), policy=sizes))

    def _expires(self) -> int:
        """As the SDK wants it: seconds from now by our clock."""
        return round(_TOKEN_SECONDS + self.clock.now() - time.time())

    def _uploads(self, method: str, key: str, rest: str = "", headers: dict[str, str] | None = None, **sent: Any) -> Any:
        """An exchange about an upload in parts."""
        url = f"{self._upload_url}/buckets/{self._bucket}/objects/{urlsafe_b64encode(key.encode()).decode()}/uploads{rest}"
        return self._exchange(method, url, headers={"Authorization": f"UpToken {self._upload_token(key)}", **(headers or {})}, **sent)

    def _manage(self, method: str, url: str) -> Any:
        return self._exchange(method, url, auth=self._sign)

    def _exchange(self, method: str, url: str, **sent: Any) -> Any:
        answer = self._session.request(method, url, timeout=(CONNECT_SECONDS, READ_SECONDS), **sent)
        if answer.status_code != 200:
            answer.close()
            raise refusal(answer.status_code)
        return answer


def _metadata(content: Content) -> dict[str, str]:
    return {"x-qn-meta-!Cache-Control": content.cache_control, "x-qn-meta-sha256": content.sha256}


def _digests(data: bytes) -> list[bytes]:
    """The SHA-1 of each block; of nothing when there is none."""
    blocks = range(0, max(len(data), 1), _BLOCK_BYTES)
    return [hashlib.sha1(data[start : start + _BLOCK_BYTES], usedforsecurity=False).digest() for start in blocks]


def _hash(digests: Sequence[bytes]) -> str:
    """The vendor's hash of a file from those of its blocks."""
    if len(digests) == 1:
        return urlsafe_b64encode(b"\x16" + digests[0]).decode()
    return urlsafe_b64encode(b"\x96" + hashlib.sha1(b"".join(digests), usedforsecurity=False).digest()).decode()


def _same_hash(answer: dict[str, Any], expected: str) -> str:
    if answer["hash"] != expected:
        raise ChecksumMismatch("the store's hash is not that of the bytes sent")
    return expected
