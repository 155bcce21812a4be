"""`cloud-recorder callbacks`: where apps' notices go, their secrets, and those that could not be delivered."""

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from api.audit import command_line
from api.endpoints import DeadLetter, Endpoints, EndpointView, Signing, open_endpoints
from cli.customers import day, perform_with, with_config, with_json

_HOUR_MS: Final = 3_600_000
_FAILED: Final = 1  # exit code of a test event that did not arrive

T = TypeVar("T")


class EventList(click.ParamType[tuple[int, ...] | None]):
    """Numbers with commas, or `all`."""

    name = "NUMBERS|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...] | None:
        if value == "all":
            return None
        try:
            return tuple(int(number) for number in str(value).split(","))
        except ValueError as error:
            raise click.BadParameter("must be numbers with commas between them, or all", ctx, param) from error


@click.group()
def command() -> None:
    """Manage the receivers of apps' callbacks while the service runs; changes hold within seconds.

    docs/callbacks.md says what is sent and how a receiver checks it.
    """


@command.command(name="set")
@click.argument("app")
@click.argument("url")
@click.option("--events", type=EventList(), default="all", show_default=True, help="event types to send, with commas; alarms only if named")
@click.option("--off", is_flag=True, help="keep the endpoint, but send nothing")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="of a new endpoint: a secret that receivers use already; -: from stdin",
)
@with_json
@with_config
def set_endpoint(
    *, app: str, url: str, events: tuple[int, ...] | None, off: bool, secret_file: Path | None, as_json: bool, config: Path | None
) -> None:
    """Say where the notices of APP go, and which. Prints a new endpoint's secret, this once."""
    secret = _read(secret_file) if secret_file else None
    signing = _perform(config, lambda endpoints: endpoints.set(app, url=url, events=events, enabled=not off, secret=secret))
    _show_signing(signing, as_json)


@command.command()
@click.argument("app")
@with_json
@with_config
def show(app: str, as_json: bool, config: Path | None) -> None:
    """Show an app's endpoint, and how much of it is not delivered; never a secret."""
    view = _perform(config, lambda endpoints: endpoints.show(app))
    click.echo(json.dumps(asdict(view), indent=2) if as_json else _described(view))


@command.command()
@click.argument("app")
@with_config
def remove(app: str, config: Path | None) -> None:
    """Forget an app's endpoint and its secrets; what waits becomes dead letters."""
    _perform(config, lambda endpoints: endpoints.remove(app))
    click.echo("removed")


@command.command()
@click.argument("app")
@click.option(
    "--old-hours", type=click.FloatRange(0, 24 * 30), default=24, show_default=True, help="how long the secret there is signs, too"
)
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="a secret of your own; -: from stdin")
@with_json
@with_config
def rotate(app: str, old_hours: float, secret_file: Path | None, as_json: bool, config: Path | None) -> None:
    """Sign with a new secret, printed this once."""
    secret = _read(secret_file) if secret_file else None
    overlap_ms = round(old_hours * _HOUR_MS)
    signing = _perform(config, lambda endpoints: endpoints.rotate(app, secret=secret, overlap_ms=overlap_ms))
    _show_signing(signing, as_json)


@command.command()
@click.argument("app")
@with_config
def test(app: str, config: Path | None) -> None:
    """Send one event that tells of no recording, once, from here. Exit code 1: it was not accepted."""
    tested = _perform(config, lambda endpoints: endpoints.test(app))
    click.echo("delivered" if tested.delivered else f"not delivered: {tested.failure} (code {tested.code})")
    if not tested.delivered:
        sys.exit(_FAILED)


@command.command()
@click.argument("app")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="at most so many, the newest")
@with_json
@with_config
def dead(app: str, limit: int, as_json: bool, config: Path | None) -> None:
    """List the notices of an app that were given up; they are kept for 30 days."""
    letters = _perform(config, lambda endpoints: endpoints.dead_letters(app, limit=limit))
    if as_json:
        click.echo(json.dumps([asdict(letter) | {"payload": json.loads(letter.payload)} for letter in letters], indent=2))
        return
    for letter in letters:
        click.echo(_line(letter))


@command.command()
@click.argument("app")
@click.argument("notices", nargs=-1, metavar="[NOTICE]...")
@click.option("--all", "everything", is_flag=True, help="every dead letter of the app")
@with_config
def replay(app: str, notices: tuple[str, ...], everything: bool, config: Path | None) -> None:
    """Send dead letters again, under their ids."""
    if bool(notices) == everything:
        raise click.UsageError("name notices, or --all")
    count = _perform(config, lambda endpoints: endpoints.replay(app, None if everything else notices))
    click.echo(f"replayed: {count}")


def _perform(config: Path | None, work: Callable[[Endpoints], Awaitable[T]]) -> T:
    return perform_with(lambda settings: open_endpoints(settings, command_line()), config, work)


def _read(path: Path) -> str:
    try:
        text: str = sys.stdin.read() if str(path) == "-" else path.read_text("ascii")
        return text.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"the secret cannot be read from {path}") from error


def _show_signing(signing: Signing | None, as_json: bool) -> None:
    if signing is None:
        click.echo("{}" if as_json else "set")
        return
    if as_json:
        shown = {"secret": signing.secret, "standard_secret": signing.standard, "old_until_ms": signing.old_until_ms}
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(f"secret     {signing.secret}")
    if signing.standard != signing.secret:
        click.echo(f"standard   {signing.standard}")
    if signing.old_until_ms is not None:
        click.echo(f"the secret before signs until {day(signing.old_until_ms)}")
    click.echo("The secret is not shown again: it is kept sealed.", err=True)


def _described(view: EndpointView) -> str:
    gone = f"left alone since {day(view.gone_ms)}: it answered 410; set it again when it is back" if view.gone_ms else None
    lines = [
        f"url        {view.url}",
        f"state      {gone or ('on' if view.enabled else 'off')}",
        f"events     {'all, no alarms' if view.events is None else ','.join(map(str, view.events))}",
        f"waiting    {view.waiting}",
        f"dead       {view.dead}",
    ]
    if view.old_secret_until_ms is not None:
        lines.append(f"the secret before signs until {day(view.old_secret_until_ms)}")
    return "\n".join(lines)


def _line(letter: DeadLetter) -> str:
    of = f"{letter.sid}/{letter.sequence}" if letter.sid else "-"
    return f"{letter.notice_id}  {day(letter.dead_ms)}  event {letter.event_type}  {of}  attempts {letter.attempts}  {letter.failure or ''}"
