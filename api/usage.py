"""What customers have used: kept as the workers measured it, and summed up as it is asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, case, distinct, func, literal, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from api.store import Store
from api.tables import App, Recording, Usage
from recorder.protocol import Metered
from recorder.usage import CATEGORIES, Category

Group = Literal["month", "day", "app", "channel", "session"]
Key = Literal["month", "day", "app", "channel", "sid", "mode"]
Times = Mapping[Category, int]
"""Milliseconds; categories without any are left out."""

_KEYS: Final[Mapping[Group, tuple[Key, ...]]] = {
    "month": ("month",),
    "day": ("day",),
    "app": ("app",),
    "channel": ("app", "channel"),  # names of channels belong to an app
    "session": ("app", "channel", "sid", "mode"),
}
_MONTH: Final = func.substr(Usage.day, text("1"), text("7"))  # no parameters: PostgreSQL would not know it again in GROUP BY
_COLUMNS: Final[Mapping[Key, ColumnElement[str] | InstrumentedAttribute[str]]] = {
    "month": _MONTH,
    "day": Usage.day,
    "app": Usage.app_id,
    "channel": Usage.channel,
    "sid": Usage.sid,
    "mode": Usage.mode,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose usage, and which of it; days are YYYY-MM-DD in UTC, both included."""

    customer_id: str
    first_day: str
    last_day: str
    app_id: str | None = None
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The usage of one group."""

    keys: Mapping[Key, str]
    sessions: int
    times: Times


async def note(session: AsyncSession, recording: Recording, metered: Metered) -> str | None:
    """Keep a worker's report: figures only grow, so that one that is repeated or overtaken changes nothing. Returns what is wrong."""
    if metered.epoch > recording.epoch:
        return "usage of an epoch that was never given out"
    app = await session.get(App, recording.app_id)
    assert app
    for used in metered.used:
        row = await session.get(Usage, (recording.sid, metered.epoch, used.day, used.category))
        if row is None:
            row = Usage(
                sid=recording.sid,
                epoch=metered.epoch,
                day=used.day,
                category=used.category,
                customer_id=app.customer_id,
                app_id=recording.app_id,
                channel=recording.channel,
                mode=recording.mode,
                milliseconds=0,
            )
            session.add(row)
        row.milliseconds = max(row.milliseconds, used.milliseconds)
    return None


def keys_of(groups: Sequence[Group]) -> list[Key]:
    """What tells the rows of this grouping apart, in the order in which they are sorted."""
    return list(dict.fromkeys(key for group in groups for key in _KEYS[group]))


class UsageReports:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def apps(self, customer_id: str) -> set[str]:
        """The customer's app ids."""
        async with self._store.read() as session:
            return set(await session.scalars(select(App.id).where(App.customer_id == customer_id)))

    async def rows(self, selection: Selection, groups: Sequence[Group], *, after: Sequence[str] | None, limit: int) -> list[Row]:
        """At most `limit` rows, sorted by their keys; `after`: those that follow the row with these keys."""
        keys = keys_of(groups)
        columns = [_COLUMNS[key] for key in keys]
        per_category = [func.sum(case((Usage.category == category, Usage.milliseconds), else_=0)) for category in CATEGORIES]
        wanted = select(*columns, func.count(distinct(Usage.sid)), *per_category).where(*_conditions(selection))
        if after is not None:
            wanted = wanted.where(tuple_(*columns) > tuple_(*(literal(key) for key in after)))
        wanted = wanted.group_by(*columns).order_by(*columns).limit(limit)
        async with self._store.read() as session:
            found: Sequence[Any] = (await session.execute(wanted)).all()
        return [Row(dict(zip(keys, row, strict=False)), row[len(keys)], _times(row[len(keys) + 1 :])) for row in found]

    async def months(self, selection: Selection) -> dict[str, Times]:
        """All that is selected, by month (YYYY-MM): what is rounded to minutes and priced."""
        wanted = select(_MONTH, Usage.category, func.sum(Usage.milliseconds)).where(*_conditions(selection))
        months: dict[str, Counter[Category]] = {}
        async with self._store.read() as session:
            for month, category, time in await session.execute(wanted.group_by(_MONTH, Usage.category).order_by(_MONTH)):
                months.setdefault(month, Counter())[category] += int(time)
        return dict(months)


def _conditions(selection: Selection) -> list[ColumnElement[bool]]:
    conditions = [Usage.customer_id == selection.customer_id, Usage.day.between(selection.first_day, selection.last_day)]
    if selection.app_id is not None:
        conditions.append(Usage.app_id == selection.app_id)
    if selection.channel is not None:
        conditions.append(Usage.channel == selection.channel)
    return conditions


def _times(sums: Sequence[Any]) -> Times:
    return {category: int(time) for category, time in zip(CATEGORIES, sums, strict=True) if time}
