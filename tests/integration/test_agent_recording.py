"""Whole recordings through a real agent process, with scripted workers and a scripted control plane."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from recorder import manifest
from recorder.agent.agent import Agent
from recorder.outputs import DRAFT
from recorder.outputs.timeline_file import Timeline
from recorder.peer import LINE_LIMIT_BYTES, Peer
from recorder.protocol import (
    BackupDone,
    Done,
    Ended,
    Faulted,
    ImageFailed,
    Message,
    Refused,
    RenewStorage,
    Report,
    SetLayout,
    SliceCommitted,
    SliceStored,
    Stop,
    Subscribe,
    Warned,
    WorkerFenced,
    WorkerHello,
)
from recorder.settings import Agent as AgentSettings
from recorder.settings import ConfigError, Settings
from recorder.settings import Recording as RecordingSettings
from recorder.spec import Layout, RecordingSpec, Storage, Subscription, UidRule
from storage.journal import Journal
from tests import seaweedfs
from tests.canary import secret
from tests.image_server import image_server, png, whole
from tests.integration.agent_control import Control

LEASE_SECONDS = 3.5  # the least the settings allow is just below

TOKEN = secret("token")


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        agent=AgentSettings(**{"max_recordings": 4, "cores": 100, "allowed_networks": ("127.0.0.0/8",), **getattr(request, "param", {})}),
        recording=RecordingSettings(lease_seconds=LEASE_SECONDS, max_restarts=2),
    )


@pytest.fixture
async def control(settings: Settings) -> AsyncIterator[Control]:
    control = Control(settings.control_socket)
    async with control.listening():
        yield control


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweedfs.SeaweedFS]:
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


class AgentProcess:
    """The agent in a process of its own, so that it can be killed."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        module: str = "tests.integration.agent_main",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._module = module
        self._environment = {**os.environ, **(environment or {})}
        self._log = folder / "agent.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            command = (sys.executable, "-m", self._module)
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, env=self._environment
            )
        assert self._process.stdin
        self._process.stdin.write(self._settings.model_dump_json().encode())
        self._process.stdin.close()

    def send(self, number: signal.Signals) -> None:
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self, seconds: float = 30) -> int:
        assert self._process
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.wait()

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
async def agent(settings: Settings, tmp_path: Path, control: Control) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(settings, tmp_path)
    await agent.start()
    yield agent
    agent.send(signal.SIGTERM)
    try:
        assert await agent.wait() == 0
    finally:
        agent.send(signal.SIGKILL)
        print(agent.log())
    assert "Traceback" not in agent.log()


def spec(channel: str, storage: Storage | None = None) -> RecordingSpec:
    return RecordingSpec(
        sid=secrets.token_hex(16),
        app_id="app",
        channel=channel,
        uid=1,
        mode="mix",
        storage=storage or local(),
        token=SecretStr(TOKEN),
    )


def local(bucket: str = "rec") -> Storage:
    return Storage(vendor=100, bucket=bucket, access_key=SecretStr(""), secret_key=SecretStr(""), prefix=("d1", "d2"))


def objects(settings: Settings) -> dict[str, bytes]:
    root = settings.recordings_dir / "rec" / "d1" / "d2"
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def worker_pid(settings: Settings, sid: str) -> int:
    records = Journal(settings.spool_dir / sid / "uploads").read().records
    return [int(record["pid"]) for record in records if record["type"] == "worker"][-1]


def listed(playlist: bytes) -> list[str]:
    return [line for line in playlist.decode().splitlines() if not line.startswith("#")]


async def test_agent_uploads_while_recording_and_finishes(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices-mp4")
    assert await control.offer(job) == Done()
    await control.until(lambda: len(control.stored(job.sid)) >= 4)
    growing = objects(settings)[f"{job.sid}_slices-mp4.m3u8"]
    assert b"ENDLIST" not in growing
    assert await control.ask(Stop(sid=job.sid)) == Done()
    assert await control.ask(Stop(sid=job.sid)) == Refused(reason="exiting")
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason, finished.uploading) == ("complete", "stopped", "uploaded")
    files = objects(settings)
    final = files.pop(f"{job.sid}_slices-mp4.m3u8")
    assert final.endswith(b"#EXT-X-ENDLIST\n")
    signed = manifest.read(files.pop(f"{job.sid}_slices-mp4_manifest.json"))
    manifest.check_signature(signed, [control.signing_key.public_key()])
    whole_files = {**files, f"{job.sid}_slices-mp4.m3u8": final}
    assert {one.name: one.sha256 for one in signed.objects} == {
        name: hashlib.sha256(data).hexdigest() for name, data in whole_files.items()
    }
    assert sorted(files) == sorted(control.committed(job.sid)) == sorted(control.stored(job.sid))
    assert listed(final) == [name for name in control.committed(job.sid) if name.endswith(".ts")]
    assert listed(final)[: len(listed(growing))] == listed(growing)
    sequences = [event.sequence for event in control.events]
    assert sequences == list(range(len(sequences)))
    await _until_gone(settings.spool_dir / job.sid)


async def test_agent_uploads_the_same_bytes_to_s3(
    settings: Settings, control: Control, agent: AgentProcess, server: seaweedfs.SeaweedFS
) -> None:
    keys = {"access_key": SecretStr(server.owner.access_key), "secret_key": SecretStr(server.owner.secret_key)}
    job = spec("slices-mp4", Storage(vendor=11, bucket=seaweedfs.BUCKET, prefix=("d1",), endpoint=server.endpoint, **keys))
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 4)
    await control.ask(Stop(sid=job.sid))
    assert (await control.until_finished(job.sid)).uploading == "uploaded"
    raw = seaweedfs.client(server)
    kinds = {}
    for event in control.of(job.sid, "slice"):
        found = raw.get_object(Bucket=seaweedfs.BUCKET, Key=f"d1/{event.body.slice.name}")  # type: ignore[union-attr]  # a slice
        kinds[event.body.slice.name[-3:]] = found["ContentType"]  # type: ignore[union-attr]  # the same
        assert hashlib.sha256(found["Body"].read()).hexdigest() == event.body.slice.sha256  # type: ignore[union-attr]  # the same
    assert kinds == {".ts": "video/MP2T", "mp4": "video/mp4"}
    playlist = raw.get_object(Bucket=seaweedfs.BUCKET, Key=f"d1/{job.sid}_slices-mp4.m3u8")
    assert (playlist["ContentType"], playlist["CacheControl"]) == ("application/x-mpegURL", "max-age=3")
    assert len(listed(playlist["Body"].read())) == len(control.committed(job.sid)) - 1
    for hidden in (server.owner.secret_key, server.owner.access_key, TOKEN):
        assert hidden not in agent.log()


async def test_agent_uploads_with_the_keys_it_was_given_last(
    settings: Settings, control: Control, agent: AgentProcess, server: seaweedfs.SeaweedFS
) -> None:
    def bucket(access_key: str, secret_key: str) -> Storage:
        keys = {"access_key": SecretStr(access_key), "secret_key": SecretStr(secret_key)}
        return Storage(vendor=11, bucket=seaweedfs.BUCKET, prefix=("renewed",), endpoint=server.endpoint, **keys)

    job = spec("slices", bucket(server.owner.access_key, server.owner.secret_key))
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 2)
    control.specs[job.sid] = job.model_copy(update={"storage": bucket(server.writer.access_key, server.writer.secret_key)})
    assert await control.ask(RenewStorage(sid=job.sid)) == Done()
    assert control.claims[-1].resume == 1
    before = len(control.stored(job.sid))
    await control.until(lambda: len(control.stored(job.sid)) >= before + 3)
    control.specs[job.sid] = job.model_copy(update={"storage": bucket("nobody", "nothing")})
    assert await control.ask(RenewStorage(sid=job.sid)) == Done()
    await control.until(lambda: bool(control.of(job.sid, "fault")))
    fault = control.of(job.sid, "fault")[0].body
    assert isinstance(fault, Faulted)
    assert (fault.module, fault.code, fault.level) == (1, 32, 4)
    before = len(control.committed(job.sid))
    await control.until(lambda: len(control.committed(job.sid)) >= before + 3)  # into the spool
    control.specs[job.sid] = job.model_copy(update={"storage": bucket(server.owner.access_key, server.owner.secret_key)})
    assert await control.ask(RenewStorage(sid=job.sid)) == Done()
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    assert set(control.stored(job.sid)) == set(control.committed(job.sid))
    assert len(control.of(job.sid, "fault")) == 1
    assert await control.ask(RenewStorage(sid="0" * 32)) == Refused(reason="not_yours")
    assert server.writer.secret_key not in agent.log()


async def test_agent_starts_a_killed_worker_again_in_the_same_playlist(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 3)
    os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
    await control.until(lambda: bool(control.of(job.sid, "lost")))
    before = len(control.committed(job.sid))
    await control.until(lambda: len(control.committed(job.sid)) >= before + 3)
    await control.ask(Stop(sid=job.sid))
    assert (await control.until_finished(job.sid)).outcome == "complete"
    assert {event.epoch for event in control.of(job.sid, "slice")} == {1, 2}
    assert control.stale == 0
    assert len(control.of(job.sid, "file")) == 1
    playlist = objects(settings)[f"{job.sid}_slices.m3u8"].decode()
    assert listed(playlist.encode()) == control.committed(job.sid) == sorted(control.stored(job.sid))
    first_of_second = next(name for name in control.committed(job.sid) if "_02" in name)
    assert playlist.count("#EXT-X-DISCONTINUITY") == 2
    assert re.search(rf"#EXT-X-DISCONTINUITY\n#EXTINF:1.000000\n{first_of_second}\n", playlist)


@pytest.mark.parametrize("wanted", [True, False])
async def test_agent_adds_what_all_workers_noted(settings: Settings, control: Control, tmp_path: Path, wanted: bool) -> None:
    """As the last file; with a killed worker, and an agent that was killed meanwhile."""
    changed = settings.model_copy(update={"recording": settings.recording.model_copy(update={"timeline_file": wanted})})
    agent = AgentProcess(changed, tmp_path)
    await agent.start()
    job = spec("slices-noted-jpg")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 3)
    os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
    await control.until(lambda: any("_02" in name for name in control.stored(job.sid)))
    await agent.kill()
    await agent.start()
    before = len(control.stored(job.sid))
    await control.until(lambda: len(control.stored(job.sid)) >= before + 2)
    await control.ask(Stop(sid=job.sid))
    assert (await control.until_finished(job.sid)).uploading == "uploaded"
    kinds = {event.body.name: event.body.content for event in control.of(job.sid, "stored") if isinstance(event.body, SliceStored)}
    assert sorted(name for name, kind in kinds.items() if kind == "snapshot") == [f"{job.sid}_slices-noted-jpg_{n}.jpg" for n in (1, 2)]
    name = f"{job.sid}_slices-noted-jpg_timeline.json"
    assert [key for key, kind in kinds.items() if kind == "timeline"] == ([name] if wanted else [])
    files = objects(settings)
    assert (name in files) == wanted
    if wanted:
        timeline = Timeline.model_validate_json(files[name])
        assert [worker.epoch for worker in timeline.workers] == [1, 2]
        assert [event.uid for event in timeline.events] == [101, 102]
        assert timeline.media[0].file == f"{job.sid}_slices-noted-jpg.m3u8"
        assert control.committed(job.sid)[-1] == name
    await _until_gone(settings.spool_dir / job.sid)
    agent.send(signal.SIGTERM)
    assert await agent.wait() == 0


async def test_agent_uploads_what_a_worker_committed_and_never_told(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices-untold")
    await control.offer(job)
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason, finished.uploading) == ("interrupted", "crashed", "uploaded")
    assert len(control.of(job.sid, "lost")) == 3
    assert len(control.committed(job.sid)) == 12  # four of each epoch, the last of them untold
    assert listed(objects(settings)[f"{job.sid}_slices-untold.m3u8"]) == control.committed(job.sid)


async def test_agent_gives_up_a_worker_that_never_starts(control: Control, agent: AgentProcess) -> None:
    job = spec("stillborn")
    await control.offer(job)
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason) == ("failed", "crashed")
    assert "exit code 3" in control.of(job.sid, "lost")[0].body.detail  # type: ignore[union-attr]  # WorkerLost


async def test_agent_kill_9_is_survived_by_workers_which_are_adopted(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 3)
    pid = worker_pid(settings, job.sid)
    await agent.kill()
    before = len(control.committed(job.sid))
    await agent.start()
    await control.until(lambda: len(control.stored(job.sid)) >= before + 4)
    assert control.hellos[-1].live == (job.sid,)
    assert control.claims[-1].resume == 1
    assert worker_pid(settings, job.sid) == pid
    os.kill(pid, 0)
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    assert not control.of(job.sid, "lost")
    names = control.committed(job.sid)
    assert len(names) == len(set(names))
    assert listed(objects(settings)[f"{job.sid}_slices.m3u8"]) == sorted(names)
    numbers = [event.sequence for event in control.events]
    assert numbers == list(range(len(numbers)))


async def test_agent_away_for_longer_than_the_lease_starts_a_new_worker(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 3)
    pid = worker_pid(settings, job.sid)
    await agent.kill()
    async with asyncio.timeout(LEASE_SECONDS + 10):
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            await asyncio.sleep(0.1)
    await agent.start()
    await control.until(lambda: 2 in {event.epoch for event in control.of(job.sid, "slice")})
    await control.ask(Stop(sid=job.sid))
    assert (await control.until_finished(job.sid)).outcome == "complete"
    assert listed(objects(settings)[f"{job.sid}_slices.m3u8"]) == control.committed(job.sid)


async def test_agent_takes_a_customers_refusal_for_the_end(settings: Settings, control: Control, agent: AgentProcess) -> None:
    settings.recordings_dir.mkdir(parents=True)
    (settings.recordings_dir / "rec").write_text("a file where the bucket should be")
    job = spec("slices")
    await control.offer(job)
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason, finished.uploading) == ("failed", "storage", "unknown")
    fault = control.of(job.sid, "fault")[0].body
    assert isinstance(fault, Faulted)
    assert (fault.module, fault.code, fault.level) == (1, 32, 5)
    kept = {path.name for path in (settings.spool_dir / job.sid / "files").iterdir()}
    assert kept == set(control.committed(job.sid))
    async with asyncio.timeout(10):
        while "files wait for" not in agent.log():
            await asyncio.sleep(0.02)
    await agent.kill()
    await agent.start()
    await control.until(lambda: len(control.hellos) >= 2)
    assert control.hellos[-1].live == ()  # kept, but no work
    assert (settings.spool_dir / job.sid / "files").exists()
    (settings.recordings_dir / "rec").unlink()
    await control.until(lambda: len(control.claims) >= 2)
    assert await control.ask(RenewStorage(sid=job.sid)) == Done()
    await control.until(lambda: bool(control.of(job.sid, "backup_done")))
    done = control.of(job.sid, "backup_done")[0].body
    assert isinstance(done, BackupDone)
    assert done.uploading == "uploaded"
    assert kept <= set(objects(settings))
    assert listed(objects(settings)[f"{job.sid}_slices.m3u8"]) == sorted(name for name in kept if name.endswith(".ts"))
    async with asyncio.timeout(10):
        while (settings.spool_dir / job.sid).exists():
            await asyncio.sleep(0.02)


async def test_agent_goes_to_another_place_while_nothing_is_stored(settings: Settings, control: Control, agent: AgentProcess) -> None:
    keys = {"access_key": SecretStr("a"), "secret_key": SecretStr("b")}
    away = Storage(vendor=11, bucket="rec", endpoint="http://127.0.0.1:1", **keys)
    there = Storage(vendor=100, bucket="rec", prefix=("d1", "d2"), **keys)
    job = spec("slices", away)
    await control.offer(job)
    await control.until(lambda: len(control.committed(job.sid)) >= 2)
    control.specs[job.sid] = job.model_copy(update={"storage": there})
    assert await control.ask(RenewStorage(sid=job.sid, moves=True)) == Done()
    assert (control.claims[-1].resume, control.claims[-1].moves) == (1, True)
    await control.until(lambda: bool(control.stored(job.sid)))
    claims = len(control.claims)
    refused = await control.ask(RenewStorage(sid=job.sid, moves=True))
    assert isinstance(refused, Refused)
    assert (refused.reason, len(control.claims)) == ("bad_request", claims)
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    assert set(control.committed(job.sid)) <= set(objects(settings))


async def test_agent_names_what_has_gone_from_the_bucket(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 4)
    gone, shorter = control.stored(job.sid)[1:3]
    bucket = settings.recordings_dir / "rec" / "d1" / "d2"
    (bucket / gone).unlink()
    (bucket / shorter).write_bytes(b"short")
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.uploading, finished.detail) == (
        "interrupted",
        "unknown",
        "2 files were lost",
    )
    told = [event.body for event in control.of(job.sid, "warning")]
    assert [body.detail for body in told if isinstance(body, Warned)] == [f"gone from the bucket: {name}" for name in (gone, shorter)]
    assert listed(objects(settings)[f"{job.sid}_slices.m3u8"]) == [
        name for name in control.committed(job.sid) if name not in (gone, shorter)
    ]
    signed = manifest.read(objects(settings)[f"{job.sid}_slices_manifest.json"])
    assert sorted(signed.lost) == sorted((gone, shorter))


async def test_agent_tries_the_bucket_before_there_is_media(settings: Settings, control: Control, agent: AgentProcess) -> None:
    mix = spec("empty")
    single = spec("empty").model_copy(update={"mode": "individual"})
    for job in (mix, single):
        await control.offer(job)
    async with asyncio.timeout(10):
        while len(sorted(settings.recordings_dir.glob("rec/d1/d2/[!.]*"))) < 2:
            await asyncio.sleep(0.02)
    first = objects(settings)
    assert first.keys() == {f"{mix.sid}_empty.m3u8", f"{single.sid}_empty_manifest.json"}
    assert listed(first[f"{mix.sid}_empty.m3u8"]) == []
    for job in (mix, single):
        await control.ask(Stop(sid=job.sid))
        assert (await control.until_finished(job.sid)).reason == "nothing_recorded"
    assert objects(settings) == {}


async def test_agent_reports_a_recording_without_media(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("empty")
    await control.offer(job)
    await control.until(lambda: bool(control.of(job.sid, "phase")))
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason) == ("complete", "nothing_recorded")
    await _until_gone(settings.spool_dir / job.sid)
    assert not [path for path in settings.recordings_dir.rglob("*") if path.is_file()]  # the first file is taken back


async def test_an_mp4_that_cannot_be_finished_is_kept_and_told(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices-unfinished")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 2)
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason, finished.uploading) == ("interrupted", "stopped", "unknown")
    assert "1 MP4" in finished.detail
    async with asyncio.timeout(10):
        while "stay in the spool" not in agent.log():
            await asyncio.sleep(0.02)
    name = f"{job.sid}_slices-unfinished_0.mp4"
    fragments = settings.spool_dir / job.sid / "partial" / f"{name}.fragments"
    assert fragments.exists()
    await agent.kill()
    await agent.start()
    await control.until(lambda: len(control.hellos) >= 2)
    assert fragments.exists()


async def test_agent_goes_on_without_a_control_plane(settings: Settings, tmp_path: Path) -> None:
    control = Control(settings.control_socket)
    agent = AgentProcess(settings, tmp_path)
    await agent.start()  # before there is a control plane at all
    try:
        job = spec("slices-wordless")
        async with control.listening():
            await control.offer(job)
            await control.until(lambda: len(control.stored(job.sid)) >= 2)
        before = len(objects(settings))
        async with asyncio.timeout(20):
            while len(objects(settings)) < before + 5:
                await asyncio.sleep(0.05)
        assert len(control.stored(job.sid)) <= before
        async with control.listening():
            await control.until(lambda: len(control.stored(job.sid)) >= before + 4)
            await control.ask(Stop(sid=job.sid))
            assert (await control.until_finished(job.sid)).outcome == "complete"
            assert [event.sequence for event in control.events] == list(range(len(control.events)))
        agent.send(signal.SIGTERM)
        assert await agent.wait() == 0
    finally:
        agent.send(signal.SIGKILL)
        print(agent.log())


async def test_agent_that_is_back_without_the_key_of_a_sealed_recording_waits_for_it(settings: Settings, tmp_path: Path) -> None:
    control = Control(settings.control_socket)
    agent = AgentProcess(settings, tmp_path)
    await agent.start()
    try:
        job = spec("slices-unfinished").with_media_key()
        draft = settings.spool_dir / job.sid / "partial" / f"{job.sid}_{job.channel}_20261125190000000.jpg"
        async with control.listening():
            await control.offer(job)
            await control.until(lambda: len(control.stored(job.sid)) >= 3)
        os.kill(worker_pid(settings, job.sid), signal.SIGSTOP)  # nothing more is committed
        await agent.kill()
        os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
        draft.write_bytes(b"a whole picture")
        fields = {"name": draft.name, "playlist": None, "start_ns": 0, "start_ms": 1, "tags": (), "content": "snapshot", "epoch": 1}
        draft.with_name(f"{draft.name}{DRAFT}").write_text(json.dumps({**fields, "duration_ns": 0}))
        await agent.start()
        await asyncio.sleep(2)
        assert draft.exists()
        agent.send(signal.SIGTERM)  # which is not held up by it
        assert await agent.wait(10) == 0
        assert draft.read_bytes() == b"a whole picture"
        async with control.listening():
            await agent.start()
            await control.until(lambda: draft.name in control.stored(job.sid))
            await control.ask(Stop(sid=job.sid))
            await control.until_finished(job.sid)
            agent.send(signal.SIGTERM)
            assert await agent.wait() == 0
        assert objects(settings)[draft.name] == b"a whole picture"
        assert {event.body.slice.sha256 for event in control.of(job.sid, "slice") if isinstance(event.body, SliceCommitted)} == {
            hashlib.sha256(objects(settings)[name]).hexdigest() for name in control.committed(job.sid)
        }
    finally:
        agent.send(signal.SIGKILL)
        print(agent.log())


async def test_agent_killed_before_the_end_is_told_leaves_the_playlist_closed(settings: Settings, tmp_path: Path) -> None:
    """The control plane is gone, as after the death of the whole service: the drain does not wait for it."""
    control = Control(settings.control_socket)
    agent = AgentProcess(settings, tmp_path)
    await agent.start()
    try:
        job = spec("slices")
        async with control.listening():
            await control.offer(job)
            await control.until(lambda: len(control.stored(job.sid)) >= 3)
        agent.send(signal.SIGTERM)
        assert await agent.wait(15) == 0
        playlist = settings.recordings_dir / "rec" / "d1" / "d2" / f"{job.sid}_slices.m3u8"
        whole = playlist.read_bytes()
        assert whole.endswith(b"#EXT-X-ENDLIST\n")
        assert control.finished(job.sid) is None
        async with control.listening():
            await agent.start()
            while control.finished(job.sid) is None:
                assert playlist.read_bytes() == whole  # not opened again, not even for a moment
                await asyncio.sleep(0.002)
            finished = await control.until_finished(job.sid)
            await _until_gone(settings.spool_dir / job.sid)
        assert (finished.outcome, finished.reason, finished.uploading) == ("complete", "shutdown", "uploaded")
        assert sorted(control.stored(job.sid)) == sorted(control.committed(job.sid)) == listed(whole)
        assert playlist.read_bytes() == whole
        agent.send(signal.SIGTERM)
        assert await agent.wait() == 0
    finally:
        agent.send(signal.SIGKILL)
        print(agent.log())


async def test_agent_killed_before_it_noted_its_epoch_goes_on(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 3)
    await agent.kill()
    os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
    control.epochs[job.sid] += 1  # given out, and the answer was lost
    await agent.start()
    await control.until(lambda: any(event.epoch > 2 for event in control.of(job.sid, "slice")))
    await control.ask(Stop(sid=job.sid))
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.uploading) == ("complete", "uploaded")
    names = listed(objects(settings)[f"{job.sid}_slices.m3u8"])
    assert set(control.committed(job.sid)) <= set(names)
    assert len(names) == len(set(names))


async def test_agent_refuses_a_network_that_is_none(settings: Settings, tmp_path: Path) -> None:
    wrong = settings.model_copy(update={"agent": AgentSettings(allowed_networks=("10.0.0.1/8",))})
    with pytest.raises(ConfigError, match=r"agent.allowed_networks: 10.0.0.1/8"):
        Agent(wrong)


async def test_agent_refuses_more_than_it_can_carry(settings: Settings, control: Control, agent: AgentProcess) -> None:
    jobs = [spec("empty") for _ in range(settings.agent.max_recordings or 0)]
    assert [await control.offer(job) for job in jobs] == [Done()] * len(jobs)
    assert await control.offer(jobs[0]) == Done()  # offered again, not again started
    refused = await control.offer(spec("empty"))
    assert isinstance(refused, Refused)
    assert refused.reason == "no_capacity"
    assert await control.ask(Stop(sid="unknown")) == Refused(reason="not_yours")
    await control.until(lambda: all(control.of(job.sid, "phase") for job in jobs))
    assert len(control.claims) == len(jobs)


@pytest.mark.parametrize("settings", [{"max_recordings": None, "cores": 0.4}], indirect=True)
async def test_agent_refuses_what_its_processors_are_not_expected_to_carry(
    settings: Settings, control: Control, agent: AgentProcess
) -> None:
    pictures, too_much, voices = spec("empty"), spec("empty"), spec("empty").model_copy(update={"video": False})
    assert await control.offer(pictures) == Done()
    assert await control.offer(too_much) == Refused(reason="no_capacity", detail="the processors are full")
    assert await control.offer(voices) == Done()
    await control.until(lambda: all(control.of(job.sid, "phase") for job in (pictures, voices)))
    await control.ask(Stop(sid=pictures.sid))
    await control.until_finished(pictures.sid)
    assert await control.offer(too_much) == Done()


async def test_agent_passes_commands_to_the_worker_and_to_its_successor(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 1)
    assert await control.ask(SetLayout(sid=job.sid, layout=Layout(number=1))) == Done()
    assert (settings.spool_dir / job.sid / "commands").read_text() == "layout\n"
    os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
    await control.until(lambda: 2 in {event.epoch for event in control.of(job.sid, "slice")})
    assert (settings.spool_dir / job.sid / "layouts").read_text() == "0\n1\n"


async def test_what_is_changed_before_a_worker_is_there_reaches_it(settings: Settings, control: Control, agent: AgentProcess) -> None:
    async with image_server() as server:
        server.answers["/a.png"] = whole(png((1, 2, 3)))
        job = spec("slices-late")
        assert await control.offer(job) == Done()
        async with asyncio.timeout(10):
            while not any(record["type"] == "worker" for record in Journal(settings.spool_dir / job.sid / "uploads").read().records):
                await asyncio.sleep(0.02)
        layout = Layout(number=1, background_image=server.url("/a.png"))
        assert await control.ask(SetLayout(sid=job.sid, layout=layout)) == Done()
        assert await control.ask(Subscribe(sid=job.sid, subscription=Subscription(video=UidRule(kind="none")))) == Done()
        commands = settings.spool_dir / job.sid / "commands"
        assert not commands.exists()  # the worker is not there yet
        async with asyncio.timeout(10):
            while not commands.exists() or len(commands.read_text().split()) < 3:
                await asyncio.sleep(0.02)
        assert commands.read_text().split() == ["layout", "subscribe", "image"]
        await control.ask(Stop(sid=job.sid))
        await control.until_finished(job.sid)


async def test_agent_listens_to_its_own_workers_only(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 1)
    pid = worker_pid(settings, job.sid)
    attempts = {
        "unknown": WorkerHello(sid="another", epoch=1, pid=os.getpid()),
        "stale": WorkerHello(sid=job.sid, epoch=0, pid=os.getpid()),
        "bad_request": WorkerHello(sid=job.sid, epoch=1, pid=pid),  # the pid is not ours
    }
    for reason, hello in attempts.items():
        answers = await as_a_worker(settings, hello, Report(at_ms=1, body=Ended(outcome="failed", reason="kicked")))
        assert [getattr(answer, "reason", answer.type) for answer in answers] == [reason, "bad_request"]
    before = len(control.stored(job.sid))
    await control.until(lambda: len(control.stored(job.sid)) >= before + 2)
    assert not control.of(job.sid, "ended")
    assert [event.body for event in control.of(job.sid, "fenced")] == [WorkerFenced(epoch=0)]


async def test_agent_drains_on_sigterm(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices")
    await control.offer(job)
    await control.until(lambda: len(control.stored(job.sid)) >= 2)
    agent.send(signal.SIGTERM)
    finished = await control.until_finished(job.sid)
    assert (finished.outcome, finished.reason, finished.uploading) == ("complete", "shutdown", "uploaded")
    assert await agent.wait() == 0
    assert objects(settings)[f"{job.sid}_slices.m3u8"].endswith(b"#EXT-X-ENDLIST\n")


async def test_agent_second_one_on_the_same_spool_refuses(
    settings: Settings, tmp_path: Path, control: Control, agent: AgentProcess
) -> None:
    await control.until(lambda: bool(control.hellos))
    (tmp_path / "second").mkdir()
    second = AgentProcess(settings, tmp_path / "second")
    await second.start()
    assert await second.wait() == 1
    assert "another process uses the spool" in second.log()


@pytest.mark.parametrize(("script", "rung"), [("slices-deaf", "kill"), ("silent", "terminate")])
async def test_agent_ends_a_worker_that_does_not_listen(control: Control, agent: AgentProcess, script: str, rung: str) -> None:
    job = spec(script)
    await control.offer(job)
    if script == "silent":  # it answers no lease: noticed without a stop
        await control.until(lambda: bool(control.of(job.sid, "lost")))
        assert "does not answer" in control.of(job.sid, "lost")[0].body.detail  # type: ignore[union-attr]  # WorkerLost
        await control.ask(Stop(sid=job.sid))
        await control.until_finished(job.sid)
    else:
        await control.until(lambda: len(control.stored(job.sid)) >= 2)
        await control.ask(Stop(sid=job.sid))
        finished = await control.until_finished(job.sid)
        assert (finished.outcome, finished.reason, finished.uploading) == ("interrupted", "stopped", "uploaded")
        assert rung in finished.detail
    assert f"rung={rung}" in agent.log()


async def as_a_worker(settings: Settings, *messages: Message) -> list[Message]:
    reader, writer = await asyncio.open_unix_connection(settings.agent_socket, limit=LINE_LIMIT_BYTES)

    async def handle(message: Message) -> Message:
        return Refused(reason="bad_request")

    peer = Peer(reader, writer, handle)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(peer.run())
        async with asyncio.timeout(5):
            answers = [await peer.request(message) for message in messages]
        peer.close()
        await serving
    return answers


async def _until_gone(path: Path) -> None:
    async with asyncio.timeout(10):
        while path.exists():
            await asyncio.sleep(0.02)


async def test_images_reach_every_worker_and_come_before_the_layout_that_names_them(
    settings: Settings, control: Control, agent: AgentProcess
) -> None:
    async with image_server() as server:
        server.answers["/a.png"] = whole(png((1, 2, 3)))
        job = spec("slices").model_copy(update={"layout": Layout(background_image=server.url("/a.png"))})
        commands = settings.spool_dir / job.sid / "commands"

        async def until_told(words: str) -> None:
            async with asyncio.timeout(20):
                while not commands.exists() or commands.read_text().split() != words.split():
                    await asyncio.sleep(0.02)

        assert await control.offer(job) == Done()
        await until_told("image")
        again = Layout(number=1, default_user_background_image=server.url("/a.png"))
        assert await control.ask(SetLayout(sid=job.sid, layout=again)) == Done()
        await until_told("image layout")  # the worker has the image
        os.kill(worker_pid(settings, job.sid), signal.SIGKILL)
        await until_told("image layout image")
        await control.ask(Stop(sid=job.sid))
        await control.until_finished(job.sid)
        assert server.asked == ["/a.png"]
        async with asyncio.timeout(5):
            while (settings.spool_dir / job.sid).exists():
                await asyncio.sleep(0.02)


async def test_an_image_that_cannot_be_had_is_told_and_stops_nothing(settings: Settings, control: Control, agent: AgentProcess) -> None:
    job = spec("slices").model_copy(update={"layout": Layout(background_image="http://192.168.0.1/a.png?key=secret")})
    assert await control.offer(job) == Done()
    await control.until(lambda: bool(control.of(job.sid, "image_failed")) and len(control.stored(job.sid)) >= 2)
    (failed,) = control.of(job.sid, "image_failed")
    assert isinstance(failed.body, ImageFailed)
    assert failed.body.why == "address"
    assert "secret" not in failed.body.detail + agent.log()
    await control.ask(Stop(sid=job.sid))
    assert (await control.until_finished(job.sid)).outcome == "complete"
