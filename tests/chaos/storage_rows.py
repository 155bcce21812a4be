"""Rows of the fault matrix about customers' stores: a real agent, scripted workers, a store that fails as told."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from recorder import manifest
from recorder.protocol import (
    BackupDone,
    Done,
    Faulted,
    Finished,
    RenewStorage,
    Report,
    SliceCommitted,
    SliceStored,
    Stop,
    Warned,
    WorkerHello,
)
from recorder.settings import Agent, Backup, Recording, Settings
from recorder.spec import RecordingSpec, Storage
from tests.fault_store import BUCKET, Fault, FaultStore, answers, fault_store, redirects
from tests.integration.agent_control import Control
from tests.integration.test_agent_recording import AgentProcess, as_a_worker, spec, worker_pid

Measured = dict[str, Any]

SECRET = "canary-secret-key"
AFTER_SECONDS = 2.0  # of failure, in place of five minutes


def bucket(endpoint: str, secret: str = SECRET) -> Storage:
    keys = {"access_key": SecretStr("canary-access-key"), "secret_key": SecretStr(secret)}
    return Storage(vendor=11, bucket=BUCKET, prefix=("d1",), endpoint=endpoint, **keys)


class Deployment:
    """One agent, its control plane and a store."""

    def __init__(self, settings: Settings, control: Control, agent: AgentProcess, store: FaultStore) -> None:
        self.settings = settings
        self.control = control
        self.agent = agent
        self.store = store
        self.job: RecordingSpec

    async def start(self, storage: Storage | None = None, script: str = "slices") -> None:
        self.job = spec(script, storage or bucket(self.store.endpoint))
        assert await self.control.offer(self.job) == Done()

    async def until_stored(self, count: int) -> None:
        await self.control.until(lambda: len(self.control.stored(self.job.sid)) >= count)

    async def until_committed(self, more: int) -> None:
        before = len(self.control.committed(self.job.sid))
        await self.control.until(lambda: len(self.control.committed(self.job.sid)) >= before + more)

    async def until_event(self, kind: str, seconds: float = 60) -> Any:
        await self.control.until(lambda: bool(self.control.of(self.job.sid, kind)), seconds)
        return self.control.of(self.job.sid, kind)[0].body

    async def stop(self) -> None:
        await self.control.ask(Stop(sid=self.job.sid))

    async def finished(self, seconds: float = 90) -> Finished:
        body = await self.until_event("finished", seconds)
        assert isinstance(body, Finished)
        return body

    async def renew(self, storage: Storage) -> None:
        self.control.specs[self.job.sid] = self.job.model_copy(update={"storage": storage})
        assert await self.control.ask(RenewStorage(sid=self.job.sid)) == Done()

    def warnings(self) -> list[int]:
        bodies = [event.body for event in self.control.of(self.job.sid, "warning")]
        return [body.code for body in bodies if isinstance(body, Warned)]

    def fault(self) -> Faulted:
        (only,) = self.control.of(self.job.sid, "fault")
        assert isinstance(only.body, Faulted)
        assert (only.body.module, only.body.code) == (1, 32)
        assert "canary" not in only.body.detail
        return only.body

    async def check_everything_is_there(self) -> None:
        """Every committed byte is in the bucket, the playlist names all of it, and no playlist ever named what was not there."""
        committed = {}
        for event in self.control.of(self.job.sid, "slice"):
            assert isinstance(event.body, SliceCommitted)
            committed[event.body.slice.name] = event.body.slice.sha256
        found = {key.removeprefix("d1/"): hashlib.sha256(data).hexdigest() for key, data in self.store.objects.items()}
        assert committed.items() <= found.items()
        playlist = self.store.objects[f"d1/{self.job.sid}_{self.job.channel}.m3u8"].decode().splitlines()
        assert [line for line in playlist if not line.startswith("#")] == sorted(name for name in committed if name.endswith(".ts"))
        assert playlist[-1] == "#EXT-X-ENDLIST"
        assert self.store.dangling == []
        signed = manifest.read(self.store.objects[f"d1/{self.job.sid}_{self.job.channel}_manifest.json"])
        manifest.check_signature(signed, [self.control.signing_key.public_key()])
        assert {one.name: one.sha256 for one in signed.objects}.items() <= found.items()
        assert committed.keys() <= {one.name for one in signed.objects}
        assert self.store.puts[-1].endswith("_manifest.json")
        assert not self.in_backup()
        async with asyncio.timeout(20):
            while (self.settings.spool_dir / self.job.sid).exists():
                await asyncio.sleep(0.05)

    def in_backup(self) -> list[Path]:
        return [path for path in self.settings.backup_dir.rglob("*") if path.is_file()]


@contextlib.asynccontextmanager
async def deployment(folder: Path, *, with_backup: bool = True, allowed: tuple[str, ...] = ("127.0.0.0/8",)) -> AsyncIterator[Deployment]:
    with fault_store() as store:
        async with agent_alone(folder, with_backup=with_backup, allowed=allowed) as (settings, control, agent):
            yield Deployment(settings, control, agent, store)


@contextlib.asynccontextmanager
async def agent_alone(
    folder: Path, *, with_backup: bool, allowed: tuple[str, ...] = ("127.0.0.0/8",)
) -> AsyncIterator[tuple[Settings, Control, AgentProcess]]:
    """An agent and its control plane."""
    settings = Settings(
        data_dir=folder / "data",
        agent=Agent(max_recordings=4, allowed_networks=allowed),
        backup=Backup(vendor=100 if with_backup else None, after_seconds=AFTER_SECONDS),
        recording=Recording(lease_seconds=3.5, max_restarts=2),
    )
    control = Control(settings.control_socket)
    agent = AgentProcess(settings, folder)
    async with control.listening():
        await agent.start()
        try:
            yield settings, control, agent
        finally:
            agent.send(signal.SIGTERM)
            code = await agent.wait()
            print(agent.log())
        assert code == 0
        assert "Traceback" not in agent.log()
        assert "canary" not in agent.log().replace("canary-access-key", "")


async def outage(folder: Path, measured: Measured, *, kills: int, status: int = 503, code: str = "SlowDown") -> None:
    """S1, S13–S15: away through the end of the recording, and through deaths of the agent."""
    async with deployment(folder) as it:
        await it.start()
        await it.until_stored(3)
        it.store.fault, it.store.everything = answers(status, code), True
        await it.control.until(lambda: bool(it.control.of(it.job.sid, "backup_started")), 60)
        for _ in range(kills):
            await it.until_committed(3)
            await it.agent.kill()
            await it.agent.start()
            await it.until_committed(3)
        await it.stop()
        finished = await it.finished()
        assert (finished.uploading, finished.leaves_behind) == ("backuped", True)
        assert {31, 32} <= set(it.warnings())
        assert it.in_backup()
        measured["in backup at the end"] = len(it.in_backup())
        await it.agent.kill()
        await it.agent.start()
        it.store.fault = None
        done = await it.until_event("backup_done", 120)
        assert done == BackupDone(uploading="uploaded")
        await it.check_everything_is_there()


async def refused_at_start(folder: Path, status: int, code: str) -> None:
    """S2: an error at once, the end, and a rescue afterwards."""
    async with deployment(folder) as it:
        it.store.fault, it.store.everything = answers(status, code), True
        await it.start()
        finished = await it.finished()
        assert (finished.outcome, finished.reason, finished.uploading) == ("failed", "storage", "unknown")
        fault = it.fault()
        assert (fault.level, code in fault.detail) == (5, True)
        assert not it.control.of(it.job.sid, "backup_started")
        if not it.control.committed(it.job.sid):  # refused before anything was recorded: nothing to rescue
            assert not finished.leaves_behind
            return
        assert finished.leaves_behind
        it.store.fault = None
        await it.renew(bucket(it.store.endpoint, "another-secret"))
        assert await it.until_event("backup_done") == BackupDone(uploading="uploaded")
        await it.check_everything_is_there()


async def refused_midway(folder: Path, status: int, code: str) -> None:
    """S3, S17: an error at once, no backup, the recording goes on into the spool; corrected keys bring everything."""
    async with deployment(folder) as it:
        await it.start()
        await it.until_stored(3)
        it.store.fault = answers(status, code)
        fault = await it.until_event("fault")
        assert (fault.level, code in fault.detail) == (4, True)
        await it.until_committed(10)
        assert not it.in_backup()
        it.store.fault = None
        await it.renew(bucket(it.store.endpoint, "another-secret"))
        await it.stop()
        assert (await it.finished()).uploading == "uploaded"
        it.fault()
        await it.check_everything_is_there()


async def passing(folder: Path, measured: Measured, fault: Fault, *, seconds: float = 1.0, at_least: int = 1) -> None:
    """S4, S5, S7, S8: a fault that passes costs nothing."""
    async with deployment(folder, with_backup=False) as it:
        await it.start()
        await it.until_stored(2)
        it.store.fault = fault
        async with asyncio.timeout(60):
            while it.store.failed < at_least:
                await asyncio.sleep(0.05)
        await asyncio.sleep(seconds)
        it.store.fault = None
        await it.until_committed(2)
        await it.stop()
        assert (await it.finished(120)).uploading == "uploaded"
        measured["failed calls"] = it.store.failed
        assert not it.control.of(it.job.sid, "fault")
        await it.check_everything_is_there()


def _mismatches(it: Deployment) -> int:
    bodies = [event.body for event in it.control.of(it.job.sid, "stored")]
    return sum(body.mismatches for body in bodies if isinstance(body, SliceStored))


async def wrong_bytes(folder: Path, measured: Measured, fault: Fault) -> None:
    """S6: nothing is believed that the store does not show to have, and each time it does not is counted."""
    async with deployment(folder, with_backup=False) as it:
        await it.start()
        await it.until_stored(2)
        assert _mismatches(it) == 0
        it.store.fault = fault
        async with asyncio.timeout(60):
            while it.store.failed < 2:
                await asyncio.sleep(0.05)
        it.store.fault = None
        await it.until_committed(2)
        await it.stop()
        assert (await it.finished(120)).uploading == "uploaded"
        measured["mismatches"] = _mismatches(it)
        assert _mismatches(it) >= 1
        await it.check_everything_is_there()


async def name_taken(folder: Path, status: int, code: str) -> None:
    """S8: an object of somebody else's under our key is neither replaced nor taken for ours, and stops nothing else."""
    foreign = b"somebody else's"
    async with deployment(folder, with_backup=False) as it:

        def protect(handler: Any, body: bytes) -> None:
            if handler.key.endswith(".ts") and foreign not in it.store.objects.values():
                it.store.objects[handler.key], it.store.metadata[handler.key] = foreign, {}
            if it.store.objects.get(handler.key) == foreign:
                handler.refuse(status, code)
            else:
                handler.accept(body)

        await it.start()
        await it.until_stored(2)
        it.store.fault = protect
        await it.until_event("warning")
        await it.until_committed(5)
        await it.stop()
        finished = await it.finished()
        (taken,) = [key.removeprefix("d1/") for key, data in it.store.objects.items() if data == foreign]
        assert (finished.outcome, finished.uploading) == ("interrupted", "unknown")
        assert not it.control.of(it.job.sid, "fault")
        assert set(it.control.committed(it.job.sid)) - set(it.control.stored(it.job.sid)) == {taken}
        (told,) = [event.body for event in it.control.of(it.job.sid, "warning")]
        assert isinstance(told, Warned)
        assert taken in told.detail
        playlist = it.store.objects[f"d1/{it.job.sid}_{it.job.channel}.m3u8"].decode()
        assert taken not in playlist
        assert playlist.rstrip().endswith("#EXT-X-ENDLIST")
        signed = manifest.read(it.store.objects[f"d1/{it.job.sid}_{it.job.channel}_manifest.json"])
        assert taken in signed.lost
        assert (it.settings.spool_dir / it.job.sid / "files" / taken).exists()


async def old_epoch(folder: Path) -> None:
    """S9: who lost the recording to a successor gets nothing into the bucket, neither under new names nor over what is there."""
    async with deployment(folder, with_backup=False) as it:
        await it.start()
        await it.until_stored(3)
        os.kill(worker_pid(it.settings, it.job.sid), signal.SIGKILL)
        await it.control.until(lambda: any("_02" in name for name in it.control.stored(it.job.sid)))
        taken = it.control.stored(it.job.sid)[0], it.control.stored(it.job.sid)[-1], f"{it.job.sid}_slices_01999999.ts"
        was = {name: it.store.objects.get(f"d1/{name}") for name in taken}
        (first, *_) = it.control.of(it.job.sid, "slice")
        assert isinstance(first.body, SliceCommitted)
        for name in taken:
            other = b"of an old epoch"
            (it.settings.spool_dir / it.job.sid / "files" / name).write_bytes(other)
            told = {"name": name, "epoch": 1, "sequence": 999, "size": len(other), "sha256": hashlib.sha256(other).hexdigest()}
            report = Report(at_ms=1, body=SliceCommitted(slice=first.body.slice.model_copy(update=told)))
            answers = await as_a_worker(it.settings, WorkerHello(sid=it.job.sid, epoch=1, pid=os.getpid()), report)
            assert [getattr(answer, "reason", answer.type) for answer in answers] == ["stale", "bad_request"]
        await it.until_committed(3)
        await it.stop()
        assert (await it.finished()).uploading == "uploaded"
        assert {name: it.store.objects.get(f"d1/{name}") for name in taken} == was
        await it.check_everything_is_there()


async def unknown_name(folder: Path) -> None:
    """S12: a name that cannot be resolved is tried again; another endpoint is taken while nothing is stored."""
    async with deployment(folder, with_backup=False) as it:
        await it.start(bucket("http://store.invalid:9000"))
        await it.until_committed(3)
        await it.control.until(lambda: 31 in it.warnings())
        await it.renew(bucket(it.store.endpoint))
        await it.stop()
        assert (await it.finished()).uploading == "uploaded"
        assert not it.control.of(it.job.sid, "fault")
        await it.check_everything_is_there()


async def address_inside(folder: Path) -> None:
    """S19: a store at an address that is not allowed is not even connected to."""
    with canary() as (port, hits):
        async with deployment(folder, allowed=()) as it:
            await it.start(bucket(f"http://127.0.0.1:{port}"))
            assert (await it.finished()).reason == "storage"
            assert "address" in it.fault().detail
        assert hits == []


async def redirected(folder: Path) -> None:
    """S10: nobody follows a store elsewhere."""
    with canary() as (port, hits):
        async with deployment(folder) as it:
            it.store.fault = redirects(f"http://127.0.0.1:{port}/elsewhere")
            await it.start()
            assert (await it.finished()).reason == "storage"
            it.fault()
        assert hits == []


@contextlib.contextmanager
def canary() -> Iterator[tuple[int, list[str]]]:
    """A port to which nobody may connect, and who did."""
    hits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, address = server.accept()
                    hits.append(str(address))
                    connection.close()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield server.getsockname()[1], hits
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
