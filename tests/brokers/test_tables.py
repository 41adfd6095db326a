"""The tables of messages are looked at when an app starts, and the message says what to do."""

from __future__ import annotations

import pytest
from sqlalchemy import MetaData, text

from afresh import App
from afresh.brokers import Broker, MemoryTransport, add_broker_tables
from afresh.brokers.tables import check_broker_tables
from afresh.brokers.transports.memory import MemoryBroker
from afresh.db import Database
from afresh.db.shards import Shard, open_shard
from afresh.errors import SchemaError

METADATA = MetaData()
TABLES = add_broker_tables(METADATA)


async def complaints(shard: Shard) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        await check_broker_tables(shard.write, TABLES)
    message = str(caught.value)
    assert "add_broker_tables(metadata)" in message
    assert "alembic" in message
    return [line[4:] for line in message.splitlines() if line.startswith("  - ")]


async def run(shard: Shard, *statements: str) -> None:
    async with shard.write.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def created(url: str) -> Shard:
    shard = open_shard("", url)
    async with shard.write.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    return shard


async def test_tables_as_they_are_created_are_fine(any_database: str) -> None:
    shard = await created(any_database)
    await check_broker_tables(shard.write, TABLES)
    await shard.aclose()


async def test_missing_tables_and_columns_are_told_of(any_database: str) -> None:
    shard = await created(any_database)
    await run(
        shard,
        "ALTER TABLE _outbox DROP COLUMN last_error",
        "ALTER TABLE _outbox_leases DROP COLUMN epoch",
        "DROP TABLE _inbox",
    )
    assert await complaints(shard) == [
        "_outbox has no column last_error",
        "_outbox_leases has no column epoch",
        "there is no table _inbox",
    ]
    await shard.aclose()


async def test_numbers_that_are_taken_ahead_are_told_of(postgres_database: str) -> None:
    shard = await created(postgres_database)
    await run(shard, "ALTER SEQUENCE _outbox_id_seq CACHE 20")
    (told,) = await complaints(shard)
    assert "connections take 20 numbers" in told
    remedy = told.rpartition(": ")[2]
    assert remedy == "ALTER SEQUENCE _outbox_id_seq CACHE 1"
    await run(shard, remedy)
    await check_broker_tables(shard.write, TABLES)
    await shard.aclose()


async def test_numbers_that_are_used_again_are_told_of(sqlite_database: str) -> None:
    shard = await created(sqlite_database)
    async with shard.write.begin() as connection:
        made = (
            await connection.execute(text("SELECT sql FROM sqlite_master WHERE name = '_outbox'"))
        ).scalar_one()
        await connection.execute(text("DROP TABLE _outbox"))
        await connection.execute(text(made.replace("AUTOINCREMENT", "")))
        for index in TABLES.outbox.indexes:
            await connection.run_sync(index.create)
    (told,) = await complaints(shard)
    assert told.startswith("_outbox must be made with AUTOINCREMENT")
    await shard.aclose()


async def test_bodies_that_are_no_bytes_are_told_of(mariadb_database: str) -> None:
    shard = await created(mariadb_database)
    await run(shard, "ALTER TABLE _outbox MODIFY body BLOB NOT NULL")
    assert await complaints(shard) == [
        "_outbox has a column body of type BLOB: it must be LONGBLOB"
    ]
    await run(shard, "ALTER TABLE _outbox MODIFY body TEXT NOT NULL")
    assert await complaints(shard) == [
        "_outbox has a column body of type TEXT: it must be LONGBLOB"
    ]
    await shard.aclose()


async def test_bodies_of_another_type_are_told_of(postgres_database: str) -> None:
    shard = await created(postgres_database)
    await run(shard, "ALTER TABLE _outbox DROP COLUMN body, ADD body TEXT NOT NULL")
    assert await complaints(shard) == ["_outbox has a column body of type TEXT in place of bytes"]
    await shard.aclose()


async def test_an_app_whose_migration_was_forgotten_does_not_start(sqlite_database: str) -> None:
    before = Database(sqlite_database)
    await before.create_tables()
    await before.aclose()
    app = App(
        database=sqlite_database,
        broker=Broker(MemoryTransport(broker=MemoryBroker()), source="/tests"),
    )
    with pytest.raises(SchemaError, match="there is no table _outbox_leases"):
        await app.start()
    assert app.health()["status"] == "closed"
