"""Analytics: what sells, to whom, and when."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import compute_method
from afresh.brokers import current_event, on_event
from afresh.db import Database, UtcTimestamp

from ..events import OrderPacked, OrderPlaced
from .contracts import Analytics, CustomerFigures, MinuteFigures, ProductFigures, Summary

SHOWN = timedelta(minutes=30)


class Base(DeclarativeBase):
    type_annotation_map = {str: String(100), datetime: UtcTimestamp}  # noqa: RUF012


class SaleRow(Base):
    """An order; that each stands here once is owed to the inbox, and not to a key."""

    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    user_id: Mapped[str]
    customer: Mapped[str]
    amount: Mapped[int]


class PackedRow(Base):
    __tablename__ = "packed"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]


class SaleLineRow(Base):
    __tablename__ = "sale_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(index=True)
    product_id: Mapped[str] = mapped_column(index=True)
    product: Mapped[str]
    pieces: Mapped[int]
    amount: Mapped[int]


class DbAnalytics(Analytics):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def summary(self) -> Summary:
        sold = select(
            func.count(SaleRow.order_id),
            func.coalesce(func.sum(SaleRow.amount), 0),
            func.count(SaleRow.user_id.distinct()),
        )
        async with self._database.read() as session:
            orders, amount, customers = (await session.execute(sold)).one()
            pieces = await session.scalar(select(func.coalesce(func.sum(SaleLineRow.pieces), 0)))
            packed = await session.scalar(select(func.count(PackedRow.order_id)))
        return Summary(orders, int(pieces or 0), int(amount), customers, packed or 0)

    @compute_method
    async def by_product(self) -> tuple[ProductFigures, ...]:
        await self.summary()  # goes stale with it, as all the others do
        amount = func.sum(SaleLineRow.amount)
        sold = (
            select(
                SaleLineRow.product_id,
                func.max(SaleLineRow.product),
                func.sum(SaleLineRow.pieces),
                amount,
            )
            .group_by(SaleLineRow.product_id)
            .order_by(amount.desc(), SaleLineRow.product_id)
        )
        async with self._database.read() as session:
            return tuple(
                ProductFigures(product_id, product, int(pieces), int(amount))
                for product_id, product, pieces, amount in await session.execute(sold)
            )

    @compute_method
    async def by_customer(self) -> tuple[CustomerFigures, ...]:
        await self.summary()
        amount = func.sum(SaleRow.amount)
        bought = (
            select(
                SaleRow.user_id, func.max(SaleRow.customer), func.count(SaleRow.order_id), amount
            )
            .group_by(SaleRow.user_id)
            .order_by(amount.desc(), SaleRow.user_id)
        )
        async with self._database.read() as session:
            return tuple(
                CustomerFigures(user_id, customer, orders, int(amount))
                for user_id, customer, orders, amount in await session.execute(bought)
            )

    @compute_method(auto_invalidate=60)
    async def by_minute(self) -> tuple[MinuteFigures, ...]:
        await self.summary()
        since = datetime.now(UTC).replace(second=0, microsecond=0) - SHOWN
        orders: Counter[datetime] = Counter()
        amounts: Counter[datetime] = Counter()
        recent = select(SaleRow.at, SaleRow.amount).where(SaleRow.at > since)
        async with self._database.read() as session:
            for at, amount in await session.execute(recent):
                minute = at.replace(second=0, microsecond=0)
                orders[minute] += 1
                amounts[minute] += amount
        return tuple(MinuteFigures(at, orders[at], amounts[at]) for at in sorted(orders))

    async def orders(self) -> int:
        """How many orders it has heard of."""
        async with self._database.read() as session:
            return await session.scalar(select(func.count(SaleRow.order_id))) or 0

    @on_event(OrderPlaced, group="analytics")
    async def count(self, event: OrderPlaced) -> None:
        async with self._database.operation() as op:
            op.session.add(
                SaleRow(
                    order_id=event.order_id,
                    at=current_event().time or datetime.now(UTC),
                    user_id=event.user_id,
                    customer=event.customer,
                    amount=event.amount,
                )
            )
            op.session.add_all(
                SaleLineRow(
                    order_id=event.order_id,
                    product_id=line.product_id,
                    product=line.product,
                    pieces=line.quantity,
                    amount=line.quantity * line.price,
                )
                for line in event.lines
            )

    @count.invalidates
    def _(self, event: OrderPlaced) -> None:
        self.summary()

    @on_event(OrderPacked, group="analytics")
    async def count_packed(self, event: OrderPacked) -> None:
        async with self._database.operation() as op:
            op.session.add(PackedRow(order_id=event.order_id))

    @count_packed.invalidates
    def _(self, event: OrderPacked) -> None:
        self.summary()
