"""Real processes for tests and benches: the hub, publishers, and a worker whose agent is played by the test."""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from cli.demo.processes import free_ports, spawned, until_said
from recorder.agent.process import WORKER, Launcher, WorkerProcess
from recorder.peer import LINE_LIMIT_BYTES, Peer, PeerLost
from recorder.protocol import Done, Ended, Lease, Message, PhaseChanged, Report, Slice, SliceCommitted, Stop, WorkerHello
from recorder.settings import Agent, Hub, Recording, Settings
from recorder.spec import RecordingSpec
from recorder.worker.launch import Launch

ROOT = Path(__file__).parent.parent


def settings(folder: Path, **recording: object) -> Settings:
    """Settings with everything below `folder` and a free port for the hub."""
    (port,) = free_ports(1)
    return Settings(
        data_dir=folder,
        hub=Hub(port=port),
        agent=Agent(hub_url=f"http://127.0.0.1:{port}"),
        recording=Recording.model_validate(recording),
    )


@contextlib.asynccontextmanager
async def hub(of: Settings) -> AsyncIterator[str]:
    """A hub process; yields its URL."""
    environment = {"CLOUD_RECORDER_HUB__PORT": str(of.hub.port), "CLOUD_RECORDER_DATA_DIR": str(of.data_dir)}
    if of.hub.certificates:
        given = of.data_dir / "certificates.json"
        given.write_text(json.dumps({app: certificate.get_secret_value() for app, certificate in of.hub.certificates.items()}))
        environment["CLOUD_RECORDER_HUB__CERTIFICATES_FILE"] = str(given)
    log = of.data_dir / "hub.log"
    async with spawned(log, "hub", environment=environment) as process:
        await until_said(process, log, "hub starts", "the hub")
        await _until_reachable(of.hub.port)
        yield of.agent.hub_url


async def _until_reachable(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def publisher(
    url: str, uid: int, *options: str, app: str = "app", channel: str = "room"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `cloud-recorder publish` process, from when it has joined; encoded media is kept in build/ for the next run."""
    where = ("--hub", url, "--app", app, "--channel", channel, "--uid", str(uid), "--cache", str(ROOT / "build" / "media"))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "publish.log"
        async with spawned(log, "publish", *where, *options) as process:
            await until_said(process, log, "publishing as", f"publisher {uid}")
            yield process


class TestedWorker:
    """A worker process of the real launcher; the test is its agent. `target` as for the launcher."""

    __test__ = False

    def __init__(self, of: Settings, spec: RecordingSpec, *, epoch: int = 1, target: str = WORKER) -> None:
        self.reports: list[Report] = []
        self.folder = of.spool_dir / spec.sid
        self._settings = of
        self._spec = spec
        self._epoch = epoch
        self._target = target
        self._peer: Peer | None = None
        self._changed = asyncio.Condition()
        self.process: WorkerProcess | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["TestedWorker"]:
        server = await asyncio.start_unix_server(self._serve, str(self._settings.agent_socket), limit=LINE_LIMIT_BYTES)
        launcher = Launcher(self._target)
        self.folder.mkdir(parents=True, exist_ok=True)
        launch = Launch(spec_json=self._spec.for_worker().with_secrets(), settings=self._settings, epoch=self._epoch, folder=self.folder)
        self.process = await launcher.start(launch)
        leases = asyncio.create_task(self._lease())
        try:
            yield self
        finally:
            leases.cancel()
            self.process.send(signal.SIGKILL)
            await self.process.wait()
            if self._peer:
                self._peer.close()
            server.close()

    @property
    def slices(self) -> list[Slice]:
        return [report.body.slice for report in self.reports if isinstance(report.body, SliceCommitted)]

    def playlist(self, name: str) -> list[Slice]:
        return [item for item in self.slices if item.playlist == name]

    @property
    def ended(self) -> Ended | None:
        return next((report.body for report in self.reports if isinstance(report.body, Ended)), None)

    def phases(self) -> list[str]:
        return [report.body.phase for report in self.reports if isinstance(report.body, PhaseChanged)]

    async def until(self, condition: object, seconds: float = 20) -> None:
        """Wait until `condition()` holds; reports wake it."""
        assert callable(condition)
        async with asyncio.timeout(seconds):
            while not condition():
                async with self._changed:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self._changed.wait()

    async def tell(self, message: Message) -> Message:
        assert self._peer
        return await self._peer.request(message)

    async def stop(self) -> None:
        """Ask the worker to stop and wait until it has ended."""
        await self.tell(Stop(sid=self._spec.sid))
        await self.until(lambda: self.ended is not None)

    def resident_bytes(self) -> int:
        """Memory of the worker now."""
        assert self.process
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """User and system time of the worker so far."""
        assert self.process
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = Peer(reader, writer, self._handle)
        await self._peer.run()

    async def _handle(self, message: Message) -> Message:
        if isinstance(message, Report):
            self.reports.append(message)
            async with self._changed:
                self._changed.notify_all()
        else:
            assert isinstance(message, WorkerHello)
        return Done()

    async def _lease(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self._peer:
                with contextlib.suppress(PeerLost):
                    await self._peer.request(Lease())
