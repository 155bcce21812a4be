"""`cloud-recorder keys`: replacing the master key while the service runs."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import click

from api.audit import command_line
from api.rotation import Done, Rotation, open_rotation
from cli.customers import perform_with, with_config, with_json

T = TypeVar("T")


@click.group()
def command() -> None:
    """Replace the master key while the service runs.

    \b
    cloud-recorder keys rotate     a new key seals from now on, and all that is sealed is sealed again
    cloud-recorder keys drop       later: without the old keys

    Keys are named by ids, which are no secrets. docs/security.md says what a rotation protects from, and what to do where control planes
    on several machines have a copy of the file each.
    """


@command.command(name="list")
@with_json
@with_config
def list_all(as_json: bool, config: Path | None) -> None:
    """List the ids of the keys, the current one first, and what still needs others; never a key.

    The line shown behind an id is no secret: it verifies the key's manifests where the key is taken out of the file by hand.
    """

    async def look(rotation: Rotation) -> tuple[dict[str, str], list[str]]:
        return rotation.keys, await rotation.left()

    keys, left = _perform(config, look)
    if as_json:
        click.echo(json.dumps({"keys": [{"id": key_id, "line": line} for key_id, line in keys.items()], "left": left}, indent=2))
        return
    for number, (key_id, line) in enumerate(keys.items()):
        click.echo(f"{key_id}  {'opens  ' if number else 'current'}  {line}")
    if len(keys) > 1:
        _show_left(left)


@command.command()
@with_json
@with_config
def add(as_json: bool, config: Path | None) -> None:
    """Add a key that opens and does not seal yet, so that it can be brought to every machine before `rotate --to`."""
    key_id = _perform(config, lambda rotation: rotation.add())
    click.echo(json.dumps({"key": key_id}) if as_json else f"added {key_id}")


@command.command()
@click.option("--to", metavar="ID", help="a key that is in the file already, as `list` shows it; default: a new one")
@with_json
@with_config
def rotate(to: str | None, as_json: bool, config: Path | None) -> None:
    """Seal with a new key from now on, and seal everything in the database again. Older keys stay, to open and to verify."""
    _show(_perform(config, lambda rotation: rotation.rotate(to)), as_json)


@command.command()
@with_json
@with_config
def reseal(as_json: bool, config: Path | None) -> None:
    """Seal what is not under the current key yet: after a `rotate` that was interrupted, or a change of the file by hand."""
    _show(_perform(config, lambda rotation: rotation.reseal()), as_json)


@command.command()
@with_config
def drop(config: Path | None) -> None:
    """Take all keys but the current one out of the file, or say what still needs them."""
    dropped = _perform(config, lambda rotation: rotation.drop())
    click.echo(f"dropped: {', '.join(dropped) or 'none, there is one key only'}")


def _perform(config: Path | None, work: Callable[[Rotation], Awaitable[T]]) -> T:
    return perform_with(lambda settings: open_rotation(settings, command_line()), config, work)


def _show(done: Done, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(f"current key  {done.current}")
    for what, count in done.sealed.items():
        click.echo(f"sealed again: {count} {what}")
    click.echo(f"digests made again: {done.digests}")
    _show_left(done.left)
    if not done.log_cleared:
        click.echo("The database's write-ahead log is in use: what was sealed with older keys leaves it later.", err=True)


def _show_left(left: tuple[str, ...] | list[str]) -> None:
    for one in left:
        click.echo(f"other keys are still needed: {one}")
    if not left:
        click.echo("nothing needs the other keys: `cloud-recorder keys drop` removes them")
