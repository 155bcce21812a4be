"""The driver that visits its thread less: transactions still begin, end and keep apart as with one visit for each step."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from api.store import Store, open_store
from api.tables import Operator


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'recorder.db'}") as store:
        yield store


def operator(number: int) -> dict[str, object]:
    return {"id": f"o{number}", "name": "", "created_ms": number}


async def count(store: Store) -> int:
    async with store.read() as session:
        return await session.scalar(select(func.count()).select_from(Operator)) or 0


async def test_what_was_written_is_there_and_what_was_rolled_back_is_not(store: Store) -> None:
    async with store.write() as session:
        await session.execute(insert(Operator), [operator(number) for number in range(3)])
    with contextlib.suppress(ZeroDivisionError):
        async with store.write() as session:
            await session.execute(insert(Operator).values(**operator(3)))
            raise ZeroDivisionError
    assert await count(store) == 3
    async with store.write() as session:
        changed = await session.execute(update(Operator).where(Operator.id < "o2").values(name="x").returning(Operator.id))
        assert sorted(changed.scalars()) == ["o0", "o1"]
        assert (await session.execute(update(Operator).where(Operator.id == "o2").values(name="y"))).rowcount == 1  # type: ignore[attr-defined]


async def test_a_reader_sees_one_moment(store: Store) -> None:
    async with store.read() as reading:
        assert await reading.scalar(select(func.count()).select_from(Operator)) == 0
        async with store.write() as writing:
            await writing.execute(insert(Operator).values(**operator(1)))
        assert await reading.scalar(select(func.count()).select_from(Operator)) == 0
    assert await count(store) == 1


async def test_a_writer_reads_what_nobody_can_change_before_it_writes(store: Store, tmp_path: Path) -> None:
    """Otherwise it could not write: another one's change would lie between."""
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'recorder.db'}") as other, store.write() as first:
        await first.scalar(select(func.count()).select_from(Operator))
        with pytest.raises(OperationalError, match="locked"):
            async with other.write() as second:
                await second.execute(text("PRAGMA busy_timeout=10"))
        await first.execute(insert(Operator).values(**operator(1)))
    assert await count(store) == 1


async def test_nothing_is_left_of_a_transaction_without_statements(store: Store) -> None:
    async with store.write(), store.read():
        pass
    async with store.write() as session:
        await session.execute(insert(Operator).values(**operator(1)))
    assert await count(store) == 1


async def test_errors_are_those_of_the_database(store: Store) -> None:
    async with store.write() as session:
        await session.execute(insert(Operator).values(**operator(1)))
    with pytest.raises(IntegrityError):
        async with store.write() as session:
            await session.execute(insert(Operator).values(**operator(1)))
    assert await count(store) == 1


async def test_who_has_read_holds_nothing_up(store: Store) -> None:
    number = select(func.count()).select_from(Operator).where(Operator.name == bindparam("name"))
    async with store.write() as session:
        await session.execute(insert(Operator).values(**operator(1)))
    async with store.read() as reading:
        assert await reading.scalar(number, {"name": ""}) == 1
    assert [row[0] for row in await store.look(number, {"name": ""})] == [1]
    assert await store.scrub()
