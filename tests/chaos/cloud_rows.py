"""Rows of the fault matrix that need the vendors' own dialects: a real agent, scripted workers, strict stores."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from recorder.protocol import Done, RenewStorage, SliceCommitted, Stop
from recorder.spec import RecordingSpec, Storage
from tests import seaweedfs
from tests.chaos.storage_rows import Measured, agent_alone
from tests.clouds import Fault, Identity, cos, oss, proxy, qiniu, served
from tests.integration.agent_control import Control
from tests.integration.test_agent_recording import AgentProcess, spec

BUCKET = "rec-1250000000"
OWNER = Identity("AKowner", "SK-canary-owner")
GUEST, NEXT = (Identity(f"AK{name}", f"SK-canary-{name}", token=f"STS-canary-{name}") for name in ("guest", "next"))
COMPATIBLE = {"amazon": 1, "s3": 11, "ks3": 4}
DIALECTS = {"oss": "OSS", "cos": "sha1", "qiniu": "UpToken"}


class Place:
    """A recording that goes to one bucket of a strict store."""

    def __init__(self, control: Control, agent: AgentProcess, cloud: Any, storage: Storage) -> None:
        self.control = control
        self.agent = agent
        self.cloud = cloud
        self.storage = storage
        self.job: RecordingSpec

    async def start(self, keys: Identity | None = None, script: str = "slices") -> None:
        self.job = spec(script, self.with_keys(keys) if keys else self.storage)
        assert await self.control.offer(self.job) == Done()

    async def renew(self, keys: Identity) -> None:
        """What `update` with `storageConfig` comes to on a node."""
        self.control.specs[self.job.sid] = self.job.model_copy(update={"storage": self.with_keys(keys)})
        assert await self.control.ask(RenewStorage(sid=self.job.sid)) == Done()

    def with_keys(self, keys: Identity) -> Storage:
        return self.storage.model_copy(update=_keys(keys))

    async def until_stored(self, more: int) -> None:
        before = len(self.control.stored(self.job.sid))
        await self.control.until(lambda: len(self.control.stored(self.job.sid)) >= before + more)

    async def finish(self) -> None:
        """Stop, and see every committed byte in the bucket and every slice in the playlist."""
        await self.control.ask(Stop(sid=self.job.sid))
        await self.control.until(lambda: self.control.finished(self.job.sid) is not None, 120)
        finished = self.control.finished(self.job.sid)
        assert finished
        assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
        assert not self.control.of(self.job.sid, "fault")
        found = {key.removeprefix("d1/"): data for key, data in self._objects().items()}
        committed = {}
        for event in self.control.of(self.job.sid, "slice"):
            assert isinstance(event.body, SliceCommitted)
            committed[event.body.slice.name] = event.body.slice.sha256
        assert committed.items() <= {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}.items()
        playlist = found[f"{self.job.sid}_{self.job.channel}.m3u8"].decode().splitlines()
        assert [line for line in playlist if not line.startswith("#")] == sorted(name for name in committed if name.endswith(".ts"))
        assert playlist[-1] == "#EXT-X-ENDLIST"

    def _objects(self) -> dict[str, bytes]:
        if isinstance(self.cloud, _Watched):
            return self.cloud.stored()
        return {key: stored.data for key, stored in self.cloud.objects.items()}


def _keys(keys: Identity) -> dict[str, SecretStr | None]:
    token = SecretStr(keys.token) if keys.token else None
    return {"access_key": SecretStr(keys.access_key), "secret_key": SecretStr(keys.secret_key), "sts_token": token}


@contextlib.asynccontextmanager
async def place(folder: Path, vendor: str) -> AsyncIterator[Place]:
    cloud: Any
    with contextlib.ExitStack() as stack:
        keys, bucket = OWNER, BUCKET
        if vendor in COMPATIBLE:
            (folder / "weed").mkdir()
            weed = stack.enter_context(seaweedfs.running(folder / "weed"))
            keys, bucket = Identity(weed.owner.access_key, weed.owner.secret_key), seaweedfs.BUCKET
            number, cloud = COMPATIBLE[vendor], _Watched(weed)
        else:
            number, cloud = {"oss": (2, oss.Oss), "cos": (3, cos.Cos), "qiniu": (0, qiniu.Kodo)}[vendor]
            region = {2: ("cn-hangzhou",), 3: ("ap-beijing-1",), 0: ()}[number]
            cloud = cloud(bucket, *region, [OWNER, GUEST, NEXT])
            cloud.domain = "127.0.0.1" if vendor == "cos" else ""
        port = stack.enter_context(served(cloud))
        storage = Storage(vendor=number, bucket=bucket, prefix=("d1",), endpoint=f"http://127.0.0.1:{port}", **_keys(keys))
        async with agent_alone(folder, with_backup=False) as (_, control, agent):
            yield Place(control, agent, cloud, storage)


class _Watched(proxy.FaultyProxy):
    """A real S3 server, which can be looked into."""

    def __init__(self, weed: seaweedfs.SeaweedFS) -> None:
        super().__init__(weed.endpoint)
        self._raw = seaweedfs.client(weed)

    def stored(self) -> dict[str, bytes]:
        listing = self._raw.list_objects_v2(Bucket=seaweedfs.BUCKET)
        keys = [one["Key"] for one in listing.get("Contents", ())]
        return {key: self._raw.get_object(Bucket=seaweedfs.BUCKET, Key=key)["Body"].read() for key in keys}

    @property
    def uploads(self) -> list[str]:
        """Uploads in parts that are open."""
        return [one["UploadId"] for one in self._raw.list_multipart_uploads(Bucket=seaweedfs.BUCKET).get("Uploads", ())]


async def signed(folder: Path, vendor: str) -> None:
    """S20: each vendor's store recomputes the signature of every request."""
    async with place(folder, vendor) as it:
        await it.start()
        await it.until_stored(3)
        await it.finish()
        if vendor in DIALECTS:
            assert it.cloud.dialects - {"Qiniu"} == {DIALECTS[vendor]}


async def wrong_clock(folder: Path, measured: Measured, vendor: str, hours: float) -> None:
    """S11: the store's time is not ours, from the start and after a step in mid-recording."""
    async with place(folder, vendor) as it:
        it.cloud.ahead_seconds = hours * 3600
        await it.start()
        await it.until_stored(3)
        it.cloud.ahead_seconds = 0.0
        await it.until_stored(3)
        await it.finish()
        warned = it.control.of(it.job.sid, "warning")
        measured["warnings"] = len(warned)
        assert not warned


async def new_token(folder: Path, vendor: str) -> None:
    """Temporary keys are replaced while files go up, and the old ones are worth nothing afterwards."""
    async with place(folder, vendor) as it:
        await it.start(GUEST)
        await it.until_stored(3)
        await it.renew(NEXT)
        await it.until_stored(1)
        it.cloud.identities[GUEST.access_key] = replace(GUEST, token="expired")
        await it.until_stored(5)
        await it.finish()


async def left_open(folder: Path, measured: Measured, vendor: str) -> None:
    """S16: an upload in parts that a killed agent left open is not there for ever."""
    async with place(folder, vendor) as it:
        it.cloud.faults.append(Fault("part", "hang"))
        await it.start(script="slices-large")
        async with asyncio.timeout(60):
            while it.cloud.seen.count("part") < 2:
                await asyncio.sleep(0.02)
        await it.agent.kill()
        assert len(it.cloud.uploads) == 1
        await it.agent.start()
        await it.until_stored(3)
        await it.control.until(lambda: any(name.endswith(".mp4") for name in it.control.stored(it.job.sid)), 60)
        await it.finish()
        measured["parts"] = it.cloud.seen.count("part")
        assert not it.cloud.uploads
