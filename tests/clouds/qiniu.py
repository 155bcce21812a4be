"""Qiniu Kodo: upload tokens, management tokens of both kinds, forms with CRC-32, uploads in parts (v2), downloads.

One host for what the vendor spreads over several. The specification: https://developer.qiniu.com/kodo
"""

import hashlib
import hmac
import json
import time
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.clouds import Answer, Fault, Identity, Object, Refused, Request, Upload, joined, key_of, recent

SMALLEST_PART = 1 << 20
_BLOCK = 4 << 20


def signed(secret: str, text: bytes) -> str:
    return urlsafe_b64encode(hmac.digest(secret.encode(), text, "sha1")).decode()


def upload_token(access_key: str, secret: str, policy: bytes) -> str:
    """https://developer.qiniu.com/kodo/1208/upload-token"""
    encoded = urlsafe_b64encode(policy)
    return f"{access_key}:{signed(secret, encoded)}:{encoded.decode()}"


def qbox_token(access_key: str, secret: str, target: str, form: bytes = b"") -> str:
    """The older management token; `target`: path and query, `form`: a body of the type of forms."""
    return f"{access_key}:{signed(secret, target.encode() + bytes((10,)) + form)}"


def qiniu_token(access_key: str, secret: str, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> str:
    """The management token of today: https://developer.qiniu.com/kodo/1201/access-token"""
    known = {name.title(): value for name, value in headers.items()}
    lines = [f"{method} {target}", f"Host: {known['Host']}"]
    kind = known.get("Content-Type", "")
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name}: {value}" for name, value in sorted(known.items()) if name.startswith("X-Qiniu-") and name != "X-Qiniu-"]
    text = "\n".join(lines).encode() + b"\n\n"
    if body and kind not in ("", "application/octet-stream"):
        text += body
    return f"{access_key}:{signed(secret, text)}"


def hash_of(data: bytes) -> str:
    """https://developer.qiniu.com/kodo/1231/appendix"""
    blocks = [hashlib.sha1(data[start : start + _BLOCK]).digest() for start in range(0, len(data), _BLOCK)] or [hashlib.sha1(b"").digest()]
    whole = b"\x16" + blocks[0] if len(blocks) == 1 else b"\x96" + hashlib.sha1(b"".join(blocks)).digest()
    return urlsafe_b64encode(whole).decode()


class Kodo:
    """One bucket."""

    def __init__(self, bucket: str, identities: list[Identity]) -> None:
        self.bucket = bucket
        self.ahead_seconds = 0.0
        self.identities = {identity.access_key: identity for identity in identities}
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.dialects: set[str] = set()

    def operation(self, request: Request) -> str:
        first, *rest = request.path.strip("/").split("/")
        if "token" in request.query:
            return "get"
        if first == "buckets":
            return {("POST", 5): "begin", ("PUT", 7): "part", ("POST", 6): "complete", ("DELETE", 6): "abort"}[
                request.method, len(rest) + 1
            ]
        return {"": "put", "stat": "head", "delete": "delete", "list": "list", "v2": "domains"}.get(first, "unknown")

    def refusal(self, status: int, code: str) -> Answer:
        return _json({"error": code}, status)

    def with_wrong_etag(self, answer: Answer) -> Answer:
        told = json.loads(answer.body)
        told |= {name: hash_of(b"something else") for name in ("hash", "etag") if name in told}
        return _json(told | ({"md5": "0" * 32} if "md5" in told else {}), answer.status)

    def truncate(self, request: Request) -> None:
        stored = self.objects[next(reversed(self.objects))]
        stored.data = stored.data[:-1]

    def answer(self, request: Request) -> Answer:
        name = self.operation(request)
        return {
            "put": self._form,
            "begin": self._begin,
            "part": self._part,
            "complete": self._complete,
            "abort": self._abort,
            "head": self._stat,
            "delete": self._delete,
            "list": self._list,
            "domains": self._domains,
            "get": self._get,
        }[name](request)

    def _identity(self, access_key: str) -> Identity:
        if access_key not in self.identities:
            raise Refused(401, "bad token")
        return self.identities[access_key]

    def _policy(self, token: str, key: str) -> dict[str, Any]:
        access_key, _, policy = token.split(":")
        identity = self._identity(access_key)
        if upload_token(access_key, identity.secret_key, urlsafe_b64decode(policy)) != token:
            raise Refused(401, "bad token")
        told: dict[str, Any] = json.loads(urlsafe_b64decode(policy))
        if told["deadline"] < time.time() + self.ahead_seconds:
            raise Refused(401, "expired token")
        bucket, _, scope = told["scope"].partition(":")
        if bucket != self.bucket:
            raise Refused(631, "no such bucket")
        if scope and scope != key:
            raise Refused(403, "key doesn't match with scope")
        if not scope and key in self.objects:
            raise Refused(614, "file exists")
        if "write" not in identity.may:
            raise Refused(403, "access denied")
        self.dialects.add("UpToken")
        return told

    def _manager(self, request: Request, right: str) -> None:
        scheme, _, given = request.header("Authorization").partition(" ")
        access_key = given.partition(":")[0]
        identity = self._identity(access_key)
        target = request.target
        headers = {name: str(value) for name, value in request.headers.items()}
        if scheme == "Qiniu":
            expected = qiniu_token(access_key, identity.secret_key, request.method, target, headers, request.body)
            moment = datetime.strptime(request.header("X-Qiniu-Date") + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
            if not recent(moment, time.time() + self.ahead_seconds):
                raise Refused(403, "request time is too skewed")
        else:
            expected = qbox_token(access_key, identity.secret_key, target, request.body)
        if expected != given:
            raise Refused(401, "bad token")
        if right not in identity.may:
            raise Refused(403, "access denied")
        self.dialects.add(scheme)

    def _store(self, key: str, data: bytes, headers: dict[str, str]) -> Answer:
        self.objects.pop(key, None)
        self.objects[key] = Object(data, headers, hash_of(data))
        return _json({"hash": self.objects[key].etag, "key": key})

    def _form(self, request: Request) -> Answer:
        fields, kinds = _form_fields(request)
        key, data = fields["key"].decode(), fields["file"]
        policy = self._policy(fields["token"].decode(), key)
        if len(data) > policy.get("fsizeLimit", len(data)) or len(data) < policy.get("fsizeMin", 0):
            raise Refused(413, "request entity size is not what the policy allows")
        if int(fields["crc32"]) != zlib.crc32(data):
            raise Refused(406, "crc32 of the file is not what was told")
        headers = {name: value.decode() for name, value in fields.items() if name.startswith("x-qn-meta-")}
        return self._store(key, data, headers | {"content-type": kinds["file"]})

    def _upload(self, request: Request) -> tuple[str, str]:
        """The key and the upload's id, for whom the token is good."""
        _, bucket, _, encoded, _, *rest = request.path.strip("/").split("/")
        key = urlsafe_b64decode(encoded).decode()
        scheme, _, token = request.header("Authorization").partition(" ")
        if scheme != "UpToken" or bucket != self.bucket:
            raise Refused(401, "bad token")
        self._policy(token, key)
        if rest and (rest[0] not in self.uploads or self.uploads[rest[0]].key != key):
            raise Refused(612, "no such uploadId")
        return key, rest[0] if rest else ""

    def _begin(self, request: Request) -> Answer:
        key, _ = self._upload(request)
        upload = token_hex(12)
        self.uploads[upload] = Upload(key, {})
        return _json({"uploadId": upload, "expireAt": int(time.time()) + 7 * 86400})

    def _part(self, request: Request) -> Answer:
        _, upload = self._upload(request)
        md5 = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        if request.header("Content-MD5") not in ("", md5):
            raise Refused(406, "md5 of the part is not what was told")
        number = int(request.path.rpartition("/")[2])
        self.uploads[upload].parts[number] = Object(request.body, {}, hash_of(request.body))
        return _json({"etag": hash_of(request.body), "md5": md5})

    def _complete(self, request: Request) -> Answer:
        key, upload = self._upload(request)
        told = json.loads(request.body)
        named = [(part["partNumber"], part["etag"]) for part in told["parts"]]
        data = joined(self.uploads[upload], named, SMALLEST_PART)
        del self.uploads[upload]
        return self._store(key, data, told["metadata"] | {"content-type": told["mimeType"]})

    def _abort(self, request: Request) -> Answer:
        _, upload = self._upload(request)
        del self.uploads[upload]
        return Answer(200)

    def _entry(self, request: Request) -> str:
        bucket, _, key = urlsafe_b64decode(request.path.rpartition("/")[2]).decode().partition(":")
        if bucket != self.bucket:
            raise Refused(631, "no such bucket")
        if key not in self.objects:
            raise Refused(612, "no such file or directory")
        return key

    def _stat(self, request: Request) -> Answer:
        self._manager(request, "read")
        stored = self.objects[self._entry(request)]
        meta = {name.removeprefix("x-qn-meta-"): value for name, value in stored.headers.items() if name.startswith("x-qn-meta-")}
        told = {"fsize": len(stored.data), "hash": stored.etag, "mimeType": stored.headers["content-type"], "putTime": 1, "type": 0}
        return _json(told | {"x-qn-meta": meta})

    def _delete(self, request: Request) -> Answer:
        self._manager(request, "write")
        del self.objects[self._entry(request)]
        return _json({})

    def _list(self, request: Request) -> Answer:
        self._manager(request, "read")
        after = urlsafe_b64decode(request.query.get("marker", "")).decode()
        found = [key for key in sorted(self.objects) if key.startswith(request.query.get("prefix", "")) and key > after]
        page = found[:3]  # so that pages happen
        items = [{"key": key, "fsize": len(self.objects[key].data), "hash": self.objects[key].etag} for key in page]
        more = {"marker": urlsafe_b64encode(page[-1].encode()).decode()} if len(found) > len(page) else {}
        return _json({"items": items, **more})

    def _domains(self, request: Request) -> Answer:
        self._manager(request, "read")
        return _json([request.host])

    def _get(self, request: Request) -> Answer:
        target, _, token = request.target.rpartition("&token=")
        access_key = unquote(token).partition(":")[0]
        identity = self._identity(access_key)
        if f"{access_key}:{signed(identity.secret_key, f'http://{request.host}{target}'.encode())}" != unquote(token):
            raise Refused(401, "bad token")
        if int(dict(parse_qsl(target.partition("?")[2]))["e"]) < time.time():
            raise Refused(401, "expired")
        key = key_of(request.path)
        if key not in self.objects:
            raise Refused(404, "Document not found")
        stored = self.objects[key]
        return Answer(200, {"Content-Type": stored.headers["content-type"]}, stored.data)


def _form_fields(request: Request) -> tuple[dict[str, bytes], dict[str, str]]:
    """The values of a form, and the content types of those that have one, by name."""
    boundary = request.header("Content-Type").partition("boundary=")[2].encode()
    fields, kinds = {}, {}
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        name = headers["Content-Disposition"].partition('name="')[2].partition('"')[0]
        fields[name] = value.removesuffix(b"\r\n")
        kinds[name] = headers.get("Content-Type", "")
    return fields, kinds


def _json(told: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json", "X-Reqid": "test"}, json.dumps(told).encode())
