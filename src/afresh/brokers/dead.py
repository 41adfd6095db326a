"""The desk of an outbox: what waits there, and what is to become of dead messages.

Works on the tables alone, whether or not anybody publishes: tools use it beside the app.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Delete, Update, case, func, select

from afresh.db.logs.moments import moment
from afresh.db.shards import Shard

from .outbox_queries import DeskQueries
from .tables import BrokerTables

__all__ = ["DeadOutboxMessage", "OutboxDesk", "OutboxFigures"]

_OPTIONS = {"touches": ()}
_TOGETHER = 1000
"""How many messages one statement names."""


@dataclass(frozen=True, slots=True)
class DeadOutboxMessage:
    """A message that is not published any more.

    Args:
        id: its place in the outbox.
        message_id: its name.
        destination: where it was to go.
        key: whose order it stands in.
        type: of the event.
        attempts: how often it was refused.
        error: why, the last time.
        created_at: when its operation was committed.
    """

    id: int
    message_id: str
    destination: str
    key: str | None
    type: str
    attempts: int
    error: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """What stands in an outbox.

    Args:
        pending: how many messages are to be published; 10,000 stands for any more.
        oldest: for how many seconds the oldest of them has been waiting, a delayed one since it is
            due; 0 if there is none.
        dead: how many are not published any more.
    """

    pending: int
    oldest: float
    dead: int


class OutboxDesk:
    """Looks at the outbox of one shard, and decides about dead messages: `Broker.outbox()`.

    Args:
        shard: where the outbox is.
        tables: the outbox and its leases.
        changed: called when messages may be published that could not be before.
    """

    def __init__(
        self, shard: Shard, tables: BrokerTables, changed: Callable[[], object] | None = None
    ) -> None:
        self._shard = shard
        self._column = tables.outbox.c.id
        self._changed = changed
        self._queries = DeskQueries(tables)
        leases = tables.leases.c
        # A host may have a row of its own there, which is no part of the outbox.
        parts = func.sum(case((leases.bucket >= 0, 1), else_=0)).label("parts")
        self._owners = (
            select(leases.owner, parts)
            .where(leases.owner.is_not(None), leases.expires_at > moment())
            .group_by(leases.owner)
            .order_by(leases.owner)
        )

    async def dead(self, limit: int = 100, *, after: int = 0) -> list[DeadOutboxMessage]:
        """Return messages that are not published any more, in order.

        Args:
            limit: how many at most.
            after: the `id` after which to go on.
        """
        values = {"after": after, "size": limit}
        async with self._shard.read.connect() as connection:
            rows = await connection.execute(self._queries.list_dead, values)
            return [DeadOutboxMessage(*row) for row in rows]

    async def requeue(self, ids: Sequence[int] | None = None) -> int:
        """Have dead messages published after all, with all their attempts.

        Args:
            ids: which; all if None.

        Returns:
            How many.
        """
        return await self._change(self._queries.requeue, ids)

    async def drop(self, ids: Sequence[int] | None = None) -> int:
        """Delete dead messages.

        Args:
            ids: which; all if None.

        Returns:
            How many.
        """
        return await self._change(self._queries.drop, ids)

    async def _change(self, statement: Update | Delete, ids: Sequence[int] | None) -> int:
        count = 0
        async with self._shard.write.begin() as connection:

            async def run(statement: Update | Delete) -> int:
                result: Any = await connection.execute(statement, execution_options=_OPTIONS)
                return int(result.rowcount)

            if ids is None:
                count = await run(statement)
            else:
                for start in range(0, len(ids), _TOGETHER):
                    some = ids[start : start + _TOGETHER]
                    count += await run(statement.where(self._column.in_(some)))
        if self._changed is not None:
            self._changed()
        return count

    async def owners(self) -> dict[str, int]:
        """Return the hosts that publish it now, and how many of its parts each has."""
        async with self._shard.read.connect() as connection:
            rows = await connection.execute(self._owners)
            return {row.owner: int(row.parts) for row in rows}

    async def figures(self) -> OutboxFigures:
        """Return what stands in the outbox."""
        async with self._shard.read.connect() as connection:
            pending, since = (await connection.execute(self._queries.pending)).one()
            dead = (await connection.execute(self._queries.dead)).scalar_one()
        oldest = 0.0 if since is None else max(0.0, time.time() - since.timestamp())
        return OutboxFigures(pending, oldest, dead)
