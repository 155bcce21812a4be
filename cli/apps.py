"""`cloud-recorder apps`: the app ids of customers, their certificates and quotas."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from api.accounts import AppChange, AppView
from api.digests import new_secret
from cli.customers import Quota, day, perform, with_config, with_json


@click.group()
def command() -> None:
    """Manage the app ids of customers while the service runs; changes hold from the next call on.

    An app without certificate takes publishers from this machine only. With one, publishers and recorders need access tokens
    made with it, as the public token builders make them.
    """


@command.command()
@click.argument("customer")
@click.option("--id", "app_id", help="an app id that clients use already; default: a new one")
@click.option("--name", default="", help="for people; at most 64 characters")
@with_json
@with_config
def create(customer: str, app_id: str | None, name: str, as_json: bool, config: Path | None) -> None:
    """Add an app id to a customer and print it."""
    made = perform(config, lambda accounts: accounts.create_app(customer, app_id=app_id, name=name))
    click.echo(json.dumps({"app_id": made}, indent=2) if as_json else f"app        {made}")


@command.command(name="list")
@click.option("--customer", help="only those of this customer")
@with_json
@with_config
def list_all(customer: str | None, as_json: bool, config: Path | None) -> None:
    """List app ids, how their channels are guarded, and how many recordings run."""
    found = perform(config, lambda accounts: accounts.list_apps(customer))
    if as_json:
        click.echo(json.dumps([asdict(app) for app in found], indent=2))
        return
    for app in found:
        click.echo(_line(app))


@command.command(name="set")
@click.argument("app")
@click.option(
    "--certificate-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="file with the certificate; -: from stdin"
)
@click.option("--new-certificate", is_flag=True, help="make one and print it, this once")
@click.option("--no-certificate", is_flag=True, help="take it away: no token is needed any more")
@click.option("--open-channels/--no-open-channels", default=None, help="without certificate: let publishers of other machines in")
@click.option("--max-recordings", type=Quota(), help="at the same time; none: what api.max_recordings says")
@with_config
def set_app(
    *,
    app: str,
    certificate_file: Path | None,
    new_certificate: bool,
    no_certificate: bool,
    open_channels: bool | None,
    max_recordings: int | Literal["none"] | None,
    config: Path | None,
) -> None:
    """Change an app. Who is in a channel already stays."""
    if (certificate_file is not None) + new_certificate + no_certificate > 1:
        raise click.UsageError("--certificate-file, --new-certificate and --no-certificate exclude each other")
    certificate = new_secret() if new_certificate else _read(certificate_file) if certificate_file else None
    change = AppChange(certificate, no_certificate, open_channels, max_recordings)
    if change == AppChange():
        raise click.UsageError("nothing to change: see --help")
    perform(config, lambda accounts: accounts.set_app(app, change))
    if new_certificate:
        click.echo(f"certificate  {certificate}")
        click.echo("The certificate is not shown again: it is kept sealed.", err=True)
    else:
        click.echo("set")


@command.command()
@click.argument("app")
@with_config
def remove(app: str, config: Path | None) -> None:
    """Take an app id away; what was recorded with it stays where it is stored."""
    perform(config, lambda accounts: accounts.remove_app(app))
    click.echo("removed")


def _read(path: Path) -> str:
    try:
        text: str = sys.stdin.read() if str(path) == "-" else path.read_text("ascii")
        return text.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"the certificate cannot be read from {path}") from error


def _line(app: AppView) -> str:
    guard = "certificate" if app.certificate else "open" if app.open_channels else "this machine only"
    quota = "default" if app.max_recordings is None else str(app.max_recordings)
    words = f"{app.id}  {day(app.created_ms)}  customer {app.customer_id}  {guard}  recordings {app.live_recordings}/{quota}  {app.name}"
    return words.rstrip()
