"""The inbox: which messages a group has handled, noted in the transactions of their handlers.

A message that is delivered twice so has its effects once: the second transaction finds the note of
the first, waits for it if need be, and is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, bindparam, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import Executable

from afresh.db.logs.moments import moment
from afresh.db.logs.options import TrimOptions
from afresh.db.logs.trimmers import Trimmer
from afresh.db.outgoing import insert_if_new
from afresh.db.shards import Shard
from afresh.primitives.transience import Transience

from .tables import BrokerTables, OutboxState, is_in

__all__ = ["DuplicateDelivery", "InboxGuard", "InboxTrimmer", "OutboxTrimmer", "was_handled"]


class DuplicateDelivery(Exception):
    """A message was handled before; what its handler did this time is undone."""

    transience = Transience.NON_TRANSIENT
    is_expected = True


class InboxGuard:
    """Notes a message in the transaction of its handler, just before that is committed.

    Args:
        shard: whose database has the inbox.
        table: the inbox.
        group: as whom the message was received.
        source: who published it.
        message_id: its name.
    """

    def __init__(
        self, shard: Shard, table: Table, group: str, source: str, message_id: str
    ) -> None:
        self.database: str = shard.database_name
        """Whose transaction it is for."""
        self.shard: str = shard.name
        """Whose transaction it is for."""
        self.is_used: bool = False
        """Whether the transaction was committed."""
        self._table = table
        self._key = {"group": group, "source": source, "message_id": message_id}

    async def __call__(self, connection: AsyncConnection) -> None:
        """Note it.

        Raises:
            DuplicateDelivery: it was noted before.
        """
        values = {**self._key, "handled_at": datetime.now(UTC)}
        if not await insert_if_new(connection, self._table, values):
            raise DuplicateDelivery(f"{self._key} was handled before.")


async def was_handled(shard: Shard, table: Table, group: str, source: str, message_id: str) -> bool:
    """Whether a message is noted, and that is committed."""
    query = select(table.c.group).where(
        table.c.group == group, table.c.source == source, table.c.message_id == message_id
    )
    async with shard.read.connect() as connection:
        return (await connection.execute(query)).first() is not None


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
        rows = await _fetch(self._shard, self._old)
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
        ids = [row[0] for row in await _fetch(self._shard, self._old)]
        if ids:
            await self._delete(self._trim, ids=ids)
        return len(ids) == self.options.batch


async def _fetch(shard: Shard, statement: Executable) -> Sequence[Any]:
    async with shard.read.connect() as connection:
        return (await connection.execute(statement)).all()
