"""`storageConfig`: the customer's bucket."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

import storage
from api.schemas.wire import Given, Printable, Problem, Wire, is_http_url, printable, wrong
from recorder.spec import Storage
from storage.regions import REGIONS

LOCAL_FOLDER: Final = 100  # ours; has no keys
S3_COMPATIBLE: Final = 11

_VENDORS: Final = tuple(sorted(storage.vendor_numbers()))

_WITHOUT_REGIONS: Final = tuple(vendor for vendor in _VENDORS if vendor not in REGIONS)

# Who understands which extra; elsewhere it would be dropped silently, and with it the protection the customer counts on.
_UNDERSTOOD: Final = {"stsToken": (1, 2, 3, S3_COMPATIBLE), "sse": (1, S3_COMPATIBLE), "tag": (1, 2, S3_COMPATIBLE)}


def _vendor(number: int) -> int:
    if number not in _VENDORS:
        raise wrong(f"must be one of {', '.join(map(str, _VENDORS))}")
    return number


def _endpoint(text: str) -> str:
    url = text if "://" in text else f"https://{text}"
    parts = urlsplit(url) if is_http_url(url) else None
    if parts is None or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong("must be a host name, with a scheme and a port if needed")
    return text


def _is_region(vendor: int, region: int) -> bool:
    """Vendors without a table have no use for the code."""
    return vendor not in REGIONS or region in REGIONS[vendor]


SessionToken = Annotated[str, AfterValidator(printable), Field(max_length=16384)]


class ExtensionParams(Wire):
    sse: Literal["kms", "aes256"] | None = None
    tag: Printable | None = None
    endpoint: Annotated[str, AfterValidator(_endpoint), Field(max_length=255)] | None = None


class StorageConfig(Wire):
    vendor: Annotated[int, AfterValidator(_vendor), Field(json_schema_extra={"enum": list(_VENDORS)})]
    region: int = Field(0, description="required for vendors that have regions")
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")
    access_key: Printable = Field("", description="required, except for vendor 100")
    secret_key: Printable = Field("", description="required, except for vendor 100")
    sts_token: SessionToken | None = None
    sts_expiration: int | None = Field(None, ge=0, le=2**63 - 1, description="Unix time in seconds")
    file_name_prefix: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]] = Field([], max_length=64)
    extension_params: ExtensionParams = Field(default_factory=ExtensionParams)

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        vendor, region = given.get("vendor"), given.get("region")
        extension = given.get("extensionParams")
        extras: Given = extension if isinstance(extension, dict) else {}
        if vendor != LOCAL_FOLDER:
            yield from ((key, "Field required") for key in ("accessKey", "secretKey") if given.get(key) in (None, ""))
        if "region" not in given and vendor not in _WITHOUT_REGIONS:  # clients that leave out zeros leave it out there
            yield "region", "Field required"
        if isinstance(vendor, int) and isinstance(region, int) and not _is_region(vendor, region):
            yield "region", "is not a region of this vendor"
        if vendor == S3_COMPATIBLE and not extras.get("endpoint"):
            yield "extensionParams.endpoint", "is required for vendor 11"
        if given.get("stsToken") and vendor not in _UNDERSTOOD["stsToken"]:
            yield "stsToken", "is not understood by this vendor"
        for key in ("sse", "tag"):
            if extras.get(key) and vendor not in _UNDERSTOOD[key]:
                yield f"extensionParams.{key}", "is not understood by this vendor"
        prefix = given.get("fileNamePrefix")
        if isinstance(prefix, list) and sum(len(str(part)) + 1 for part in prefix) > 128:
            yield "fileNamePrefix", "is longer than 128 characters"

    def moved_from(self, place: Storage) -> list[str]:
        """Fields that name another place, or another way of storing there, than `place` does: all but the keys."""
        wanted = self.to_spec()
        names = {"vendor": "vendor", "region": "region", "bucket": "bucket", "prefix": "fileNamePrefix"}
        names |= {name: f"extensionParams.{name}" for name in ("endpoint", "sse", "tag")}
        return [wire for name, wire in names.items() if getattr(wanted, name) != getattr(place, name)]

    def to_spec(self) -> Storage:
        return Storage(
            vendor=self.vendor,
            region=self.region,
            bucket=self.bucket,
            access_key=SecretStr(self.access_key),
            secret_key=SecretStr(self.secret_key),
            sts_token=SecretStr(self.sts_token) if self.sts_token else None,
            sts_expires_at=self.sts_expiration,
            prefix=tuple(self.file_name_prefix),
            endpoint=self.extension_params.endpoint,
            sse=self.extension_params.sse,
            tag=self.extension_params.tag or None,
        )
