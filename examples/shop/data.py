"""What the shop stores: tables, and the first products."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from afresh.db import Database, UtcTimestamp


class Base(DeclarativeBase):
    type_annotation_map = {str: String(100), datetime: UtcTimestamp}  # noqa: RUF012


class ProductRow(Base):
    __tablename__ = "products"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    unit: Mapped[str]
    icon: Mapped[str]
    hue: Mapped[int]
    price: Mapped[int]
    stock: Mapped[int]


class BasketRow(Base):
    __tablename__ = "basket_lines"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    product_id: Mapped[str] = mapped_column(ForeignKey(ProductRow.id), primary_key=True)
    quantity: Mapped[int]


class OrderLineRow(Base):
    __tablename__ = "order_lines"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    product_id: Mapped[str] = mapped_column(ForeignKey(ProductRow.id), primary_key=True)
    quantity: Mapped[int]
    price: Mapped[int]


class OrderRow(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    command_id: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[str] = mapped_column(index=True)
    note: Mapped[str]
    status: Mapped[str] = mapped_column(default="placed")
    placed_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    lines: Mapped[list[OrderLineRow]] = relationship(
        lazy="selectin", order_by=OrderLineRow.product_id
    )


_COLUMNS = ("id", "name", "unit", "icon", "hue", "price", "stock")
_PRODUCTS = [
    # hue: of the picture; price: in cents; stock: in pieces
    ("espresso", "Espresso beans", "250 g bag", "coffee", 28, 980, 24),
    ("darjeeling", "First flush Darjeeling", "100 g tin", "emoji_food_beverage", 152, 1250, 12),
    ("croissant", "Butter croissants", "Box of 4", "bakery_dining", 40, 640, 8),
    ("cookies", "Oat cookies", "Pack of 12", "cookie", 20, 420, 40),
    ("cake", "Lemon drizzle cake", "Whole cake", "cake", 340, 1400, 3),
    ("eggs", "Free-range eggs", "10 pieces", "egg", 48, 490, 30),
    ("honey", "Wildflower honey", "500 g jar", "hive", 44, 790, 15),
    ("bouquet", "Seasonal bouquet", "Hand-tied", "local_florist", 300, 1800, 5),
]


def shop_database(url: str) -> Database:
    """The shop's database: SQLite, PostgreSQL or MariaDB."""
    return Database(url, metadata=Base.metadata, create_tables=True)


async def clear(database: Database) -> None:
    """Forget everything, before the shop opens."""
    async with database.shard().write.begin() as connection:
        await connection.run_sync(database.metadata.drop_all)


async def orders_placed(database: Database) -> int:
    """How many orders there are."""
    async with database.read() as session:
        return await session.scalar(select(func.count(OrderRow.id))) or 0


async def fill_shelves(database: Database) -> None:
    """Fill the shelves of a new shop; of several workers that try it at once, one does."""
    async with database.read() as session:
        if await session.scalar(select(ProductRow.id).limit(1)) is not None:
            return
    with suppress(IntegrityError):  # another worker was faster
        async with database.operation() as op:
            op.operation.is_stored = False  # no other worker has seen them empty
            op.session.add_all(
                ProductRow(**dict(zip(_COLUMNS, each, strict=True))) for each in _PRODUCTS
            )
