"""`Database`: where the data of compute methods and commands is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from afresh.errors import InvalidStateError
from afresh.operations.operation import Operation, Slot
from afresh.operations.pipeline import Operations

from .block import OperationBlock
from .engines import EngineOptions, IsolationLevel, check_isolation
from .entry import LogWriter
from .following import Following
from .logs import OperationLogOptions
from .read_only import ReadSession, read_session
from .scope import DatabaseScope
from .shards import Shard, open_shard
from .tables import LogTables, add_log_tables, find_log_tables
from .watchers import Watcher, open_watcher

__all__ = ["Database"]


class Database:
    """Where the data of compute methods and commands is kept.

    Compute methods read it in `read()`, commands write it in `operation()`: one transaction with
    the entry in the log that tells the other hosts what went stale.

    Args:
        url: its address, for SQLAlchemy's asyncio: ``sqlite+aiosqlite:///shop.db``,
            ``postgresql+asyncpg://…``, ``mysql+asyncmy://…``; or an engine, which stays yours. A
            SQLite address without a file is a temporary one.
        metadata: of your models; the tables of the logs are added to it. Without it they have one
            of their own.
        name: tells it from other databases of the app.
        isolation: of operations' transactions; the database's own level unless given.
        create_tables: create the tables that are missing when the app starts.
        log_commands: write commands into the log of operations, as a record of who did what.
        watcher: how hosts tell each other at once that a log has grown: an address of Redis, NATS
            or PostgreSQL, "file", "polling" or "local", or a watcher. Unless given, LISTEN/NOTIFY
            for PostgreSQL, a file beside the database for SQLite, and polling for others.
        operation_log: how this host follows the log of operations.
        engines: how engines are made out of an address.

    Example:
        ```python
        database = Database("sqlite+aiosqlite:///shop.db", metadata=Base.metadata)
        app = App(database=database)
        ```
    """

    def __init__(
        self,
        url: str | URL | AsyncEngine,
        *,
        metadata: MetaData | None = None,
        name: str = "default",
        isolation: IsolationLevel | None = None,
        create_tables: bool = False,
        log_commands: bool = True,
        watcher: str | Watcher | None = None,
        operation_log: OperationLogOptions | None = None,
        engines: EngineOptions | None = None,
    ) -> None:
        if isolation is not None:
            check_isolation(isolation)
        self.name: str = name
        self.isolation: IsolationLevel | None = isolation
        self.metadata: MetaData = MetaData() if metadata is None else metadata
        """Of all tables, those of the logs too."""
        self.tables: LogTables = find_log_tables(self.metadata) or add_log_tables(self.metadata)
        """The tables of the logs."""
        self._log = LogWriter(self.tables.operations)
        self._log_commands = log_commands
        self._create_tables = create_tables
        self._shards: dict[str, Shard] = {
            "": open_shard("", url, database_name=name, options=engines)
        }
        self._operations: Operations | None = None
        self._watcher_of = watcher
        self._watcher: Watcher | None = None
        self._operation_log = operation_log
        self._followed: list[Following] = []
        self._stop: Callable[[], None] = _nothing

    # -- what handlers and compute methods use

    def read(self, shard: str = "") -> ReadSession:
        """Open a session that reads; use it with ``async with``.

        It is an SQLAlchemy `AsyncSession` that refuses to write. What it has read stays usable when
        it is closed.

        Args:
            shard: which part of the database, where it has several.

        Example:
            ```python
            async with self.db.read() as session:
                return await session.scalar(select(OrderRow.total).where(OrderRow.id == order_id))
            ```
        """
        return read_session(self.shard(shard))

    def operation(
        self, shard: str = "", *, isolation: IsolationLevel | None = None
    ) -> OperationBlock:
        """Open a block that writes; use it with ``async with``.

        In a handler, all blocks write in one transaction, that of the outermost command, which is
        committed when its handler has returned. Outside of commands the block is an operation by
        itself, and committed when it ends.

        Args:
            shard: which part of the database, where it has several.
            isolation: of the transaction, where it differs from that of the database.

        Raises:
            InvalidStateError: no app has this database; or, when entered, the command writes to
                another database already.

        Example:
            ```python
            async with self.db.operation() as op:
                op.session.add(OrderRow(user_id=command.user_id))
            ```
        """
        return OperationBlock(self, self._attached(), shard, isolation or self.isolation)

    def shard(self, name: str = "") -> Shard:
        """Return a part of the database; the whole one where it has just one.

        Raises:
            LookupError: there is none of that name.
        """
        try:
            return self._shards[name]
        except KeyError:
            raise LookupError(
                f"{self!r} has no shard {name!r}, but {', '.join(map(repr, self._shards))}."
            ) from None

    def _scope(
        self,
        shard: str,
        operation: Operation,
        operations: Operations,
        slot: Slot | None,
        isolation: IsolationLevel | None,
    ) -> DatabaseScope:
        return DatabaseScope(
            self.shard(shard),
            self.tables,
            self._log,
            operation,
            operations,
            slot,
            isolation=isolation,
            writes=None,
            logs_commands=self._log_commands,
        )

    # -- life

    def attach(self, operations: Operations) -> None:
        """Let the commands of a commander write here; an app does it.

        Raises:
            InvalidStateError: it belongs to another one.
        """
        if self._operations is not None and self._operations is not operations:
            raise InvalidStateError(f"{self!r} belongs to another app; make one for each.")
        self._operations = operations
        operations.become_durable()

    def _attached(self) -> Operations:
        if self._operations is None:
            raise InvalidStateError(
                f"{self!r} belongs to no app: make one with it, App(database=…)."
            )
        return self._operations

    async def create_tables(self) -> None:
        """Create the tables of `metadata` that are missing, those of the logs among them."""
        for shard in self._shards.values():
            async with shard.write.begin() as connection:
                await connection.run_sync(self.metadata.create_all)

    async def start(self) -> None:
        """Begin to follow what other hosts commit; an app does it.

        Raises:
            SchemaError: tables of the logs are missing.
            InvalidStateError: no app has this database, or it was started already.
        """
        operations = self._attached()
        if self._watcher is not None:
            raise InvalidStateError(f"{self!r} was started already.")
        if self._create_tables:
            await self.create_tables()
        shards = list(self._shards.values())
        self._watcher = open_watcher(
            self._watcher_of,
            database_url=shards[0].write.url,
            host_id=operations.host_id,
            name=self.tables.operations.fullname,
        )
        await self._watcher.start()
        self._stop = operations.completion.on_completed(self._tell)
        for shard in shards:
            following = Following(
                shard,
                self.tables,
                operations,
                self._watcher,
                operation_log=self._operation_log,
            )
            self._followed.append(following)
            await following.start()

    def _tell(self, operation: Operation) -> None:
        """Wake up the readers of all hosts: something stands in a log."""
        if operation.log is None or operation.log[0] != self.name or self._watcher is None:
            return
        if operation.index is not None:
            self._watcher.changed("operations", operation.log[1])
        if operation.events:
            self._watcher.changed("events", operation.log[1])

    def health(self) -> dict[str, Any]:
        """Return how the logs are followed: the watcher, and what reads each shard."""
        return {
            "name": self.name,
            "watcher": None if self._watcher is None else self._watcher.health(),
            "shards": {each.shard.name: each.health() for each in self._followed},
        }

    async def aclose(self) -> None:
        """End what runs in the background, and close all connections."""
        self._stop()
        for following in self._followed:
            await following.aclose()
        self._followed.clear()
        if self._watcher is not None:
            await self._watcher.aclose()
            self._watcher = None
        for shard in self._shards.values():
            await shard.aclose()

    def __repr__(self) -> str:
        shard = next(iter(self._shards.values()))
        return f"<Database {self.name!r} at {shard.write.url!r}>"


def _nothing() -> None:
    """Stands for what ends something that was not begun."""
