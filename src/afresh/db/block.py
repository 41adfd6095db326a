"""`async with database.operation() as op`: a part of a handler that writes."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from afresh.commands import CommandOf
from afresh.commands.context import current
from afresh.errors import InvalidStateError
from afresh.graph.scopes import RecordingInvalidations, is_invalidating
from afresh.operations.events import OnConflict, OperationEvent
from afresh.operations.operation import Operation, slot_of
from afresh.operations.parts import levels_of
from afresh.operations.pipeline import Operations, roll_back
from afresh.primitives.freshness import note_freshness
from afresh.primitives.tasks import uncancelled

from .engines import IsolationLevel
from .scope import DatabaseScope
from .tracking import FollowedSession

if TYPE_CHECKING:
    from .database import Database

__all__ = ["OperationBlock", "WritableOperation"]


class WritableOperation:
    """What a block that writes works with: its session, and the operation that it is a part of.

    Args:
        operation: the operation; all blocks of a command, and of those that it calls, share it.
        session: for this block alone. What it holds is flushed when the block ends.
    """

    __slots__ = ("operation", "session")

    operation: Operation
    session: AsyncSession

    def __init__(self, operation: Operation, session: AsyncSession) -> None:
        self.operation = operation
        self.session = session

    @property
    def uuid(self) -> str:
        """The name of the operation, the same for all attempts."""
        return self.operation.uuid

    @property
    def items(self) -> dict[str, Any]:
        """What the handler leaves for its own block form on other hosts: values JSON can hold."""
        return self.operation.items

    def invalidating(self) -> RecordingInvalidations:
        """Open a block in which calling a compute method makes its result stale, on every host, as
        soon as the operation is committed, and not if it is not: see `Operation.invalidating`.
        """
        return self.operation.invalidating()

    def add_event(
        self,
        command: CommandOf[Any],
        *,
        delay: float = 0,
        due_at: datetime | None = None,
        uuid: str | None = None,
        on_conflict: OnConflict | None = None,
        quantum: float | None = None,
    ) -> OperationEvent:
        """Have a command handled later, on any host, if the operation is committed: see
        `Operation.add_event`, whose arguments are the same.
        """
        return self.operation.add_event(
            command,
            delay=delay,
            due_at=due_at,
            uuid=uuid,
            on_conflict=on_conflict,
            quantum=quantum,
        )

    def publish(
        self,
        event: Any,
        *,
        key: str | None = None,
        destination: str | None = None,
        message_id: str | None = None,
        delay: float = 0,
    ) -> str:
        """Tell other services of an event, if the operation is committed: see `Operation.publish`,
        whose arguments are the same.
        """
        return self.operation.publish(
            event, key=key, destination=destination, message_id=message_id, delay=delay
        )

    def __repr__(self) -> str:
        return f"<WritableOperation {self.operation!r}>"


class OperationBlock:
    """What `Database.operation` returns; to be entered once, with ``async with``."""

    __slots__ = (
        "_around",
        "_database",
        "_is_alone",
        "_is_open",
        "_isolation",
        "_operations",
        "_scope",
        "_session",
        "_shard",
    )

    def __init__(
        self,
        database: Database,
        operations: Operations,
        shard: str,
        isolation: IsolationLevel | None,
    ) -> None:
        self._database = database
        self._operations = operations
        self._shard = shard
        self._isolation = isolation
        self._is_alone = False
        self._is_open = False
        self._around: OperationBlock | None = None
        self._scope: DatabaseScope | None = None
        self._session: AsyncSession | None = None

    async def __aenter__(self) -> WritableOperation:
        if is_invalidating():
            raise InvalidStateError(
                "Only calls of compute methods may stand where is_invalidating() is true: return "
                "before database.operation()."
            )
        if self._scope is not None:
            raise InvalidStateError(
                "This block was entered before: call database.operation() anew."
            )
        context = current.get()
        self._around = _innermost.get()
        slot = slot_of(context)
        levels = levels_of(context)
        if slot is None:
            operation = self._operation_around()
            if operation is None:
                if context is not None and not context.is_completed:
                    raise InvalidStateError(
                        f"{type(context.command).__qualname__} can't change anything: it is a "
                        "local, a delegating or a system command, or its commander does not know "
                        "this database."
                    )
                self._is_alone = True
                operation = Operation(self._operations.host_id)
        else:
            if context is not None:
                context.check_active()
            if levels and levels[-1].slot is not slot:
                raise InvalidStateError(
                    "The attempt that has called this command has failed, and another one is under "
                    "way: await all that a handler calls, even if a part of it fails."
                )
            operation = slot.need()
            operation.check_open()
        if operation.scope is None:
            operation.scope = self._scope = self._database._scope(
                self._shard,
                operation,
                self._operations,
                slot,
                self._isolation or self._database.isolation,
            )
            try:
                await self._scope.begin()
            except BaseException as error:
                if self._is_alone:
                    await uncancelled(roll_back(operation, error))
                raise
        else:
            self._scope = self._check(operation.scope)
        scope = self._scope
        await scope.enter(self, self._blocks_around(), levels)
        self._is_open = True
        _innermost.set(self)
        session = self._session = AsyncSession(
            scope.connection,
            expire_on_commit=False,
            join_transaction_mode="rollback_only",
            sync_session_class=Session if scope.writes is None else FollowedSession,
        )
        if scope.writes is not None:
            scope.writes.follow(session)
        return WritableOperation(operation, session)

    def _blocks_around(self) -> list[OperationBlock]:
        found = []
        block = self._around
        while block is not None:
            if block._is_open:
                found.append(block)
            block = block._around
        return found

    def _operation_around(self) -> Operation | None:
        """That of a block outside of commands, of the same shard, in which this one stands."""
        shard = self._database.shard(self._shard)
        for block in self._blocks_around():
            scope = block._scope
            if scope is not None and scope.slot is None and scope.shard is shard:
                return scope.operation
        return None

    def _check(self, scope: object) -> DatabaseScope:
        shard = self._database.shard(self._shard)
        if not isinstance(scope, DatabaseScope) or scope.shard is not shard:
            raise InvalidStateError(
                f"This command writes to {scope!r} already, and an operation is one transaction of "
                "one database: let a command of its own, marked as Outermost, write to the other."
            )
        if self._isolation is not None and self._isolation != scope.isolation:
            raise InvalidStateError(
                f"The transaction of this operation was begun with the isolation "
                f"{scope.isolation or 'of the database'}, and can't be {self._isolation} any more: "
                "ask for that in the first block."
            )
        return scope

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scope, session = self._scope, self._session
        assert scope is not None
        assert session is not None
        try:
            if error is None and (session.new or session.dirty or session.deleted):
                await session.flush()
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._is_open = False
            _innermost.set(self._around)
            try:
                if session.in_nested_transaction():
                    await uncancelled(session.close())  # which undoes what it began by itself
                else:
                    # It has joined a transaction, which closing it leaves alone.
                    session.sync_session.close()
            finally:
                scope.leave(self)
                if self._is_alone and error is not None:
                    await uncancelled(roll_back(scope.operation, error))
        if self._is_alone and error is None:
            await self._operations.complete(scope.operation)
            note_freshness(str(scope.operation.freshness))


_innermost: ContextVar[OperationBlock | None] = ContextVar("afresh.block", default=None)
