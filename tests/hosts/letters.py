"""Two services that know each other by events only: one sends letters, one keeps what it was sent.

Letters of a writer are numbered in the order of commits, and whoever receives one writes a row that
nothing keeps a second one out of: so a test sees what was lost, doubled, or out of order.
"""

from __future__ import annotations

import asyncio
import os

import msgspec
from sqlalchemy import MetaData, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import String

from afresh import Command, ComputeService, command_handler, compute_method
from afresh.brokers import add_broker_tables, current_event, event, on_event
from afresh.db import Database
from afresh.db.tables import add_log_tables


class Base(DeclarativeBase):
    metadata = MetaData()
    type_annotation_map = {str: String(100)}


class WriterRow(Base):
    """How many letters somebody has written."""

    __tablename__ = "writers"

    writer: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class ReceivedRow(Base):
    """That a letter was received."""

    __tablename__ = "received"

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str]
    writer: Mapped[str] = mapped_column(index=True)
    number: Mapped[int]
    deliveries: Mapped[int]
    process_id: Mapped[int]


log_tables = add_log_tables(Base.metadata)
broker_tables = add_broker_tables(Base.metadata)


@event("letters.sent")
class LetterSent(msgspec.Struct, frozen=True):
    writer: str
    number: int


class Send(Command[int], frozen=True):
    """Sends a letter of each writer, in one transaction; results in the number of the last one.

    Args:
        writers: who writes; a name may come more than once.
        has_order: whether the letters of a writer are to come in order.
        delay: seconds until they are sent.
    """

    writers: list[str]
    has_order: bool = True
    delay: float = 0


class Sender(ComputeService):
    """Sends letters."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @command_handler
    async def send(self, command: Send) -> int:
        number = 0
        async with self.database.operation() as op:
            for writer in command.writers:
                written = insert(WriterRow).values(writer=writer, count=1)
                written = written.on_conflict_do_update(
                    index_elements=["writer"], set_={"count": WriterRow.count + 1}
                )
                number = (await op.session.execute(written.returning(WriterRow.count))).scalar_one()
                op.publish(
                    LetterSent(writer, number),
                    key=writer if command.has_order else None,
                    delay=command.delay,
                )
        return number


class Reader(ComputeService):
    """Keeps what it was sent.

    Args:
        database: where.
        seconds: how long it takes for each.
    """

    def __init__(self, database: Database, seconds: float = 0) -> None:
        self.database = database
        self.seconds = seconds

    @compute_method(keep_alive=600)
    async def count(self, writer: str) -> int:
        async with self.database.read() as session:
            query = select(func.count()).where(ReceivedRow.writer == writer)
            return (await session.scalars(query)).one()

    @on_event(LetterSent, group="readers")
    async def receive(self, event: LetterSent) -> None:
        meta = current_event()
        async with self.database.operation() as op:
            op.session.add(
                ReceivedRow(
                    message_id=meta.id,
                    writer=event.writer,
                    number=event.number,
                    deliveries=meta.deliveries,
                    process_id=os.getpid(),
                )
            )
            await op.session.flush()
            await asyncio.sleep(self.seconds)

    @receive.invalidates
    def _(self, event: LetterSent) -> None:
        self.count(event.writer)


class Listener(ComputeService):
    """Hears of all letters in each process, and keeps nothing but in memory."""

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}

    @compute_method(keep_alive=600)
    async def heard(self, writer: str) -> int:
        return self._heard.get(writer, 0)

    @on_event(LetterSent, mode="broadcast")
    async def hear(self, event: LetterSent) -> None:
        self._heard[event.writer] = event.number

    @hear.invalidates
    def _(self, event: LetterSent) -> None:
        self.heard(event.writer)
