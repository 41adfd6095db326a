"""The transaction of an operation: data, log entry and events, committed together or not at all.

One connection for an operation, whatever number of blocks and nested commands write through it.
What a nested command wrote is undone by itself if that command fails: its writes begin at a
savepoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from afresh.commands import CommandContext
from afresh.errors import InvalidStateError
from afresh.operations.operation import Operation, Slot, slot_of
from afresh.operations.outbox import Outbox
from afresh.operations.parts import Level
from afresh.operations.pipeline import COMMIT_GUARD, CommitGuard, Operations
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
        self.slot: Slot | None = slot
        self.operation: Operation = operation
        self.isolation: IsolationLevel | None = isolation
        self.writes: OperationWrites | None = writes
        self._tables = tables
        self._log = log
        self._operations = operations
        self._logs_commands = logs_commands
        self._connection: AsyncConnection | None = None
        self._transaction: AsyncTransaction | None = None
        self.is_in_doubt: bool = False
        """Whether a commit failed that may have happened all the same."""
        self._failure: BaseException | None = None
        self._turns: list[object] = []
        self._turn_left = asyncio.Event()
        self._is_beginning = False

    @property
    def connection(self) -> AsyncConnection:
        """The connection with the transaction.

        Raises:
            InvalidStateError: the operation has ended.
        """
        if self._connection is None or self._transaction is None:
            self.operation.check_open()
            raise InvalidStateError("The transaction of this operation could not be begun.")
        return self._connection

    async def begin(self) -> None:
        """Begin the transaction.

        Raises:
            InvalidStateError: a transaction waits for it that it would have to wait for.
        """
        if self.shard.dialect == "sqlite" and self.slot is not None:
            self._check_callers(self.slot.context.caller)
        self._is_beginning = True
        try:
            self._connection = await self.shard.connect(self.isolation)
            self._transaction = await self._connection.begin()
        finally:
            self._is_beginning = False
            self._turn_left.set()
        if self.writes is not None:
            self.writes.bind(self._connection)

    @property
    def outbox(self) -> Outbox | None:
        """What takes messages to other services; None where there is no broker."""
        return self._operations.outbox

    def _check_callers(self, caller: CommandContext[Any] | None) -> None:
        """Complain if a handler that has written to the same SQLite has called this command."""
        while caller is not None:
            slot = slot_of(caller)
            operation = slot.operation if slot is not None else None
            scope = operation.scope if operation is not None else None
            if (
                isinstance(scope, DatabaseScope)
                and scope.shard is self.shard
                and scope._connection is not None
            ):
                raise InvalidStateError(
                    f"{type(self.operation.command).__qualname__} would wait for ever: SQLite lets "
                    f"one write at a time, and {type(caller.command).__qualname__}, which has "
                    "called it, is writing. Call it before that writes, or leave it to "
                    "commander.start() or op.add_event()."
                )
            caller = caller.outermost.caller

    # -- whose turn it is

    async def enter(self, block: object, around: Sequence[object], levels: Sequence[Level]) -> None:
        """Let a block write. What it writes can be undone by itself if a nested command does it.

        There is one connection, and savepoints on it lie within each other: a block or a nested
        command waits while another one writes that is not around it.

        Args:
            block: who writes, until `leave`.
            around: the blocks that it stands in.
            levels: of the nested commands that it stands in, the outermost first.
        """
        turns = self._turns
        while True:
            if self._is_beginning or (
                turns and turns[-1] not in around and turns[-1] not in levels
            ):
                self._turn_left.clear()
                await self._turn_left.wait()
                continue
            self._check_active(levels)
            level = next((each for each in levels if each.savepoint is None), None)
            if level is None:
                break
            turns.append(level)
            self._is_beginning = True
            try:
                transaction = await self.connection.begin_nested()
            except BaseException as error:
                self.doom(error)
                turns.remove(level)
                raise
            finally:
                self._is_beginning = False
                self._turn_left.set()
            level.savepoint = _Savepoint(self, level, transaction)
        turns.append(block)

    def leave(self, turn: object) -> None:
        """Let others write: a block, or a nested command, has ended."""
        if turn in self._turns:
            self._turns.remove(turn)
        self._turn_left.set()

    def check_last(self, turn: object | None) -> None:
        """Complain if something writes that was to have ended before.

        Args:
            turn: what may still be there.

        Raises:
            InvalidStateError: a task was left behind.
        """
        if self._turns and self._turns[-1] is not turn:
            raise InvalidStateError(
                "A handler has returned while a block of `database.operation()` was open: await "
                "the tasks in which a handler writes, and leave blocks before it returns."
            )

    def _check_active(
        self, levels: Sequence[Level] = ()
    ) -> tuple[AsyncConnection, AsyncTransaction]:
        connection, transaction = self.connection, self._transaction
        assert transaction is not None  # or there would be no connection
        savepoints = [each.savepoint for each in levels if each.savepoint is not None]
        if not (transaction.is_active and all(each.is_active for each in savepoints)):
            raise InvalidStateError(
                "A session of this command was rolled back, and with it all that was written: let "
                "the errors of flushes end the command, and don't roll sessions back yourself."
            )
        return connection, transaction

    def doom(self, error: BaseException) -> None:
        """Refuse to commit: what was to be undone can't be undone by itself."""
        self._failure = self._failure or error

    # -- the end

    async def commit(self) -> None:
        """Commit the data with the entry in the log, the events, and what a guard adds.

        A commit whose outcome is not known, as the connection was lost, is looked up in the log.

        Raises:
            Exception: nothing was committed, unless it `is_in_doubt`.
        """
        operation = self.operation
        if self._failure is not None:
            raise InvalidStateError(
                "The writes of a nested command that failed could not be undone by themselves, so "
                "nothing is committed: let its error end the whole command."
            ) from self._failure
        self.check_last(None)
        connection, transaction = self._check_active()
        operation.logged_at = datetime.now(UTC)
        guard = self._guard()
        if guard is not None:
            await guard(connection)
        if operation.events:
            await store_events(
                connection, self._tables.events, operation.events.values(), self._operations.codec
            )
        messages = operation.whole.messages
        if messages and self.outbox is not None:
            await self.outbox.store(connection, operation, messages)
        await self._store(connection)
        try:
            await transaction.commit()
        except Exception as error:
            if is_refusal(error):
                raise
            self.is_in_doubt = True
            if not await self.was_committed():
                raise
        else:
            self._note_committed()
        await self._close()

    async def was_committed(self) -> bool:
        """Look a commit in doubt up in the log; if it is there, tell that to the operation.

        Raises:
            Exception: that can't be found out now.
        """
        if await self._is_logged():
            self.is_in_doubt = False
            self._note_committed()
        return not self.is_in_doubt

    def _note_committed(self) -> None:
        operation = self.operation
        operation.log = self.shard.database_name, self.shard.name
        operation.is_committed = True
        guard = self._guard()
        if guard is not None:
            guard.is_used = True

    def _guard(self) -> CommitGuard | None:
        if self.slot is None:
            return None
        guard: CommitGuard | None = self.slot.context.items.get(COMMIT_GUARD)
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
            command = self._operations.codec.record(operation.command)
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
        if self._transaction is not None and self._transaction.is_active:
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

    @property
    def _was_lost(self) -> bool:
        return self._connection is not None and self._connection.invalidated

    def transience_of(self, error: BaseException) -> Transience:
        """Sort an error, as far as another attempt is concerned."""
        if isinstance(error, PendingRollbackError) and self._was_lost:
            return Transience.TRANSIENT  # the error that it comes of was swallowed
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

    @property
    def is_active(self) -> bool:
        return self._transaction.is_active

    async def release(self) -> None:
        self._scope.check_last(self._level)
        self._scope._check_active((self._level,))
        await self._transaction.commit()
        self._scope.leave(self._level)

    async def rollback(self, error: BaseException) -> None:
        try:
            self._scope.check_last(self._level)
            if self._transaction.is_active:
                await self._transaction.rollback()
            else:
                await self._scope.connection.run_sync(self._roll_back_again)
            if self._scope._was_lost:
                self._scope.doom(error)
        except Exception:
            # Something goes on writing, or the connection was lost, or the database has undone more
            # than that.
            _log.debug("A savepoint of %r is gone.", self._scope.operation, exc_info=True)
            self._scope.doom(error)
        finally:
            self._scope.leave(self._level)

    def _roll_back_again(self, connection: Connection) -> None:
        # A session has done so already, as a flush failed, but something may have gone on since.
        nested: Any = self._transaction.sync_transaction
        connection.dialect.do_rollback_to_savepoint(connection, nested._savepoint)


_LOG_OPTIONS = {"touches": ()}
"""What is written to logs changes nothing that results are read from."""
