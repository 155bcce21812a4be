"""`cloud-recorder hub`: the channel hub as a process of its own."""

import asyncio
import resource
import signal
from pathlib import Path

import click

from recorder import log as logs
from recorder.hub import server
from recorder.settings import Settings, load


async def serve(settings: Settings) -> None:
    """Serve the hub until SIGTERM or SIGINT.

    Raises:
        ConfigError: an address for media is none of this machine's.
    """
    # Each session takes a socket per address; the usual soft limit of 1024 is for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.serve(settings.hub, stop)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
def command(config: Path | None) -> None:
    """Run the channel hub: publishers come in by WHIP, recorders and viewers get their media by WHEP."""
    settings = load(config)
    logs.configure(settings.log_level, json_lines=settings.log_json)
    asyncio.run(serve(settings))
