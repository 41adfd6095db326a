"""What the shop stores: tables, and the first products."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


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


class OrderRow(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    note: Mapped[str]
    placed_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


class OrderLineRow(Base):
    __tablename__ = "order_lines"
    order_id: Mapped[int] = mapped_column(ForeignKey(OrderRow.id), primary_key=True)
    product_id: Mapped[str] = mapped_column(ForeignKey(ProductRow.id), primary_key=True)
    quantity: Mapped[int]
    price: Mapped[int]


_PRODUCTS = [
    # id, name, unit, icon, hue of its picture, price in cents, pieces in stock
    ("espresso", "Espresso beans", "250 g bag", "coffee", 28, 980, 24),
    ("darjeeling", "First flush Darjeeling", "100 g tin", "emoji_food_beverage", 152, 1250, 12),
    ("croissant", "Butter croissants", "Box of 4", "bakery_dining", 40, 640, 8),
    ("cookies", "Oat cookies", "Pack of 12", "cookie", 20, 420, 40),
    ("cake", "Lemon drizzle cake", "Whole cake", "cake", 340, 1400, 3),
    ("eggs", "Free-range eggs", "10 pieces", "egg", 48, 490, 30),
    ("honey", "Wildflower honey", "500 g jar", "hive", 44, 790, 15),
    ("bouquet", "Seasonal bouquet", "Hand-tied", "local_florist", 300, 1800, 5),
]


class Database:
    """The shop's database; `open()` it before use, `close()` it after.

    Args:
        url: of any database that SQLAlchemy's asyncio API can talk to.
    """

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    async def open(self, *, reset: bool = False) -> None:
        """Create what is missing; with `reset`, forget everything first."""
        async with self.engine.begin() as connection:
            if reset:
                await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with self.session.begin() as session:
            if await session.scalar(select(ProductRow.id).limit(1)) is None:
                fill_shelves(session)

    async def close(self) -> None:
        await self.engine.dispose()


def fill_shelves(session: AsyncSession) -> None:
    columns = ("id", "name", "unit", "icon", "hue", "price", "stock")
    session.add_all(ProductRow(**dict(zip(columns, values, strict=True))) for values in _PRODUCTS)
