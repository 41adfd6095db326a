"""A library in memory: what it lends out, and to whom, with commands of all forms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from afresh import ComputeService, compute_function, compute_method, is_invalidating
from afresh.commands import Command, Commander, CommandOf, EventCommand, command_handler
from afresh.operations import LoggedOperation, Operation, Operations, current_operation


class Lend(Command[str], frozen=True):
    """Says what is stale apart from its handler."""

    title: str
    reader: str


class Return(Command[None], frozen=True):
    """Says so in its body."""

    title: str


class Look(Command[int], frozen=True):
    """Changes nothing."""

    title: str


class Closed(Command[None], EventCommand, frozen=True):
    """Two handlers take it, and one of them says what is stale."""

    day: str


class Through(Command[Any], frozen=True):
    """Does what the test has put into `Library.work`."""

    name: str


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@compute_function
async def opening_hours(day: str) -> str:
    return "9-5"


class Library(ComputeService):
    def __init__(self, commander: Commander) -> None:
        self.commander = commander
        self.lent: dict[str, str] = {}
        self.work: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.replayed: list[Any] = []

    @compute_method
    async def reader_of(self, title: str) -> str | None:
        return self.lent.get(title)

    @compute_method
    async def titles_of(self, reader: str) -> tuple[str, ...]:
        return tuple(title for title, each in self.lent.items() if each == reader)

    @compute_method
    async def count(self) -> int:
        return len(self.lent)

    @command_handler
    async def lend(self, command: Lend) -> str:
        self.lent[command.title] = command.reader
        return command.title.upper()

    @lend.invalidates
    def _(self, command: Lend, result: str) -> None:
        assert result == command.title.upper()
        self.reader_of(command.title)
        self.titles_of.invalidate(command.reader)
        self.count()

    @command_handler
    async def take_back(self, command: Return) -> None:
        if is_invalidating():
            reader = current_operation().items.get("reader")
            self.replayed.append((command, reader))
            self.reader_of(command.title)
            if reader is not None:
                self.titles_of(reader)
            return
        current_operation().items["reader"] = self.lent.pop(command.title)

    @command_handler
    async def look(self, command: Look) -> int:
        return len(self.lent)

    @command_handler
    async def on_closed(self, command: Closed) -> None:
        if is_invalidating():
            self.replayed.append(command)
            opening_hours(command.day)

    @command_handler
    async def also_on_closed(self, command: Closed) -> None:
        pass

    @command_handler
    async def through(self, command: Through) -> Any:
        return await self.work[command.name]()

    @through.invalidates
    def _(self, command: Through, result: Any) -> None:
        self.reader_of(command.name)


class Host:
    """A host without a database; what it would log can be passed on by hand."""

    def __init__(self, **options: Any) -> None:
        self.commander = Commander()
        self.operations = Operations(self.commander, **options)
        self.library = self.add(Library(self.commander), "Library")
        self.completed: list[Operation] = []
        self.operations.completion.on_completed(self.completed.append)

    def add(self, service: Any, name: str) -> Any:
        self.operations.services.add(name, self.commander.add(service))
        return service

    async def call(self, command: CommandOf[Any]) -> Any:
        return await self.commander.call(command)

    def logged(self, operation: Operation, **changes: Any) -> LoggedOperation:
        """What another host would read in the log."""
        operations = self.operations
        row: dict[str, Any] = {
            "index": 1,
            "uuid": operation.uuid,
            "host_id": operation.host_id,
            "logged_at": datetime.now(UTC),
            "command": None,
            "effects": operation.whole.effects.encode(operations.services, operations.codec),
        }
        return LoggedOperation(**{**row, **changes})

    async def tell(self, other: Host, **changes: Any) -> None:
        """Let another host apply the last operation."""
        logged = self.logged(self.completed[-1], **changes)
        await other.operations.completion.apply(logged)
