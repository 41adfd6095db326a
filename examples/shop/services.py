"""The shop's services: reading is cached and live, commands say what they change.

Compute methods read the database, or build on other compute methods, across services. Commands
write in one transaction, and say which results no longer hold when that is committed; everything
computed from those goes stale with them, in all workers and all windows.
"""

from __future__ import annotations

import os
from typing import cast

from sqlalchemy import delete, select

from afresh import App, Command, command_handler, compute_method
from afresh.db import Database

from .contracts import (
    USERS,
    Baskets,
    Deliver,
    Line,
    Order,
    Orders,
    PlaceOrder,
    Product,
    Products,
    PutIntoBasket,
    Sales,
    Shop,
    ShopError,
    Sold,
    Status,
    Stock,
    Worker,
)
from .data import BasketRow, OrderLineRow, OrderRow, ProductRow
from .events import Ordered, OrderPacked, OrderPlaced

PACKING_SECONDS = 5.0


class DbProducts(Products):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def ids(self) -> tuple[str, ...]:
        async with self._database.read() as session:
            return tuple(await session.scalars(select(ProductRow.id).order_by(ProductRow.name)))

    @compute_method
    async def get(self, product_id: str) -> Product:
        async with self._database.read() as session:
            row = await session.get_one(ProductRow, product_id)
        return Product(row.id, row.name, row.unit, row.icon, row.hue, row.price)


class DbStock(Stock):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def left(self, product_id: str) -> int:
        async with self._database.read() as session:
            return (await session.get_one(ProductRow, product_id)).stock

    @command_handler
    async def deliver(self, command: Deliver) -> None:
        async with self._database.operation() as op:
            products = select(ProductRow).order_by(ProductRow.id).with_for_update()
            for product in await op.session.scalars(products):
                product.stock += command.pieces
                with op.invalidating():
                    self.left(product.id)


class DbBaskets(Baskets):
    def __init__(self, database: Database, products: Products) -> None:
        self._database = database
        self._products = products

    @compute_method
    async def lines(self, user_id: str) -> tuple[Line, ...]:
        async with self._database.read() as session:
            rows = await session.scalars(
                select(BasketRow).where(BasketRow.user_id == user_id).order_by(BasketRow.product_id)
            )
        return tuple(
            [
                Line(row.product_id, row.quantity, (await self._products.get(row.product_id)).price)
                for row in rows
            ]
        )

    @compute_method
    async def quantity(self, user_id: str, product_id: str) -> int:
        lines = await self.lines(user_id)
        return sum(line.quantity for line in lines if line.product_id == product_id)

    @compute_method
    async def total(self, user_id: str) -> int:
        return sum(line.amount for line in await self.lines(user_id))

    @command_handler
    async def put(self, command: PutIntoBasket) -> None:
        key = {"user_id": command.user_id, "product_id": command.product_id}
        async with self._database.operation() as op:
            # Of two windows that put the same in at the same time, one waits for the other.
            await op.session.get_one(ProductRow, command.product_id, with_for_update=True)
            if command.quantity > 0:
                await op.session.merge(BasketRow(**key, quantity=command.quantity))
            else:
                await op.session.execute(delete(BasketRow).filter_by(**key))

    @put.invalidates
    def _(self, command: PutIntoBasket, result: None) -> None:
        self.lines(command.user_id)


class PackOrder(Command[None], frozen=True):
    """Pack an order: the shop tells itself to, by an event."""

    order_id: int


class DbOrders(Orders):
    def __init__(
        self,
        database: Database,
        baskets: Baskets,
        stock: Stock,
        packing_seconds: float = PACKING_SECONDS,
        *,
        tells: bool = False,
    ) -> None:
        self._database = database
        self._baskets = baskets
        self._stock = stock
        self._packing_seconds = packing_seconds
        self._tells = tells

    @compute_method
    async def ids(self) -> tuple[int, ...]:
        async with self._database.read() as session:
            return tuple(await session.scalars(select(OrderRow.id).order_by(OrderRow.id)))

    @compute_method
    async def for_user(self, user_id: str) -> tuple[int, ...]:
        async with self._database.read() as session:
            return tuple(
                await session.scalars(
                    select(OrderRow.id)
                    .where(OrderRow.user_id == user_id)
                    .order_by(OrderRow.id.desc())
                )
            )

    @compute_method
    async def get(self, order_id: int) -> Order:
        async with self._database.read() as session:
            return to_order(await session.get_one(OrderRow, order_id))

    @compute_method
    async def status(self, order_id: int) -> Status:
        async with self._database.read() as session:
            return cast(Status, (await session.get_one(OrderRow, order_id)).status)

    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        async with self._database.operation() as op:
            basket = await op.session.execute(
                select(ProductRow, BasketRow)
                .join(BasketRow)
                .where(BasketRow.user_id == command.user_id)
                .order_by(ProductRow.id)
                .with_for_update()  # so of two who want the last cake, one waits for the other
            )
            placed = await op.session.scalar(
                select(OrderRow).where(OrderRow.command_id == command.id)
            )
            if placed is not None:
                return to_order(placed)
            order = OrderRow(command_id=command.id, user_id=command.user_id, note=command.note)
            ordered: list[Ordered] = []
            for product, wanted in basket:
                if product.stock < wanted.quantity:
                    left = f"only {product.stock} left" if product.stock else "sold out"
                    raise ShopError(f"Sorry, {product.name}: {left}")
                product.stock -= wanted.quantity
                order.lines.append(
                    OrderLineRow(
                        product_id=product.id, quantity=wanted.quantity, price=product.price
                    )
                )
                ordered.append(Ordered(product.id, product.name, wanted.quantity, product.price))
                await op.session.delete(wanted)
            if not order.lines:
                raise ShopError("Your basket is empty")
            op.session.add(order)
            await op.session.flush()
            op.add_event(PackOrder(order.id), delay=self._packing_seconds)
            if self._tells:  # leaves for the broker if, and only if, all of this is committed
                amount = sum(line.quantity * line.price for line in ordered)
                user_id = command.user_id
                op.publish(
                    OrderPlaced(order.id, user_id, name_of(user_id), tuple(ordered), amount),
                    key=user_id,
                )
        return to_order(order)

    @place.invalidates
    def _(self, command: PlaceOrder, order: Order) -> None:
        self.ids()
        self.for_user(command.user_id)
        self._baskets.lines(command.user_id)
        for line in order.lines:
            self._stock.left(line.product_id)

    @command_handler
    async def pack(self, command: PackOrder) -> None:
        async with self._database.operation() as op:
            order = await op.session.get_one(OrderRow, command.order_id)
            order.status = "packed"
            if self._tells:
                user_id = order.user_id
                op.publish(OrderPacked(order.id, user_id, name_of(user_id)), key=user_id)

    @pack.invalidates
    def _(self, command: PackOrder, result: None) -> None:
        self.status(command.order_id)


def name_of(user_id: str) -> str:
    return USERS.get(user_id, user_id)


def to_order(row: OrderRow) -> Order:
    lines = tuple(Line(line.product_id, line.quantity, line.price) for line in row.lines)
    return Order(row.id, row.user_id, row.note, row.placed_at, lines)


class ComputedSales(Sales):
    """Figures computed from what other services computed; no query of its own."""

    def __init__(self, products: Products, orders: Orders) -> None:
        self._products = products
        self._orders = orders

    @compute_method
    async def of(self, product_id: str) -> Sold:
        # After a new order, all but that one come from the cache.
        lines = [
            line
            for order_id in await self._orders.ids()
            for line in (await self._orders.get(order_id)).lines
            if line.product_id == product_id
        ]
        return Sold(sum(line.quantity for line in lines), sum(line.amount for line in lines))

    @compute_method
    async def total(self) -> Sold:
        sold = [await self.of(product_id) for product_id in await self._products.ids()]
        return Sold(sum(each.pieces for each in sold), sum(each.amount for each in sold))


class ThisWorker(Worker):
    @compute_method
    async def pid(self) -> int:
        return os.getpid()


def open_shop(app: App, *, packing_seconds: float = PACKING_SECONDS) -> Shop:
    """Put the services together, for an app with the shop's database.

    Where the app has a broker, the shop tells other services of its orders.
    """
    products = app.add(DbProducts(app.database))
    stock = app.add(DbStock(app.database))
    baskets = app.add(DbBaskets(app.database, products))
    tells = app.operations.outbox is not None
    orders = app.add(DbOrders(app.database, baskets, stock, packing_seconds, tells=tells))
    sales = app.add(ComputedSales(products, orders))
    return Shop(products, stock, baskets, orders, sales, app.add(ThisWorker()))
