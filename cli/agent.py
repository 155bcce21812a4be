"""`cloud-recorder agent`: the process that starts workers and uploads what they record."""

import asyncio
import signal
from pathlib import Path

import click

from recorder import log as logs
from recorder.agent.agent import Agent
from recorder.media.probe import check_video_encoder
from recorder.settings import Settings, check_addresses, load
from storage.errors import SpoolError


async def serve(settings: Settings) -> None:
    """Run the agent until SIGTERM or SIGINT, then drain: stop workers, finish uploads.

    Raises:
        ConfigError: workers cannot receive media as configured, or not encode it.
        SpoolError: another agent uses the spool.
    """
    check_addresses("agent.addresses", settings.agent.addresses)
    await check_video_encoder(settings.recording.video_encoder)
    agent = Agent(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.drain)
    await agent.run()


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
@click.option("--capture", type=click.Path(path_type=Path, file_okay=False), help="folder for captures of all that is received, decrypted")
def command(config: Path | None, capture: Path | None) -> None:
    """Run the recording agent of this machine.

    It takes recordings from the control plane, starts a worker process for each, and uploads what they commit. SIGTERM
    ends it after the uploads; what could not be uploaded in time goes on at the next start.
    """
    settings = load(config).without_secrets()  # of the database and the hub, which are not its business
    if capture:
        recording = settings.recording.model_copy(update={"capture_dir": capture.absolute()})
        settings = settings.model_copy(update={"recording": recording})
    logs.configure(settings.log_level, json_lines=settings.log_json)
    try:
        asyncio.run(serve(settings))
    except SpoolError as error:
        raise click.ClickException(str(error)) from error
