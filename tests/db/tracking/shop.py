"""The three tables that the tests of tracking read and write."""

from __future__ import annotations

from sqlalchemy import Computed, ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Folded = String(20).with_variant(String(20, collation="NOCASE"), "sqlite")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), index=True)
    email: Mapped[str | None] = mapped_column(Folded, index=True)
    orders: Mapped[list[Order]] = relationship(back_populates="user", order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    total: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(20), server_default="new", index=True)
    user: Mapped[User | None] = relationship(back_populates="orders")
    items: Mapped[list[Item]] = relationship(
        back_populates="order", order_by="Item.id", passive_deletes="all"
    )


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    product: Mapped[str] = mapped_column(String(20), default="")
    quantity: Mapped[int] = mapped_column(default=1)
    double: Mapped[int] = mapped_column(Computed("quantity * 2", persisted=True), index=True)
    order: Mapped[Order] = relationship(back_populates="items")
    __table_args__ = (Index("item_products", "product"),)
