"""A mapped table, and what several modules of tests do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import String, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh.db.shards import Shard, open_shard


class Base(DeclarativeBase):
    pass


class ItemRow(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    stock: Mapped[int] = mapped_column(default=0)


@asynccontextmanager
async def shard_with_items(url: str, count: int = 3) -> AsyncIterator[Shard]:
    """A shard whose table has the items 1, 2, … with the names item-1, item-2 and so on."""
    shard = open_shard("", url)
    async with shard.write.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if count:
            await connection.execute(
                insert(ItemRow),
                [{"id": id, "name": f"item-{id}", "stock": 10} for id in range(1, count + 1)],
            )
    try:
        yield shard
    finally:
        await shard.aclose()
