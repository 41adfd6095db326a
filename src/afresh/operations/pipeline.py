"""`Operations`: what lets commands happen wholly or not at all.

One filter of the commander's pipeline does it, around every handler that can change something: it
tries again what may pass, gathers what goes stale, commits, and completes. Everything from the
commit on is kept from cancellation, so that a caller who leaves neither tears a commit apart nor
leaves results stale.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from afresh.commands import (
    CommandContext,
    Commander,
    CommandOf,
    Delegating,
    Handler,
    HandlerDefinition,
    SystemCommand,
    command_filter,
)
from afresh.commands.context import current
from afresh.primitives.clock import current_clock
from afresh.primitives.tasks import uncancelled
from afresh.primitives.transience import Transience, retry_delay_of

from .codec import LogCodec
from .completion import Completion
from .effects import Replay
from .freshness import FreshnessGate, tell_caller
from .identity import new_host_id
from .operation import OPERATION, Operation, Slot, slot_of
from .outbox import Outbox
from .parts import LEVEL, Level, level_of
from .retries import RetryPolicy
from .services import Services
from .telemetry import record_failure

__all__ = ["COMMIT_GUARD", "OPERATIONS_PRIORITY", "CommitGuard", "Operations", "roll_back"]

OPERATIONS_PRIORITY: Final = 100_000.0
"""Filters of a lower priority run once for each attempt, and inside of its transaction."""

COMMIT_GUARD: Final = "afresh.commit_guard"
"""Where the context of an outermost command may keep a `CommitGuard`."""


class CommitGuard(Protocol):
    """Something to be done in the transaction of a command just before it is committed."""

    database: str
    """Whose transaction it is for, with `shard`."""
    shard: str
    is_used: bool
    """Set once it was called for a transaction that is then committed."""

    async def __call__(self, connection: Any) -> None:
        """Do it.

        Args:
            connection: an SQLAlchemy `AsyncConnection`.

        Raises:
            Exception: nothing is committed.
        """
        ...


class Operations:
    """Gives the commands of a commander their operations.

    Args:
        commander: whose commands.
        host_id: the name of this host; a new one unless given.
        retries: how often an operation is tried again when it failed by something that may pass.

    Example:
        ```python
        commander = Commander()
        operations = Operations(commander)
        ```
    """

    def __init__(
        self,
        commander: Commander,
        *,
        host_id: str | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.commander: Commander = commander
        self.host_id: str = host_id or new_host_id()
        self._named_here = os.getpid() if host_id is None else None
        self.retries: RetryPolicy = retries or RetryPolicy()
        self.services: Services = Services()
        """The names of compute methods, the same on every host."""
        self.codec: LogCodec = LogCodec(commander.registry)
        self.completion: Completion = Completion(commander, self.services, self.codec, self.host_id)
        self.freshness: FreshnessGate = FreshnessGate()
        """Lets readers wait for what they know of."""
        self.outbox: Outbox | None = None
        """What takes messages to other services, where there is a broker."""
        self.retried: int = 0
        """How many attempts followed upon one that failed."""
        self._is_durable = False
        self.completion.on_completed(tell_caller)
        commander.add(self, name="afresh")

    def start(self) -> None:
        """Begin to work as a host; the app does it.

        A process that was forked since is a host of its own.
        """
        if self._named_here not in {None, os.getpid()}:
            self.host_id = self.completion.host_id = new_host_id()
            self._named_here = os.getpid()

    def become_durable(self) -> None:
        """Let all commands have operations: there is a database that they may write to."""
        self._is_durable = True
        self.commander.forget_chains()

    def _takes_part(self, command_type: type, final: Handler | None) -> bool:
        if final is None or issubclass(command_type, (SystemCommand, Delegating)):
            return False
        return self._is_durable or says_what_is_stale(final)

    @command_filter(priority=OPERATIONS_PRIORITY, when=_takes_part)
    async def operate(self, command: CommandOf[Any], proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Give a command an operation, or its part in that of the command that called it."""
        context = current.get()
        assert context is not None
        outer = slot_of(context.outer)
        if outer is not None:
            return await self._nested(context, outer, proceed)
        items = dict(context.items)
        slot = context.items[OPERATION] = Slot(context, self.host_id)
        retries = 0
        doubt: _Doubt | None = None
        result: Any = None
        try:
            while True:
                try:
                    result = await proceed()
                    _record(slot, None, context, result)
                    operation = slot.operation
                    if operation is not None:
                        if operation.scope is not None:
                            await uncancelled(self._commit(operation))
                        else:
                            operation.logged_at = datetime.now(UTC)
                            operation.is_committed = True
                            if operation._when_done:
                                await uncancelled(self._finish(operation))
                            else:
                                self.completion.complete(operation)
                    return result
                except BaseException as error:
                    operation = slot.operation
                    if operation is None or operation.is_committed:
                        raise
                    transience = await uncancelled(roll_back(operation, error))
                    if doubt is not None and await self._happened(doubt, slot):
                        return doubt.result
                    if operation.scope is not None and operation.scope.is_in_doubt:
                        if doubt is not None:  # else this one could not have come so far
                            await uncancelled(doubt.operation.fail())
                        doubt = _Doubt(operation, result)
                    if transience not in _PASSING:
                        raise
                    kind = type(context.command)
                    retries += transience is Transience.TRANSIENT
                    if retries > self.retries.retries:
                        record_failure(kind, transience, "exhausted")
                        raise
                    delay = max(self.retries.delays[max(retries, 1)], retry_delay_of(error) or 0)
                    record_failure(kind, transience, "scheduled", delay)
                self.retried += 1
                context.items.clear()
                context.items.update(items)
                slot = context.items[OPERATION] = Slot(context, self.host_id, operation.uuid)
                operation = None
                await current_clock().sleep(delay)
                if doubt is not None and await self._happened(doubt, slot):
                    return doubt.result
        finally:
            if doubt is not None and not doubt.operation.is_committed:
                self.completion.suspect(doubt.operation)
                await uncancelled(doubt.operation.fail())

    async def _commit(self, operation: Operation) -> None:
        assert operation.scope is not None
        await operation.scope.commit()
        await self._finish(operation)

    async def _finish(self, operation: Operation) -> None:
        try:
            await operation.done()
        finally:
            self.completion.complete(operation)

    async def _happened(self, doubt: _Doubt, slot: Slot) -> bool:
        """Whether an attempt whose commit was in doubt was committed after all; completes it."""
        operation = doubt.operation
        assert operation.scope is not None
        try:
            if not await operation.scope.was_committed():
                return False
        except Exception:
            return False  # still in doubt
        slot.operation = operation
        await uncancelled(self._finish(operation))
        return True

    async def complete(self, operation: Operation) -> None:
        """Commit an operation that belongs to no command, and complete it.

        Raises:
            Exception: it was not committed, and is rolled back.
        """
        try:
            await uncancelled(self._commit(operation))
        except BaseException as error:
            if not operation.is_committed:
                await uncancelled(roll_back(operation, error))
                if operation.is_committed is None:
                    self.completion.suspect(operation)
                    await uncancelled(operation.fail())
            raise

    async def _nested(
        self, context: CommandContext[Any], slot: Slot, proceed: Callable[[], Awaitable[Any]]
    ) -> Any:
        level = context.items[LEVEL] = Level(level_of(context.outer), slot)
        try:
            result = await proceed()
            _record(slot, level, context, result)
            if level.savepoint is not None:
                await level.savepoint.release()
        except BaseException as error:
            if level.savepoint is not None:
                await uncancelled(level.savepoint.rollback(error))
            raise
        if slot.operation is not None:
            (level.outer or slot.operation.whole).add(level)
        return result

    def health(self) -> dict[str, Any]:
        """Return who this host is, and how many operations it has completed, retried and failed."""
        return {
            "host": self.host_id,
            "retried": self.retried,
            **self.completion.health(),
            "freshness": self.freshness.health(),
        }

    def __repr__(self) -> str:
        return f"<Operations of {self.host_id}>"


class _Doubt(NamedTuple):
    """An attempt whose commit failed, and may have happened all the same."""

    operation: Operation
    result: Any


async def roll_back(operation: Operation, error: BaseException) -> Transience:
    """Undo an operation, and say whether it is worth another attempt.

    One whose commit is in doubt is neither committed nor rolled back then.
    """
    scope = operation.scope
    transience = Transience.NON_TRANSIENT
    if scope is not None:
        if isinstance(error, Exception):
            transience = scope.transience_of(error)
        await scope.rollback()
    if scope is None or not scope.is_in_doubt:
        await operation.fail()
    return transience


_PASSING = (Transience.TRANSIENT, Transience.SUPER_TRANSIENT)


# -- what handlers say


def says_what_is_stale(handler: Handler) -> bool:
    """Whether a handler says what its command makes stale."""
    definition = handler.definition
    return definition is not None and (definition.invalidates is not None or asks(definition))


def asks(definition: HandlerDefinition) -> bool:
    """Whether the body of a handler has the block form: it asks `is_invalidating()`."""
    code = getattr(inspect.unwrap(definition.function), "__code__", None)
    return code is not None and "is_invalidating" in code.co_names


def _record(slot: Slot, level: Level | None, context: CommandContext[Any], result: Any) -> None:
    """Add what a command made stale to its part of the operation."""
    final = context.chain.final
    if final is None or final.definition is None:
        return
    invalidates = final.definition.invalidates
    if invalidates is None and not asks(final.definition):
        return
    whole = slot.need().whole
    part = level or whole
    if invalidates is not None:
        with part.effects.recording():
            invalidates(final.owner, context.command, result)
    else:
        chain = final.id if context.chain.is_event else None
        part.effects.replays.append(Replay(context.command, chain, dict(part.items)))
