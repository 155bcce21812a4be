"""A customer whose stores hang takes nobody else's tests of buckets."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from api import storage_tests
from api.storage_tests import StorageTests
from recorder.settings import Settings
from recorder.spec import Storage


class Stores:
    """Those of the bucket `hangs` answer when they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.hanging = 0

    def open(self, where: Storage, _settings: Settings) -> SimpleNamespace:
        def put_bytes(*_: object, **__: object) -> SimpleNamespace:
            if where.bucket == "hangs":
                self.hanging += 1
                self.go.wait()
            return SimpleNamespace(verified="put")

        return SimpleNamespace(put_bytes=put_bytes, delete=lambda _key: None, close=lambda: None)


def _in(bucket: str) -> Storage:
    return Storage(vendor=11, bucket=bucket, access_key=SecretStr("a"), secret_key=SecretStr("s"), endpoint="s3.example.com")


async def test_hanging_stores_of_one_customer_hold_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores()
    monkeypatch.setattr("api.storage_tests.open_destination", stores.open)
    impatient, tests = StorageTests(Settings(data_dir=tmp_path), seconds=0.2), StorageTests(Settings(data_dir=tmp_path), seconds=10)
    tests._threads = impatient._threads
    tests._places = impatient._places
    slow = storage_tests.Tested("the store does not answer in time")
    try:
        for _ in range(2):  # those that have given up still hold their places
            assert await asyncio.gather(*(impatient.test(_in("hangs"), "greedy") for _ in range(20))) == [slow] * 20
        assert stores.hanging == 2
        assert await tests.test(_in("well"), "modest") == storage_tests.Tested(verified="put", removed=True)
        assert await impatient.test(_in("well"), "greedy") == slow
    finally:
        stores.go.set()
    assert await tests.test(_in("well"), "greedy") == storage_tests.Tested(verified="put", removed=True)  # the places are free again
