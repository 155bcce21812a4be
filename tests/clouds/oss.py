"""Alibaba OSS: signatures V1 and V4, Content-MD5, uploads in parts."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from tests.clouds import Identity, Refused, Request, recent
from tests.clouds.xml_cloud import XmlCloud

_SUBRESOURCES = {"uploads", "uploadId", "partNumber", "tagging"}


def signature_v1(secret: str, method: str, headers: Mapping[str, str], resource: str) -> str:
    """https://www.alibabacloud.com/help/en/oss/developer-reference/include-signatures-in-the-authorization-header"""
    known = {name.lower(): value for name, value in headers.items()}
    vendor = "".join(f"{name}:{value}\n" for name, value in sorted(known.items()) if name.startswith("x-oss-"))
    plain = [method, known.get("content-md5", ""), known.get("content-type", ""), known.get("x-oss-date") or known.get("date", "")]
    text = "\n".join([*plain, vendor + resource])
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()


def signature_v4(
    secret: str,
    method: str,
    resource: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    region: str,
    additional: frozenset[str] = frozenset(),
) -> str:
    """https://www.alibabacloud.com/help/en/oss/developer-reference/recommend-to-use-signature-version-4"""
    known = {name.lower(): value.strip() for name, value in headers.items()}
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    signed = {name: value for name, value in known.items() if name.startswith("x-oss-")}
    signed |= {name: known[name] for name in {"content-type", "content-md5", *additional} if name in known}
    canonical = "\n".join(
        [
            method,
            quote(resource, safe="-_.~/"),
            "&".join(f"{name}={value}" if value else name for name, value in encoded),
            "".join(f"{name}:{value}\n" for name, value in sorted(signed.items())),
            ";".join(sorted(additional)),
            known["x-oss-content-sha256"],
        ]
    )
    date = known["x-oss-date"]
    scope = f"{date[:8]}/{region}/oss/aliyun_v4_request"
    text = "\n".join(["OSS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"aliyun_v4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


class Oss(XmlCloud):
    smallest_part = 100 << 10  # https://www.alibabacloud.com/help/en/oss/developer-reference/uploadpart
    prefix = "x-oss-"
    path_style = True  # for addresses
    wrong_md5 = "InvalidDigest"

    def _authenticate(self, request: Request, key: str) -> Identity:
        headers = {name: str(value) for name, value in request.headers.items()}
        authorization = request.header("Authorization")
        if authorization.startswith("OSS4-HMAC-SHA256 "):
            fields = dict(field.strip().split("=", 1) for field in authorization.split(" ", 1)[1].split(","))
            access_key, date, region, product, _ = fields["Credential"].split("/")
            identity, given = self._known(access_key), fields["Signature"]
            additional = frozenset(filter(None, fields.get("AdditionalHeaders", "").split(";")))
            moment = datetime.strptime(request.header("x-oss-date") + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
            if (region, product, date) != (self.region, "oss", request.header("x-oss-date")[:8]):
                raise Refused(400, "InvalidArgument")
            resource = f"/{self.bucket}/{key}"
            expected = signature_v4(
                identity.secret_key, request.method, resource, request.query, headers, region=region, additional=additional
            )
        elif authorization.startswith("OSS "):
            access_key, _, given = authorization.removeprefix("OSS ").partition(":")
            identity = self._known(access_key)
            sub = "&".join(f"{k}={v}" if v else k for k, v in sorted(request.query.items()) if k in _SUBRESOURCES)
            expected = signature_v1(identity.secret_key, request.method, headers, f"/{self.bucket}/{key}" + (f"?{sub}" if sub else ""))
            moment = parsedate_to_datetime(request.header("Date")).timestamp()
        else:
            raise Refused(403, "AccessDenied")
        if not recent(moment, self.now()):
            raise Refused(403, "RequestTimeTooSkewed")
        if not hmac.compare_digest(expected, given):
            raise Refused(403, "SignatureDoesNotMatch")
        if (identity.token or "") != request.header("x-oss-security-token"):
            raise Refused(403, "InvalidSecurityToken")
        self.dialects.add(authorization.split(" ")[0])
        return identity
