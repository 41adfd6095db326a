"""The shop on hosts that track what they read: nobody writes an invalidation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from afresh import ComputeService, compute_method
from afresh.commands import Commander
from afresh.db import Database
from afresh.db.entities import EntityLoader
from afresh.operations import LoggedOperation, Operations
from tests.db.tracking.histories import Change, Query, fill
from tests.db.tracking.shop import Base, Order


class Answers(ComputeService):
    """What queries give."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.orders = EntityLoader(database, Order)

    @compute_method
    async def ask(self, query: Query) -> Any:
        async with self.database.read() as session:
            return await session.run_sync(query)

    @compute_method
    async def ask_both(self, first: Query, second: Query) -> tuple[Any, Any]:
        """One of another result, one of its own, in this order."""
        answer = await self.ask(first)
        async with self.database.read() as session:
            return answer, await session.run_sync(second)

    @compute_method
    async def order(self, key: int) -> Any:
        """By the loader."""
        order = await self.orders.get(key)
        return order and (order.id, order.user_id, order.total, order.status)


class Host:
    """One of several hosts of a database."""

    def __init__(self, url: str, **options: Any) -> None:
        commander = Commander()
        self.operations = Operations(commander)
        self.database = Database(url, metadata=Base.metadata, track=True, **options)
        self.database.attach(self.operations)
        self.answers = Answers(self.database)
        self.applied = 0

    async def change(self, changes: Sequence[Change]) -> bool:
        """Make changes in one operation; returns whether the database took them."""
        try:
            async with self.database.operation() as op:
                for change in changes:
                    await op.session.run_sync(change)
                    await op.session.flush()
        except IntegrityError:
            return False
        return True

    async def apply_log(self) -> None:
        """Learn what was logged since the last time."""
        table = self.database.tables.operations
        async with self.database.read() as session:
            query = select(table).where(table.c.index > self.applied).order_by(table.c.index)
            rows = (await session.execute(query)).all()
        for row in rows:
            self.applied = row.index
            await self.operations.completion.apply(LoggedOperation(**row._mapping))

    async def begin_anew(self) -> None:
        """Fill the shop, as if by another program, and forget what was read."""
        shard = self.database.shard()
        async with shard.write.begin() as connection:
            if shard.dialect == "sqlite":
                await connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            await connection.run_sync(_fill)
            if shard.dialect == "postgresql":
                for table in ("users", "orders", "items"):
                    query = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 3)"
                    await connection.execute(text(query))


def _fill(connection: Any) -> None:
    from sqlalchemy.orm import Session

    with Session(connection, join_transaction_mode="rollback_only") as session:
        fill(session)


async def together(*jobs: Any) -> None:
    """Run jobs at the same time, to their ends."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(job)
