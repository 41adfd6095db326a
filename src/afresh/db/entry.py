"""Writes the entry of an operation into the log, in its transaction.

Every command that writes pays for it, so it goes straight to the drivers that make it one step:
SQLAlchemy's way there takes as long as a small transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Entry", "LogWriter"]

Entry: TypeAlias = dict[str, Any]
"""The values of a row, by the names of its columns."""

_COLUMNS = ("uuid", "host_id", "logged_at", "command", "effects")

_Write: TypeAlias = Callable[[AsyncConnection, Entry], Awaitable[int]]


class LogWriter:
    """Writes entries of operations.

    Args:
        table: of operations.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._writes: dict[str, _Write] = {}

    async def write(self, connection: AsyncConnection, entry: Entry) -> int:
        """Write an entry; returns its index.

        Args:
            connection: with the transaction of the operation.
            entry: all values but the index.
        """
        dialect = connection.dialect
        name = f"{dialect.name}+{dialect.driver}"
        write = self._writes.get(name)
        if write is None:
            write = self._writes[name] = self._writer_of(connection, name)
        return await write(connection, entry)

    def _writer_of(self, connection: AsyncConnection, name: str) -> _Write:
        if name == "sqlite+aiosqlite":
            return self._straight(connection, _insert_sqlite, inline=True)
        if name == "postgresql+asyncpg":
            return self._straight(connection, _insert_postgres, inline=False)
        return self._through_sqlalchemy

    def _straight(
        self,
        connection: AsyncConnection,
        run: Callable[[Any, str, list[Any]], Awaitable[int]],
        *,
        inline: bool,
    ) -> _Write:
        statement = insert(self._table)
        if inline:
            statement = statement.inline()
        compiled: Any = statement.compile(dialect=connection.dialect, column_keys=list(_COLUMNS))
        text = str(compiled)
        processors = [
            (each, self._table.c[each].type.dialect_impl(connection.dialect).bind_processor)
            for each in compiled.positiontup
        ]
        values = [(each, make(connection.dialect)) for each, make in processors]

        async def write(connection: AsyncConnection, entry: Entry) -> int:
            raw: Any = await connection.get_raw_connection()
            given = [
                entry[each] if process is None else process(entry[each]) for each, process in values
            ]
            return await run(raw.driver_connection, text, given)

        return write

    async def _through_sqlalchemy(self, connection: AsyncConnection, entry: Entry) -> int:
        result = await connection.execute(
            insert(self._table), entry, execution_options={"touches": ()}
        )
        index: int = result.inserted_primary_key[0]  # type: ignore[index]
        return index


async def _insert_sqlite(driver: Any, text: str, values: list[Any]) -> int:
    (index,) = await driver.execute_insert(text, values)
    found: int = index
    return found


async def _insert_postgres(driver: Any, text: str, values: list[Any]) -> int:
    index: int = await driver.fetchval(text, *values)
    return index
