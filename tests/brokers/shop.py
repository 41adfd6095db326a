"""Two services that know each other by events only: a shop, and one that writes notes of orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Command, ComputeService, command_handler, compute_method
from afresh.brokers import (
    Broker,
    ConsumerOptions,
    MemoryTransport,
    RelayOptions,
    Transport,
    current_event,
    event,
    on_event,
)
from afresh.brokers.transports.memory import MemoryBroker
from afresh.db import Database
from afresh.operations import RetryPolicy
from afresh.primitives.delays import RetryDelays

QUICK = RetryDelays.fixed(0.02)
RELAY = RelayOptions(poll=0.05, retries=QUICK, pauses=QUICK)
CONSUMER = ConsumerOptions(retries=QUICK, deliveries=4)


class ShopBase(DeclarativeBase):
    pass


class OrderRow(ShopBase):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str]


class NotesBase(DeclarativeBase):
    pass


class NoteRow(NotesBase):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]


@event("tests.order_placed")
class OrderPlaced(msgspec.Struct, frozen=True):
    order_id: int
    user_id: str
    note: str = ""


class PlaceOrder(Command[int], frozen=True):
    user_id: str
    note: str = ""
    is_failing: bool = False
    message_id: str | None = None
    destination: str | None = None


class Shop(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database

    @command_handler
    async def place(self, command: PlaceOrder) -> int:
        async with self.database.operation() as op:
            row = OrderRow(user_id=command.user_id)
            op.session.add(row)
            await op.session.flush()
            op.publish(
                OrderPlaced(row.id, row.user_id, command.note),
                key=row.user_id,
                message_id=command.message_id,
                destination=command.destination,
            )
            if command.is_failing:
                raise ValueError("The card was refused.")
        return row.id


class Notes(ComputeService):
    """Fails with notes that say so; what it was handed is in `handed`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.handed: list[OrderPlaced] = []
        self.deliveries: list[int] = []
        self.failures: dict[str, list[Exception]] = {}

    @compute_method
    async def count(self, user_id: str) -> int:
        async with self.database.read() as session:
            query = select(func.count()).select_from(NoteRow).where(NoteRow.user_id == user_id)
            return await session.scalar(query) or 0

    async def all(self) -> list[str]:
        async with self.database.read() as session:
            rows = await session.scalars(select(NoteRow.text).order_by(NoteRow.id))
            return list(rows)

    @on_event(OrderPlaced, group="notes")
    async def write(self, event: OrderPlaced) -> None:
        self.handed.append(event)
        self.deliveries.append(current_event().deliveries)
        async with self.database.operation() as op:
            op.session.add(NoteRow(user_id=event.user_id, text=event.note))
            await op.session.flush()
            waiting = self.failures.get(event.note)
            if waiting:
                raise waiting.pop(0)

    @write.invalidates
    def _(self, event: OrderPlaced) -> None:
        self.count(event.user_id)


class World:
    """A shop, and notes, around one broker in memory."""

    def __init__(self, shop: App, notes: App, broker: MemoryBroker) -> None:
        self.shop = shop
        self.notes = notes
        self.broker = broker
        self.service: Any = None

    async def settled(self, count: int) -> None:
        """Wait until so many notes are written."""
        async with asyncio.timeout(20):
            while len(await self.service.all()) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    shop_url: str = "sqlite+aiosqlite://",
    notes_url: str = "sqlite+aiosqlite://",
    *,
    transport: Transport | None = None,
    relay: RelayOptions = RELAY,
    consumer: ConsumerOptions = CONSUMER,
) -> AsyncIterator[World]:
    broker = MemoryBroker()
    shop = App(
        database=Database(shop_url, metadata=ShopBase.metadata, create_tables=True),
        broker=Broker(
            transport or MemoryTransport(broker=broker), source="/tests/shop", relay=relay
        ),
    )
    shop.add(Shop(shop.database), is_served=False)
    notes = App(
        database=Database(notes_url, metadata=NotesBase.metadata, create_tables=True),
        broker=Broker(MemoryTransport(broker=broker), source="/tests/notes", consumer=consumer),
        retries=RetryPolicy(retries=0),  # so that each attempt is a delivery
    )
    found = World(shop, notes, broker)
    found.service = notes.add(Notes(notes.database), is_served=False)
    async with notes, shop:
        yield found
