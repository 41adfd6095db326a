"""A log in a database, and what tests do with it: hosts that commit late, early and not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import MetaData, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.db.logs import OperationLogOptions, OperationLogReader
from afresh.db.logs.worker import Worker
from afresh.db.shards import Shard
from afresh.db.tables import LogTables, add_log_tables
from afresh.db.watchers import LocalWatcher
from afresh.operations.logged import LoggedOperation

_uuids = count(1)


def new_uuid() -> str:
    return f"{next(_uuids):026}"


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait, in real time, for what goes on in threads and in servers."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def idle(*workers: Worker) -> None:
    """Wait until these workers wait."""
    await until(lambda: not any(each.is_working or each.signal.is_set for each in workers))


class Transaction:
    """A transaction of some host that has taken an index and is not committed yet."""

    def __init__(self, connection: AsyncConnection, index: int, uuid: str) -> None:
        self.index = index
        self.uuid = uuid
        self._connection = connection

    async def commit(self) -> None:
        await self._connection.commit()
        await self._connection.close()

    async def rollback(self) -> None:
        await self._connection.rollback()
        await self._connection.close()


class Log:
    """The two logs of a shard, as the hosts that write them see them."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.metadata = MetaData()
        self.tables: LogTables = add_log_tables(self.metadata)
        self.watcher = LocalWatcher()

    async def create(self) -> None:
        async with self.shard.write.begin() as connection:
            await connection.run_sync(self.metadata.create_all)

    # -- operations

    async def begin(self, host: str = "A", **values: Any) -> Transaction:
        connection = await self.shard.write.connect()
        uuid = values.setdefault("uuid", new_uuid())
        row = {"host_id": host, "logged_at": datetime.now(UTC), "effects": f"of {uuid}", **values}
        result = await connection.execute(insert(self.tables.operations).values(row))
        assert result.inserted_primary_key is not None
        return Transaction(connection, result.inserted_primary_key[0], uuid)

    async def add(self, host: str = "A", **values: Any) -> int:
        """Commit an operation, and tell nobody; returns its index."""
        transaction = await self.begin(host, **values)
        await transaction.commit()
        return transaction.index

    async def add_many(self, number: int, host: str = "A") -> None:
        rows = [
            {"uuid": new_uuid(), "host_id": host, "logged_at": datetime.now(UTC)}
            for _ in range(number)
        ]
        async with self.shard.write.begin() as connection:
            await connection.execute(insert(self.tables.operations), rows)

    async def skip(self) -> int:
        """Leave a gap; returns the index that nobody has."""
        table = self.tables.operations
        transaction = await self.begin()
        if self.shard.dialect == "sqlite":  # which gives it away again after a rollback
            await transaction._connection.execute(
                delete(table).where(table.c.index == transaction.index)
            )
            await transaction.commit()
        else:
            await transaction.rollback()
        return transaction.index

    async def remove_up_to(self, index: int) -> None:
        table = self.tables.operations
        async with self.shard.write.begin() as connection:
            await connection.execute(delete(table).where(table.c.index <= index))

    async def age_operations(self, seconds: float, *indexes: int) -> None:
        table = self.tables.operations
        statement = update(table).values(logged_at=datetime.now(UTC) - timedelta(seconds=seconds))
        if indexes:
            statement = statement.where(table.c.index.in_(indexes))
        async with self.shard.write.begin() as connection:
            await connection.execute(statement)

    async def indexes(self) -> list[int]:
        table = self.tables.operations
        async with self.shard.read.connect() as connection:
            return list(await connection.scalars(select(table.c.index).order_by(table.c.index)))

    def changed(self) -> None:
        self.watcher.changed("operations", self.shard.name)

    # -- events

    async def add_event(self, value: str, *, delay: float = 0, **values: Any) -> str:
        """Commit an event, and tell nobody; returns its uuid."""
        now = datetime.now(UTC)
        uuid = values.setdefault("uuid", new_uuid())
        due_at = now + timedelta(seconds=delay)
        row = {"logged_at": now, "due_at": due_at, "value": value, **values}
        async with self.shard.write.begin() as connection:
            await connection.execute(insert(self.tables.events).values(row))
        return str(uuid)

    async def change_event(self, uuid: str, **values: Any) -> None:
        table = self.tables.events
        async with self.shard.write.begin() as connection:
            await connection.execute(update(table).where(table.c.uuid == uuid).values(values))

    async def event(self, uuid: str) -> Any:
        table = self.tables.events
        async with self.shard.read.connect() as connection:
            return (await connection.execute(select(table).where(table.c.uuid == uuid))).one()

    async def count_events(self, **values: Any) -> int:
        table = self.tables.events
        conditions = [table.c[name] == value for name, value in values.items()]
        async with self.shard.read.connect() as connection:
            found = await connection.scalar(
                select(func.count()).select_from(table).where(*conditions)
            )
            return int(found or 0)

    def events_changed(self) -> None:
        self.watcher.changed("events", self.shard.name)


class Host:
    """A host that applies what others commit, and keeps a record of it."""

    def __init__(
        self, log: Log, name: str = "B", options: OperationLogOptions | None = None
    ) -> None:
        self.log = log
        self.applied: list[int] = []
        self.calls: list[int] = []
        self.abandoned: list[int] = []
        self.losses: list[str] = []
        self.logged: list[LoggedOperation] = []
        self.failing: Callable[[LoggedOperation], BaseException | None] = lambda logged: None
        self.blocked: dict[int, asyncio.Event] = {}
        self.reader = OperationLogReader(
            log.shard,
            log.tables,
            self._apply,
            abandon=self._abandon,
            lost_coverage=self.losses.append,
            host_id=name,
            watcher=log.watcher,
            options=options,
        )

    async def _apply(self, logged: LoggedOperation) -> None:
        self.calls.append(logged.index)
        if logged.index in self.blocked:
            await self.blocked[logged.index].wait()
        error = self.failing(logged)
        if error is not None:
            raise error
        self.applied.append(logged.index)
        self.logged.append(logged)

    def _abandon(self, logged: LoggedOperation, error: BaseException) -> None:
        self.abandoned.append(logged.index)

    async def look(self) -> None:
        """Have the reader look at the log as if it were told to, and wait until it has."""
        self.log.changed()
        await idle(self.reader)

    @property
    def health(self) -> dict[str, Any]:
        return self.reader.health()


__all__ = ["Host", "Log", "Transaction", "idle", "new_uuid", "until"]
