"""A table of items behind a service: in plain SQLAlchemy, and with afresh on top.

It is the service of the reference's own benchmark: a row has a version, which each change must name
and raises.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import Command, ComputeService, command_handler, compute_method
from afresh.db import Database


class Base(DeclarativeBase):
    """Both services have these tables, each in a database of its own."""


class ItemRow(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)

    def to_item(self) -> Item:
        return Item(self.id, self.version, self.created_at, self.name)


class Item(msgspec.Struct, frozen=True):
    id: int
    version: int
    created_at: str
    name: str


def new_row(name: str) -> ItemRow:
    """A row that is not stored yet."""
    return ItemRow(version=1, created_at=datetime.now(UTC).isoformat(), name=name)


async def change_row(session: AsyncSession, item: Item) -> None:
    """Write what an item says, if the row still has its version."""
    row = await session.get_one(ItemRow, item.id)
    if row.version != item.version:
        raise RuntimeError("Somebody else has changed the item.")
    row.name = item.name
    row.version += 1


class PlainItems:
    """Plain SQLAlchemy: a session for a call."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.sessions = sessions

    async def get(self, item_id: int) -> Item:
        async with self.sessions() as session:
            return (await session.get_one(ItemRow, item_id)).to_item()

    async def add(self, name: str) -> int:
        async with self.sessions.begin() as session:
            row = new_row(name)
            session.add(row)
        return row.id

    async def change(self, item: Item) -> None:
        async with self.sessions.begin() as session:
            await change_row(session, item)


class AddItem(Command[int], frozen=True):
    name: str


class ChangeItem(Command[None], frozen=True):
    item: Item


class Items(ComputeService):
    """The same with afresh: commands write, and say what they make stale."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @compute_method(keep_alive=10)
    async def get(self, item_id: int) -> Item:
        async with self.database.read() as session:
            return (await session.get_one(ItemRow, item_id)).to_item()

    @command_handler
    async def add(self, command: AddItem) -> int:
        async with self.database.operation() as operation:
            row = new_row(command.name)
            operation.session.add(row)
        return row.id

    @add.invalidates
    def _(self, command: AddItem, item_id: int) -> None:
        self.get(item_id)

    @command_handler
    async def change(self, command: ChangeItem) -> None:
        async with self.database.operation() as operation:
            await change_row(operation.session, command.item)

    @change.invalidates
    def _(self, command: ChangeItem, result: None) -> None:
        self.get(command.item.id)
