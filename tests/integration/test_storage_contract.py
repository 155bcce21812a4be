"""What every storage vendor must do: one suite for all of them, against the servers that can run here.

S3, its copies and KS3 talk to SeaweedFS through a proxy that can fail; OSS, COS and Qiniu to the strict servers of
`tests.clouds`. What only one vendor has stands at the end.
"""

import contextlib
import hashlib
import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from recorder import log as recorder_log
from recorder.outbound import AddressPolicy
from storage import CheckAddress, ObjectStore, StoreOptions, errors, open_store, remote
from storage.s3_protocol import S3Client
from storage.sealed import Seal
from tests import seaweedfs
from tests.clouds import Fault, Identity, Kind, cos, oss, proxy, qiniu, served

LOOPBACK = AddressPolicy(("127.0.0.0/8",)).check
LONG = {"content_type": "video/MP2T", "cache_control": "max-age=31536000, immutable"}
SHORT = {"content_type": "application/x-mpegURL", "cache_control": "max-age=3"}
HOSTILE = "d1/d2/sid_ä €+&=%2F?#;'\" ~*.ts"

CLOUDS = ["s3", "amazon", "ks3", "oss-v1", "oss-v4", "cos", "qiniu"]
every_cloud = pytest.mark.parametrize("target", CLOUDS, indirect=True)
COMPATIBLE = {"s3": 11, "amazon": 1, "ks3": 4}  # with SeaweedFS behind them
BUCKET = "rec-1250000000"
PART = 5 << 20  # the least that all of them take, but for Qiniu, whose parts have 4 MiB
OWNER, WRITER = Identity("AKowner", "SK-canary-owner"), Identity("AKwriter", "SK-canary-writer", may=frozenset({"write"}))
GUEST = Identity("AKguest", "SK-canary-guest", token="STS-canary")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.SeaweedFS]:
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@dataclass
class Bucket:
    store: ObjectStore
    prefix: str


@dataclass
class Target(Bucket):
    """A bucket behind a network."""

    vendor: str
    cloud: Any  # a tests.clouds.Cloud with what its vendor has besides
    options: StoreOptions
    check: CheckAddress
    writer: Identity

    def opened(self, **changed: Any) -> contextlib.closing[ObjectStore]:
        return contextlib.closing(open_store(replace(self.options, **changed), self.check))

    def fail(self, operation: str, kind: Kind, status: int = 0, code: str = "") -> None:
        self.cloud.faults.append(Fault(operation, kind, status, code))


def to_loopback(host: str) -> list[str]:
    """For names that resolve nowhere: virtual-host buckets, the vendor's own domains."""
    return ["127.0.0.1"]


@contextlib.contextmanager
def _target(vendor: str, request: pytest.FixtureRequest, prefix: str) -> Iterator[Target]:
    check: CheckAddress = LOOPBACK
    cloud: Any
    writer = WRITER
    if vendor in COMPATIBLE:
        weed = request.getfixturevalue("server")
        cloud = proxy.FaultyProxy(weed.endpoint)
        options = replace(weed.options(), vendor=COMPATIBLE[vendor])
        writer = Identity(weed.writer.access_key, weed.writer.secret_key)
    else:
        number, kind = {"oss": (2, oss.Oss), "cos": (3, cos.Cos), "qiniu": (0, qiniu.Kodo)}[vendor.partition("-")[0]]
        region = {2: ("cn-hangzhou",), 3: ("ap-beijing-1",), 0: ()}[number]
        cloud = kind(BUCKET, *region, [OWNER, WRITER, GUEST])
        options = StoreOptions(vendor=number, bucket=BUCKET, access_key=OWNER.access_key, secret_key=OWNER.secret_key)
    with served(cloud) as port:
        names = {"oss-v4": "oss-cn-hangzhou.aliyuncs.com", "cos": "cos.store.invalid"}
        if vendor in names:
            check = to_loopback
        options = replace(options, endpoint=f"http://{names.get(vendor, '127.0.0.1')}:{port}")
        store = open_store(options, check)
        with contextlib.closing(store):
            yield Target(store, prefix, vendor, cloud, options, check, writer)


# The others differ from these in addresses and signatures alone, and fail in the same way.
@pytest.fixture(params=["s3", "oss-v1", "cos", "qiniu"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with _target(request.param, request, f"{tmp_path.name}/") as target:
        yield target


@pytest.fixture(params=["local", *CLOUDS])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    if request.param != "local":
        with _target(request.param, request, f"{tmp_path.name}/") as target:
            yield target
        return
    with contextlib.closing(open_store(StoreOptions(vendor=100, bucket="rec", root=tmp_path / "recordings"), LOOPBACK)) as store:
        yield Bucket(store, f"{tmp_path.name}/")


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


@pytest.mark.parametrize("size", [0, 300_000])
def test_storage_takes_a_sealed_file_plain(bucket: Bucket, tmp_path: Path, size: int) -> None:
    key, seal = bucket.prefix + "sealed.ts", Seal(os.urandom(32))
    path, sha256 = _file(tmp_path, data := os.urandom(size))
    path.write_bytes(seal.write_bytes(data, "sealed.ts"))
    stored = bucket.store.put(key, seal.file(path, "sealed.ts"), sha256=sha256, **LONG)
    assert (stored.size, stored.sha256) == (size, sha256)
    assert _get(bucket, key, tmp_path) == data


def test_storage_refuses_a_sealed_file_that_was_changed(bucket: Bucket, tmp_path: Path) -> None:
    key, seal = bucket.prefix + "sealed.ts", Seal(os.urandom(32))
    path, sha256 = _file(tmp_path, data := os.urandom(300_000))
    sealed = bytearray(seal.write_bytes(data, "sealed.ts"))
    sealed[-1] ^= 1  # what comes before is good
    path.write_bytes(sealed)
    with pytest.raises(errors.LocalFileError):
        bucket.store.put(key, seal.file(path, "sealed.ts"), sha256=sha256, **LONG)
    assert bucket.store.head(key) is None
    assert [one for one in tmp_path.rglob("*") if one.is_file() and data[:1000] in one.read_bytes()] == []


def test_storage_sdks_are_loaded_only_when_asked_for() -> None:
    code = (
        "import sys; from pathlib import Path; from storage import StoreOptions, open_store;"
        "open_store(StoreOptions(vendor=100, bucket='b', root=Path('.')), None);"
        "sys.exit(' '.join({'boto3', 'botocore', 'oss2', 'qcloud_cos', 'qiniu'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr.strip() == ""


# ---- behind a network ---------------------------------------------------------------------------------------------


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """An exchange may take a second; the returned call takes the limit away again."""
    with monkeypatch.context() as context:
        context.setattr(remote, "BASE_SECONDS", 1.0)
        context.setattr(remote, "SLOWEST_BYTES_PER_SECOND", 1 << 40)
        yield context.undo


@pytest.fixture
def in_parts(target: Target) -> Target:
    """Uploads in parts begin early; the real bounds only cost time here."""
    client: Any = target.store._client  # type: ignore[attr-defined]  # a RemoteStore
    client.multipart_over_bytes = client.part_bytes = client.part_bytes if target.vendor == "qiniu" else PART
    return target


def test_storage_takes_a_sealed_file_in_parts(in_parts: Target, tmp_path: Path) -> None:
    key, seal = in_parts.prefix + "sealed.mp4", Seal(os.urandom(32))
    client: Any = in_parts.store._client  # type: ignore[attr-defined]  # a RemoteStore
    path, sha256 = _file(tmp_path, data := os.urandom(2 * client.part_bytes + 12_345))
    path.write_bytes(seal.write_bytes(data, "sealed.mp4"))
    assert in_parts.store.put(key, seal.file(path, "sealed.mp4"), sha256=sha256, **LONG).size == len(data)
    assert in_parts.cloud.seen.count("part") == 3
    assert _get(in_parts, key, tmp_path) == data


REFUSALS: list[tuple[int, str, type[errors.StorageError]]] = [
    (403, "AccessDenied", errors.AccessDenied),
    (404, "NoSuchBucket", errors.PermanentStorageError),
    (409, "OperationAborted", errors.TransientStorageError),
    (412, "PreconditionFailed", errors.AlreadyThere),
    (500, "InternalError", errors.TransientStorageError),
    (503, "SlowDown", errors.TransientStorageError),
]


@pytest.mark.parametrize(("status", "code", "expected"), REFUSALS)
def test_storage_refusals_say_whether_to_try_again(target: Target, status: int, code: str, expected: type[Exception]) -> None:
    key = target.prefix + "refused.ts"
    target.fail("put", "refuse", status, code)
    with pytest.raises(expected) as caught:
        target.store.put_bytes(key, b"x", **LONG)
    assert str(status) in str(caught.value)
    assert target.cloud.seen.count("put") == 1  # nobody but the uploader tries again
    assert target.store.head(key) is None


@pytest.mark.parametrize("kind", ["hang", "drip", "reset at half", "reset before reply", "wrong etag", "error in 200"])
def test_storage_believes_no_upload_that_went_wrong(target: Target, tmp_path: Path, kind: Kind, short_limit: Callable[[], None]) -> None:
    path, sha256 = _file(tmp_path, data := os.urandom(3 << 20))
    target.fail("put", kind)
    if kind not in ("hang", "drip"):
        short_limit()
    began = time.monotonic()
    with pytest.raises(errors.TransientStorageError):
        target.store.put(target.prefix + "x.ts", path, sha256=sha256, **LONG)
    assert time.monotonic() - began < 25  # without the limit it would be 30, or 200
    assert target.cloud.seen.count("put") == 1
    short_limit()
    # The same key with the same bytes, as the uploader does it.
    assert target.store.put(target.prefix + "x.ts", path, sha256=sha256, **LONG).verified == "head"
    assert _get(target, target.prefix + "x.ts", tmp_path) == data


@pytest.mark.parametrize("operation", ["begin", "part", "complete"])
@pytest.mark.parametrize("kind", ["refuse", "reset before reply", "error in 200"])
def test_storage_believes_no_upload_in_parts_that_went_wrong(in_parts: Target, tmp_path: Path, operation: str, kind: Kind) -> None:
    key = in_parts.prefix + "long.mp4"
    path, sha256 = _file(tmp_path, data := os.urandom(11 << 20))
    in_parts.fail(operation, kind, 500, "InternalError")
    with pytest.raises(errors.TransientStorageError):
        in_parts.store.put(key, path, sha256=sha256, **LONG)
    assert in_parts.cloud.seen.count(operation) == 1 or operation == "part"
    assert ("abort" in in_parts.cloud.seen) == (operation != "begin")
    if operation != "begin":
        assert in_parts.cloud.seen[-1] == "abort"  # no part arrives after it
    assert in_parts.store.put(key, path, sha256=sha256, **LONG).verified == "head"
    assert _get(in_parts, key, tmp_path) == data


def test_storage_parts_with_a_wrong_etag_are_not_believed(in_parts: Target, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path, os.urandom(11 << 20))
    in_parts.fail("part", "wrong etag")
    with pytest.raises(errors.TransientStorageError):
        in_parts.store.put(in_parts.prefix + "long.mp4", path, sha256=sha256, **LONG)
    assert in_parts.store.head(in_parts.prefix + "long.mp4") is None


@every_cloud
def test_storage_uploads_large_files_in_parts(in_parts: Target, tmp_path: Path) -> None:
    key = in_parts.prefix + "long.mp4"
    client: Any = in_parts.store._client  # type: ignore[attr-defined]  # a RemoteStore
    content = remote.Content(1, "0" * 64, b"", "video/mp4", "max-age=1")
    leftover = client.begin(key, content) if in_parts.vendor != "qiniu" else ""
    path, sha256 = _file(tmp_path, data := os.urandom(11 << 20))
    stored = in_parts.store.put(key, path, sha256=sha256, content_type="video/mp4", cache_control="max-age=1")
    assert (stored.size, stored.verified) == (len(data), "head")
    assert in_parts.cloud.seen.count("part") == 3
    info = in_parts.store.head(key)
    assert info
    assert (info.sha256, info.content_type) == (sha256, "video/mp4")
    assert leftover not in client.unfinished(key)
    assert _get(in_parts, key, tmp_path) == data


class _Counting:
    """Stands before a vendor's client: how many parts are under way, and optionally waits until `together` are."""

    def __init__(self, client: Any, together: int = 1) -> None:
        self.most = 0
        self._client = client
        self._together = threading.Barrier(together)
        self._lock = threading.Lock()
        self._under_way = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_part(self, key: str, upload: str, part: remote.Part) -> Any:
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        self._together.wait(10)
        try:
            return self._client.put_part(key, upload, part)
        finally:
            with self._lock:
                self._under_way -= 1


@every_cloud
def test_storage_sends_parts_at_the_same_time(in_parts: Target, tmp_path: Path) -> None:
    store: Any = in_parts.store
    store._client = _Counting(store._client, together=3)
    path, sha256 = _file(tmp_path, data := os.urandom(11 << 20))
    in_parts.store.put(in_parts.prefix + "long.mp4", path, sha256=sha256, **LONG)
    assert _get(in_parts, in_parts.prefix + "long.mp4", tmp_path) == data


@pytest.mark.parametrize("target", ["oss-v1"], indirect=True)
def test_storage_holds_few_parts_in_memory_however_many_files(target: Target, tmp_path: Path) -> None:
    store: Any = target.store
    store._client.multipart_over_bytes = store._client.part_bytes = 100 << 10
    store._client = counting = _Counting(store._client)
    path, sha256 = _file(tmp_path, os.urandom(2 << 20))
    with ThreadPoolExecutor() as threads:
        stored = threads.map(lambda number: target.store.put(f"{number}.mp4", path, sha256=sha256, **LONG), range(3))
        assert {one.verified for one in stored} == {"head"}
    assert counting.most == remote.PARALLEL_PARTS


def test_storage_large_file_that_changed_since_its_commit_is_no_object(in_parts: Target, tmp_path: Path) -> None:
    key = in_parts.prefix + "long.mp4"
    path, sha256 = _file(tmp_path, bytes(11 << 20))
    with path.open("r+b") as file:
        file.seek(10 << 20)
        file.write(b"x")
    with pytest.raises(errors.LocalFileError):
        in_parts.store.put(key, path, sha256=sha256, **LONG)
    assert in_parts.cloud.seen[-1] == "abort"
    assert in_parts.store.head(key) is None


@pytest.mark.parametrize(("status", "code"), [(409, "OperationAborted"), (412, "PreconditionFailed")])
def test_storage_conflict_with_the_same_bytes_is_done_with_others_never_overwrites(target: Target, status: int, code: str) -> None:
    key = target.prefix + "x.ts"
    target.store.put_bytes(key, b"ours", **LONG)
    target.fail("put", "refuse", status, code)
    assert target.store.put_bytes(key, b"ours", **LONG).verified == "head"
    target.fail("put", "refuse", status, code)
    with pytest.raises(errors.StorageError):
        target.store.put_bytes(key, b"others", **LONG)
    assert target.store.head(key).sha256 == hashlib.sha256(b"ours").hexdigest()  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("operation", ["head", "get", "list", "delete"])
def test_storage_all_calls_tell_a_busy_store(target: Target, tmp_path: Path, operation: str) -> None:
    key = target.prefix + "x.ts"
    target.store.put_bytes(key, b"x", **LONG)
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: target.store.head(key),
        "get": lambda: target.store.get(key, tmp_path / "fetched"),
        "list": lambda: target.store.list(target.prefix),
        "delete": lambda: target.store.delete(key),
    }
    target.fail(operation, "refuse", 503, "SlowDown")
    with pytest.raises(errors.TransientStorageError):
        calls[operation]()
    assert not (tmp_path / "fetched").exists()
    calls[operation]()


def test_storage_upload_that_cannot_be_verified_is_none(target: Target) -> None:
    target.fail("head", "refuse", 500, "InternalError")
    with pytest.raises(errors.TransientStorageError):
        target.store.put_bytes(target.prefix + "x.ts", b"x", **LONG)


def test_storage_store_that_loses_a_byte_is_found_out(target: Target) -> None:
    if target.vendor in COMPATIBLE:
        target.fail("head", "wrong etag")
    else:
        target.fail("put", "truncate")
    with pytest.raises(errors.ChecksumMismatch):
        target.store.put_bytes(target.prefix + "x.ts", b"some bytes", **LONG)


@every_cloud
def test_storage_write_only_keys_are_enough(target: Target, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path, b"media")
    with target.opened(access_key=target.writer.access_key, secret_key=target.writer.secret_key) as store:
        assert store.put(target.prefix + "1.ts", path, sha256=sha256, **LONG).verified == "put"
        assert store.put_bytes(target.prefix + "2.m3u8", b"list", **SHORT).verified == "put"
        assert target.cloud.seen.count("head") == 1  # and is not asked again
        with pytest.raises(errors.AccessDenied):
            store.head(target.prefix + "1.ts")
    assert _get(target, target.prefix + "1.ts", tmp_path) == b"media"


@every_cloud
def test_storage_wrong_keys_or_bucket_are_permanent_and_secret(target: Target) -> None:
    changes: list[dict[str, Any]] = [
        {"secret_key": "SK-canary-wrong"},
        {"access_key": "AK-canary-unknown", "secret_key": "SK-canary-wrong"},
        {"bucket": "not a bucket's name"},
    ]
    for changed in changes:
        with pytest.raises(errors.PermanentStorageError) as caught, target.opened(**changed) as store:
            store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
        told = f"{caught.value} {caught.value!r} {replace(target.options, **changed)!r}"
        assert "canary" not in told


@pytest.mark.parametrize("target", ["oss-v1", "oss-v4", "cos"], indirect=True)
def test_storage_temporary_keys_need_their_token_of_the_moment(target: Target) -> None:
    keys = {"access_key": GUEST.access_key, "secret_key": GUEST.secret_key}
    for token in (None, "STS-canary-old"):
        with pytest.raises(errors.AccessDenied), target.opened(**keys, sts_token=token) as store:
            store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
    with target.opened(**keys, sts_token=GUEST.token) as store:
        assert store.put_bytes(target.prefix + "x.ts", b"x", **LONG).verified == "head"


@every_cloud
@pytest.mark.parametrize("hours", [-30, 30])
def test_storage_signs_for_the_stores_time_when_our_clock_is_wrong(target: Target, tmp_path: Path, hours: int) -> None:
    clock = target.store._client.clock  # type: ignore[attr-defined]  # a RemoteStore
    clock._ours = lambda: time.time() + hours * 3600
    path, sha256 = _file(tmp_path, b"media")
    assert target.store.put(target.prefix + "1.ts", path, sha256=sha256, **LONG).verified == "head"
    assert target.store.put_bytes(target.prefix + "2.ts", b"x", **LONG).verified == "head"
    assert _get(target, target.prefix + "1.ts", tmp_path) == b"media"
    if target.vendor != "qiniu" or hours < 0:  # whose tokens are good until a moment, however far
        assert clock.ahead_seconds == pytest.approx(-hours * 3600, abs=5)
        assert target.cloud.seen.count("put") == 3  # refused once only


@every_cloud
def test_storage_asks_before_it_connects(target: Target) -> None:
    asked: list[str] = []

    def check(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    # The name resolves nowhere: the connection can only have been made to the address that was checked.
    port = (target.options.endpoint or "").rpartition(":")[2]
    named = replace(target.options, endpoint=f"http://store.invalid:{port}")
    with contextlib.closing(open_store(named, check)) as store, contextlib.suppress(errors.StorageError):
        store.put_bytes("pinned.ts", b"x", **LONG)
    assert set(asked) <= {"store.invalid", f"{named.bucket}.store.invalid"}
    assert asked

    def inside(host: str) -> list[str]:
        raise PermissionError(host)

    for refusing in (inside, AddressPolicy(()).check):
        inner = replace(named, endpoint="http://127.0.0.1:1")
        with pytest.raises(errors.AddressForbidden), contextlib.closing(open_store(inner, refusing)) as store:
            store.put_bytes("x.ts", b"x", **LONG)


def test_storage_unreachable_endpoint_is_transient(target: Target) -> None:
    def unknown(host: str) -> list[str]:
        raise OSError(host)

    for check in (to_loopback, unknown):
        gone = replace(target.options, endpoint="http://store.invalid:9")
        with pytest.raises(errors.TransientStorageError), contextlib.closing(open_store(gone, check)) as store:
            store.put_bytes("x.ts", b"x", **LONG)


def test_storage_follows_no_redirect(target: Target) -> None:
    target.fail("put", "refuse", 307, "TemporaryRedirect")
    with pytest.raises(errors.StorageError):
        target.store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
    assert "put" in target.cloud.seen


@every_cloud
def test_storage_logs_neither_keys_nor_tokens_nor_answers(target: Target, tmp_path: Path) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    recorder_log.configure("DEBUG", stream=stream)
    try:
        for options in (target.options, replace(target.options, secret_key="SK-canary-wrong", sts_token="STS-canary")):
            with contextlib.closing(open_store(options, target.check)) as store, contextlib.suppress(errors.StorageError):
                store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
                store.get(target.prefix + "x.ts", tmp_path / "fetched")
        target.fail("put", "refuse", 500, "InternalError")
        with pytest.raises(errors.TransientStorageError):
            target.store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
        logging.getLogger("storage").debug("end of the log")
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
    logged = stream.getvalue()
    assert "end of the log" in logged
    assert not [word for word in ("canary", target.options.secret_key, "told by a test", "q-signature", "token=") if word in logged]


@every_cloud
def test_storage_sets_what_players_need(target: Target, tmp_path: Path) -> None:
    tag = {"tag": "RETENTION_DAYS=30"} if target.vendor not in ("cos", "qiniu", "ks3") else {}
    path, sha256 = _file(tmp_path, b"media")
    key = target.prefix + "described.ts"
    with target.opened(**tag) as store:
        store.put(key, path, sha256=sha256, **LONG)
    if target.vendor in COMPATIBLE:
        sent = next(request for request in target.cloud.requests if request.method == "PUT").headers
        kept = {name.lower(): str(value) for name, value in sent.items()}
    else:
        kept = target.cloud.objects[key].headers
    found = set(kept.items())
    names = {"oss": "x-oss-", "cos": "x-cos-", "qiniu": "x-qn-"}
    vendor = names.get(target.vendor.partition("-")[0], "x-amz-")
    cache = "x-qn-meta-!Cache-Control" if target.vendor == "qiniu" else "cache-control"
    assert found >= {("content-type", LONG["content_type"]), (cache, LONG["cache_control"]), (f"{vendor}meta-sha256", sha256)}
    assert kept.get(f"{vendor}tagging") == tag.get("tag")


@pytest.mark.parametrize(
    ("target", "dialect"),
    [("oss-v1", "OSS"), ("oss-v4", "OSS4-HMAC-SHA256"), ("cos", "sha1"), ("qiniu", "UpToken")],
    indirect=["target"],
)
def test_storage_signs_in_the_dialect_meant(target: Target, dialect: str) -> None:
    target.store.put_bytes(target.prefix + "x.ts", b"x", **LONG)
    assert target.cloud.dialects - {"Qiniu"} == {dialect}


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


def test_storage_s3_aborts_the_parts_of_a_failed_upload(
    server: seaweedfs.SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Client, "multipart_over_bytes", 1 << 20)
    monkeypatch.setattr(S3Client, "part_bytes", 1 << 20)  # the server wants 5 MiB and refuses at the end
    path, sha256 = _file(tmp_path, os.urandom(3 << 20))
    with pytest.raises(errors.StorageError):
        open_store(server.options(), LOOPBACK).put("small-parts.mp4", path, sha256=sha256, **LONG)
    raw = seaweedfs.client(server)
    assert not raw.list_multipart_uploads(Bucket=seaweedfs.BUCKET, Prefix="small-parts").get("Uploads")
    with pytest.raises(ClientError):
        raw.head_object(Bucket=seaweedfs.BUCKET, Key="small-parts.mp4")


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


@pytest.mark.parametrize("size", [1000, S3Client.multipart_over_bytes + 1])
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


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A server that knows encryption, which SeaweedFS has none of without a key; it checks no signatures."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("vendor", [1, 11])
@pytest.mark.parametrize(("sse", "seen"), [("aes256", "AES256"), ("kms", "aws:kms")])
def test_storage_s3_encrypts_and_tags_as_told(moto: str, tmp_path: Path, vendor: int, sse: Literal["aes256", "kms"], seen: str) -> None:
    name = f"encrypted-{vendor}-{sse}"
    keys = {"aws_access_key_id": "AK", "aws_secret_access_key": "SK", "region_name": "us-east-1"}
    raw = boto3.session.Session(**keys).client("s3", endpoint_url=moto)
    raw.create_bucket(Bucket=name)
    options = StoreOptions(vendor=vendor, bucket=name, access_key="AK", secret_key="SK", endpoint=moto, sse=sse, tag="RETENTION_DAYS=30")
    small, large = (tmp_path / name for name in ("small", "large"))
    small.write_bytes(b"media")
    large.write_bytes(os.urandom(11 << 20))
    with contextlib.closing(open_store(options, LOOPBACK)) as store:
        client: Any = store._client  # type: ignore[attr-defined]  # a RemoteStore
        client.multipart_over_bytes = client.part_bytes = PART
        for path in (small, large):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            assert store.put(path.name, path, sha256=sha256, **LONG).verified == "head"
            head = raw.head_object(Bucket=name, Key=path.name)
            assert (head["ServerSideEncryption"], head["ContentLength"]) == (seen, path.stat().st_size)
            assert raw.get_object_tagging(Bucket=name, Key=path.name)["TagSet"] == [{"Key": "RETENTION_DAYS", "Value": "30"}]
    raw.close()
