"""`cloud-recorder erase`: removes every copy of a recording and shows that none is left."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import click
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api import erasure as database
from api.schemas.storage import StorageConfig
from api.store import open_store as open_database
from recorder import erasure
from recorder.erasure import Removed
from recorder.outbound import AddressPolicy
from recorder.settings import Settings, load
from recorder.spec import Storage
from storage import ObjectStore, StoreOptions, open_store
from storage.errors import StorageError

_EVERYWHERE = ("0.0.0.0/0", "::/0")  # whoever runs the command may reach what the machine can reach


@click.command()
@click.argument("sid")
@click.option("--storage", type=click.File("rb"), help="file with the storageConfig of start, or - for stdin: the bucket is erased, too")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--json", "as_json", is_flag=True, help="print JSON, for programs")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
def command(*, sid: str, storage: BinaryIO | None, yes: bool, as_json: bool, config: Path | None) -> None:
    """Erase the recording SID: its objects in the bucket, its part of this machine's spool, captures, and rows of the database.

    The keys of a bucket are forgotten when a recording has ended, so give them again (--storage). What vendor 100 holds is found
    without. Where agents run on several machines, run it on each. What was used stays in the bill, without sid and channel. Prints what
    was removed and looks again; ends with 1 when something is left or could not be looked at.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", sid, re.ASCII):
        raise click.UsageError("a sid is 32 hex digits")
    where = _place(storage.read()) if storage else None
    if not yes:
        click.confirm(f"Erase everything of the recording {sid}?", abort=True)
    try:
        removed, left = asyncio.run(_erase(sid, where, load(config)))
    except database.Unfinished as error:
        raise click.ClickException("the recording still runs or is still being uploaded: stop it first") from error
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
        removed, left = await asyncio.to_thread(lambda: _everywhere(sid, where, settings, known))
        if not left:  # the rows name the objects: they are needed to try again
            removed += [Removed("row", table, count) for table, count in (await database.erase_rows(store, sid)).items()]
            left += await database.left_in_database(store, sid)
    return removed, left


def _everywhere(sid: str, where: Storage | None, settings: Settings, known: database.Known | None) -> tuple[list[Removed], list[str]]:
    """Stores first, then this machine, and then a look at all of it."""
    removed: list[Removed] = []
    left: list[str] = []
    prefix = known.prefix if known else "".join(f"{part}/" for part in where.prefix) if where else ""
    keys = [f"{prefix}{name}" for name in sorted(known.stored | known.lists)] if known and where else []
    for label, store, below in _stores(where, settings, prefix):
        try:
            found = list(erasure.erase_objects(store, below, sid, keys if where and label == where.bucket else ()))
            removed += [Removed("object", f"{label}/{one.name}", one.size) for one in found]
            left += [f"{label}/{key}" for key in erasure.left_in_store(store, below, sid)]
        except StorageError as error:
            left.append(f"{label}: cannot be looked at: {error}")
        finally:
            store.close()
    removed += erasure.erase_files(sid, settings)
    left += erasure.left_on_disk(sid, settings)
    unseen = known.stored - {one.name.rpartition("/")[2] for one in removed} if known and not where else ()
    if unseen:
        left.append(f"{len(unseen)} files in a bucket that only --storage can name, {min(unseen)!r} among them")
    return removed, left


def _stores(where: Storage | None, settings: Settings, prefix: str) -> Iterator[tuple[str, ObjectStore, str]]:
    """Name, store, and below which prefix to look."""
    if where and where.vendor != erasure.LOCAL_FOLDER:
        options = StoreOptions(
            vendor=where.vendor,
            region=where.region,
            bucket=where.bucket,
            access_key=where.access_key.get_secret_value(),
            secret_key=where.secret_key.get_secret_value(),
            sts_token=where.sts_token.get_secret_value() if where.sts_token else None,
            endpoint=where.endpoint,
        )
        yield where.bucket, open_store(options, AddressPolicy(_EVERYWHERE).check), prefix
    for name, store in erasure.buckets_here(settings):
        yield name, store, ""


def _place(given: bytes) -> Storage:
    try:
        return StorageConfig.model_validate_json(given).to_spec()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise click.ClickException(f"not a storageConfig: {wrong}") from error
