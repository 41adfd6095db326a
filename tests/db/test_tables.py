"""The tables of the logs, however they are declared, on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh.db.shards import open_shard
from afresh.db.tables import (
    EventLogMixin,
    EventState,
    LogTables,
    OperationLogMixin,
    add_log_tables,
    find_log_tables,
)
from afresh.errors import DefinitionError

NOW = datetime(2026, 5, 4, 3, 2, 1, 987_654, UTC)


def operation(**values: Any) -> dict[str, Any]:
    return {"uuid": "u", "host_id": "h", "logged_at": NOW, **values}


def event(**values: Any) -> dict[str, Any]:
    return {"uuid": "u", "logged_at": NOW, "due_at": NOW, "value": "v", **values}


def shape(table: Table) -> dict[str, tuple[str, bool, bool]]:
    return {c.name: (repr(c.type), bool(c.nullable), c.primary_key) for c in table.columns}


# --- Declaring them -----------------------------------------------------------


def test_one_call_adds_both_tables():
    metadata = MetaData()
    tables = add_log_tables(metadata)
    assert list(metadata.tables) == ["_operations", "_events"]
    assert find_log_tables(metadata) == tables


def test_names_and_schema_can_be_chosen():
    tables = add_log_tables(MetaData(), schema="logs", prefix="shop_")
    assert tables.operations.fullname == "logs.shop_operations"
    assert tables.events.fullname == "logs.shop_events"
    assert {index.name for index in tables.events.indexes} == {
        "ix_shop_events_state_due_at",
        "ix_shop_events_due_at_state",
    }


def test_models_have_the_same_columns_and_may_have_more():
    class Base(DeclarativeBase):
        pass

    class OperationRow(OperationLogMixin, Base):
        __tablename__ = "operations_of_shop"

    class EventRow(EventLogMixin, Base):
        __tablename__ = "events_of_shop"
        note: Mapped[str | None] = mapped_column()

    found = find_log_tables(Base.metadata)
    assert found == LogTables(OperationRow.__table__, EventRow.__table__)  # type: ignore[arg-type]
    plain = add_log_tables(MetaData())
    assert shape(found.operations) == shape(plain.operations)
    assert shape(found.events) == {
        **shape(plain.events),
        "note": ("String()", True, False),
    }
    assert len(found.operations.indexes) == 1
    assert len(found.events.indexes) == 2
    assert found.operations.dialect_options["sqlite"]["autoincrement"] is True


def test_models_with_table_arguments_of_their_own_are_found_as_well():
    class Base(DeclarativeBase):
        pass

    class OperationRow(OperationLogMixin, Base):
        __tablename__ = "operations"
        __table_args__ = (
            *OperationLogMixin.log_indexes("operations"),
            {"schema": "logs", "sqlite_autoincrement": True},
        )

    class EventRow(EventLogMixin, Base):
        __tablename__ = "events"
        __table_args__ = ({"schema": "logs"},)

    found = find_log_tables(Base.metadata)
    assert found is not None
    assert found.operations.fullname == "logs.operations"
    assert len(found.operations.indexes) == 1
    assert EventRow.__table__ is found.events


def test_metadata_without_log_tables_has_none():
    metadata = MetaData()
    Table("orders", metadata, Column("id", Integer, primary_key=True))
    assert find_log_tables(metadata) is None


def test_adding_twice_is_refused():
    metadata = MetaData()
    add_log_tables(metadata)
    with pytest.raises(DefinitionError, match="already"):
        add_log_tables(metadata, prefix="other_")


def test_one_log_without_the_other_is_refused():
    class Base(DeclarativeBase):
        pass

    class OperationRow(OperationLogMixin, Base):
        __tablename__ = "operations"

    with pytest.raises(DefinitionError, match=r"operations has no table .* EventLogMixin"):
        find_log_tables(Base.metadata)


def test_two_tables_for_one_log_are_refused():
    class Base(DeclarativeBase):
        pass

    class First(OperationLogMixin, Base):
        __tablename__ = "first"

    class Second(OperationLogMixin, Base):
        __tablename__ = "second"

    with pytest.raises(DefinitionError, match="first and second are both"):
        find_log_tables(Base.metadata)


# --- What databases make of them --------------------------------------------------


@pytest.fixture
async def connection(any_database: str) -> AsyncIterator[AsyncConnection]:
    shard = open_shard("", any_database)
    async with shard.write.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        yield connection
    await shard.aclose()


METADATA = MetaData()
TABLES = add_log_tables(METADATA)


async def test_moments_keep_their_microseconds_and_are_utc(connection: AsyncConnection):
    there = timezone(timedelta(hours=5, minutes=30))
    await connection.execute(insert(TABLES.operations), operation(logged_at=NOW.astimezone(there)))
    found = await connection.scalar(select(TABLES.operations.c.logged_at))
    assert found == NOW
    assert found.tzinfo is UTC


async def test_a_moment_without_a_time_zone_is_refused(connection: AsyncConnection):
    with pytest.raises(StatementError, match="no time zone"):
        await connection.execute(
            insert(TABLES.operations), operation(logged_at=NOW.replace(tzinfo=None))
        )


async def test_moments_compare_as_they_follow_each_other(connection: AsyncConnection):
    moments = [NOW + timedelta(microseconds=each) for each in (-1, 0, 1, 12_346, 999_999)]
    for number, moment in enumerate(moments):
        await connection.execute(
            insert(TABLES.events), event(uuid=f"{number}", due_at=moment, lease_until=moment)
        )
    due_at = TABLES.events.c.due_at
    for number, moment in enumerate(moments):
        statement = select(TABLES.events.c.uuid).where(due_at <= moment).order_by(due_at)
        found = list(await connection.scalars(statement))
        assert found == [f"{each}" for each in range(number + 1)]


async def test_indexes_are_given_by_the_database_and_rise(connection: AsyncConnection):
    indexes = []
    for number in range(3):
        result = await connection.execute(
            insert(TABLES.operations).values(operation(uuid=f"{number}"))
        )
        indexes.append(result.inserted_primary_key[0])  # type: ignore[index]
    assert indexes == sorted(set(indexes))
    assert indexes[0] >= 1


async def test_an_operation_is_logged_once(connection: AsyncConnection):
    await connection.execute(insert(TABLES.operations), operation())
    with pytest.raises(IntegrityError):
        async with connection.begin_nested():
            await connection.execute(insert(TABLES.operations), operation())


async def test_names_are_compared_as_they_are_written(connection: AsyncConnection):
    names = ["order", "Order", "örder", "ORDER", "ordér", "日本", "日夲"]
    await connection.execute(insert(TABLES.events), [event(uuid=name) for name in names])
    found = await connection.scalars(select(TABLES.events.c.uuid))
    assert set(found) == set(names)
    one = await connection.scalars(
        select(TABLES.events.c.uuid).where(TABLES.events.c.uuid == "Order")
    )
    assert list(one) == ["Order"]


async def test_a_new_event_needs_no_more_than_what_it_is(connection: AsyncConnection):
    await connection.execute(insert(TABLES.events), event())
    row = (await connection.execute(select(TABLES.events))).one()
    assert row.state == EventState.NEW
    assert (row.attempts, row.version) == (0, 0)
    empty = (row.chain, row.last_error, row.lease_owner, row.lease_until, row.lease_token)
    assert empty == (None,) * 5
    assert row.dead_at is None


async def test_long_texts_and_long_names_fit(connection: AsyncConnection):
    text = "ÿ\x01€𝄞" * 100_000
    await connection.execute(
        insert(TABLES.operations),
        operation(uuid="u" * 40, host_id="h" * 64, command=text, effects=text),
    )
    await connection.execute(
        insert(TABLES.events),
        event(uuid="ы" * 200, chain="ы" * 200, value=text, lease_owner="h" * 64),
    )
    found = (await connection.execute(select(TABLES.operations))).one()
    assert (found.command, found.effects) == (text, text)
    assert await connection.scalar(select(TABLES.events.c.value)) == text
