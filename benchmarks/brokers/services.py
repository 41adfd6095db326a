"""A service that tells of orders, and one that notes them, with afresh."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec
from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Command, ComputeService, command_handler
from afresh.brokers import Broker, ConsumerOptions, RelayOptions, event, on_event
from afresh.db import Database
from benchmarks.brokers.cases import WINDOW, WORKERS


class Base(DeclarativeBase):
    """Of the databases of both services."""


class OrderRow(Base):
    __tablename__ = "bench_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


class NoteRow(Base):
    __tablename__ = "bench_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    text: Mapped[str]


@event("bench.order_placed")
class OrderPlaced(msgspec.Struct, frozen=True):
    number: int
    text: str = ""


class PlaceOrder(Command[None], frozen=True):
    number: int


class Orders(ComputeService):
    """Tells of each order that is placed; `committed` has the moments."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.committed: dict[int, float] = {}

    @command_handler
    async def place(self, command: PlaceOrder) -> None:
        async with self.database.operation() as operation:
            operation.session.add(OrderRow(number=command.number))
            operation.publish(OrderPlaced(command.number), key=f"u{command.number}")
        self.committed[command.number] = monotonic()  # and now it is committed


class Notes(ComputeService):
    """Writes a row for each order; `tell` is called first."""

    def __init__(self, database: Database, tell: Callable[[OrderPlaced], None]) -> None:
        self.database = database
        self.tell = tell

    @on_event(OrderPlaced, group="notes")
    async def note(self, event: OrderPlaced) -> None:
        self.tell(event)
        async with self.database.operation() as operation:
            row = insert(NoteRow).values(number=event.number, text=event.text)
            await operation.session.execute(row)


def app_on(postgresql: str, rabbitmq: str) -> App:
    """An app with the tables of both services; they are added to it as needed."""
    return App(
        database=Database(postgresql, metadata=Base.metadata, create_tables=True),
        broker=Broker(
            rabbitmq,
            source="/bench",
            relay=RelayOptions(window=WINDOW),
            consumer=ConsumerOptions(workers=WORKERS),
        ),
    )
