"""The database: SQLite by default, PostgreSQL by URL. Knows transactions and migrations, not what the rows mean."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.util
from sqlalchemy import URL, Connection, Row, Select, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from api import sqlite
from recorder.settings import ConfigError

CONNECTIONS = 16  # kept open: to open one costs as much as ten calls
BUSY_TIMEOUT_MS = 5000  # how long a SQLite writer waits for another process

_PURPOSE = "recorder_purpose"
_MIGRATION_LOCK = 0x52454331  # any constant will do: it names PostgreSQL's advisory lock


class Store:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = async_sessionmaker(engine, expire_on_commit=False)
        self._reading = async_sessionmaker(engine.execution_options(**{_PURPOSE: "read"}), expire_on_commit=False)
        self._looking = engine.execution_options(**{_PURPOSE: "look"})
        # SQLite has one writer at a time and lets the others poll; a queue is faster and fair.
        self._turn = asyncio.Lock() if engine.dialect.name == "sqlite" else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """One transaction, committed at the end of the block."""
        async with self._turn, self._writing.begin() as session:
            yield session

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One snapshot; nothing is written."""
        async with self._reading() as session:
            yield session

    async def look(self, statement: Select[Any], parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """The rows of one statement alone: the cheapest way to read."""
        async with self._looking.connect() as connection:
            rows: Sequence[Row[Any]] = (await connection.execute(statement, parameters)).all()
            return rows

    async def scrub(self) -> bool:
        """Leave no bytes of deleted rows in SQLite's write-ahead log; False: somebody still reads from it."""
        if self._engine.dialect.name != "sqlite":
            return True
        async with self._turn, self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection
            busy, *_ = await (await raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")).fetchone()
            return not busy

    async def ping(self) -> None:
        async with self.read() as session:
            await session.execute(text("SELECT 1"))


@contextlib.asynccontextmanager
async def open_store(database_url: str) -> AsyncIterator[Store]:
    """Connect and bring the schema up to date.

    Raises:
        ConfigError: the URL is wrong, or a newer version of this program wrote the database.
    """
    try:
        url = make_url(database_url)
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else create_async_engine(url, pool_pre_ping=True, hide_parameters=True)
    except (ArgumentError, ImportError) as error:
        raise ConfigError("api.database_url is not one that SQLAlchemy can open asynchronously") from error
    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # several control planes may start at the same time
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            await connection.run_sync(_migrate)
        yield Store(engine)
    finally:
        await engine.dispose()


def _sqlite(url: URL) -> AsyncEngine:
    pool = {}
    if url.database and url.database != ":memory:":
        pool = {"pool_size": CONNECTIONS, "max_overflow": 0}
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # SQLite gives its other files the same mode
    engine = create_async_engine(url, connect_args={"async_creator_fn": sqlite.connect}, hide_parameters=True, **pool)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver would begin transactions late, and never for DDL
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # with NORMAL the last commits may be lost in a power cut
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "foreign_keys=ON",
            "secure_delete=ON",  # wiped secrets leave no bytes in free pages
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that first reads and then writes cannot wait for the lock once another one has written: take it at once.
        purpose = connection.get_execution_options().get(_PURPOSE)
        if purpose != "look":
            connection.exec_driver_sql(sqlite.READING if purpose == "read" else sqlite.WRITING)

    return engine


def _migrate(connection: Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise ConfigError("the database was written by a newer version of cloud-recorder") from error
