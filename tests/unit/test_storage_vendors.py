"""Loading vendors, their regions and endpoints, and the local folder, without a socket."""

import hashlib
from pathlib import Path

import pytest

from storage import StoreOptions, errors, open_store
from storage.endpoints import endpoint_url
from storage.regions import region_name

HOW = {"content_type": "video/MP2T", "cache_control": "max-age=1"}


def never(host: str) -> list[str]:
    raise AssertionError(host)


def test_storage_unknown_vendor_and_region() -> None:
    with pytest.raises(errors.BadOptions):
        open_store(StoreOptions(vendor=99, bucket="b"), never)
    with pytest.raises(errors.BadOptions):
        open_store(StoreOptions(vendor=1, region=27, bucket="b"), never)


@pytest.mark.parametrize(
    ("vendor", "code", "name"),
    [
        (1, 0, "us-east-1"),
        (1, 14, "ap-south-1"),
        (1, 25, "eu-south-1"),
        (1, 28, "il-central-1"),
        (2, 27, "ap-southeast-7"),
        (3, 19, "eu-moscow"),
        (7, 15, "sa-chile-1"),
        (8, 7, "fsh"),
        (0, 4, "as0"),
        (4, 9, "sgp"),
    ],
)
def test_storage_regions_stand_where_the_table_says(vendor: int, code: int, name: str) -> None:
    assert region_name(vendor, code) == name


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
