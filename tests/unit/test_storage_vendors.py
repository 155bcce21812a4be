"""Loading vendors, their regions and endpoints, and the local folder, without a socket."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from storage import StoreOptions, errors, open_store
from storage.endpoints import endpoint_url
from storage.refusals import refusal
from storage.regions import REGIONS

HOW = {"content_type": "video/MP2T", "cache_control": "max-age=1"}


def never(host: str) -> list[str]:
    raise AssertionError(host)


def test_storage_unknown_vendor_and_region() -> None:
    with pytest.raises(errors.BadOptions):
        open_store(StoreOptions(vendor=99, bucket="b"), never)
    with pytest.raises(errors.BadOptions):
        open_store(StoreOptions(vendor=1, region=27, bucket="b"), never)


AS_PUBLISHED = {
    0: "z0 z1 z2 na0 as0",
    1: "us-east-1 us-east-2 us-west-1 us-west-2 eu-west-1 eu-west-2 eu-west-3 eu-central-1 ap-southeast-1 ap-southeast-2 "
    "ap-northeast-1 ap-northeast-2 sa-east-1 ca-central-1 ap-south-1 cn-north-1 cn-northwest-1 us-gov-west-1 af-south-1 ap-east-1 "
    "ap-northeast-3 eu-north-1 me-south-1 us-gov-east-1 ap-southeast-3 eu-south-1 - - il-central-1",
    2: "CN_Hangzhou CN_Shanghai CN_Qingdao CN_Beijing CN_Zhangjiakou CN_Huhehaote CN_Shenzhen CN_Hongkong US_West_1 US_East_1 "
    "AP_Southeast_1 AP_Southeast_2 AP_Southeast_3 AP_Southeast_5 AP_Northeast_1 AP_South_1 EU_Central_1 EU_West_1 EU_East_1 "
    "AP_Southeast_6 CN_Heyuan CN_Guangzhou CN_Chengdu CN_Nanjing CN_Fuzhou CN_Wulanchabu AP_Northeast_2 AP_Southeast_7",
    3: "AP_Beijing_1 AP_Beijing AP_Shanghai AP_Guangzhou AP_Chengdu AP_Chongqing AP_Shenzhen_FSI AP_Shanghai_FSI AP_Beijing_FSI "
    "AP_Hongkong AP_Singapore AP_Mumbai AP_Seoul AP_Bangkok AP_Tokyo NA_Siliconvalley NA_Ashburn NA_Toronto EU_Frankfurt EU_Moscow",
    4: "CN_Hangzhou CN_Shanghai CN_Qingdao CN_Beijing CN_Guangzhou cn-hk-1 JR_Beijing JR_Shanghai rus sgp",
    7: "CN_North_1 CN_North_4 CN_East_2 CN_East_3 CN_South_1 CN_Southwest_2 AP_Southeast_1 AP_Southeast_2 AP_Southeast_3 AF_South_1 "
    "SA_Argentina_1 SA_Peru_1 NA_Mexico_1 SA_Brazil_1 LA_South_2 SA_Chile_1",
    8: "bj bd su gz hkg sin fwh fsh",
}


@pytest.mark.parametrize("vendor", sorted(AS_PUBLISHED))
def test_storage_regions_stand_where_the_table_says(vendor: int) -> None:
    published = {code: name.lower().replace("_", "-") for code, name in enumerate(AS_PUBLISHED[vendor].split()) if name != "-"}
    assert dict(REGIONS[vendor]) == published


def _host(vendor: int, region: int, bucket: str = "rec-1250000000") -> str:
    """Whom a client without an endpoint connects to."""
    options = StoreOptions(vendor=vendor, region=region, bucket=bucket, access_key="AK", secret_key="SK")
    store = open_store(options, never)
    client: Any = store._client  # type: ignore[attr-defined]  # a RemoteStore
    store.close()
    places = {
        0: lambda: client._upload_url,
        2: lambda: client._bucket._make_url(bucket, ""),
        3: lambda: client._client.get_conf().uri(bucket),
    }
    return str(places.get(vendor, lambda: client._client.meta.endpoint_url)()).rstrip("/")


@pytest.mark.parametrize(
    ("vendor", "region", "host"),
    [
        (0, 0, "https://upload.qiniup.com"),
        (0, 4, "https://upload-as0.qiniup.com"),
        (1, 0, "https://s3.us-east-1.amazonaws.com"),
        (1, 15, "https://s3.cn-north-1.amazonaws.com.cn"),
        (2, 25, "https://rec-1250000000.oss-cn-wulanchabu.aliyuncs.com"),
        (3, 6, "https://rec-1250000000.cos.ap-shenzhen-fsi.myqcloud.com"),
        (4, 5, "https://ks3-cn-hk-1.ksyuncs.com"),
        (4, 8, "https://ks3-rus.ksyuncs.com"),
    ],
)
def test_storage_vendors_own_hosts(vendor: int, region: int, host: str) -> None:
    assert _host(vendor, region) == host


@pytest.mark.parametrize("vendor", [0, 1, 2, 3, 4])
def test_storage_every_region_makes_a_client(vendor: int) -> None:
    hosts = [_host(vendor, region) for region in REGIONS[vendor]]
    assert len(set(hosts)) == len(REGIONS[vendor])
    assert all(host.startswith("https://") for host in hosts)


@pytest.mark.parametrize(("vendor", "region", "signed"), [(1, 7, "eu-central-1"), (4, 3, "BEIJING"), (4, 6, "JR_BEIJING")])
def test_storage_signatures_name_the_region_as_the_vendor_does(vendor: int, region: int, signed: str, tmp_path: Path) -> None:
    options = StoreOptions(vendor=vendor, region=region, bucket="rec-1250000000", access_key="AK", secret_key="SK")
    store = open_store(options, never)
    client: Any = store._client  # type: ignore[attr-defined]  # a RemoteStore
    sent: list[str] = []

    def keep(request: Any, **_: object) -> None:
        sent.append(str(request.headers["Authorization"]))
        raise EndpointConnectionError(endpoint_url=request.url)

    client._client.meta.events.register("before-send.s3", keep)
    with pytest.raises(errors.TransientStorageError):
        store.put_bytes("x", b"x", **HOW)
    store.close()
    assert f"/{signed}/s3/aws4_request" in sent[0]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", errors.AccessDenied),
        (403, "RequestTimeTooSkewed", errors.TransientStorageError),
        (400, "ExpiredToken", errors.AccessDenied),
        (400, "RequestTimeout", errors.TransientStorageError),
        (400, "BadDigest", errors.ChecksumMismatch),
        (400, "EntityTooSmall", errors.PermanentStorageError),
        (404, "", errors.NotFound),
        (404, "NoSuchKey", errors.NotFound),
        (404, "NoSuchBucket", errors.BadOptions),
        (404, "NoSuchUpload", errors.TransientStorageError),
        (409, "OperationAborted", errors.Busy),
        (409, "FileImmutable", errors.AlreadyThere),
        (412, "PreconditionFailed", errors.AlreadyThere),
        (301, "PermanentRedirect", errors.BadOptions),
        (307, "", errors.BadOptions),
        (429, "", errors.TransientStorageError),
        (503, "SlowDown", errors.TransientStorageError),
        (573, "", errors.TransientStorageError),
        (612, "", errors.NotFound),
        (614, "", errors.AlreadyThere),
        (631, "", errors.BadOptions),
        (200, "InternalError", errors.TransientStorageError),
    ],
)
def test_storage_refusals_have_one_meaning(status: int, code: str, kind: type[errors.StorageError]) -> None:
    assert type(refusal(status, code)) is kind


def test_storage_refusals_quote_nothing_of_the_store() -> None:
    assert str(refusal(400, "Bad\nCode <script>" + "x" * 500)) == "the store answers 400 BadCodescript" + "x" * 51


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("minio.example.com", "https://minio.example.com"),
        ("minio.example.com:9000", "https://minio.example.com:9000"),
        ("http://10.0.0.1:9000/", "http://10.0.0.1:9000"),
        ("https://[2001:db8::1]:9000", "https://[2001:db8::1]:9000"),
    ],
)
def test_storage_s3_endpoints(given: str, url: str) -> None:
    assert endpoint_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "ftp://host",
        "http://",
        "http://user:pw@host",
        "http://host/path",
        "http://host?x",
        "http://host#x",
        "host:99999",
        "ho st",
        "http://host\r\nX: y",
        "http://a\\@b",
        "//host",
        "file:///etc/passwd",
    ],
)
def test_storage_s3_endpoints_that_are_none(given: str | None) -> None:
    with pytest.raises(errors.BadOptions):
        endpoint_url(given)


def test_storage_options_do_not_print_secrets() -> None:
    options = StoreOptions(vendor=1, bucket="b", access_key="AK-canary", secret_key="SK-canary", sts_token="STS-canary")
    assert "canary" not in repr(options)


@pytest.mark.parametrize("bucket", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"])
def test_storage_local_bucket_is_one_folder(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(errors.BadOptions):
        open_store(StoreOptions(vendor=100, bucket=bucket, root=tmp_path), never)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a//x", "", "a/", "./x", "a\0b"])
def test_storage_local_keys_stay_inside(tmp_path: Path, key: str) -> None:
    store = open_store(StoreOptions(vendor=100, bucket="b", root=tmp_path / "root"), never)
    with pytest.raises(errors.PermanentStorageError):
        store.put_bytes(key, b"x", **HOW)
    assert not list(tmp_path.rglob("x*"))


def test_storage_local_follows_no_link_out_of_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "b" / "link").symlink_to(tmp_path / "outside")
    store = open_store(StoreOptions(vendor=100, bucket="b", root=tmp_path / "root"), never)
    with pytest.raises(errors.AccessDenied):
        store.put_bytes("link/x", b"x", **HOW)
    assert not list((tmp_path / "outside").iterdir())


def test_storage_local_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = open_store(StoreOptions(vendor=100, bucket="b", root=tmp_path / "root"), never)
    source = tmp_path / "source"
    source.write_bytes(b"changed")
    with pytest.raises(errors.LocalFileError):
        store.put("d/x.ts", source, sha256=hashlib.sha256(b"committed").hexdigest(), **HOW)
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert store.list("") == []
