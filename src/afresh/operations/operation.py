"""`Operation`: what a command changes, as one thing that happens or does not.

It gathers what belongs to the change: what goes stale, events for later, items for other hosts.
Where there is a database its scope holds the transaction; without one it is in memory only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from afresh.commands import CommandContext, CommandOf
from afresh.commands.context import current
from afresh.errors import InvalidStateError
from afresh.graph.scopes import RecordingInvalidations
from afresh.primitives.transience import Transience

from .effects import Effects
from .events import OnConflict, OperationEvent, make_event
from .freshness import Freshness, Log
from .identity import new_uuid
from .outbox import Outbox
from .parts import Part, level_of

_log = logging.getLogger("afresh.operations")

__all__ = ["OPERATION", "Operation", "OperationScope", "Slot", "current_operation", "slot_of"]


class OperationScope(Protocol):
    """What makes an operation durable: the transaction of a database."""

    is_in_doubt: bool
    """Whether it is not known if a commit that failed happened after all."""

    @property
    def outbox(self) -> Outbox | None:
        """What takes messages to other services; None where there is no broker."""
        ...

    def transience_of(self, error: BaseException) -> Transience:
        """Sort an error, as far as another attempt is concerned."""
        ...

    async def commit(self) -> None:
        """Commit, with everything that belongs to the operation, and tell that to it.

        Raises:
            Exception: nothing was committed, unless it is in doubt.
        """
        ...

    async def was_committed(self) -> bool:
        """Find out whether a commit in doubt happened; if so, tell it to the operation.

        Raises:
            Exception: that can't be found out now.
        """
        ...

    async def rollback(self) -> None:
        """Undo everything; does nothing once it is committed. It raises nothing."""
        ...


class Operation:
    """What a command changes: `database.operation()` and `current_operation()` give it.

    Args:
        host_id: of the host that executes it.
        command: the outermost command; None outside of commands.
        uuid: its name; a new one unless given.
    """

    def __init__(
        self, host_id: str, command: CommandOf[Any] | None = None, uuid: str | None = None
    ) -> None:
        self.uuid: str = uuid or new_uuid()
        """Its name, the same for all attempts."""
        self.host_id: str = host_id
        """The host that executes it."""
        self.command: CommandOf[Any] | None = command
        """The outermost command."""
        self.index: int | None = None
        """Its place in the log; None until it is committed, and if it is not stored."""
        self.log: Log | None = None
        """The log that it stands in: the names of the database and of the shard."""
        self.logged_at: datetime | None = None
        """When its commit began."""
        self.whole: Part = Part()
        """What the outermost command has added, with nested ones that have succeeded."""
        self.scope: OperationScope | None = None
        """Its transaction; None while it is in memory only."""
        self.is_stored: bool = True
        """Whether other hosts are told: False leaves it out of the log."""
        self.is_committed: bool | None = None
        """Whether it happened; None while that is open."""
        self._when_done: list[Callable[[Operation], Awaitable[None] | None]] = []

    @property
    def items(self) -> dict[str, Any]:
        """What the handler leaves for its own block form on other hosts: values JSON can hold."""
        return self._part().items

    @property
    def events(self) -> dict[str, OperationEvent]:
        """Commands to be handled later, by their names; of a nested command, those of its own."""
        return self._part().events

    @property
    def effects(self) -> Effects:
        """What is stale; of a nested command, by what itself has said."""
        return self._part().effects

    def _part(self) -> Part:
        level = level_of(current.get())
        return level if level is not None and level.slot.operation is self else self.whole

    @property
    def freshness(self) -> Freshness:
        """What a reader must have seen to see its changes; empty until it is committed."""
        if not self.is_committed or self.log is None or self.index is None:
            return Freshness()
        return Freshness({self.log: self.index})

    def invalidating(self) -> RecordingInvalidations:
        """Open a block in which calling a compute method makes its result stale, on every host, as
        soon as the operation is committed, and not if it is not.

        `@handler.invalidates` does the same apart from the handler's body.

        Example:
            ```python
            with op.invalidating():
                self.for_user(command.user_id)
            ```
        """
        return self.effects.recording()

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
        """Have a command handled later, on any host, if this operation is committed.

        It is stored with the operation, and handled at least once; what its handler changes in the
        same database is changed exactly once.

        Args:
            command: what is to be handled; an `EventCommand` may have several handlers.
            delay: seconds from now until it is due.
            due_at: when it is due, in place of `delay`.
            uuid: its name; a new one unless given. A later event of the operation takes the place
                of an earlier one of that name.
            on_conflict: what becomes of it if another operation has added one of that name:
                "fail" the operation (the default), "skip" the new one, or "update" the old one if
                it is not handled yet.
            quantum: seconds to which the due time is rounded up; at most one event of that name is
                then handled for each such span (named after the class of the command unless `uuid`
                says otherwise), as the others are skipped.

        Returns:
            The event.

        Raises:
            InvalidStateError: the operation has no transaction of a database.

        Example:
            ```python
            op.add_event(SendReceipt(order.id), delay=300)
            ```
        """
        if self.scope is None:
            raise InvalidStateError(
                f"{type(command).__qualname__} can't be added to an operation in memory, which "
                "stores nothing: add events inside 'async with database.operation() as op'."
            )
        self.check_open()
        event = make_event(
            command,
            datetime.now(UTC),
            delay=delay,
            due_at=due_at,
            uuid=uuid,
            on_conflict=on_conflict,
            quantum=quantum,
        )
        self._part().add_event(event)
        return event

    def publish(
        self,
        event: Any,
        *,
        key: str | None = None,
        destination: str | None = None,
        message_id: str | None = None,
        delay: float = 0,
    ) -> str:
        """Tell other services of an event, through the message broker, if this operation is
        committed.

        It is stored with the operation, and published afterwards, at least once.

        Args:
            event: what happened: a struct, a dataclass or an attrs class, of a type that this
                service owns; see `afresh.brokers.event`.
            key: events of one key stay in order.
            destination: the logical channel, where it is not that of the event's type.
            message_id: the name of the message, by which receivers know it again; a new one unless
                given.
            delay: seconds before which it is not published; it then stands in no order.

        Returns:
            The name of the message.

        Raises:
            InvalidStateError: there is no broker, or no transaction of a database.
            DefinitionError: the event can't be written.

        Example:
            ```python
            op.publish(OrderPlaced(row.id, row.user_id), key=row.user_id)
            ```
        """
        outbox = self.scope.outbox if self.scope is not None else None
        if outbox is None:
            raise InvalidStateError(
                f"{type(event).__qualname__} can't be published: "
                + (
                    "make the app with a broker, App(broker=…)."
                    if self.scope is not None
                    else "publish inside 'async with database.operation() as op'."
                )
            )
        self.check_open()
        message = outbox.make(
            self,
            event,
            key=key,
            destination=destination,
            message_id=message_id,
            delay=delay,
        )
        self._part().messages.append(message)
        return message.message_id

    def when_done(self, function: Callable[[Operation], Awaitable[None] | None]) -> None:
        """Have a function called when this attempt has ended, committed or not.

        The command waits for it. Its errors are logged, and change nothing.

        Args:
            function: takes the operation, whose `is_committed` tells how it ended.
        """
        self.check_open()
        self._when_done.append(function)

    def check_open(self) -> None:
        """Complain if it has ended.

        Raises:
            InvalidStateError: it was committed, or rolled back.
        """
        if self.is_committed is not None:
            raise InvalidStateError(f"{self!r} has ended; change it only while its command runs.")

    async def fail(self) -> None:
        """Note that it did not happen, and tell those who wait for the end."""
        self.is_committed = False
        await self.done()

    async def done(self) -> None:
        """Call the functions that wait for the end."""
        for function in self._when_done:
            try:
                waiting = function(self)
                if waiting is not None:
                    await waiting
            except Exception:
                _log.exception("%r failed when %r had ended.", function, self)

    def __repr__(self) -> str:
        state = {None: "open", True: "committed", False: "rolled back"}[self.is_committed]
        what = type(self.command).__qualname__ if self.command is not None else "no command"
        return f"<Operation {self.uuid} of {what}, {state}>"


OPERATION = "afresh.operation"
"""Where the context of a command keeps its `Slot`."""


class Slot:
    """Where an attempt of a command, with all that it calls, keeps its operation."""

    __slots__ = ("context", "host_id", "operation", "uuid")

    def __init__(self, context: CommandContext[Any], host_id: str, uuid: str | None = None) -> None:
        self.context: CommandContext[Any] = context
        self.host_id: str = host_id
        self.operation: Operation | None = None
        self.uuid: str | None = uuid
        """The name that earlier attempts had."""

    def need(self) -> Operation:
        """Return the operation, beginning it if there is none."""
        operation = self.operation
        if operation is None:
            operation = self.operation = Operation(self.host_id, self.context.command, self.uuid)
        return operation


def slot_of(context: CommandContext[Any] | None) -> Slot | None:
    """Return where the command that is handled in a context keeps its operation, if anywhere."""
    while context is not None:
        if context._items is not None:
            slot: Slot | None = context._items.get(OPERATION)
            if slot is not None:
                return slot
        context = context.outer
    return None


def current_operation() -> Operation:
    """Return the operation of the command that is being handled here, beginning it if need be.

    Raises:
        InvalidStateError: no command is being handled, or one that changes nothing.

    Example:
        ```python
        current_operation().items["old_user"] = order.user_id
        ```
    """
    context = current.get()
    slot = slot_of(context)
    if context is None or slot is None:
        raise InvalidStateError(
            "There is no operation here: current_operation() is for handlers of an app that has a "
            "database, or that say what their commands make stale."
        )
    context.check_active()
    return slot.need()
