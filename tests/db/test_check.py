"""A start-up check says what a database lacks, all of it, and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy import Index, MetaData, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from afresh.db.check import check_tables
from afresh.db.shards import open_shard
from afresh.db.tables import add_log_tables
from afresh.errors import SchemaError

METADATA = MetaData()
TABLES = add_log_tables(METADATA)

Run: TypeAlias = Callable[..., Awaitable[None]]


@pytest.fixture
async def engine(any_database: str) -> AsyncIterator[AsyncEngine]:
    """Of a database that has nothing."""
    shard = open_shard("", any_database)
    yield shard.write
    await shard.aclose()


@pytest.fixture
async def run(engine: AsyncEngine) -> Run:
    """Creates the tables, and runs statements; `q` quotes a name as the database does."""
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)

    async def run(*statements: str) -> None:
        async with engine.begin() as connection:
            for statement in statements:
                if engine.dialect.name == "mysql":
                    statement = statement.replace('"', "`")
                await connection.execute(text(statement))

    return run


async def complaints(engine: AsyncEngine) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        await check_tables(engine, TABLES)
    assert "alembic" in str(caught.value)
    assert "create_tables()" in str(caught.value)
    return [line[4:] for line in str(caught.value).splitlines() if line.startswith("  - ")]


async def test_tables_as_they_are_created_are_fine(engine: AsyncEngine, run: Run):
    await check_tables(engine, TABLES)


async def test_tables_in_a_schema_are_looked_for_there(postgres_database: str):
    shard = open_shard("", postgres_database)
    metadata = MetaData()
    tables = add_log_tables(metadata, schema="logs")
    async with shard.write.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    with pytest.raises(SchemaError, match=r"no table logs\._operations"):
        await check_tables(shard.write, tables)
    async with shard.write.begin() as connection:
        await connection.execute(text("CREATE SCHEMA logs"))
        await connection.run_sync(metadata.create_all)
    await check_tables(shard.write, tables)
    await shard.aclose()


async def test_missing_tables_are_told_of(engine: AsyncEngine):
    assert await complaints(engine) == [
        "there is no table _operations",
        "there is no table _events",
    ]


async def test_the_message_tells_no_password(postgres_database: str):
    shard = open_shard("", make_url(postgres_database).set(password="secret"))
    with pytest.raises(SchemaError) as caught:
        await check_tables(shard.write, TABLES)
    assert "postgresql" in str(caught.value)
    assert "secret" not in str(caught.value)
    await shard.aclose()


async def test_missing_columns_are_told_of_all_at_once(engine: AsyncEngine, run: Run):
    await run(
        "ALTER TABLE _operations DROP COLUMN effects",
        "ALTER TABLE _events DROP COLUMN lease_token",
        "ALTER TABLE _events DROP COLUMN dead_at",
    )
    assert await complaints(engine) == [
        "_operations has no column effects",
        "_events has no column lease_token",
        "_events has no column dead_at",
    ]


async def test_missing_indexes_are_told_of_whatever_their_names(engine: AsyncEngine, run: Run):
    on = " ON _events" if engine.dialect.name == "mysql" else ""
    await run(f"DROP INDEX ix__events_state_due_at{on}")
    assert await complaints(engine) == ["_events has no index on (state, due_at)"]
    await run("CREATE INDEX other ON _events (state, due_at, uuid)")
    await check_tables(engine, TABLES)


async def test_further_columns_are_fine_as_long_as_rows_can_do_without(
    engine: AsyncEngine, run: Run
):
    await run(
        "ALTER TABLE _events ADD COLUMN note VARCHAR(10)",
        "ALTER TABLE _events ADD COLUMN kind INTEGER DEFAULT 1 NOT NULL",
    )
    await check_tables(engine, TABLES)
    if engine.dialect.name != "sqlite":  # which refuses it by itself
        await run("ALTER TABLE _events ADD COLUMN needed INTEGER NOT NULL")
        assert await complaints(engine) == [
            "_events has a column needed that afresh does not know, and that has no default"
        ]


async def test_columns_that_are_too_short_or_of_another_type_are_told_of(
    engine: AsyncEngine, run: Run
):
    changes = {
        "postgresql": [
            "ALTER TABLE _operations ALTER uuid TYPE VARCHAR(20)",
            "ALTER TABLE _operations ALTER logged_at TYPE TIMESTAMP",
            "ALTER TABLE _operations ALTER command SET NOT NULL",
            "ALTER TABLE _events ALTER chain TYPE TEXT",
            "ALTER TABLE _events ALTER attempts DROP DEFAULT",
            "ALTER TABLE _events ALTER version DROP DEFAULT, ALTER version TYPE TEXT",
        ],
        "mysql": [
            "ALTER TABLE _operations MODIFY uuid VARCHAR(20) NOT NULL",
            "ALTER TABLE _operations MODIFY logged_at DATETIME NOT NULL",
            "ALTER TABLE _operations MODIFY command LONGTEXT NOT NULL",
            "ALTER TABLE _operations MODIFY effects TEXT",
            "ALTER TABLE _events MODIFY attempts INTEGER NOT NULL",
            "ALTER TABLE _events MODIFY version VARCHAR(20) NOT NULL DEFAULT 0",
        ],
        "sqlite": [
            "DROP TABLE _operations",
            """CREATE TABLE _operations (
                "index" INTEGER PRIMARY KEY, uuid VARCHAR(20) UNIQUE, host_id VARCHAR(64),
                logged_at INTEGER, command TEXT NOT NULL, effects BLOB
            )""",
            "CREATE INDEX logged ON _operations (logged_at)",
        ],
    }
    await run(*changes[engine.dialect.name])
    told = "\n".join(await complaints(engine))
    assert "_operations has a column uuid of length 20, which must be 40" in told
    assert "_operations has a column command that must allow NULL, and doesn't" in told
    assert "_operations has a column logged_at" in told
    if engine.dialect.name == "sqlite":
        assert "_operations must be made with AUTOINCREMENT" in told
        assert "_operations has a column effects of type" in told
        return
    assert "_events has a column attempts that needs a default, and has none" in told
    assert "_events has a column version of type" in told
    if engine.dialect.name == "postgresql":
        assert "logged_at without time zone" in told
        assert "chain" not in told
    else:
        assert "logged_at without fractions of seconds" in told
        assert "effects of type TEXT" in told
        assert "must be LONGTEXT" in told


async def test_keys_that_are_missing_are_told_of(sqlite_database: str):
    shard = open_shard("", sqlite_database)
    async with shard.write.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        await connection.execute(text("DROP TABLE _operations"))
        await connection.execute(
            text(
                'CREATE TABLE _operations ("index" INTEGER, uuid VARCHAR(40), host_id VARCHAR(64), '
                "logged_at DATETIME, command TEXT, effects TEXT)"
            )
        )
    told = await complaints(shard.write)
    assert "_operations must have the primary key (index), not ()" in told
    assert "_operations must not have the same uuid twice: it lacks a unique constraint" in told
    assert "_operations has no index on (logged_at)" in told
    await shard.aclose()


async def test_an_index_that_is_unique_stands_for_a_constraint(postgres_database: str):
    shard = open_shard("", postgres_database)
    async with shard.write.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        await connection.execute(
            text("ALTER TABLE _operations DROP CONSTRAINT _operations_uuid_key")
        )
    assert "unique" in (await complaints(shard.write))[0]
    async with shard.write.begin() as connection:
        unique = Index("anything", TABLES.operations.c.uuid, unique=True)
        TABLES.operations.indexes.discard(unique)
        await connection.run_sync(unique.create)
    await check_tables(shard.write, TABLES)
    await shard.aclose()
