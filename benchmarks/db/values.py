"""A hundred values that change: behind afresh, behind plain SQLAlchemy, and with NOTIFY by hand."""

from __future__ import annotations

from time import monotonic

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import Command, ComputeService, command_handler, compute_method
from afresh.db import Database

CHANNEL = "bench_values"


class Base(DeclarativeBase):
    """Of one database, which all ways share."""


class ValueRow(Base):
    __tablename__ = "bench_values"

    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]


class SetValue(Command[None], frozen=True):
    key: int
    number: int


class Values(ComputeService):
    """With afresh."""

    def __init__(self, database: Database, written: dict[int, float]) -> None:
        self.database = database
        self.written = written

    @compute_method
    async def get(self, key: int) -> int:
        async with self.database.read() as session:
            return (await session.get_one(ValueRow, key)).number

    @command_handler
    async def change(self, command: SetValue) -> None:
        async with self.database.operation() as operation:
            await write(operation.session, command.key, command.number)
        self.written[command.number] = monotonic()  # and now it is committed

    @change.invalidates
    def _(self, command: SetValue, result: None) -> None:
        self.get(command.key)


class PlainValues:
    """Plain SQLAlchemy behind RPC, to be polled."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.sessions = sessions

    async def all(self) -> dict[int, int]:
        async with self.sessions() as session:
            rows = await session.execute(select(ValueRow.key, ValueRow.number))
            return {row.key: row.number for row in rows}


async def write(session: AsyncSession, key: int, number: int) -> None:
    """Change a value, unless it is a later one already: changes of one key may overtake another."""
    await session.execute(
        update(ValueRow).where(ValueRow.key == key, ValueRow.number < number).values(number=number),
        execution_options={"synchronize_session": False},
    )


async def write_and_notify(
    sessions: async_sessionmaker[AsyncSession], written: dict[int, float], key: int, number: int
) -> None:
    """Change a value in plain SQLAlchemy, and have PostgreSQL tell of it."""
    async with sessions() as session:
        await write(session, key, number)
        await session.execute(text(f"NOTIFY {CHANNEL}, '{key}'"))
        written[number] = monotonic()
        await session.commit()
