"""A row that was changed in between is not overwritten."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from afresh.db.read_only import read_session
from afresh.db.shards import Shard, open_shard
from afresh.db.transience import transience_of_database_error
from afresh.db.versions import VersionMixin, next_version, version_arguments
from afresh.primitives.transience import Transience


class Base(DeclarativeBase):
    pass


class OrderRow(VersionMixin, Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20), default="order")
    state: Mapped[str] = mapped_column(String(20), default="new")
    __mapper_args__ = {
        **version_arguments(VersionMixin.version),
        "polymorphic_on": "kind",
        "polymorphic_identity": "order",
    }


class PlainRow(VersionMixin, Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(20), default="new")


class LongRow(PlainRow):
    __tablename__ = "long"

    id: Mapped[int] = mapped_column(ForeignKey("plain.id"), primary_key=True)
    more: Mapped[str] = mapped_column(String(20), default="")


class RevisedRow(Base):
    __tablename__ = "revised"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(20), default="new")
    revision: Mapped[int] = mapped_column(BigInteger)
    __mapper_args__ = version_arguments(revision)


KINDS = [OrderRow, PlainRow, LongRow, RevisedRow]


def version_of(row: Base) -> int:
    version: int = row.revision if isinstance(row, RevisedRow) else row.version  # type: ignore[attr-defined]
    return version


@pytest.fixture
async def shard(any_database: str) -> AsyncIterator[Shard]:
    shard = open_shard("", any_database)
    async with shard.write.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield shard
    await shard.aclose()


async def write(shard: Shard, row: Base) -> None:
    """Merge a row as it is, version and all, as a session does that read it before."""
    async with AsyncSession(shard.write, expire_on_commit=False) as session, session.begin():
        session.add(row)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_change_of_a_row_that_was_changed_in_between_fails_and_may_be_tried_again(
    shard: Shard, kind: type[OrderRow]
):
    await write(shard, kind(id=1))
    async with read_session(shard) as session:
        mine = await session.get_one(kind, 1)
    async with read_session(shard) as session:
        other = await session.get_one(kind, 1)
    other.state = "paid"
    await write(shard, other)
    mine.state = "cancelled"
    with pytest.raises(StaleDataError) as caught:
        await write(shard, mine)
    assert transience_of_database_error(caught.value) is Transience.TRANSIENT
    async with read_session(shard) as session:
        assert (await session.get_one(kind, 1)).state == "paid"


@pytest.mark.parametrize("kind", KINDS)
async def test_each_change_gives_a_row_a_greater_version(shard: Shard, kind: type[OrderRow]):
    row = kind(id=1)
    await write(shard, row)
    versions = [version_of(row)]
    for state in ("paid", "sent", "paid"):
        row.state = state
        await write(shard, row)
        versions.append(version_of(row))
    assert versions == sorted(set(versions))
    await write(shard, row)
    assert version_of(row) == versions[-1]


def test_versions_are_microseconds_and_never_go_back():
    before = time.time_ns() // 1000
    first = next_version(None)
    assert before <= first <= time.time_ns() // 1000
    ahead = first + 60_000_000  # of a host whose clock is a minute ahead
    assert next_version(ahead) == ahead + 1
    assert next_version(first - 1) >= first
