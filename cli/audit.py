"""`cloud-recorder audit`: who changed accounts, keys, receivers and stores, and which sign-ins were locked."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from api.accounts import open_deployment
from api.audit import Action, Entry, recent
from cli.customers import perform_with, with_config, with_json

_FORMATS: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")
_COLUMNS: Final = ("time (UTC)", "actor", "address", "action", "target", "details")


@click.command()
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="at most so many, the newest")
@click.option("--since", type=click.DateTime(_FORMATS), metavar="DAY[THH:MM]", help="nothing older, in UTC")
@click.option("--action", type=click.Choice([action.value for action in Action]), metavar="ACTION", help="only this, such as app.set")
@with_json
@with_config
def command(*, limit: int, since: datetime | None, action: str | None, as_json: bool, config: Path | None) -> None:
    """Show the audit log, the newest first.

    It holds what the commands customers, operators, apps, callbacks, keys and erase have changed, what customers have changed at their
    callbacks and storage over the API, and sign-ins that were locked; never a secret. Entries are kept for api.audit_days.
    """
    since_ms = None if since is None else int(since.replace(tzinfo=UTC).timestamp() * 1000)
    wanted = None if action is None else Action(action)
    entries = perform_with(open_deployment, config, lambda opened: recent(opened[0], limit=limit, since_ms=since_ms, action=wanted))
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    for line in _table(entries):
        click.echo(line)


def _table(entries: Sequence[Entry]) -> list[str]:
    rows = [_COLUMNS, *map(_cells, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(entry: Entry) -> tuple[str, ...]:
    at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    details = ", ".join(f"{name} {json.dumps(value)}" for name, value in entry.details.items())
    return at, entry.actor, entry.address or "-", entry.action, entry.target or "-", details
