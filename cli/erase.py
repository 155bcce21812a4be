"""`cloud-recorder erase`: removes every copy of a recording and shows that none is left."""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api import erasure as database
from api.accounts import unix_ms
from api.audit import command_line
from api.schemas.storage import StorageConfig
from api.store import open_store as open_database
from recorder import erasure
from recorder.destination import open_backup, open_destination
from recorder.erasure import Removed
from recorder.settings import Settings, load
from recorder.spec import Storage
from storage import ObjectStore
from storage.errors import StorageError

_EVERYWHERE = ("0.0.0.0/0", "::/0")  # whoever runs the command may reach what the machine can reach


@click.command()
@click.argument("sid")
@click.option("--storage", type=click.File("rb"), help="file with the storageConfig of start, or - for stdin: the bucket is erased, too")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
def command(*, sid: str, storage: BinaryIO | None, yes: bool, as_json: bool, config: Path | None) -> None:
    """Erase the recording SID: its objects in bucket and backup store, its part of this machine's spool, captures, and rows.

    The keys of a bucket are forgotten when a recording has ended, so give them again (--storage). What vendor 100 holds is found without.
    Where agents run on several machines, run it on each. What was used stays in the bill, without sid and channel, and the audit log keeps
    that something was erased. Prints what was removed and looks again; ends with 1 when something is left or could not be looked at.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", sid, re.ASCII):
        raise click.UsageError("a sid is 32 hex digits")
    where = _place(storage.read()) if storage else None
    if not yes:
        click.confirm(f"Erase everything of the recording {sid}?", abort=True)
    try:
        removed, left = asyncio.run(_erase(sid, where, load(config)))
    except database.Unfinished as error:
        raise click.ClickException("the recording still runs, or its files are still on their way to a store") from error
    except (SQLAlchemyError, OSError) as error:
        raise click.ClickException(f"not everything could be removed ({type(error).__name__}: {error})") from error
    if as_json:
        click.echo(json.dumps({"sid": sid, "removed": [asdict(one) for one in removed], "left": left}, indent=2))
    else:
        for one in removed:
            click.echo(f"removed {one.kind:8} {one.name!r} ({one.size} {'rows' if one.kind == 'row' else 'bytes'})")
        for line in left:
            click.echo(f"left: {line}", err=True)
        click.echo(f"{len(removed)} removed, {len(left)} left")
    if left:
        raise SystemExit(1)


async def _erase(sid: str, where: Storage | None, settings: Settings) -> tuple[list[Removed], list[str]]:
    async with open_database(settings.database_url) as store:
        known = await database.known(store, sid)
        await database.write_down(store, sid, command_line(), at_ms=unix_ms())
        removed, left = await asyncio.to_thread(lambda: _everywhere(sid, where, settings, known))
        if not left:  # the rows name the objects: they are needed to try again
            removed += [Removed("row", table, count) for table, count in (await database.erase_rows(store, sid)).items()]
            left += await database.left_in_database(store, sid)
    return removed, left


@dataclass(frozen=True, slots=True)
class _Place:
    """Where objects may lie: below `prefix`, and under these keys when the store does not let us look."""

    label: str
    open: Callable[[], ObjectStore]
    prefix: str = ""
    keys: tuple[str, ...] = ()


def _everywhere(sid: str, where: Storage | None, settings: Settings, known: database.Known | None) -> tuple[list[Removed], list[str]]:
    """Stores first, then this machine, and then a look at all of it."""
    removed: list[Removed] = []
    left: list[str] = []
    for place in _places(sid, where, settings, known):
        try:
            with contextlib.closing(place.open()) as store:
                for one in erasure.erase_objects(store, place.prefix, sid, place.keys):
                    removed.append(Removed("object", f"{place.label}/{one.name}", one.size))
                left += [f"{place.label}/{key}" for key in erasure.left_in_store(store, place.prefix, sid)]
        except StorageError as error:
            left.append(f"{place.label}: cannot be looked at: {error}")
    removed += erasure.erase_files(sid, settings)
    left += erasure.left_on_disk(sid, settings)
    unseen = known.stored - {one.name.rpartition("/")[2] for one in removed} if known and not where else ()
    if unseen:
        left.append(f"{len(unseen)} files in a bucket that only --storage can name, {min(unseen)!r} among them")
    return removed, left


def _places(sid: str, where: Storage | None, settings: Settings, known: database.Known | None) -> Iterator[_Place]:
    names = sorted(known.stored | known.lists) if known else []
    if where and where.vendor != erasure.LOCAL_FOLDER:
        prefix = known.prefix if known else "".join(f"{part}/" for part in where.prefix)
        everywhere = settings.model_copy(update={"agent": settings.agent.model_copy(update={"allowed_networks": _EVERYWHERE})})
        yield _Place(where.bucket, lambda: open_destination(where, everywhere), prefix, tuple(f"{prefix}{name}" for name in names))
    if settings.backup.vendor is not None:
        yield _Place("backup", lambda: open_backup(settings), f"{sid}/", tuple(f"{sid}/{name}" for name in names))
    for name, store in erasure.buckets_here(settings):
        yield _Place(name, partial(_given, store))


def _given(store: ObjectStore) -> ObjectStore:
    return store


def _place(given: bytes) -> Storage:
    try:
        return StorageConfig.model_validate_json(given).to_spec()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise click.ClickException(f"not a storageConfig: {wrong}") from error
