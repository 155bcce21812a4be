"""Tencent COS: the sha1 signature, Content-MD5, uploads in parts."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote

from tests.clouds import Identity, Refused, Request
from tests.clouds.xml_cloud import XmlCloud


def signature(secret: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], key_time: str) -> str:
    """https://www.tencentcloud.com/document/product/436/7778; `path` as it is before encoding, `headers`: the signed ones."""
    text = "\n".join([method.lower(), path, _pairs(query), _pairs(headers), ""])
    to_sign = "\n".join(["sha1", key_time, hashlib.sha1(text.encode()).hexdigest(), ""])
    key = hmac.digest(secret.encode(), key_time.encode(), "sha1").hex()
    return hmac.digest(key.encode(), to_sign.encode(), "sha1").hex()


def _pairs(values: Mapping[str, str]) -> str:
    encoded = ((quote(name, safe="-_.~").lower(), quote(value, safe="-_.~")) for name, value in values.items())
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


class Cos(XmlCloud):
    smallest_part = 1 << 20  # https://www.tencentcloud.com/document/product/436/7750
    prefix = "x-cos-"
    path_style = False
    wrong_md5 = "BadDigest"

    def _authenticate(self, request: Request, key: str) -> Identity:
        given = dict(parse_qsl(request.header("Authorization"), keep_blank_values=True))
        if given.get("q-sign-algorithm") != "sha1":
            raise Refused(403, "AccessDenied")
        identity = self._known(given["q-ak"])
        begins, ends = map(int, given["q-key-time"].split(";"))
        if not begins <= self.now() <= ends:
            raise Refused(403, "RequestTimeTooSkewed")
        sent = {name.lower(): str(value) for name, value in request.headers.items()}
        named = given["q-header-list"].split(";")
        # What is not signed could be changed on the way.
        must = {"host", *(name for name in sent if name in ("content-md5", "content-type") or name.startswith("x-cos-"))}
        if not must <= set(named):
            raise Refused(403, "SignatureDoesNotMatch")
        headers = {name: sent[name] for name in named}
        headers["host"] = headers["host"].partition(":")[0]  # the vendor's SDK signs it without a port
        query = {name: value for name, value in request.query.items() if name.lower() in given["q-url-param-list"].split(";")}
        if len(query) != len(request.query):
            raise Refused(403, "SignatureDoesNotMatch")
        expected = signature(identity.secret_key, request.method, unquote(request.path), query, headers, given["q-key-time"])
        if not hmac.compare_digest(expected, given["q-signature"]):
            raise Refused(403, "SignatureDoesNotMatch")
        if (identity.token or "") != request.header("x-cos-security-token"):
            raise Refused(403, "InvalidAccessKeyId")
        self.dialects.add("sha1")
        return identity
