"""`cloud-recorder erase`: afterwards nothing on the disk and nothing in the store tells of the recording."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

from recorder.tools.api_client import folder_storage
from tests import seaweedfs
from tests.e2e import requests
from tests.live import publisher
from tests.service import service


async def erase(data: Path, *arguments: str, given: bytes = b"") -> tuple[int, dict[str, Any]]:
    """The exit code, and what was told."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "erase", "--yes", "--json", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CLOUD_RECORDER_DATA_DIR": str(data), "CLOUD_RECORDER_BACKUP__VENDOR": "100"},
    )
    said, complained = await process.communicate(given)
    assert process.returncode is not None
    return process.returncode, json.loads(said) if said else {"error": complained.decode()}


def naming(folder: Path, *what: bytes) -> list[Path]:
    """Files that contain one of these bytes, or have it in their path; logs are not copies, and told apart by the test."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".log"):
            content = path.read_bytes()
            if any(one in content or one in os.fsencode(path) for one in what):
                found.append(path)
    return found


async def test_an_erased_recording_is_nowhere_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "weed").mkdir()
    with seaweedfs.running(tmp_path / "weed") as server:
        s3 = seaweedfs.client(server)
        where = {
            "vendor": 11,
            "region": 0,
            "bucket": seaweedfs.BUCKET,
            "accessKey": server.owner.access_key,
            "secretKey": server.owner.secret_key,
            "fileNamePrefix": ["calls"],
            "extensionParams": {"endpoint": server.endpoint},
        }
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                service(tmp_path / "data", AGENT__ALLOWED_NETWORKS='["127.0.0.0/8"]', RECORDING__SLICE_SECONDS="2")
            )
            client = await stack.enter_async_context(running.client())
            await stack.enter_async_context(publisher(running.hub, 101, app=running.credentials.app_id))
            here = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket")))
            there = await client.start("room", 902, "mix", requests.mix(where, mp4=False))
            other = await client.start("room", 903, "individual", requests.individual(folder_storage("bucket")))
            await asyncio.sleep(6)
            code, told = await erase(running.data, here.sid)
            assert code == 1
            assert "still runs" in told["error"]
            for one in (here, there, other):
                assert (await one.stop())["uploadingStatus"] == "uploaded"

            whole = next(path for path in (running.data / "recordings").rglob(f"{here.sid}*.ts")).read_bytes()
            media = whole[len(whole) // 2 :][:400]
            copy = running.data / "backup" / "backup" / here.sid / f"{here.sid}_room.ts"  # as an outage of the bucket leaves it
            copy.parent.mkdir(parents=True)
            copy.write_bytes(whole)
            assert naming(running.data, media)
            code, told = await erase(running.data, here.sid)
            assert (code, told["left"]) == (0, [])
            kinds = {one["kind"] for one in told["removed"]}
            assert kinds == {"object", "row"}
            assert f"backup/{here.sid}/{copy.name}" in {one["name"] for one in told["removed"]}
            assert {Path(one["name"]).suffix for one in told["removed"] if one["kind"] == "object"} == {".ts", ".m3u8", ".mp4", ".json"}
            assert naming(running.data, here.sid.encode(), media) == []
            assert await erase(running.data, here.sid) == (0, {"sid": here.sid, "removed": [], "left": []})

            code, told = await erase(running.data, there.sid)  # without the keys of its bucket nothing can be said of it
            assert code == 1
            assert "--storage" in told["left"][0]
            code, told = await erase(running.data, there.sid, "--storage", "-", given=json.dumps(where).encode())
            assert (code, told["left"]) == (0, [])
            assert naming(running.data, there.sid.encode()) == []
            objects = s3.list_objects_v2(Bucket=seaweedfs.BUCKET).get("Contents", [])
            assert [item["Key"] for item in objects if there.sid in item["Key"]] == []
            assert len([one for one in told["removed"] if one["kind"] == "object"]) >= 4

            with contextlib.closing(sqlite3.connect(f"file:{running.data / 'recorder.db'}?mode=ro", uri=True)) as rows:
                used = rows.execute("SELECT sid, channel, milliseconds FROM usage").fetchall()
            assert {channel for sid, channel, _ in used if sid.startswith("erased-")} == {""}
            assert {channel for sid, channel, _ in used if sid == other.sid} == {"room"}
            assert sum(milliseconds for sid, _, milliseconds in used if sid.startswith("erased-")) > 6000  # the bill stays
            assert len(list((running.data / "recordings").rglob(f"{other.sid}*.m3u8"))) == 2
            assert naming(running.data, other.sid.encode())
