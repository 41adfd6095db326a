"""Transactions begin as they should, can be undone as they should, and leave clean connections."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from afresh.db.engines import EngineOptions, dialect_of, is_in_memory
from afresh.db.shards import Shard, open_shard
from afresh.errors import InvalidStateError
from tests.db.shop import Base, ItemRow, shard_with_items


@pytest.fixture
async def shard(any_database: str) -> AsyncIterator[Shard]:
    async with shard_with_items(any_database) as shard:
        yield shard


async def names(shard: Shard) -> list[str]:
    async with shard.read.connect() as connection:
        rows = await connection.execute(select(ItemRow.name).order_by(ItemRow.id))
        return list(rows.scalars())


async def add(connection: AsyncConnection, id: int) -> None:
    await connection.execute(insert(ItemRow).values(id=id, name=f"item-{id}"))


async def test_what_was_rolled_back_to_a_savepoint_is_gone_and_the_rest_is_committed(shard: Shard):
    async with shard.write.begin() as connection:
        outer = await connection.begin_nested()  # before anything was written
        await add(connection, 4)
        inner = await connection.begin_nested()
        await add(connection, 5)
        await inner.rollback()
        await outer.commit()
        undone = await connection.begin_nested()
        await add(connection, 6)
        await undone.rollback()
    assert await names(shard) == ["item-1", "item-2", "item-3", "item-4"]


async def test_a_transaction_that_is_rolled_back_leaves_nothing_whatever_its_savepoints_did(
    shard: Shard,
):
    async with shard.write.connect() as connection:
        transaction = await connection.begin()
        savepoint = await connection.begin_nested()
        await add(connection, 4)
        await savepoint.commit()
        await add(connection, 5)
        await transaction.rollback()
    assert await names(shard) == ["item-1", "item-2", "item-3"]


async def test_a_connection_that_comes_back_within_a_transaction_is_clean_for_the_next(
    shard: Shard,
):
    for _ in range(shard.write.pool.size() + 1):
        connection = await shard.connect()
        await connection.begin()
        await add(connection, 4)
        await connection.close()
    async with shard.write.begin() as connection:
        rows = await connection.execute(select(ItemRow.name))
        assert len(rows.all()) == 3


async def test_the_database_refuses_writes_on_the_connections_for_reads(shard: Shard):
    statements: list[Any] = [
        insert(ItemRow).values(id=4, name="item-4"),
        text("UPDATE items SET stock = 0"),
        text("WITH gone AS (SELECT 1) DELETE FROM items"),
        text("CREATE TABLE more (id INTEGER)"),
    ]
    if shard.dialect == "mysql":
        statements[2] = text("DELETE FROM items")
    for statement in statements:
        async with shard.read.connect() as connection:
            with pytest.raises(InvalidStateError, match=r"database\.operation\(\)") as caught:
                await connection.execute(statement)
            assert caught.value.__cause__ is not None  # what the database said
    assert len(await names(shard)) == 3


async def test_other_errors_of_a_read_stay_what_they_are(shard: Shard):
    async with shard.read.connect() as connection:
        with pytest.raises(DBAPIError, match="nowhere"):
            await connection.execute(text("SELECT * FROM nowhere"))


async def test_reads_hold_no_transaction_open(shard: Shard):
    async with shard.read.connect() as reader:
        query = select(ItemRow.stock).where(ItemRow.id == 1)
        assert await reader.scalar(query) == 10
        async with shard.write.begin() as connection:
            await connection.execute(update(ItemRow).values(stock=9))
        assert await reader.scalar(query) == 9


async def test_reads_go_on_while_commands_hold_all_their_connections(any_database: str):
    async with shard_with_items(any_database) as shard:
        held = []
        for id in range(shard.write.pool.size()):
            connection = await shard.connect()
            await connection.begin()
            await add(connection, 100 + id)
            held.append(connection)
        async with asyncio.timeout(5):
            assert len(await names(shard)) == 3
        for connection in held:
            await connection.close()


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_each_isolation_level_can_be_had_and_does_not_stick_to_the_connection(
    shard: Shard, level: Any
):
    for _ in range(shard.write.pool.size()):
        async with aclosing(await shard.connect(level)) as connection:
            async with connection.begin():
                if shard.dialect != "sqlite":
                    assert await connection.get_isolation_level() == level
    async with aclosing(await shard.connect()) as connection:
        assert await connection.get_isolation_level() == connection.default_isolation_level


async def test_what_is_no_isolation_level_is_refused(shard: Shard):
    with pytest.raises(ValueError, match="'REPEATABLE READ'"):
        await shard.connect("CHAOS")  # type: ignore[arg-type]
    assert shard.write.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_serializable_transactions_lose_no_update(shard: Shard):
    """Two read, then both write: on each database one of them fails, or waits for the other."""

    async def take_one(ready: asyncio.Barrier | None) -> None:
        async with aclosing(await shard.connect("SERIALIZABLE")) as connection, connection.begin():
            stock = await connection.scalar(select(ItemRow.stock).where(ItemRow.id == 1))
            if ready is not None:
                await ready.wait()
            await connection.execute(update(ItemRow).where(ItemRow.id == 1).values(stock=stock - 1))

    barrier = None if shard.dialect == "sqlite" else asyncio.Barrier(2)
    results = await asyncio.gather(take_one(barrier), take_one(barrier), return_exceptions=True)
    done = results.count(None)
    assert done == (2 if shard.dialect == "sqlite" else 1)
    async with shard.read.connect() as connection:
        stock = await connection.scalar(select(ItemRow.stock).where(ItemRow.id == 1))
    assert stock == 10 - done


async def test_rows_can_be_locked_and_locked_ones_skipped(any_database: str):
    query = select(ItemRow.id).order_by(ItemRow.id).with_for_update(skip_locked=True).limit(2)
    async with shard_with_items(any_database) as shard:
        async with shard.write.begin() as connection:
            first = list(await connection.scalars(query))
            assert first == [1, 2]
            if shard.dialect != "sqlite":  # there, nobody else writes until this one is done
                async with shard.write.begin() as other:
                    assert list(await other.scalars(query)) == [3]


# --- Cancellations -----------------------------------------------------------


async def cancel_in(work: Any, seconds: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_query_that_is_cancelled_midway_leaves_no_poisoned_connection(
    postgres_database: str,
):
    shard = open_shard(
        "",
        postgres_database,
        options=EngineOptions(write_connections=1, read_connections=1, pool_timeout=5),
    )
    for engine in (shard.read, shard.write):

        async def sleep(engine: Any = engine) -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await connection.execute(text("SELECT pg_sleep(30)"))

        for _ in range(5):
            await cancel_in(sleep(), 0.05)
            async with engine.connect() as connection:
                for number in range(3):
                    assert await connection.scalar(text(f"SELECT {number}")) == number
        assert engine.pool.checkedout() == 0
    await shard.aclose()


async def test_a_cancellation_at_any_await_of_a_transaction_leaves_the_pool_in_order(
    any_database: str,
):
    options = EngineOptions(write_connections=1, read_connections=1, pool_timeout=5)
    async with shard_with_items(any_database, 1):
        pass
    shard = open_shard("", any_database, options=options)
    for engine in (shard.write, shard.read):
        # Drivers leave it to the garbage collector to close what is cancelled while it connects.
        async with engine.connect():
            pass
    finished = 0

    async def change(stock: int) -> None:
        nonlocal finished
        async with shard.write.begin() as connection:
            await connection.execute(update(ItemRow).values(stock=stock))
            async with connection.begin_nested():
                await connection.execute(update(ItemRow).values(stock=stock + 1))
        async with shard.read.connect() as connection:
            await connection.execute(select(ItemRow))
        finished += 1

    step = 0.0
    while not finished:
        task = asyncio.ensure_future(change(100))
        await asyncio.sleep(step)
        task.cancel()
        await asyncio.wait([task])
        step += 0.0005
        async with shard.write.begin() as connection:
            await connection.execute(update(ItemRow).values(stock=7))
        async with shard.read.connect() as connection:
            assert await connection.scalar(select(ItemRow.stock)) == 7
    assert shard.write.pool.checkedout() == shard.read.pool.checkedout() == 0  # type: ignore[attr-defined]
    await shard.aclose()


# --- SQLite ------------------------------------------------------------------


async def test_sqlite_frees_the_write_lock_before_a_cancellation_is_dealt_with(
    sqlite_database: str,
):
    slow = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
        "SELECT i FROM n ORDER BY -i"
    )
    async with shard_with_items(sqlite_database) as shard:

        async def write() -> None:
            try:
                async with shard.write.begin() as connection:
                    await add(connection, 4)
                    await connection.execute(slow)
            except asyncio.CancelledError:  # which still holds on to the statement
                async with asyncio.timeout(5), shard.write.begin() as connection:
                    await add(connection, 4)
                raise

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.02)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await names(shard) == ["item-1", "item-2", "item-3", "item-4"]


async def test_sqlite_takes_the_write_lock_when_a_transaction_begins(sqlite_database: str):
    async with shard_with_items(sqlite_database) as shard:
        async with shard.write.begin():
            with sqlite3.connect(make_url(sqlite_database).database or "", timeout=0) as other:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
            other.close()


async def test_sqlite_reads_see_the_last_commit_while_a_command_writes(sqlite_database: str):
    async with shard_with_items(sqlite_database) as shard:
        async with shard.write.begin() as connection:
            await connection.execute(update(ItemRow).values(stock=1))
            async with shard.read.connect() as reader:
                assert await reader.scalar(select(ItemRow.stock).limit(1)) == 10


async def test_sqlite_keeps_foreign_keys(sqlite_database: str):
    async with shard_with_items(sqlite_database) as shard:
        async with shard.write.begin() as connection:
            await connection.execute(
                text("CREATE TABLE lines (item INTEGER REFERENCES items (id))")
            )
        with pytest.raises(IntegrityError):
            async with shard.write.begin() as connection:
                await connection.execute(text("INSERT INTO lines VALUES (77)"))


async def test_commands_on_sqlite_queue_for_the_one_connection(sqlite_database: str):
    async with shard_with_items(sqlite_database, 1) as shard:

        async def take_one() -> None:
            async with shard.write.begin() as connection:
                stock = await connection.scalar(select(ItemRow.stock))
                await connection.execute(update(ItemRow).values(stock=stock + 1))

        await asyncio.gather(*(take_one() for _ in range(50)))
        async with shard.read.connect() as connection:
            assert await connection.scalar(select(ItemRow.stock)) == 60


async def test_a_transaction_waits_while_another_process_writes_and_can_be_cancelled_meanwhile(
    sqlite_database: str,
):
    async with shard_with_items(sqlite_database) as shard:
        path = make_url(sqlite_database).database or ""
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def write() -> None:
            async with shard.write.begin() as connection:
                await add(connection, 4)

        before = time.monotonic()
        await cancel_in(write(), 0.05)
        assert time.monotonic() - before < 3
        waiting = asyncio.ensure_future(write())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        await waiting
        assert len(await names(shard)) == 4


async def test_waiting_for_another_process_ends_when_its_time_is_over(sqlite_database: str):
    async with shard_with_items(sqlite_database):
        pass
    shard = open_shard("", sqlite_database, options=EngineOptions(busy_timeout=0.2))
    other = sqlite3.connect(make_url(sqlite_database).database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DBAPIError, match="locked"):
        async with shard.write.begin():
            pass
    other.close()
    async with shard.write.begin() as connection:
        await add(connection, 4)
    await shard.aclose()


def _count_up(path: str, start: Any) -> None:
    async def main() -> None:
        shard = open_shard("", f"sqlite+aiosqlite:///{path}")
        start.wait()
        for _ in range(20):
            async with shard.write.begin() as connection:
                await connection.execute(
                    text("CREATE TABLE IF NOT EXISTS numbers (id INTEGER PRIMARY KEY, value INT)")
                )
                await connection.execute(
                    text(
                        "INSERT INTO numbers VALUES (1, 1) "
                        "ON CONFLICT (id) DO UPDATE SET value = value + 1"
                    )
                )
        await shard.aclose()

    asyncio.run(main())


def test_several_processes_can_open_a_new_file_at_once_and_share_it(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "shared.sqlite")
    start = context.Barrier(3)
    workers = [context.Process(target=_count_up, args=(path, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM numbers").fetchall() == [(60,)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    connection.close()


# --- Engines of the user's own -----------------------------------------------


async def test_an_engine_that_was_handed_in_is_used_for_both_and_never_disposed_of(
    any_database: str,
):
    engine = create_async_engine(any_database)
    shard = open_shard("", engine)
    async with shard.write.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        savepoint = await connection.begin_nested()
        await add(connection, 1)
        await savepoint.rollback()
        await add(connection, 2)
    assert await names(shard) == ["item-2"]
    assert shard.write.pool is shard.read.pool is engine.pool
    await shard.aclose()
    async with engine.begin() as connection:
        await add(connection, 3)
    async with engine.connect() as connection:
        assert len((await connection.execute(select(ItemRow))).all()) == 2
    await engine.dispose()


async def test_an_engine_of_sqlite_whose_transactions_the_user_begins_works_as_well(
    sqlite_database: str,
):
    engine = create_async_engine(sqlite_database)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    shard = open_shard("", engine)
    async with shard.write.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await add(connection, 1)
    assert await names(shard) == ["item-1"]
    await engine.dispose()


# --- URLs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite+aiosqlite://", True),
        ("sqlite+aiosqlite:///:memory:", True),
        ("sqlite+aiosqlite:///file::memory:?cache=shared&uri=true", True),
        ("sqlite+aiosqlite:///file:name?mode=memory&uri=true", True),
        ("sqlite+aiosqlite:///shop.db", False),
        ("postgresql+asyncpg://localhost", False),
    ],
)
def test_urls_of_sqlite_without_a_file_are_known(url: str, expected: bool):
    assert is_in_memory(make_url(url)) is expected


def test_mariadb_counts_as_mysql_and_unknown_databases_are_refused():
    assert dialect_of(make_url("mariadb+asyncmy://localhost/shop")) == "mysql"
    assert dialect_of(make_url("postgresql+psycopg://localhost/shop")) == "postgresql"
    with pytest.raises(ValueError, match=r"sqlite\+aiosqlite"):
        dialect_of(make_url("mssql+aioodbc://localhost/shop"))


async def test_more_arguments_change_what_they_should_and_leave_reads_as_they_are(
    any_database: str,
):
    arguments: dict[str, Any] = {"pool_size": 3, "isolation_level": "SERIALIZABLE"}
    if any_database.startswith("mysql"):
        arguments["connect_args"] = {"init_command": "SET SESSION sort_buffer_size = 1048576"}
    elif any_database.startswith("postgresql"):
        arguments["connect_args"] = {"server_settings": {"application_name": "shop"}}
    async with shard_with_items(any_database):
        pass
    shard = open_shard("", any_database, options=EngineOptions(arguments=arguments))
    sizes = [engine.pool.size() for engine in (shard.write, shard.read)]  # type: ignore[attr-defined]
    assert sizes == ([1, 3] if shard.dialect == "sqlite" else [3, 3])
    given = {
        "sqlite": ("SELECT 1", 1),
        "mysql": ("SELECT @@sort_buffer_size", 1048576),
        "postgresql": ("SELECT current_setting('application_name')", "shop"),
    }
    query, expected = given[shard.dialect]
    for engine in (shard.write, shard.read):
        async with engine.connect() as connection:
            assert await connection.scalar(text(query)) == expected
    with pytest.raises(InvalidStateError):
        async with shard.read.connect() as connection:
            await add(connection, 4)
    async with shard.write.connect() as connection:
        transaction = await connection.begin()
        await add(connection, 4)
        await transaction.rollback()
    assert len(await names(shard)) == 3
    await shard.aclose()
