"""`cloud-recorder hub`: the channel hub as a process of its own."""

import asyncio
import resource
import signal
from pathlib import Path

import click

from recorder import log as logs
from recorder.hub import server
from recorder.hub.rights import AskedRights
from recorder.settings import Settings, load


async def serve(settings: Settings, *, control: bool = False) -> None:
    """Serve the hub until SIGTERM or SIGINT. `control`: ask the control plane of this machine for apps.

    Raises:
        ConfigError: an address for media is none of this machine's.
    """
    # Each session takes a socket per address; the usual soft limit of 1024 is for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    rights = AskedRights(settings.hub, settings.control_socket) if control else None
    await server.serve(settings.hub, stop, rights=rights)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
@click.option("--control", is_flag=True, help="ask the control plane of this machine for apps and their certificates")
def command(config: Path | None, control: bool) -> None:
    """Run the channel hub: publishers come in by WHIP, recorders and viewers get their media by WHEP.

    Without --control every app exists, and only hub.certificates and hub.allow_open_channels guard channels.
    """
    settings = load(config)
    logs.configure(settings.log_level, json_lines=settings.log_json)
    asyncio.run(serve(settings, control=control))
