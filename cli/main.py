"""The command `cloud-recorder`: every other module of this package is one subcommand and is imported when it is asked for."""

import ctypes
import importlib
import os
import pkgutil
import signal
import sys

import click

import cli
from recorder.private_memory import hide_memory
from recorder.settings import ConfigError

WRONG_CONFIG = 2  # exit code; a supervisor does not try again
_PR_SET_PDEATHSIG = 1


class _Subcommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name != "main" and module.name[0] != "_")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"cli.{cmd_name}").command
        return command


@click.group(cls=_Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cloud-recorder")
@click.option("--bound-to", type=int, hidden=True, help="end when this parent process ends")
def group(bound_to: int | None) -> None:
    """Record real-time channels on your own machines, over the REST API that cloud recording clients speak.

    `cloud-recorder serve` runs the whole service on this machine. Settings come from one TOML file (--config) and from
    CLOUD_RECORDER_* variables.
    """
    hide_memory()
    if bound_to is not None:
        _end_with(bound_to)


def main() -> None:
    try:
        group(prog_name="cloud-recorder")
    except ConfigError as error:
        click.echo(f"cloud-recorder: {' '.join(str(error).split())}", err=True)
        sys.exit(WRONG_CONFIG)


def _end_with(parent: int) -> None:
    """Get SIGTERM when `parent` dies, even by SIGKILL: a child left behind would hold the ports and the spool."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


if __name__ == "__main__":
    main()
