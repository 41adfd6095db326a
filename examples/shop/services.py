"""The shop's services: reading is cached and live, writing says what it changed.

Compute methods read the database or build on other compute methods, across services. Whatever
writes does so in one transaction, and when that is committed invalidates the results that no
longer hold; everything computed from them goes stale with them.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update

from afresh import App, compute_method

from .contracts import (
    Baskets,
    Line,
    Order,
    Orders,
    Product,
    Products,
    Sales,
    Shop,
    ShopError,
    Sold,
    Stock,
)
from .data import BasketRow, Database, OrderLineRow, OrderRow, ProductRow


class DbProducts(Products):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def ids(self) -> tuple[str, ...]:
        async with self._database.session() as session:
            return tuple(await session.scalars(select(ProductRow.id).order_by(ProductRow.name)))

    @compute_method
    async def get(self, product_id: str) -> Product:
        async with self._database.session() as session:
            row = await session.get_one(ProductRow, product_id)
            return Product(row.id, row.name, row.unit, row.icon, row.hue, row.price)


class DbStock(Stock):
    def __init__(self, database: Database) -> None:
        self._database = database

    @compute_method
    async def left(self, product_id: str) -> int:
        async with self._database.session() as session:
            row = await session.get_one(ProductRow, product_id)
            return row.stock

    async def deliver(self, pieces: int) -> None:
        async with self._database.session.begin() as session:
            await session.execute(update(ProductRow).values(stock=ProductRow.stock + pieces))
            product_ids = await session.scalars(select(ProductRow.id))
        for product_id in product_ids:
            self.left.invalidate(product_id)


class DbBaskets(Baskets):
    def __init__(self, database: Database, products: Products) -> None:
        self._database = database
        self._products = products

    @compute_method
    async def lines(self, user_id: str) -> tuple[Line, ...]:
        async with self._database.session() as session:
            rows = await session.scalars(
                select(BasketRow).where(BasketRow.user_id == user_id).order_by(BasketRow.product_id)
            )
            quantities = {row.product_id: row.quantity for row in rows}
        return tuple(
            [
                Line(product_id, quantity, (await self._products.get(product_id)).price)
                for product_id, quantity in quantities.items()
            ]
        )

    @compute_method
    async def quantity(self, user_id: str, product_id: str) -> int:
        lines = await self.lines(user_id)
        return sum(line.quantity for line in lines if line.product_id == product_id)

    @compute_method
    async def total(self, user_id: str) -> int:
        return sum(line.amount for line in await self.lines(user_id))

    async def put(self, user_id: str, product_id: str, quantity: int) -> None:
        async with self._database.session.begin() as session:
            if quantity > 0:
                await session.merge(
                    BasketRow(user_id=user_id, product_id=product_id, quantity=quantity)
                )
            else:
                await session.execute(
                    delete(BasketRow).where(
                        BasketRow.user_id == user_id, BasketRow.product_id == product_id
                    )
                )
        self.lines.invalidate(user_id)


class DbOrders(Orders):
    def __init__(self, database: Database, baskets: Baskets, stock: Stock) -> None:
        self._database = database
        self._baskets = baskets
        self._stock = stock

    @compute_method
    async def ids(self) -> tuple[int, ...]:
        async with self._database.session() as session:
            return tuple(await session.scalars(select(OrderRow.id).order_by(OrderRow.id)))

    @compute_method
    async def for_user(self, user_id: str) -> tuple[int, ...]:
        async with self._database.session() as session:
            return tuple(
                await session.scalars(
                    select(OrderRow.id)
                    .where(OrderRow.user_id == user_id)
                    .order_by(OrderRow.id.desc())
                )
            )

    @compute_method
    async def get(self, order_id: int) -> Order:
        async with self._database.session() as session:
            row = await session.get_one(OrderRow, order_id)
            lines = await session.scalars(
                select(OrderLineRow).where(OrderLineRow.order_id == order_id)
            )
            return Order(
                row.id,
                row.user_id,
                row.note,
                row.placed_at,
                tuple(Line(line.product_id, line.quantity, line.price) for line in lines),
            )

    async def place(self, user_id: str, note: str = "") -> int:
        lines = await self._baskets.lines(user_id)
        if not lines:
            raise ShopError("Your basket is empty")
        async with self._database.session.begin() as session:
            order = OrderRow(user_id=user_id, note=note)
            session.add(order)
            await session.flush()
            for line in lines:
                taken = await session.execute(
                    update(ProductRow)
                    .where(ProductRow.id == line.product_id, ProductRow.stock >= line.quantity)
                    .values(stock=ProductRow.stock - line.quantity)
                )
                if cast(CursorResult[Any], taken).rowcount == 0:
                    product = await session.get_one(ProductRow, line.product_id)
                    left = f"only {product.stock} left" if product.stock else "sold out"
                    raise ShopError(f"Sorry, {product.name}: {left}")
                session.add(
                    OrderLineRow(
                        order_id=order.id,
                        product_id=line.product_id,
                        quantity=line.quantity,
                        price=line.price,
                    )
                )
            await session.execute(delete(BasketRow).where(BasketRow.user_id == user_id))
        self.ids.invalidate()
        self.for_user.invalidate(user_id)
        self._baskets.lines.invalidate(user_id)
        for line in lines:
            self._stock.left.invalidate(line.product_id)
        return order.id


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


def open_shop(database: Database, app: App | None = None) -> Shop:
    """Put the services together; with an app, let others call them."""
    products = DbProducts(database)
    stock = DbStock(database)
    baskets = DbBaskets(database, products)
    orders = DbOrders(database, baskets, stock)
    shop = Shop(products, stock, baskets, orders, ComputedSales(products, orders))
    for service in (shop.products, shop.stock, shop.baskets, shop.orders, shop.sales):
        if app is not None:
            app.add(service)
    return shop
