"""Where a worker process can be made to die, wait or fail: it wraps methods of afresh.

The code under test calls nothing for tests; this module knows its insides in its place. A process
that has installed it announces every fault it comes to, so that a test knows where it is.

Points:
    before store: a command is done; its operation, events and guard are not written yet.
    before commit: all of that is written; the transaction is open.
    in commit: the database has committed; nobody here knows.
    after commit: it is known here; nothing is completed, and nobody is told.
    before event: an event is taken from the log; its handler has not begun.
    in trimming: a batch of rows of a log is about to be deleted.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncTransaction

from afresh.commands import Commander
from afresh.db.logs.trimmers import Trimmer
from afresh.db.scope import DatabaseScope
from afresh.operations import COMMIT_GUARD

Action = Literal["kill", "wait", "fail"]


class Fault(msgspec.Struct):
    """What happens at a point.

    Args:
        point: where.
        action: "kill" this process, "wait", or "fail" as if the connection was lost.
        seconds: how long to wait.
        passes: how often the point is passed unharmed before.
        only: the type of commands that it happens to.
    """

    point: str
    action: Action
    seconds: float = 3_600
    passes: int = 0
    only: str | None = None


@dataclass
class Faults:
    """The faults that lie ahead of this process.

    Args:
        announce: is told of each that was reached.
    """

    announce: Callable[[str], object]

    def __post_init__(self) -> None:
        self.ahead: list[Fault] = []

    async def reach(self, point: str, command: object = None) -> None:
        """Come to a point; what lies there happens."""
        for fault in self.ahead:
            if fault.point != point or fault.only not in {None, type(command).__name__}:
                continue
            if fault.passes:
                fault.passes -= 1
                continue
            self.ahead.remove(fault)
            self.announce(point)
            match fault.action:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "wait":
                    await asyncio.sleep(fault.seconds)
                case "fail":
                    raise OperationalError(
                        "", None, ConnectionResetError(point), connection_invalidated=True
                    )
            return

    def install(self) -> None:
        """Wrap the methods that lead past the points."""

        async def store(original: Call, scope: Any, *args: Any) -> None:
            await self.reach("before store", scope.operation.command)
            await original(scope, *args)
            await self.reach("before commit", scope.operation.command)

        async def commit(original: Call, transaction: Any) -> None:
            await original(transaction)
            if not transaction.nested:
                await self.reach("in commit")

        async def commit_scope(original: Call, scope: Any) -> None:
            await original(scope)
            await self.reach("after commit", scope.operation.command)

        async def call(original: Call, commander: Any, command: Any, **options: Any) -> Any:
            if COMMIT_GUARD in (options.get("items") or ()):
                await self.reach("before event", command)
            return await original(commander, command, **options)

        async def delete(original: Call, trimmer: Any, *args: Any, **options: Any) -> None:
            await self.reach("in trimming")
            await original(trimmer, *args, **options)

        wrap(Trimmer, "_delete", delete)
        wrap(DatabaseScope, "_store", store)
        wrap(AsyncTransaction, "commit", commit)
        wrap(DatabaseScope, "commit", commit_scope)
        wrap(Commander, "call", call)


Call = Callable[..., Awaitable[Any]]


def wrap(owner: type, name: str, around: Callable[..., Awaitable[Any]]) -> None:
    """Put a coroutine function around a method; it gets that as its first argument."""
    original = getattr(owner, name)

    @functools.wraps(original)
    async def wrapper(*args: Any, **options: Any) -> Any:
        return await around(original, *args, **options)

    setattr(owner, name, wrapper)
