"""`cloud-recorder api`: the control plane, with its public API and its probes."""

import asyncio
import contextlib
import gc
import logging
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import click
import uvicorn
from fastapi import FastAPI

from api.plane import open_plane
from recorder import log as logs
from recorder.settings import Settings, load
from recorder.strict_http import StrictHttp
from recorder.tls import server_context

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5  # for calls under way at the end; a stop that waits for its upload goes on without its caller


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Two servers share this process: signals are handled once, by `serve`."""
        yield


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: the settings cannot be used.
    """
    tls = server_context("api", settings.api)
    async with open_plane(settings) as plane:
        servers = [
            _server(plane.app, settings.api.host, settings.api.port, tls),
            _server(plane.probes, _probe_host(settings.api.host), settings.api.probe_port),
        ]
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for server in servers:
                server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        gc.collect()
        gc.freeze()  # what is there now stays: looking through all of it, the collector would hold up every call for 100 ms now and then
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.serve())


def _server(app: FastAPI, host: str, port: int, tls: ssl.SSLContext | None = None) -> _Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=StrictHttp,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    config.load()
    config.ssl = tls
    return _Server(config)


def _probe_host(host: str) -> str:
    """Orchestrators ask from outside only where the API listens on every interface."""
    return host if host in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104  # compared, not chosen


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
def command(config: Path | None) -> None:
    """Run the control plane: the public API, the state of all recordings, and the socket that agents connect to.

    The first start writes a customer's credentials into credentials.json in the data directory, and an operator's into operator.json.
    """
    settings = load(config)
    logs.configure(settings.log_level, json_lines=settings.log_json)
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        runner.run(serve(settings))
