"""Encryption at rest: while media waits on the node or in the backup store nobody can read it; the customer's bucket gets it whole."""

import asyncio
import contextlib
import os
import signal
from hashlib import sha256
from pathlib import Path

from recorder.tools import measure
from tests.e2e import requests
from tests.e2e.test_process_death import Serve, answering
from tests.fault_store import BUCKET, answers, fault_store
from tests.live import publisher

MAGIC = b"CRsealed"


def held(*folders: Path) -> dict[Path, bytes]:
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*") if not path.name.startswith(".")):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # files come and go
            found[path] = path.read_bytes()
    return found


async def test_media_waits_sealed_through_kill_and_outage_and_arrives_whole(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    serve = Serve(
        tmp_path / "data",
        {
            "RECORDING__ENCRYPT_AT_REST": "true",
            "BACKUP__VENDOR": "100",
            "BACKUP__ROOT": str(backup),
            "BACKUP__AFTER_SECONDS": "2",
            "AGENT__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        },
    )
    with fault_store() as bucket:
        where = {
            "vendor": 11,
            "region": 0,
            "bucket": BUCKET,
            "accessKey": "access",
            "secretKey": "secret-key",
            "extensionParams": {"endpoint": bucket.endpoint},
        }
        async with serve.running(), serve.client() as client, publisher(serve.hub, 101, app=serve.credentials.app_id):
            mix = await client.start("room", 901, "mix", requests.mix(where))
            spool = serve.data / "spool" / mix.sid
            await asyncio.sleep(4)
            bucket.fault = answers(503, "SlowDown")
            async with asyncio.timeout(20):
                while not list(backup.rglob("*.ts")):
                    await asyncio.sleep(0.1)
            kept = held(spool / "files", backup)
            for pid in (serve.part("agent"), serve.worker(mix.sid)):
                os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(40):
                while serve.rows("SELECT COUNT(*) FROM slices WHERE sid = ? AND epoch = 2", mix.sid) < [(2,)]:
                    await asyncio.sleep(0.2)
            assert await answering(mix) == 5
            kept |= held(spool / "files", backup)
            bucket.fault = None
            assert (await mix.stop())["uploadingStatus"] in ("uploaded", "backuped")
            async with asyncio.timeout(40):
                while serve.rows("SELECT sealed_spec IS NULL FROM recordings WHERE sid = ?", mix.sid) != [(1,)]:
                    await asyncio.sleep(0.2)
            await serve.spool_is_empty()
            assert held(backup) == {}
            slices = serve.slices(mix.sid)
        assert sum(name.endswith(".mp4") for name, *_ in slices) == 2  # one was salvaged
        assert [name for name, _, digest, _ in slices if sha256(bucket.objects[name]).hexdigest() != digest] == []
        assert bucket.dangling == []
        assert any(path.suffix == ".ts" and path.is_relative_to(backup) for path in kept)
        assert {data[: len(MAGIC)] for data in kept.values()} == {MAGIC}
        media = [bucket.objects[name][len(bucket.objects[name]) // 2 :][:64] for name, *_ in slices]
        assert [path for path, data in kept.items() if any(part in data for part in media)] == []
        for name in (name for name, *_ in slices if name.endswith((".ts", ".mp4"))):
            (tmp_path / name).write_bytes(bucket.objects[name])
            assert measure.decode_errors([tmp_path / name]) == []
