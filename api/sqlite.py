"""SQLite's driver with fewer visits to its thread: aiosqlite alone makes four for each statement, and they cost more than the statements.

A statement is executed and its rows are fetched in one visit, BEGIN waits for the statement after it, what is not open is not rolled
back, and a transaction that only reads is ended without a visit: there is nothing to write, and nobody else to wait for.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Self

import aiosqlite

READING = "BEGIN"
WRITING = "BEGIN IMMEDIATE"


async def connect(database: str, **options: Any) -> "Connection":
    """Open a database, as SQLAlchemy's dialect asks for; it calls this where it finds `async_creator_fn`."""
    connection = Connection(lambda: sqlite3.connect(database, **{"check_same_thread": False} | options), iter_chunk_size=64)
    connection._thread.daemon = True  # it ends with the process, as SQLAlchemy has it
    await connection
    return connection


class Connection(aiosqlite.Connection):
    begin: str | None = None  # how, when a transaction has begun in which nothing was executed yet
    reads_only = False  # the open transaction

    def cursor(self) -> "Cursor":  # type: ignore[override]  # what SQLAlchemy's adapter uses of it
        return Cursor(self)

    async def rollback(self) -> None:
        self.begin = None
        if self.reads_only:
            self.reads_only = False
            self._conn.rollback()
        elif self._conn.in_transaction:
            await super().rollback()

    async def commit(self) -> None:
        self.begin, self.reads_only = None, False
        if self._conn.in_transaction:
            await super().commit()

    async def visit(self, act: Callable[..., None], *arguments: object) -> None:
        """Have `act` called in the thread of this connection."""
        await self._execute(act, *arguments)  # type: ignore[no-untyped-call]


class Cursor:
    """What it has fetched stays when it is closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Self:
        if sql.startswith("BEGIN"):
            self._connection.begin = sql
        else:
            await self._connection.visit(self._run, "execute", sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Self:
        await self._connection.visit(self._run, "executemany", sql, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None: ...

    def _run(self, how: str, sql: str, parameters: Sequence[Any]) -> None:
        """In the connection's thread."""
        cursor = self._connection._conn.cursor()
        try:
            if self._connection.begin:
                cursor.execute(self._connection.begin)
                self._connection.begin, self._connection.reads_only = None, self._connection.begin == READING
            getattr(cursor, how)(sql, parameters)
            self._rows = cursor.fetchall() if cursor.description else []
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()
