"""`Database`: where the data of compute methods and commands is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import URL, MetaData, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from afresh.errors import InvalidStateError
from afresh.operations.operation import Operation, Slot
from afresh.operations.pipeline import Operations
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background, uncancelled

from .block import OperationBlock
from .check import check_tables
from .engines import EngineOptions, IsolationLevel, check_isolation
from .entry import LogWriter
from .following import Following, FollowOptions
from .logs import DeadEvent, EventLogOptions, EventLogReader, OperationLogOptions, TrimOptions
from .read_only import ReadSession, read_session
from .scope import DatabaseScope
from .shard_registry import ShardRegistry
from .shards import Shard
from .tables import LogTables, add_log_tables, find_log_tables
from .tracked import OperationWrites, TrackedReads
from .watchers import Watcher, open_watcher

__all__ = ["Database"]

_log = logging.getLogger("afresh.db")

_RETRIES = RetryDelays.exponential(0.25, 5)
_CREATIONS = 5
_LOCK = 0x6166726573680001
"""Who holds this lock of PostgreSQL creates tables; it begins with the letters of "afresh"."""


class Database:
    """Where the data of compute methods and commands is kept.

    Compute methods read it in `read()`, commands write it in `operation()`: one transaction with
    the entry in the log that tells the other hosts what went stale.

    Args:
        url: its address, for SQLAlchemy's asyncio: ``sqlite+aiosqlite:///shop.db``,
            ``postgresql+asyncpg://…``, ``mysql+asyncmy://…``; or an engine, which stays yours. A
            SQLite address without a file is a temporary one. Several, by their names, are its
            shards; more can be added to `shards`.
        metadata: of your models; the tables of the logs are added to it. Without it they have one
            of their own.
        name: tells it from other databases of the app.
        track: let what compute methods read go stale by itself when operations change it, so that
            nobody need write what a command makes stale.
        isolation: of operations' transactions; the database's own level unless given.
        create_tables: create the tables that are missing when the app starts.
        log_commands: write commands into the log of operations, as a record of who did what.
        watcher: how hosts tell each other at once that a log has grown: an address of Redis, NATS
            or PostgreSQL, "file", "polling" or "local", or a watcher. Unless given, LISTEN/NOTIFY
            for PostgreSQL, a file beside the database for SQLite, and polling for others.
        operation_log: how this host follows the log of operations.
        event_log: how it takes part in handling events.
        trim_operations: how long operations stay in their log.
        trim_events: how long events stay that are handled.
        engines: how engines are made out of an address.

    Example:
        ```python
        database = Database("sqlite+aiosqlite:///shop.db", metadata=Base.metadata)
        app = App(database=database)
        ```
    """

    def __init__(
        self,
        url: str | URL | AsyncEngine | Mapping[str, str | URL | AsyncEngine],
        *,
        metadata: MetaData | None = None,
        name: str = "default",
        track: bool = False,
        isolation: IsolationLevel | None = None,
        create_tables: bool = False,
        log_commands: bool = True,
        watcher: str | Watcher | None = None,
        operation_log: OperationLogOptions | None = None,
        event_log: EventLogOptions | None = None,
        trim_operations: TrimOptions | None = None,
        trim_events: TrimOptions | None = None,
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
        self.shards: ShardRegistry = ShardRegistry(database_name=name, options=engines)
        """The parts of the database; one, named "", unless there are several."""
        self._connect_options: Mapping[str, Any] = (
            {} if engines is None else engines.arguments.get("connect_args", {})
        )
        for shard, address in (url if isinstance(url, Mapping) else {"": url}).items():
            self.shards.add(shard, address)
        self.tracked: TrackedReads | None = TrackedReads() if track else None
        """What results were read from, where that is tracked."""
        self._untrack: dict[Shard, Callable[[], None]] = {}
        self._log = LogWriter(self.tables.operations)
        self._log_commands = log_commands
        self._create_tables = create_tables
        self._operations: Operations | None = None
        self._watcher_of = watcher
        self._watcher: Watcher | None = None
        self._follow_options = FollowOptions(operation_log, event_log, trim_operations, trim_events)
        self._followed: dict[Shard, Following] = {}
        self._keeper: asyncio.Task[None] | None = None
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
        return OperationBlock(self, self._attached(), shard, isolation)

    def shard(self, name: str = "") -> Shard:
        """Return a part of the database; the whole one where it has just one.

        Raises:
            LookupError: there is none of that name.
        """
        shard = self.shards.use(name)
        if self.tracked is not None and shard not in self._untrack:
            self._untrack[shard] = self.tracked.track([shard.write, shard.read], shard.place)
        return shard

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
            writes=None if self.tracked is None else OperationWrites(isolation),
            logs_commands=self._log_commands,
        )

    @property
    def watcher(self) -> Watcher:
        """What tells this host, and others, that a log has grown.

        Raises:
            InvalidStateError: the database was not started.
        """
        if self._watcher is None:
            raise InvalidStateError(f"{self!r} was not started: use 'async with app'.")
        return self._watcher

    # -- life

    def attach(self, operations: Operations) -> None:
        """Let the commands of a commander write here; an app does it.

        Raises:
            InvalidStateError: it belongs to another one.
        """
        if self._operations is not None and self._operations is not operations:
            raise InvalidStateError(f"{self!r} belongs to another app; make one for each.")
        self._operations = operations
        operations.completion.changes = self.tracked
        operations.become_durable()

    def _attached(self) -> Operations:
        if self._operations is None:
            raise InvalidStateError(
                f"{self!r} belongs to no app: make one with it, App(database=…)."
            )
        return self._operations

    async def create_tables(self, shard: str | None = None) -> None:
        """Create the tables of `metadata` that are missing, those of the logs among them.

        Args:
            shard: where; everywhere if None.
        """
        for name in list(self.shards) if shard is None else [shard]:
            engine = self.shard(name).write
            for attempt in range(1, _CREATIONS + 1):
                try:
                    async with engine.begin() as connection:
                        if connection.dialect.name == "postgresql":
                            # Hosts that start together would create the same table.
                            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
                        await connection.run_sync(self.metadata.create_all)
                    break
                except DBAPIError:  # another host creates them at this moment
                    if attempt == _CREATIONS:
                        raise
                    await current_clock().sleep(_RETRIES[attempt])

    async def start(self) -> None:
        """Begin to follow what other hosts commit; an app does it.

        Raises:
            SchemaError: tables of the logs are missing, or are not as they must be.
            InvalidStateError: no app has this database, or it was started already.
        """
        operations = self._attached()
        if self._watcher is not None:
            raise InvalidStateError(f"{self!r} was started already.")
        first = next(iter(self.shards), None)
        self._watcher = open_watcher(
            self._watcher_of,
            database_url="" if first is None else self.shard(first).write.url,
            host_id=operations.host_id,
            name=self.tables.operations.fullname,
            connect_options=self._connect_options,
        )
        try:
            await self._watcher.start()
            self._stop = operations.completion.on_completed(self._tell)
            await self._follow(self._watcher)
        except BaseException:
            await uncancelled(self._end())
            raise
        self._keeper = start_background(
            self._keep_following(self._watcher), name=f"shards of {self.name}"
        )

    async def _keep_following(self, watcher: Watcher) -> None:
        """Follow shards that come, and no longer those that go."""
        failures = 0
        while True:
            states = self.shards.used_names.computed, self.shards.event_names.computed
            try:
                await self._follow(watcher)
                failures = 0
            except Exception:
                failures += 1
                _log.exception("A shard of %r can't be followed; it is tried again.", self)
                await current_clock().sleep(_RETRIES[failures])
                continue
            changes = [asyncio.ensure_future(state.when_invalidated()) for state in states]
            try:
                await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for change in changes:
                    change.cancel()

    async def _follow(self, watcher: Watcher) -> None:
        with_events = self.shards.event_names.value
        wanted = {self.shard(name): name for name in self.shards.used_names.value | with_events}
        for shard, following in list(self._followed.items()):
            if shard not in wanted or following.handles_events != (shard.name in with_events):
                del self._followed[shard]
                await following.aclose()
        for shard in self._untrack.keys() - wanted.keys():
            self._untrack.pop(shard)()
        for shard, name in wanted.items():
            if shard in self._followed:
                continue
            if self._create_tables:
                await self.create_tables(name)
            await check_tables(shard.write, self.tables)
            following = Following(
                shard,
                self.tables,
                self._attached(),
                watcher,
                self._follow_options,
                handles_events=name in with_events,
            )
            self._followed[shard] = following
            try:
                await following.start()
            except BaseException:
                del self._followed[shard]
                await following.aclose()
                raise

    def _tell(self, operation: Operation) -> None:
        """Wake up the readers of all hosts: something stands in a log."""
        if operation.log is None or operation.log[0] != self.name or self._watcher is None:
            return
        if operation.index is not None:
            # What it made stale is stale here already, so this host need not read it.
            self._watcher.changed("operations", operation.log[1], own=False)
        if operation.events:
            self._watcher.changed("events", operation.log[1])

    # -- events that failed

    async def dead_events(self, shard: str = "", *, limit: int = 100) -> list[DeadEvent]:
        """Return events whose last attempt has failed, the latest first.

        Args:
            shard: which part of the database, where it has several.
            limit: how many at most.
        """
        return await self._events(shard).dead_events(limit)

    async def requeue(self, uuid: str, shard: str = "") -> bool:
        """Have a dead event handled after all, with all its attempts.

        Returns:
            Whether there was a dead event of that name.
        """
        return await self._events(shard).requeue(uuid)

    async def drop(self, uuid: str, shard: str = "") -> bool:
        """Delete an event that is dead, or waits; what its handler is doing now is undone.

        Returns:
            Whether there was such an event of that name.
        """
        return await self._events(shard).drop(uuid)

    def _events(self, shard: str) -> EventLogReader:
        following = self._followed.get(self.shard(shard))
        if following is None:
            raise InvalidStateError(f"{self!r} was not started: use 'async with app'.")
        return following.event_reader

    @property
    def error(self) -> str | None:
        """Why a part of what runs in the background does not work now; None if all do."""
        return next((each.error for each in self._followed.values() if each.error), None)

    def health(self) -> dict[str, Any]:
        """Return how the logs are followed: the watcher, and what reads each shard."""
        return {
            "name": self.name,
            "watcher": None if self._watcher is None else self._watcher.health(),
            "shards": {shard.name: each.health() for shard, each in self._followed.items()},
        }

    async def aclose(self) -> None:
        """End what runs in the background, and close all connections; may be called again."""
        await self._end()
        await self.shards.aclose()

    async def _end(self) -> None:
        stop, self._stop = self._stop, _nothing
        stop()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        for following in self._followed.values():
            await following.aclose()
        self._followed.clear()
        if self._watcher is not None:
            await self._watcher.aclose()
            self._watcher = None
        for untrack in self._untrack.values():
            untrack()
        self._untrack.clear()

    def __repr__(self) -> str:
        return f"<Database {self.name!r} of {', '.join(map(repr, self.shards)) or 'no shards'}>"


def _nothing() -> None:
    """Stands for what ends something that was not begun."""
