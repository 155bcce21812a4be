"""The database: its schema, its durability settings, and what happens when it is busy."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

import api.store
from api.store import Store, open_store
from api.tables import Table
from tests.contract.conftest import a_deployment, open_world


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    async with open_store(url(tmp_path / "r.db")):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / 'r.db'}")

    def differences(connection: Connection) -> object:
        return alembic.autogenerate.compare_metadata(alembic.migration.MigrationContext.configure(connection), Table.metadata)

    with engine.connect() as connection:
        assert differences(connection) == []
    engine.dispose()


def test_the_tables_are_valid_on_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # of SQLAlchemy
    statements = [str(CreateTable(table).compile(dialect=dialect)) for table in Table.metadata.sorted_tables]
    indexes = [str(CreateIndex(index).compile(dialect=dialect)) for table in Table.metadata.sorted_tables for index in table.indexes]
    assert len(statements) == 12
    assert any("WHERE live" in index for index in indexes)


async def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    async with open_store(url(tmp_path / "r.db")) as store, store.read() as session:
        answers = [
            (await session.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        ]
    assert answers == ["wal", 2, 1, 1]


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    async with open_store(url(tmp_path / "r.db")) as store:

        async def fail() -> None:
            async with store.write() as session:
                await session.execute(text("INSERT INTO customers (id, created_ms) VALUES ('a', 1)"))
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        async with store.read() as session:
            assert (await session.execute(text("SELECT count(*) FROM customers"))).scalar() == 0


async def test_writers_take_turns_and_readers_do_not_wait(tmp_path: Path) -> None:
    async with open_store(url(tmp_path / "r.db")) as store:

        async def add(number: int) -> None:
            async with store.write() as session:
                count = (await session.execute(text("SELECT count(*) FROM customers"))).scalar()
                await session.execute(
                    text("INSERT INTO customers (id, created_ms) VALUES (:id, :count)"), {"id": str(number), "count": count}
                )

        await asyncio.gather(*(add(number) for number in range(20)))
        async with store.write() as session:
            await session.execute(text("DELETE FROM customers"))
            async with store.read() as reader:
                seen = (await reader.execute(text("SELECT created_ms FROM customers ORDER BY 1"))).scalars().all()
        assert seen == list(range(20))  # each saw what the others had written


async def test_two_processes_may_write(tmp_path: Path) -> None:
    async with open_store(url(tmp_path / "r.db")) as one, open_store(url(tmp_path / "r.db")) as two:

        async def add(store: Store, name: str) -> None:
            for number in range(10):
                async with store.write() as session:
                    count = (await session.execute(text("SELECT count(*) FROM customers"))).scalar()
                    await asyncio.sleep(0.001)  # time for the other to come between
                    row = {"id": f"{name}{number}", "count": count}
                    await session.execute(text("INSERT INTO customers (id, created_ms) VALUES (:id, :count)"), row)

        await asyncio.gather(add(one, "a"), add(two, "b"))
        async with one.read() as session:
            assert (await session.execute(text("SELECT created_ms FROM customers ORDER BY 1"))).scalars().all() == list(range(20))


async def test_a_locked_database_is_a_bounded_wait_and_then_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.store, "BUSY_TIMEOUT_MS", 100)  # five seconds would be too long for a test
    settings = a_deployment(tmp_path / "data")
    async with open_world(settings) as world, world.agent():
        resource = await world.caller.resource()
        with contextlib.closing(sqlite3.connect(settings.data_dir / "recorder.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answer = await world.caller.start(resource)
            assert answer.status_code == 503
            assert answer.json().keys() == {"message"}
            assert "retry-after" in answer.headers
            other.execute("ROLLBACK")
        assert (await world.caller.start(resource)).status_code == 200


async def test_errors_of_the_database_quote_no_values(tmp_path: Path) -> None:
    """They are logged, and values are customers' URLs and payloads."""
    async with open_store(url(tmp_path / "r.db")) as store:
        with pytest.raises(OperationalError) as caught:
            async with store.read() as session:
                await session.execute(text("SELECT :value FROM nowhere"), {"value": "canary"})
    assert "canary" not in str(caught.value)
