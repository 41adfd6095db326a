"""The inbox: which messages a group has handled, noted in the transactions of their handlers.

A message that is delivered twice so has its effects once: the second transaction finds the note of
the first, waits for it if need be, and is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, bindparam, delete, select, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.db.logs.moments import moment
from afresh.db.logs.options import TrimOptions
from afresh.db.logs.trimmers import Trimmer
from afresh.db.logs.worker import fetch
from afresh.db.outgoing import insert_if_new
from afresh.db.shards import Shard
from afresh.primitives.transience import Transience

from .tables import BrokerTables, OutboxState, is_in

__all__ = ["DuplicateDelivery", "Inbox", "InboxGuard", "InboxTrimmer", "OutboxTrimmer"]

_COLUMNS = ("group", "source", "message_id", "handled_at")


class DuplicateDelivery(Exception):
    """A message was handled before; what its handler did this time is undone."""

    transience = Transience.NON_TRANSIENT
    is_expected = True


class Inbox:
    """Notes messages, and looks them up.

    Every delivery pays for it, so it goes straight to the drivers that make it one step.

    Args:
        shard: whose database has it.
        table: the inbox.
    """

    def __init__(self, shard: Shard, table: Table) -> None:
        self.shard: Shard = shard
        """Whose database has it."""
        self._table = table
        columns = table.c
        self._find = select(columns.group).where(
            columns.group == bindparam("group"),
            columns.source == bindparam("source"),
            columns.message_id == bindparam("message_id"),
        )
        dialect = shard.write.dialect
        self._note = self._note_through_sqlalchemy
        if f"{dialect.name}+{dialect.driver}" == "postgresql+asyncpg":
            statement = postgresql.insert(table).on_conflict_do_nothing()
            compiled: Any = statement.compile(dialect=dialect, column_keys=list(_COLUMNS))
            self._text = str(compiled)
            self._order: tuple[str, ...] = tuple(compiled.positiontup)
            self._note = self._note_by_asyncpg

    async def note(self, connection: AsyncConnection, message: Mapping[str, str]) -> bool:
        """Note a message, and wait for who is noting it.

        Args:
            connection: with the transaction of its handler.
            message: its group, source and name, by the names of the columns.

        Returns:
            Whether it was not noted before.
        """
        return await self._note(connection, {**message, "handled_at": datetime.now(UTC)})

    async def _note_by_asyncpg(self, connection: AsyncConnection, row: dict[str, Any]) -> bool:
        raw: Any = await connection.get_raw_connection()
        status = await raw.driver_connection.execute(
            self._text, *[row[name] for name in self._order]
        )
        return bool(status == "INSERT 0 1")

    async def _note_through_sqlalchemy(
        self, connection: AsyncConnection, row: dict[str, Any]
    ) -> bool:
        return await insert_if_new(connection, self._table, row)

    async def has(self, message: Mapping[str, str]) -> bool:
        """Whether a message is noted, and that is committed."""
        return bool(await fetch(self.shard, self._find, message))


class InboxGuard:
    """Notes a message in the transaction of its handler, just before that is committed.

    Args:
        inbox: where.
        message: its group, source and name.
    """

    def __init__(self, inbox: Inbox, message: Mapping[str, str]) -> None:
        self.database: str = inbox.shard.database_name
        """Whose transaction it is for."""
        self.shard: str = inbox.shard.name
        """Whose transaction it is for."""
        self.is_used: bool = False
        """Whether the transaction was committed."""
        self._inbox = inbox
        self._message = message

    async def __call__(self, connection: AsyncConnection) -> None:
        """Note it.

        Raises:
            DuplicateDelivery: it was noted before.
        """
        if not await self._inbox.note(connection, self._message):
            raise DuplicateDelivery(f"{self._message} was handled before.")


class InboxTrimmer(Trimmer):
    """Forgets which messages were handled long ago.

    Args:
        shard: where the inbox is.
        tables: its table.
        keep: seconds; longer than the broker may deliver a message once more.
        options: how often to look.
    """

    def __init__(
        self,
        shard: Shard,
        tables: BrokerTables,
        *,
        keep: float,
        options: TrimOptions | None = None,
    ) -> None:
        super().__init__(shard, "inbox", keep, options)
        columns = tables.inbox.c
        key = columns.group, columns.source, columns.message_id
        self._old = (
            select(*key)
            .where(columns.handled_at < moment(-self.age))
            .order_by(columns.handled_at)
            .limit(self.options.batch)
        )
        self._trim = delete(tables.inbox).where(tuple_(*key).in_(bindparam("keys", expanding=True)))

    async def trim_batch(self) -> bool:
        rows = await fetch(self._shard, self._old, {})
        if rows:
            await self._delete(self._trim, keys=[tuple(row) for row in rows])
        return len(rows) == self.options.batch


class OutboxTrimmer(Trimmer):
    """Deletes messages that were published long ago; those that wait, and dead ones, stay.

    Args:
        shard: where the outbox is.
        tables: its table.
        keep: seconds.
        options: how often to look.
    """

    def __init__(
        self,
        shard: Shard,
        tables: BrokerTables,
        *,
        keep: float,
        options: TrimOptions | None = None,
    ) -> None:
        super().__init__(shard, "outbox", keep, options)
        columns = tables.outbox.c
        is_old = (
            is_in(columns.state, OutboxState.PUBLISHED),
            columns.published_at < moment(-self.age),
        )
        self._old = select(columns.id).where(*is_old).limit(self.options.batch)
        self._trim = delete(tables.outbox).where(
            columns.id.in_(bindparam("ids", expanding=True)), *is_old
        )

    async def trim_batch(self) -> bool:
        ids = [row[0] for row in await fetch(self._shard, self._old, {})]
        if ids:
            await self._delete(self._trim, ids=ids)
        return len(ids) == self.options.batch
