"""Inventory: what the warehouse has, what of it is promised, and who should know when it runs low.

It publishes events of its own, as it commits what they tell of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, cast

from sqlalchemy import Connection, String, Table, delete, func, insert, select
from sqlalchemy.event import listens_for
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import command_handler, compute_method
from afresh.brokers import on_event
from afresh.db import Database, UtcTimestamp, WritableOperation

from ..events import OrderPacked, OrderPlaced, RunningLow
from .contracts import Inventory, Movement, Refill, Shelf

Kind = Literal["reserved", "shipped", "refilled"]

LOW = 10
_SHELVES = {
    "espresso": ("Espresso beans", 60),
    "darjeeling": ("First flush Darjeeling", 30),
    "croissant": ("Butter croissants", 24),
    "cookies": ("Oat cookies", 80),
    "cake": ("Lemon drizzle cake", 14),
    "eggs": ("Free-range eggs", 60),
    "honey": ("Wildflower honey", 40),
    "bouquet": ("Seasonal bouquet", 18),
}


class Base(DeclarativeBase):
    type_annotation_map = {str: String(100), datetime: UtcTimestamp}  # noqa: RUF012


class ShelfRow(Base):
    __tablename__ = "shelves"
    product_id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str]
    there: Mapped[int]
    reserved: Mapped[int] = mapped_column(default=0)
    is_low: Mapped[bool] = mapped_column(default=False)


@listens_for(ShelfRow.__table__, "after_create")
def fill(table: Table, connection: Connection, **_: object) -> None:
    """Fill the shelves of a new warehouse."""
    connection.execute(
        insert(table),
        [
            {"product_id": product_id, "product": product, "there": there}
            for product_id, (product, there) in _SHELVES.items()
        ],
    )


class ReservationRow(Base):
    __tablename__ = "reservations"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(index=True)
    product_id: Mapped[str]
    pieces: Mapped[int]


class PackedRow(Base):
    """An order that has left the house, whether or not it is known yet what was in it."""

    __tablename__ = "packed"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(index=True)


class MovementRow(Base):
    __tablename__ = "movements"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    kind: Mapped[str]
    product_id: Mapped[str]
    product: Mapped[str]
    pieces: Mapped[int]
    order_id: Mapped[int | None]


class DbInventory(Inventory):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def stock(self) -> tuple[Shelf, ...]:
        async with self._database.read() as session:
            return tuple(
                Shelf(row.product_id, row.product, row.there, row.reserved, row.is_low)
                for row in await session.scalars(select(ShelfRow).order_by(ShelfRow.product))
            )

    @compute_method
    async def movements(self, limit: int) -> tuple[Movement, ...]:
        await self.stock()  # goes stale with it
        newest = select(MovementRow).order_by(MovementRow.id.desc()).limit(limit)
        async with self._database.read() as session:
            return tuple(
                Movement(
                    row.id,
                    row.at,
                    cast(Kind, row.kind),
                    row.product_id,
                    row.product,
                    row.pieces,
                    row.order_id,
                )
                for row in await session.scalars(newest)
            )

    async def orders(self) -> int:
        """For how many orders something was reserved."""
        reserved = select(func.count(MovementRow.order_id.distinct())).where(
            MovementRow.kind == "reserved"
        )
        async with self._database.read() as session:
            return await session.scalar(reserved) or 0

    @on_event(OrderPlaced, group="inventory")
    async def reserve(self, event: OrderPlaced) -> None:
        async with self._database.operation() as op:
            for line in sorted(event.lines, key=lambda each: each.product_id):
                shelf = await op.session.get(ShelfRow, line.product_id, with_for_update=True)
                if shelf is None:  # something that the shop sells since yesterday
                    shelf = ShelfRow(
                        product_id=line.product_id, product=line.product, there=0, reserved=0
                    )
                    op.session.add(shelf)
                shelf.reserved += line.quantity
                _note(op, "reserved", shelf, line.quantity, event.order_id)
                _look(op, shelf)
                op.session.add(
                    ReservationRow(
                        order_id=event.order_id, product_id=line.product_id, pieces=line.quantity
                    )
                )
            packed = select(PackedRow.id).where(PackedRow.order_id == event.order_id).limit(1)
            if await op.session.scalar(packed) is not None:
                # That was put aside for a while, and what it led to was not.
                await _ship(op, event.order_id)

    @reserve.invalidates
    def _(self, event: OrderPlaced) -> None:
        self.stock()

    @on_event(OrderPacked, group="inventory")
    async def ship(self, event: OrderPacked) -> None:
        async with self._database.operation() as op:
            op.session.add(PackedRow(order_id=event.order_id))
            await _ship(op, event.order_id)

    @ship.invalidates
    def _(self, event: OrderPacked) -> None:
        self.stock()

    @command_handler
    async def refill(self, command: Refill) -> None:
        async with self._database.operation() as op:
            shelf = await op.session.get_one(ShelfRow, command.product_id, with_for_update=True)
            shelf.there += command.pieces
            _note(op, "refilled", shelf, command.pieces, None)
            _look(op, shelf)

    @refill.invalidates
    def _(self, command: Refill, result: None) -> None:
        self.stock()


async def _ship(op: WritableOperation, order_id: int) -> None:
    """Let go what is reserved for an order."""
    of_order = ReservationRow.order_id == order_id
    reserved = select(ReservationRow).where(of_order).order_by(ReservationRow.product_id)
    for row in (await op.session.scalars(reserved)).all():
        shelf = await op.session.get_one(ShelfRow, row.product_id, with_for_update=True)
        shelf.reserved -= row.pieces
        shelf.there -= row.pieces
        _note(op, "shipped", shelf, row.pieces, order_id)
    await op.session.execute(delete(ReservationRow).where(of_order))


def _note(
    op: WritableOperation, kind: Kind, shelf: ShelfRow, pieces: int, order_id: int | None
) -> None:
    op.session.add(
        MovementRow(
            kind=kind,
            product_id=shelf.product_id,
            product=shelf.product,
            pieces=pieces,
            order_id=order_id,
        )
    )


def _look(op: WritableOperation, shelf: ShelfRow) -> None:
    """Tell who should know, once, when little is left."""
    left = shelf.there - shelf.reserved
    if left <= LOW and not shelf.is_low:
        op.publish(RunningLow(shelf.product_id, shelf.product, left), key=shelf.product_id)
    shelf.is_low = left <= LOW
