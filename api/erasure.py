"""Removes what the database knows of a recording. What was used stays, without saying by which recording in which channel."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Table as Schema
from sqlalchemy import delete, func, select, update

from api import audit, lifecycle
from api.audit import Action, Actor
from api.store import Store
from api.tables import Audit, File, Recording, Slice, Table, Usage


class Unfinished(Exception):
    """The recording still runs, or its files are still on their way to a store."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the database tells of the objects of a recording."""

    prefix: str  # of their keys
    stored: frozenset[str]  # names of media files in a store
    lists: frozenset[str]  # names of playlists


async def known(store: Store, sid: str) -> Known | None:
    """None: it is not in the database (any more).

    Raises:
        Unfinished
    """
    async with store.read() as session:
        row = await session.get(Recording, sid)
        if row is None:
            return None
        if not _is_over(row):
            raise Unfinished
        names = await session.scalars(select(Slice.name).where(Slice.sid == sid, Slice.stored.is_not(None)))
        lists = await session.scalars(select(File.name).where(File.sid == sid))
        return Known(row.prefix, frozenset(names), frozenset(lists))


async def write_down(store: Store, sid: str, by: Actor, *, at_ms: int) -> None:
    """Before anything is removed, so that the audit log tells also of what is interrupted; without the sid, which is to be nowhere."""
    async with store.write() as session:
        audit.add(session, by, Action.RECORDING_ERASE, audit.erased(sid), at_ms=at_ms)


async def erase_rows(store: Store, sid: str) -> dict[str, int]:
    """How many rows went, by table.

    Raises:
        Unfinished
    """
    gone: dict[str, int] = {}
    async with store.write() as session:
        row = await session.get(Recording, sid, with_for_update=True)
        if row is not None and not _is_over(row):
            raise Unfinished
        for table in _tables():
            count = await session.scalar(select(func.count()).select_from(table).where(table.c.sid == sid))
            await session.execute(delete(table).where(table.c.sid == sid))
            if count:
                gone[table.name] = count
        await session.execute(update(Usage).where(Usage.sid == sid).values(sid=f"erased-{secrets.token_hex(8)}", channel=""))
        await session.execute(update(Audit).where(Audit.target == sid).values(target=audit.erased(sid)))
    return gone


async def left_in_database(store: Store, sid: str) -> list[str]:
    """Where it is still named."""
    async with store.read() as session:
        named = [*_tables(), Usage.metadata.tables[Usage.__tablename__]]
        left = [
            f"rows of {table.name}"
            for table in named
            if await session.scalar(select(func.count()).select_from(table).where(table.c.sid == sid))
        ]
        if await session.scalar(select(func.count()).select_from(Audit).where(Audit.target == sid)):
            left.append("rows of audit")
    return left if await store.scrub() else [*left, "the database's write-ahead log, which is in use"]


def _is_over(row: Recording) -> bool:
    """Also for its node, which has the keys as long as files wait for their store."""
    return row.finished and not lifecycle.leaves_behind(row)


def _tables() -> list[Schema]:
    """Those with rows of recordings, in an order in which they may be deleted."""
    return [table for table in reversed(Table.metadata.sorted_tables) if "sid" in table.c and table.name != Usage.__tablename__]
