"""A desk with notes: handlers do what the test at hand has written down for them.

`desk_at(url)` is one host, put together by hand and without anything in the background; two of them
at one address are two hosts, the second of which learns of the first by `apply_log`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import String, delete, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import ComputeService, compute_method
from afresh.commands import (
    Command,
    Commander,
    Delegating,
    EventCommand,
    Outermost,
    SystemCommand,
    command_handler,
)
from afresh.db import Database
from afresh.operations import LoggedOperation, Operation, Operations, RetryPolicy
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience

AT_ONCE = RetryPolicy(delays=RetryDelays.fixed(0))

Work = Callable[[], Awaitable[Any]]


class Base(DeclarativeBase):
    pass


class NoteRow(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(50), index=True)
    text: Mapped[str] = mapped_column(String(50), default="")


class TallyRow(Base):
    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


class Busy(Exception):
    transience = Transience.TRANSIENT


class VeryBusy(Exception):
    transience = Transience.SUPER_TRANSIENT


def ends_of(operation: Operation, ends: list[tuple[str, bool | None]]) -> None:
    """Note how each attempt ends."""
    operation.when_done(lambda each: ends.append((each.uuid, each.is_committed)))


class Do(Command[Any], frozen=True):
    name: str


class DoApart(Command[Any], Outermost, frozen=True):
    name: str


class DoAll(Command[Any], Delegating, frozen=True):
    name: str


class DoWithin(Command[Any], SystemCommand, frozen=True):
    name: str


class Noted(Command[None], EventCommand, frozen=True):
    name: str


class Desk(ComputeService):
    """Commands run the work of their name; those that change something make `texts` stale."""

    def __init__(self, database: Database, commander: Commander) -> None:
        self.database = database
        self.commander = commander
        self.work: dict[str, Work] = {}
        self.ran: list[str] = []

    @compute_method
    async def texts(self, key: str) -> tuple[str, ...]:
        async with self.database.read() as session:
            query = select(NoteRow.text).where(NoteRow.key == key).order_by(NoteRow.id)
            return tuple(await session.scalars(query))

    @compute_method
    async def count(self) -> int:
        async with self.database.read() as session:
            return len((await session.scalars(select(NoteRow.id))).all())

    async def note(self, key: str, text: str = "") -> int:
        """Write a note, in a block of its own."""
        async with self.database.operation() as op:
            row = NoteRow(key=key, text=text)
            op.session.add(row)
        return row.id

    async def add(self, name: str, amount: int = 1) -> int:
        """Read a tally and write it back with the row locked."""
        async with self.database.operation() as op:
            query = select(TallyRow).where(TallyRow.name == name).with_for_update()
            row = (await op.session.scalars(query)).one()
            row.value += amount
            return row.value

    def on(self, name: str) -> Callable[[Work], Work]:
        """Write down what commands of a name do."""

        def decorate(work: Work) -> Work:
            self.work[name] = work
            return work

        return decorate

    async def call(self, name: str) -> Any:
        return await self.commander.call(Do(name))

    async def _run(self, name: str) -> Any:
        self.ran.append(name)
        return await self.work[name]()

    @command_handler
    async def do(self, command: Do) -> Any:
        return await self._run(command.name)

    @do.invalidates
    def _(self, command: Do, result: Any) -> None:
        self.texts(command.name)

    @command_handler
    async def do_apart(self, command: DoApart) -> Any:
        return await self._run(command.name)

    @do_apart.invalidates
    def _(self, command: DoApart, result: Any) -> None:
        self.texts(command.name)

    @command_handler
    async def do_all(self, command: DoAll) -> Any:
        return await self._run(command.name)

    @command_handler
    async def do_within(self, command: DoWithin) -> Any:
        return await self._run(command.name)

    @command_handler
    async def noted(self, command: Noted) -> None:
        await self._run(command.name)

    @command_handler
    async def noted_too(self, command: Noted) -> None:
        await self._run(f"{command.name} too")


class Host:
    """A desk, and what it stands on."""

    def __init__(self, url: str, retries: RetryPolicy, options: dict[str, Any]) -> None:
        self.commander = Commander()
        self.operations = Operations(self.commander, retries=retries)
        self.database = Database(url, metadata=Base.metadata, **options)
        self.database.attach(self.operations)
        self.desk = self.commander.add(Desk(self.database, self.commander))
        self.operations.services.add("Desk", self.desk)
        self._applied = 0

    async def rows(self, query: Any) -> list[Any]:
        async with self.database.read() as session:
            return list((await session.execute(query)).all())

    async def log(self) -> list[Any]:
        """The log of operations."""
        table = self.database.tables.operations
        return await self.rows(select(table).order_by(table.c.index))

    async def events(self) -> list[Any]:
        """The log of events."""
        table = self.database.tables.events
        return await self.rows(select(table).order_by(table.c.uuid))

    async def notes(self) -> list[tuple[str, str]]:
        """What is really there."""
        return [tuple(row) for row in await self.rows(select(NoteRow.key, NoteRow.text))]

    async def tally(self, name: str) -> int:
        """What is really there."""
        return int((await self.rows(select(TallyRow.value).where(TallyRow.name == name)))[0][0])

    async def tallies(self, *names: str) -> None:
        """Begin tallies."""
        async with self.database.operation() as op:
            op.session.add_all([TallyRow(name=name, value=0) for name in names])

    async def apply_log(self) -> None:
        """Learn what others have logged since the last time."""
        for row in await self.log():
            if row.index > self._applied:
                self._applied = row.index
                await self.operations.completion.apply(LoggedOperation(**row._mapping))


async def create_tables(url: str) -> None:
    """Create the tables of a desk."""
    async with _attached(url, AT_ONCE, {}) as host:
        await host.database.create_tables()


@asynccontextmanager
async def desk_at(
    url: str, *, retries: RetryPolicy = AT_ONCE, **options: Any
) -> AsyncIterator[Host]:
    """A host with nothing on its desk; the options are those of `Database`."""
    async with _attached(url, retries, options) as host:
        shard = host.database.shard()
        if shard.dialect == "sqlite":
            await host.database.create_tables()
        else:
            async with shard.write.begin() as connection:
                for table in host.database.metadata.tables.values():
                    await connection.execute(delete(table))
        yield host


@asynccontextmanager
async def _attached(url: str, retries: RetryPolicy, options: dict[str, Any]) -> AsyncIterator[Host]:
    host = Host(url, retries, options)
    try:
        yield host
    finally:
        await host.commander.aclose()
        await host.database.aclose()
