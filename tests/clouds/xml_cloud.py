"""What Alibaba's and Tencent's stores have in common: buckets, objects and uploads in parts as Amazon invented them."""

import base64
import hashlib
import time
from secrets import token_hex
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.clouds import Answer, Fault, Identity, Object, Refused, Request, Upload, etag_of, joined, key_of, operation, xml_refusal


class XmlCloud:
    """One bucket. It stands in front of the host's name or, where the vendor knows that, is the first part of the path."""

    smallest_part: int  # bytes; the last may be smaller
    prefix: str  # of the vendor's headers
    path_style: bool
    wrong_md5: str  # the vendor's code

    def __init__(self, bucket: str, region: str, identities: list[Identity]) -> None:
        self.bucket, self.region = bucket, region
        self.domain = ""  # of the bucket's own
        self.ahead_seconds = 0.0
        self.identities = {identity.access_key: identity for identity in identities}
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.dialects: set[str] = set()  # of the signatures that were right

    def now(self) -> float:
        return time.time() + self.ahead_seconds

    def operation(self, request: Request) -> str:
        return operation(request)

    def refusal(self, status: int, code: str) -> Answer:
        return xml_refusal(status, code)

    def with_wrong_etag(self, answer: Answer) -> Answer:
        return Answer(answer.status, answer.headers | {"ETag": etag_of(b"something else")}, answer.body)

    def truncate(self, request: Request) -> None:
        stored = self.objects[self._place(request)]
        stored.data = stored.data[:-1]

    def _place(self, request: Request) -> str:
        if request.host.startswith(f"{self.bucket}.") or request.host.partition(":")[0] == self.domain:
            return key_of(request.path)
        bucket, _, key = key_of(request.path).partition("/")
        if bucket != self.bucket or not self.path_style:
            raise Refused(404, "NoSuchBucket")
        return key

    def answer(self, request: Request) -> Answer:
        key, name = self._place(request), self.operation(request)
        may = self._authenticate(request, key).may
        if {"head": "read", "get": "read", "list": "read", "unfinished": "read"}.get(name, "write") not in may:
            raise Refused(403, "AccessDenied")
        md5 = request.header("Content-MD5")
        if md5 and base64.b64decode(md5) != hashlib.md5(request.body, usedforsecurity=False).digest():
            raise Refused(400, self.wrong_md5)
        return {
            "put": self._put,
            "head": self._head,
            "get": self._get,
            "delete": self._delete,
            "list": self._list,
            "begin": self._begin,
            "part": self._part,
            "complete": self._complete,
            "abort": self._abort,
            "unfinished": self._unfinished,
        }[name](request, key)

    def _authenticate(self, request: Request, key: str) -> Identity:
        """Who signed the request; raises Refused when the signature is not right."""
        raise NotImplementedError

    def _known(self, access_key: str) -> Identity:
        if access_key not in self.identities:
            raise Refused(403, "InvalidAccessKeyId")
        return self.identities[access_key]

    def _described(self, request: Request) -> dict[str, str]:
        kept = ("content-type", "cache-control", f"{self.prefix}tagging")
        sent = {name.lower(): str(value) for name, value in request.headers.items()}
        return {name: value for name, value in sent.items() if name in kept or name.startswith(f"{self.prefix}meta-")}

    def _put(self, request: Request, key: str) -> Answer:
        self.objects[key] = Object(request.body, self._described(request), etag_of(request.body))
        return Answer(200, {"ETag": self.objects[key].etag})

    def _head(self, request: Request, key: str) -> Answer:
        if key not in self.objects:
            return Answer(404)
        stored = self.objects[key]
        headers = {name: value for name, value in stored.headers.items() if name != f"{self.prefix}tagging"}
        return Answer(200, {"Content-Length": str(len(stored.data)), "ETag": stored.etag, **headers})

    def _get(self, request: Request, key: str) -> Answer:
        if key not in self.objects:
            raise Refused(404, "NoSuchKey")
        stored = self.objects[key]
        return Answer(200, {"ETag": stored.etag, **stored.headers}, stored.data)

    def _delete(self, request: Request, key: str) -> Answer:
        self.objects.pop(key, None)
        return Answer(204)

    def _list(self, request: Request, key: str) -> Answer:
        limit = min(int(request.query.get("max-keys") or 100), 3)  # so that pages happen
        after, prefix = request.query.get("marker", ""), request.query.get("prefix", "")
        found = [name for name in sorted(self.objects) if name.startswith(prefix) and name > after]
        more = len(found) > limit
        entries = "".join(
            f"<Contents><Key>{quote(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{self.objects[name].etag}</ETag>"
            f"<Type>Normal</Type><Size>{len(self.objects[name].data)}</Size><StorageClass>Standard</StorageClass></Contents>"
            for name in found[:limit]
        )
        marker = f"<NextMarker>{quote(found[limit - 1])}</NextMarker>" if more else ""
        body = (
            f"<ListBucketResult><Name>{self.bucket}</Name><Prefix>{quote(prefix)}</Prefix><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{marker}{entries}</ListBucketResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())

    def _begin(self, request: Request, key: str) -> Answer:
        upload = token_hex(16).upper()
        self.uploads[upload] = Upload(key, self._described(request))
        body = (
            f"<InitiateMultipartUploadResult><Bucket>{self.bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            "</InitiateMultipartUploadResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())

    def _upload(self, request: Request, key: str) -> Upload:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or upload.key != key:
            raise Refused(404, "NoSuchUpload")
        return upload

    def _part(self, request: Request, key: str) -> Answer:
        number = int(request.query["partNumber"])
        if not 1 <= number <= 10_000:
            raise Refused(400, "InvalidArgument")
        part = Object(request.body, {}, etag_of(request.body))
        self._upload(request, key).parts[number] = part
        return Answer(200, {"ETag": part.etag})

    def _complete(self, request: Request, key: str) -> Answer:
        upload = self._upload(request, key)
        parts = ElementTree.fromstring(request.body).findall("Part")
        named = [(int(part.findtext("PartNumber") or 0), part.findtext("ETag") or "") for part in parts]
        data = joined(upload, named, self.smallest_part)
        etag = f'"{etag_of(data)[1:-1]}-{len(named)}"'
        self.objects[key] = Object(data, upload.headers, etag)
        del self.uploads[request.query["uploadId"]]
        body = f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
        return Answer(200, {"ETag": etag, "Content-Type": "application/xml"}, body.encode())

    def _abort(self, request: Request, key: str) -> Answer:
        self._upload(request, key)
        del self.uploads[request.query["uploadId"]]
        return Answer(204)

    def _unfinished(self, request: Request, key: str) -> Answer:
        prefix = request.query.get("prefix", "")
        entries = "".join(
            f"<Upload><Key>{quote(upload.key)}</Key><UploadId>{id_}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
            for id_, upload in self.uploads.items()
            if upload.key.startswith(prefix)
        )
        body = (
            f"<ListMultipartUploadsResult><Bucket>{self.bucket}</Bucket><EncodingType>url</EncodingType><KeyMarker></KeyMarker>"
            f"<UploadIdMarker></UploadIdMarker><NextKeyMarker></NextKeyMarker><NextUploadIdMarker></NextUploadIdMarker>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>"
        )
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())
