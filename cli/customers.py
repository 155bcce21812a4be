"""`cloud-recorder customers`: who may use the public API, and with which secrets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import click
from sqlalchemy.exc import SQLAlchemyError

from api.accounts import LIMITS, AccountError, Accounts, AccountView, Issued, Limits, open_accounts
from api.audit import command_line
from api.digests import Role
from recorder.settings import Settings, load

_HOUR_MS: Final = 3_600_000
_MEGABYTE: Final = 1 << 20
_MOST_DIGITS: Final = 12  # so that megabytes are a number of bytes that the database can hold

T = TypeVar("T")
U = TypeVar("U")

with_config = click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
with_json = click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")


class Quota(click.ParamType[int | Literal["none"]]):
    """A number, or `none` for no limit here."""

    name = "NUMBER|none"

    def __init__(self, unit: int = 1) -> None:
        """`unit`: how many of what is meant each of the number stands for."""
        self._unit = unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["none"]:
        if value == "none":
            return "none"
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS:
            return int(value) * self._unit
        raise click.BadParameter("must be a number, or none", ctx, param)


def perform(config: Path | None, work: Callable[[Accounts], Awaitable[T]]) -> T:
    """Do `work` on the database of the deployment, whether its service runs or not."""
    return perform_with(lambda settings: open_accounts(settings, command_line()), config, work)


def perform_with(
    open_: Callable[[Settings], contextlib.AbstractAsyncContextManager[U]], config: Path | None, work: Callable[[U], Awaitable[T]]
) -> T:
    """As `perform`, on what `open_` opens."""

    @contextlib.asynccontextmanager
    async def explained() -> AsyncIterator[None]:
        try:
            yield
        except AccountError as error:
            raise click.ClickException(str(error)) from error
        except (SQLAlchemyError, OSError) as error:
            raise click.ClickException(f"the database cannot be used ({type(error).__name__})") from error

    async def performed() -> T:
        async with explained(), open_(load(config)) as opened:
            return await work(opened)

    return asyncio.run(performed())


def day(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def commands(role: Role) -> click.Group:
    """What can be done with accounts of one role."""

    @click.group(name=f"{role}s")
    def group() -> None:
        pass

    @group.command()
    @click.option("--name", default="", help="for people; at most 64 characters")
    @with_json
    @with_config
    def create(name: str, as_json: bool, config: Path | None) -> None:
        issued = perform(config, lambda accounts: accounts.create(role, name=name))
        _show_secret(role, issued, as_json)

    create.help = f"Add {_ARTICLES[role]}; prints its id and its secret, which is shown this once."

    @group.command(name="list")
    @with_json
    @with_config
    def list_all(as_json: bool, config: Path | None) -> None:
        found = perform(config, lambda accounts: accounts.list_all(role))
        if as_json:
            click.echo(json.dumps([_without_apps(role, asdict(account)) for account in found], indent=2))
            return
        for account in found:
            _show(role, account)

    list_all.help = f"List {role}s and the ids of their secrets; never a secret."

    @group.command()
    @click.argument(role)
    @click.option(
        "--old-hours", type=click.FloatRange(0, 24 * 365), help="how long the secrets there are stay valid; default: until they are revoked"
    )
    @with_json
    @with_config
    def rotate(old_hours: float | None, as_json: bool, config: Path | None, **owner: str) -> None:
        end_ms = None if old_hours is None else round(old_hours * _HOUR_MS)
        issued = perform(config, lambda accounts: accounts.rotate(role, owner[role], old_end_in_ms=end_ms))
        _show_secret(role, issued, as_json)

    rotate.help = "Add a secret, printed this once. Those there are stay valid until they are revoked, or for --old-hours."

    @group.command()
    @click.argument(role)
    @click.option("--secret", "secret_id", help="id of the secret, as `list` shows it")
    @click.option("--all", "everything", is_flag=True, help="every secret: nobody can sign in any more until `rotate`")
    @with_config
    def revoke(secret_id: str | None, everything: bool, config: Path | None, **owner: str) -> None:
        if (secret_id is None) != everything:
            raise click.UsageError("name one secret (--secret ID) or --all")
        left = perform(config, lambda accounts: accounts.revoke(role, owner[role], secret_id))
        click.echo(f"revoked; valid secrets left: {left}")

    revoke.help = "Take secrets away, from the next call on."
    return group


def _show_secret(role: Role, issued: Issued, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({f"{role}_id": issued.id, f"{role}_secret": issued.secret, "secret_id": issued.secret_id}, indent=2))
        return
    click.echo(f"{role:<10} {issued.id}")
    click.echo(f"secret     {issued.secret}")
    click.echo(f"secret id  {issued.secret_id}")
    click.echo("The secret is not shown again: only a digest of it is kept.", err=True)


def _show(role: Role, account: AccountView) -> None:
    click.echo(f"{account.id}  {day(account.created_ms)}  {account.name}{_quotas(account)}".rstrip())
    for secret in account.secrets:
        ends = f"  valid until {day(secret.expires_ms)}" if secret.expires_ms is not None else ""
        click.echo(f"  secret {secret.id}  {day(secret.created_ms)}{ends}")
    if not account.secrets:
        click.echo(f"  no valid secret: this {role} cannot sign in")
    for app in account.apps:
        click.echo(f"  app {app}")


def _quotas(account: AccountView) -> str:
    spool = None if account.max_spool_bytes is None else account.max_spool_bytes // _MEGABYTE
    limits = (
        (account.max_recordings, "recordings"),
        (account.max_streams, "streams"),
        (account.max_pixels, "pixels per second"),
        (spool, "MB in the spool"),
        (account.max_callbacks, "callbacks waiting"),
    )
    given = ", ".join(f"{most} {what}" for most, what in limits if most is not None)
    return f"  at most {given}" if given else ""


def _without_apps(role: Role, account: dict[str, Any]) -> dict[str, Any]:
    return account if role == "customer" else {key: value for key, value in account.items() if key not in ("apps", *LIMITS)}


_ARTICLES: Final[dict[Role, str]] = {"customer": "a customer", "operator": "an operator"}

command = commands("customer")
command.help = """Manage customers of the public API while the service runs; changes hold from the next call on.

A customer has an id and up to five secrets that are valid side by side, and owns app ids (see `cloud-recorder apps`).
"""


@command.command(name="set")
@click.argument("customer")
@click.option("--max-recordings", type=Quota(), help="at the same time")
@click.option("--max-streams", type=Quota(), help="tracks of people that live recordings may record at the same time, by what they ask for")
@click.option("--max-pixels", type=Quota(), help="width x height x fps of live composites, together")
@click.option("--max-spool-megabytes", "max_spool_bytes", type=Quota(_MEGABYTE), help="recorded and in no store yet")
@click.option("--max-callbacks", type=Quota(), help="waiting for delivery; what is more becomes a dead letter")
@with_config
def set_quotas(customer: str, config: Path | None, **limits: int | Literal["none"] | None) -> None:
    """Change a customer's quotas, each over all its apps (none: no limit).

    Over the first four `acquire` or `start` answers with code 406; docs/security.md says how each is counted.
    """
    given = {name: None if most == "none" else most for name, most in limits.items() if most is not None}
    if not given:
        raise click.UsageError("nothing to change: see --help")
    perform(config, lambda accounts: accounts.set_customer(customer, **cast(Limits, given)))
    click.echo("set")
