"""What every storage vendor must do, run for each one that can run here, plus what only S3 has."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from recorder.outbound import AddressPolicy
from storage import ObjectStore, StoreOptions, errors, open_store
from storage.vendors import s3
from tests import seaweedfs

LOOPBACK = AddressPolicy(("127.0.0.0/8",)).check
LONG = {"content_type": "video/MP2T", "cache_control": "max-age=31536000, immutable"}
SHORT = {"content_type": "application/x-mpegURL", "cache_control": "max-age=3"}
HOSTILE = "d1/d2/sid_ä €+&=%2F?#;'\" ~*.ts"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.SeaweedFS]:
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@dataclass
class Bucket:
    store: ObjectStore
    prefix: str


@pytest.fixture(params=["local", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    if request.param == "local":
        options = StoreOptions(vendor=100, bucket="rec", root=tmp_path / "recordings")
    else:
        options = request.getfixturevalue("server").options()
    store = open_store(options, LOOPBACK)
    yield Bucket(store, f"{tmp_path.name}/")
    store.close()


def _file(folder: Path, data: bytes) -> tuple[Path, str]:
    path = folder / "source"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def _get(bucket: Bucket, key: str, folder: Path) -> bytes:
    target = folder / "fetched"
    bucket.store.get(key, target)
    return target.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 100_000])
@pytest.mark.parametrize("name", ["plain.ts", HOSTILE])
def test_storage_keeps_the_bytes_of_a_file(bucket: Bucket, tmp_path: Path, size: int, name: str) -> None:
    path, sha256 = _file(tmp_path, data := os.urandom(size))
    stored = bucket.store.put(bucket.prefix + name, path, sha256=sha256, **LONG)
    assert (stored.key, stored.size, stored.sha256, stored.verified) == (bucket.prefix + name, size, sha256, "head")
    assert _get(bucket, bucket.prefix + name, tmp_path) == data
    info = bucket.store.head(bucket.prefix + name)
    assert info
    assert info.size == size
    assert info.sha256 in (None, sha256)
    assert path.read_bytes() == data  # deleting it is the uploader's


def test_storage_replaces_an_object(bucket: Bucket, tmp_path: Path) -> None:
    key = bucket.prefix + "list.m3u8"
    bucket.store.put_bytes(key, b"old and long", **SHORT)
    stored = bucket.store.put_bytes(key, b"new", **SHORT)
    assert stored.sha256 == hashlib.sha256(b"new").hexdigest()
    assert _get(bucket, key, tmp_path) == b"new"


def test_storage_lists_below_a_prefix_in_order(bucket: Bucket) -> None:
    for name in ("b/2.ts", "b/1.ts", "a.ts", "bc.ts"):
        bucket.store.put_bytes(bucket.prefix + name, name.encode(), **LONG)
    found = [(info.key.removeprefix(bucket.prefix), info.size) for info in bucket.store.list(bucket.prefix + "b")]
    assert found == [("b/1.ts", 6), ("b/2.ts", 6), ("bc.ts", 5)]


def test_storage_deletes_and_forgives_a_second_time(bucket: Bucket, tmp_path: Path) -> None:
    key = bucket.prefix + "gone.ts"
    bucket.store.put_bytes(key, b"x", **LONG)
    bucket.store.delete(key)
    bucket.store.delete(key)
    assert bucket.store.head(key) is None
    with pytest.raises(errors.PermanentStorageError):
        bucket.store.get(key, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_storage_refuses_a_file_that_changed_since_its_commit(bucket: Bucket, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path, b"committed")
    path.write_bytes(b"something else")
    with pytest.raises(errors.LocalFileError):
        bucket.store.put(bucket.prefix + "x.ts", path, sha256=sha256, **LONG)
    path.unlink()
    with pytest.raises(errors.LocalFileError):
        bucket.store.put(bucket.prefix + "x.ts", path, sha256=sha256, **LONG)
    assert bucket.store.head(bucket.prefix + "x.ts") is None


def test_storage_sdks_are_loaded_only_when_asked_for() -> None:
    code = (
        "import sys; from pathlib import Path; from storage import StoreOptions, open_store;"
        "open_store(StoreOptions(vendor=100, bucket='b', root=Path('.')), None);"
        "sys.exit(' '.join({'boto3', 'botocore', 'oss2', 'qcloud_cos', 'qiniu'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr.strip() == ""


# ---- S3 ----------------------------------------------------------------------------------------------------------


def test_storage_s3_sets_what_players_need(server: seaweedfs.SeaweedFS, tmp_path: Path) -> None:
    store = open_store(replace(server.options(), tag="RETENTION_DAYS=30"), LOOPBACK)
    path, sha256 = _file(tmp_path, b"media")
    store.put("described.ts", path, sha256=sha256, **LONG)
    raw = seaweedfs.client(server)
    head = raw.head_object(Bucket=seaweedfs.BUCKET, Key="described.ts")
    assert (head["ContentType"], head["CacheControl"], head["Metadata"]) == (*LONG.values(), {"sha256": sha256})
    tags = raw.get_object_tagging(Bucket=seaweedfs.BUCKET, Key="described.ts")["TagSet"]
    assert tags == [{"Key": "RETENTION_DAYS", "Value": "30"}]


def test_storage_s3_write_only_keys_are_enough(server: seaweedfs.SeaweedFS, tmp_path: Path) -> None:
    store = open_store(server.options(server.writer), LOOPBACK)
    path, sha256 = _file(tmp_path, b"media")
    assert store.put("write-only/1.ts", path, sha256=sha256, **LONG).verified == "put"
    assert store.put_bytes("write-only/2.m3u8", b"list", **SHORT).verified == "put"
    with pytest.raises(errors.AccessDenied):
        store.head("write-only/1.ts")
    owner = open_store(server.options(), LOOPBACK)
    owner.get("write-only/1.ts", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"media"


def test_storage_s3_wrong_credentials_or_bucket_are_permanent_and_secret(server: seaweedfs.SeaweedFS) -> None:
    wrong = seaweedfs.Identity(server.owner.access_key)
    for options in (
        server.options(wrong),
        server.options(seaweedfs.Identity()),
        server.options(server.writer, bucket="somebody-elses"),
        server.options(bucket="not a bucket's name"),
    ):
        with pytest.raises(errors.PermanentStorageError) as caught:
            open_store(options, LOOPBACK).put_bytes("x.ts", b"x", **LONG)
        told = f"{caught.value} {caught.value!r} {options!r}"
        assert not any(secret and secret in told for secret in (options.secret_key, options.access_key))


def test_storage_s3_uploads_large_files_in_parts(server: seaweedfs.SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART_OVER_BYTES", 6 << 20)  # the real bound only costs time here
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    raw = seaweedfs.client(server)
    leftover = raw.create_multipart_upload(Bucket=seaweedfs.BUCKET, Key="long.mp4")["UploadId"]
    path, sha256 = _file(tmp_path, data := os.urandom(11 << 20))
    store = open_store(server.options(), LOOPBACK)
    stored = store.put("long.mp4", path, sha256=sha256, content_type="video/mp4", cache_control="max-age=1")
    assert (stored.size, stored.verified) == (len(data), "head")
    assert store.head("long.mp4").sha256 == sha256  # type: ignore[union-attr]
    store.get("long.mp4", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == data
    assert raw.head_object(Bucket=seaweedfs.BUCKET, Key="long.mp4")["ETag"].strip('"').endswith("-3")
    assert leftover not in {upload["UploadId"] for upload in raw.list_multipart_uploads(Bucket=seaweedfs.BUCKET).get("Uploads", ())}


def test_storage_s3_aborts_the_parts_of_a_failed_upload(
    server: seaweedfs.SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_OVER_BYTES", 1 << 20)
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 20)  # the server wants 5 MiB and refuses at the end
    path, sha256 = _file(tmp_path, os.urandom(3 << 20))
    with pytest.raises(errors.StorageError):
        open_store(server.options(), LOOPBACK).put("small-parts.mp4", path, sha256=sha256, **LONG)
    raw = seaweedfs.client(server)
    assert not raw.list_multipart_uploads(Bucket=seaweedfs.BUCKET, Prefix="small-parts").get("Uploads")
    with pytest.raises(ClientError):
        raw.head_object(Bucket=seaweedfs.BUCKET, Key="small-parts.mp4")


def test_storage_s3_asks_before_it_connects(server: seaweedfs.SeaweedFS) -> None:
    asked: list[str] = []

    def check(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    port = server.endpoint.rpartition(":")[2]
    # The name resolves nowhere: the connection can only have been made to the address that was checked.
    named = replace(server.options(), endpoint=f"http://store.invalid:{port}")
    assert open_store(named, check).put_bytes("pinned.ts", b"x", **LONG).size == 1
    assert set(asked) == {"store.invalid"}
    with pytest.raises(errors.AddressForbidden):
        open_store(server.options(), AddressPolicy(()).check).put_bytes("x.ts", b"x", **LONG)


def test_storage_s3_unreachable_endpoint_is_transient() -> None:
    options = StoreOptions(vendor=11, bucket="rec", access_key="a", secret_key="s", endpoint="http://127.0.0.1:9")
    with pytest.raises(errors.TransientStorageError):
        open_store(options, LOOPBACK).put_bytes("x.ts", b"x", **LONG)

    def unknown(host: str) -> list[str]:
        raise OSError(host)

    with pytest.raises(errors.TransientStorageError):
        open_store(options, unknown).put_bytes("x.ts", b"x", **LONG)


class _Oddity(BaseHTTPRequestHandler):
    """Answers with success, but not as the protocol says: as a proxy in front of a store that is away may do."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Connection", "close")
        if self.command == "PUT":
            self.send_header("ETag", "odd")
        page = b"" if self.command in ("PUT", "HEAD") else b"<Maintenance/>"
        if page:
            self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_HEAD(self) -> None:
        self.do_PUT()

    def do_POST(self) -> None:
        self.do_PUT()

    def do_GET(self) -> None:
        self.do_PUT()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("size", [1000, s3.MULTIPART_OVER_BYTES + 1])
def test_storage_s3_answers_that_make_no_sense_are_transient(tmp_path: Path, size: int) -> None:
    with HTTPServer(("127.0.0.1", 0), _Oddity) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        options = StoreOptions(vendor=11, bucket="rec", access_key="a", secret_key="b", endpoint=f"http://127.0.0.1:{server.server_port}")
        store = open_store(options, LOOPBACK)
        path, digest = _file(tmp_path, bytes(size))
        try:
            with pytest.raises(errors.TransientStorageError):
                store.put("key.ts", path, sha256=digest, **LONG)
        finally:
            store.close()
            server.shutdown()
            thread.join()
