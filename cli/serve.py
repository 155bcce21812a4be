"""`cloud-recorder serve`: hub, control plane and agent of one machine as three processes of one small supervisor.

It starts them, starts again what dies, and ends them in an order in which nothing is lost: the agent drains while the
control plane still takes its events. It knows nothing of recordings.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import httpx

from cli.main import WRONG_CONFIG
from recorder import log as logs
from recorder.settings import ConfigError, Settings, load
from recorder.tls import Listener, client_context, server_context

log = logging.getLogger(__name__)

CRASH_LOOP: Final = 5  # deaths in a row, each within HEALTHY_SECONDS of its start, that end the service
HEALTHY_SECONDS: Final = 60.0
LONGEST_BACKOFF_SECONDS: Final = 8.0
PROBE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the service."""

    name: str
    argv: tuple[str, ...]
    stop_seconds: float  # from SIGTERM to SIGKILL


class Child:
    """Keeps the process of one part running until `stop()`."""

    def __init__(self, part: Part, *, inherit: tuple[int, ...] = (), first_backoff_seconds: float = 0.5) -> None:
        self.part = part
        self._inherit = inherit
        self._first_backoff = first_backoff_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._spawning = asyncio.Lock()
        self._stopping = asyncio.Event()

    async def run(self) -> str | None:
        """Start the process again whenever it dies; returns None once stopped, else why it cannot be kept running."""
        deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            async with self._spawning:
                # A session of its own: Ctrl-C in a terminal reaches the supervisor alone, which keeps the order.
                self._process = await asyncio.create_subprocess_exec(*self.part.argv, start_new_session=True, pass_fds=self._inherit)
            try:
                code = await self._process.wait()
            except asyncio.CancelledError:
                self._signal(signal.SIGKILL)
                raise
            if self._stopping.is_set():
                return None
            if code == WRONG_CONFIG:
                return f"{self.part.name} refuses to start, see above"
            deaths = 1 if time.monotonic() - started > HEALTHY_SECONDS else deaths + 1
            log.error("process died", extra={"part": self.part.name, "code": code, "deaths": deaths})
            if deaths >= CRASH_LOOP:
                return f"{self.part.name} died {deaths} times in a row (last exit code {code})"
            with contextlib.suppress(TimeoutError):
                pause = min(self._first_backoff * 2 ** (deaths - 1), LONGEST_BACKOFF_SECONDS)
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        return None

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask, wait, kill. `hurry` cuts the wait short."""
        self._stopping.set()
        async with self._spawning:  # a process that is just being started is ended too
            pass
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(self._process.wait())
            hurried = group.create_task(hurry.wait())
            await asyncio.wait((ended, hurried), timeout=self.part.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not ended.done():
                log.warning("process killed, it did not end in time", extra={"part": self.part.name})
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def supervise(children: list[Child], stop: asyncio.Event, hurry: asyncio.Event) -> str | None:
    """Run `children` until `stop` is set or one of them cannot be kept running; then end them in the given order, one by one.

    Returns why it ended, None when it was asked to.
    """
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(child.run()) for child in children]
        asked = group.create_task(stop.wait())
        await asyncio.wait((asked, *runs), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        failed = next((run.result() for run in runs if run.done()), None)
        for child in children:
            await child.stop(hurry)
    return failed


def parts(config: Path | None, capture: Path | None = None) -> list[Part]:
    """The parts of the service, in the order in which they are to end."""

    def part(name: str, stop_seconds: float, *options: str) -> Part:
        common = ("--config", str(config)) if config else ()
        argv = (sys.executable, "-m", "cli.main", "--bound-to", str(os.getpid()), name, *common, *options)
        return Part(name, argv, stop_seconds)

    return [part("agent", 120, *(("--capture", str(capture)) if capture else ())), part("api", 15), part("hub", 5, "--control")]


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[int]:
    """Hold the lock of `data_dir`. Children inherit it: it stays held until the last of them is gone.

    Raises:
        ConfigError: somebody else holds it.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{data_dir} is in use by another cloud-recorder serve (or by one that is still ending)") from error
        yield file.fileno()


async def ready(settings: Settings) -> None:
    """Return when control plane and hub answer their probes."""
    hub = f"{_scheme(settings.hub)}://{_reachable(settings.hub.host)}:{settings.hub.port}"
    probes = [f"http://127.0.0.1:{settings.api.probe_port}/readyz", f"{hub}/healthz"]
    verify = client_context(settings.hub.tls_cert) if settings.hub.tls_cert else True
    async with httpx.AsyncClient(trust_env=False, timeout=2, verify=verify) as client:
        while probes:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(probes[0])).is_success:
                    probes.pop(0)
                    continue
            await asyncio.sleep(PROBE_SECONDS)


async def serve(settings: Settings, config: Path | None, capture: Path | None = None) -> None:
    """Run the whole service until SIGTERM or SIGINT; a second signal ends it without waiting for uploads.

    Raises:
        ConfigError: the data directory is in use, or TLS is not set up well.
        click.ClickException: a process cannot be kept running.
    """
    for section, listener in (("api", settings.api), ("hub", settings.hub)):  # said once, here, and not by two processes
        server_context(section, listener)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    with only_one(settings.data_dir) as lock:
        children = [Child(part, inherit=(lock,)) for part in parts(config, capture)]
        async with asyncio.TaskGroup() as group:
            announcing = group.create_task(_announce(settings))
            failed = await supervise(children, stop, hurry)
            announcing.cancel()
    if failed:
        raise click.ClickException(failed)


async def _announce(settings: Settings) -> None:
    await ready(settings)
    click.echo(f"API          {_scheme(settings.api)}://{settings.api.host}:{settings.api.port}")
    click.echo(f"probes       http://127.0.0.1:{settings.api.probe_port}/readyz")
    click.echo(f"channel hub  {_scheme(settings.hub)}://{settings.hub.host}:{settings.hub.port}")
    if settings.credentials_file.exists():
        click.echo(f"credentials  {settings.credentials_file.absolute()}")
    click.echo("ready; Ctrl-C ends")


def _scheme(listener: Listener) -> str:
    return "https" if listener.tls_cert else "http"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  # compared, not bound


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
@click.option("--capture", type=click.Path(path_type=Path, file_okay=False), help="folder for captures of all that is received, decrypted")
def command(config: Path | None, capture: Path | None) -> None:
    """Run control plane, agent and channel hub on this machine.

    The first start writes the customer's credentials into the file that it prints.
    """
    settings = load(config)
    logs.configure(settings.log_level, json_lines=settings.log_json)
    asyncio.run(serve(settings, config, capture))
