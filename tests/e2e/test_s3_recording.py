"""The whole flow into a real S3 server: what lies in the bucket is what was committed, to the byte."""

import asyncio
import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from tests import seaweedfs
from tests.e2e import requests
from tests.live import publisher
from tests.service import Service, service

TYPES = {
    ".m3u8": "application/x-mpegURL",
    ".ts": "video/MP2T",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".json": "application/json",
}


def _storage(server: seaweedfs.SeaweedFS, identity: seaweedfs.Identity) -> dict[str, Any]:
    return {
        "vendor": 11,
        "region": 0,
        "bucket": seaweedfs.BUCKET,
        "accessKey": identity.access_key,
        "secretKey": identity.secret_key,
        "fileNamePrefix": ["calls", "today"],
        "extensionParams": {"endpoint": server.endpoint},
    }


def _committed(of: Service, sid: str) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every committed file, from the control plane's own table."""
    with contextlib.closing(sqlite3.connect(f"file:{of.data / 'recorder.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT name, size, sha256 FROM slices WHERE sid = ?", (sid,)).fetchall()
    return {name: (size, digest) for name, size, digest in rows}


async def test_objects_are_what_was_committed(tmp_path: Path) -> None:
    (tmp_path / "weed").mkdir()
    with seaweedfs.running(tmp_path / "weed") as server:
        bucket = seaweedfs.client(server)
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                service(tmp_path / "data", AGENT__ALLOWED_NETWORKS='["127.0.0.0/8"]', RECORDING__SLICE_SECONDS="3")
            )
            client = await stack.enter_async_context(running.client())
            for uid, video in ((101, "h264"), (102, "vp8")):
                await stack.enter_async_context(publisher(running.hub, uid, "--video", video, app=running.credentials.app_id))
            both = [
                await client.start("room", 901, "mix", requests.mix(_storage(server, server.owner))),
                await client.start("room", 902, "individual", requests.individual(_storage(server, server.writer))),
            ]
            await asyncio.sleep(10)
            uploaded_meanwhile = bucket.list_objects_v2(Bucket=seaweedfs.BUCKET).get("Contents", [])
            assert sum(item["Key"].endswith(".ts") for item in uploaded_meanwhile) >= 4
            answers = [await recording.stop() for recording in both]
            assert [answer["uploadingStatus"] for answer in answers] == ["uploaded", "uploaded"]
        for recording, answer in zip(both, answers, strict=True):
            committed = _committed(running, recording.sid)
            assert len(committed) >= 4
            for name, (size, digest) in committed.items():
                stored = bucket.get_object(Bucket=seaweedfs.BUCKET, Key=f"calls/today/{name}")
                content = stored["Body"].read()
                assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)
                assert stored["ContentType"] == TYPES[Path(name).suffix]
            for file in answer["fileList"]:
                stored = bucket.get_object(Bucket=seaweedfs.BUCKET, Key=file["fileName"])
                assert stored["ContentType"] == TYPES[Path(file["fileName"]).suffix]
                if file["fileName"].endswith(".m3u8"):
                    lines = stored["Body"].read().decode().splitlines()
                    assert lines[-1] == "#EXT-X-ENDLIST"
                    assert {line for line in lines if not line.startswith("#")} <= set(committed)
        log = running.log
        assert server.owner.secret_key not in log
        assert server.writer.secret_key not in log


async def test_refused_credentials_end_the_recording(tmp_path: Path) -> None:
    (tmp_path / "weed").mkdir()
    with seaweedfs.running(tmp_path / "weed") as server:
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                service(tmp_path / "data", AGENT__ALLOWED_NETWORKS='["127.0.0.0/8"]', RECORDING__SLICE_SECONDS="2")
            )
            client = await stack.enter_async_context(running.client())
            await stack.enter_async_context(publisher(running.hub, 101, app=running.credentials.app_id))
            stranger = seaweedfs.Identity()
            recording = await client.start("room", 901, "mix", requests.mix(_storage(server, stranger)))
            await recording.gone(30)
            assert 8 not in recording.statuses
