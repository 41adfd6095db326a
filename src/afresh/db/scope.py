"""The transaction of an operation: data, log entry and events, committed together or not at all.

One connection for an operation, whatever number of blocks and nested commands write through it.
What a nested command wrote is undone by itself if that command fails: its writes begin at a
savepoint.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from afresh.commands import CommandContext
from afresh.errors import InvalidStateError
from afresh.operations.operation import Operation, Slot
from afresh.operations.pipeline import COMMIT_GUARD, CommitGuard, Level, Operations, level_of
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience

from .engines import IsolationLevel
from .entry import LogWriter
from .outgoing import MARKER, store_events
from .shards import Shard
from .tables import EventState, LogTables
from .transience import is_refusal, transience_of_database_error

if TYPE_CHECKING:
    from .tracked import OperationWrites

__all__ = ["DatabaseScope"]

_log = logging.getLogger("afresh.operations")

_VERIFICATIONS = 3
_VERIFICATION_SECONDS = 3
_VERIFICATION_DELAYS = RetryDelays.exponential(0.25, 1, 2)


class DatabaseScope:
    """The transaction of one attempt of one operation.

    Args:
        shard: where it writes.
        tables: where operations and events are logged.
        log: writes the entries of operations.
        operation: whose scope it is.
        operations: what the operation belongs to.
        slot: the command's; None outside of commands.
        isolation: of the transaction; the database's own level if None.
        writes: gathers which rows change, where that is tracked.
        logs_commands: whether the command itself is written to the log.
    """

    def __init__(
        self,
        shard: Shard,
        tables: LogTables,
        log: LogWriter,
        operation: Operation,
        operations: Operations,
        slot: Slot | None,
        *,
        isolation: IsolationLevel | None,
        writes: OperationWrites | None,
        logs_commands: bool,
    ) -> None:
        self.shard: Shard = shard
        self.operation: Operation = operation
        self.isolation: IsolationLevel | None = isolation
        self.writes: OperationWrites | None = writes
        self._tables = tables
        self._log = log
        self._operations = operations
        self._slot = slot
        self._logs_commands = logs_commands
        self._connection: AsyncConnection | None = None
        self._transaction: AsyncTransaction | None = None
        self._levels: list[Level] = []
        self._level_left = asyncio.Event()

    @property
    def connection(self) -> AsyncConnection:
        """The connection with the transaction.

        Raises:
            InvalidStateError: the operation has ended.
        """
        if self._connection is None:
            self.operation.check_open()
            raise InvalidStateError("The transaction of this operation could not be begun.")
        return self._connection

    async def begin(self) -> None:
        """Begin the transaction."""
        self._connection = await self.shard.connect(self.isolation)
        self._transaction = await self._connection.begin()
        if self.writes is not None:
            self.writes.bind(self._connection)

    # -- nested commands

    async def enter(self, context: CommandContext[Any] | None) -> None:
        """Make sure that the writes of a command can be undone by themselves if it is nested.

        Waits while another nested command, which runs at the same time, writes.
        """
        innermost = level_of(context)
        if innermost is None:
            return
        around: list[Level] = []
        level: Level | None = innermost
        while level is not None:
            around.insert(0, level)
            level = level.outer
        while self._levels and self._levels[-1] not in around:
            self._level_left.clear()
            await self._level_left.wait()
        for level in around:
            if level.savepoint is None:
                self._levels.append(level)
                level.savepoint = _Savepoint(self, level, await self.connection.begin_nested())

    def leave(self, level: Level) -> None:
        """Let others write: a nested command has ended, and with it those that it called."""
        if level in self._levels:
            del self._levels[self._levels.index(level) :]
        self._level_left.set()

    # -- the end

    async def commit(self) -> None:
        """Commit the data with the entry in the log, the events, and what a guard adds.

        A commit whose outcome is not known, as the connection was lost, is looked up in the log.

        Raises:
            Exception: nothing was committed.
        """
        operation = self.operation
        connection, transaction = self._connection, self._transaction
        if connection is None or transaction is None:
            raise InvalidStateError("The transaction of this operation could not be begun.")
        operation.logged_at = datetime.now(UTC)
        guard = self._guard()
        if guard is not None:
            await guard(connection)
        if operation.events:
            await store_events(
                connection, self._tables.events, operation.events.values(), self._operations.codec
            )
        try:
            await self._store(connection)
        except Exception:
            is_retry = self._slot is not None and self._slot.uuid is not None
            # An earlier attempt may have been committed after all.
            if not (is_retry and await self._is_logged()):
                raise
            await self.rollback()
        else:
            try:
                await transaction.commit()
            except Exception as error:
                if is_refusal(error) or not await self._is_logged():
                    raise
            await self._close()
        operation.log = self.shard.database_name, self.shard.name
        operation.is_committed = True
        if guard is not None:
            guard.is_used = True

    def _guard(self) -> CommitGuard | None:
        if self._slot is None:
            return None
        guard: CommitGuard | None = self._slot.context.items.get(COMMIT_GUARD)
        if guard is None:
            return None
        place = guard.database, guard.shard
        return guard if place == (self.shard.database_name, self.shard.name) else None

    async def _store(self, connection: AsyncConnection) -> None:
        operation = self.operation
        if self.writes is not None:
            operation.effects.changes = self.writes.collected()
        if not operation.is_stored:
            # Not for others, but whether it was committed can be seen.
            values = {
                "uuid": MARKER + operation.uuid,
                "state": EventState.PROCESSED,
                "logged_at": operation.logged_at,
                "due_at": operation.logged_at,
                "value": "",
            }
            await connection.execute(
                insert(self._tables.events), values, execution_options=_LOG_OPTIONS
            )
            return
        command = None
        if operation.command is not None and self._logs_commands:
            command = self._operations.codec.encode(operation.command)
        values = {
            "uuid": operation.uuid,
            "host_id": operation.host_id,
            "logged_at": operation.logged_at,
            "command": command,
            "effects": operation.effects.encode(self._operations.services, self._operations.codec),
        }
        operation.index = await self._log.write(connection, values)

    async def _is_logged(self) -> bool:
        """Whether the log has the operation, as seen by another connection.

        Raises:
            Exception: that can't be found out.
        """
        operation = self.operation
        if operation.is_stored:
            table = self._tables.operations
            query = select(table.c.index).where(table.c.uuid == operation.uuid)
        else:
            events = self._tables.events
            query = select(events.c.uuid).where(events.c.uuid == MARKER + operation.uuid)
        for attempt in range(1, _VERIFICATIONS + 1):
            try:
                async with asyncio.timeout(_VERIFICATION_SECONDS):
                    async with self.shard.read.connect() as connection:
                        found = await connection.scalar(query)
                if found is not None and operation.is_stored:
                    operation.index = found
                return found is not None
            except Exception:
                if attempt == _VERIFICATIONS:
                    _log.exception("Whether %r was committed could not be found out.", operation)
                    raise
                await current_clock().sleep(_VERIFICATION_DELAYS[attempt])
        raise AssertionError("unreachable")

    async def rollback(self) -> None:
        """Undo everything; raises nothing."""
        if self._transaction is not None:
            try:
                await self._transaction.rollback()
            except Exception:
                _log.debug("The connection of %r was lost.", self.operation, exc_info=True)
        await self._close()

    async def _close(self) -> None:
        connection, self._connection, self._transaction = self._connection, None, None
        if connection is not None:
            try:
                await connection.close()
            except Exception:
                _log.debug("The connection of %r was lost.", self.operation, exc_info=True)

    def transience_of(self, error: BaseException) -> Transience:
        """Sort an error, as far as another attempt is concerned."""
        return transience_of_database_error(error)

    def __repr__(self) -> str:
        return f"<DatabaseScope of {self.operation!r} in {self.shard!r}>"


class _Savepoint:
    """Where the writes of a nested command begin."""

    __slots__ = ("_level", "_scope", "_transaction")

    def __init__(self, scope: DatabaseScope, level: Level, transaction: AsyncTransaction) -> None:
        self._scope = scope
        self._level = level
        self._transaction = transaction

    async def release(self) -> None:
        try:
            await self._transaction.commit()
        finally:
            self._scope.leave(self._level)

    async def rollback(self) -> None:
        try:
            await self._transaction.rollback()
        except Exception:
            # The operation can't be committed any more either; it says so when it is tried.
            _log.debug("The connection of %r was lost.", self._scope.operation, exc_info=True)
        finally:
            self._scope.leave(self._level)


_LOG_OPTIONS = {"touches": ()}
"""What is written to logs changes nothing that results are read from."""
