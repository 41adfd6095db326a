"""Sessions for reads refuse to write, in every way there is, and let go of their connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.schema import CreateTable

from afresh.db.engines import EngineOptions
from afresh.db.read_only import ReadSession, read_session
from afresh.db.shards import Shard, open_shard
from afresh.errors import InvalidStateError
from tests.db.shop import ItemRow, shard_with_items


@pytest.fixture
async def shard(any_database: str) -> AsyncIterator[Shard]:
    async with shard_with_items(any_database) as shard:
        yield shard


@pytest.fixture
async def shared(any_database: str, shard: Shard) -> AsyncIterator[Shard]:
    """The same on an engine of the user's own, on which the database refuses less."""
    engine = create_async_engine(any_database)
    yield open_shard(shard.name, engine)
    await engine.dispose()


async def contents(shard: Shard) -> list[tuple[int, str, int]]:
    async with shard.write.connect() as connection:
        query = select(ItemRow.id, ItemRow.name, ItemRow.stock).order_by(ItemRow.id)
        return [tuple(row) for row in await connection.execute(query)]


async def test_a_session_reads_objects_that_stay_usable_after_its_block(shard: Shard):
    async with read_session(shard) as session:
        rows = (await session.scalars(select(ItemRow).order_by(ItemRow.id))).all()
        one = await session.get(ItemRow, 2)
        assert await session.get(ItemRow, 9) is None
    assert [row.name for row in rows] == ["item-1", "item-2", "item-3"]
    assert one is rows[1]
    assert one not in session


async def test_a_session_gives_its_connection_back_at_the_end_of_its_block(shard: Shard):
    pool: Any = shard.read.pool
    async with read_session(shard) as session:
        assert pool.checkedout() == 0  # taken by the first statement
        await session.scalars(select(ItemRow))
        assert pool.checkedout() == 1
    assert pool.checkedout() == 0

    async def fail() -> None:
        async with read_session(shard) as session:
            await session.scalars(select(ItemRow))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert pool.checkedout() == 0


async def add_object(session: ReadSession) -> None:
    session.add(ItemRow(id=4, name="item-4"))


async def delete_object(session: ReadSession) -> None:
    await session.delete(await session.get_one(ItemRow, 1))


async def change_object(session: ReadSession) -> None:
    (await session.get_one(ItemRow, 1)).stock = 0


async def merge_object(session: ReadSession) -> None:
    await session.merge(ItemRow(id=1, name="other"))


CHANGES = [add_object, delete_object, change_object, merge_object]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_flush_of_changes_is_refused(
    shard: Shard, change: Callable[[ReadSession], Awaitable[None]]
):
    before = await contents(shard)
    for flush in (AsyncSession.flush, AsyncSession.commit):
        session = read_session(shard)
        await change(session)
        with pytest.raises(InvalidStateError, match=r"database\.operation\(\)"):
            await flush(session)
        await session.close()
    assert await contents(shard) == before


@pytest.mark.parametrize("change", CHANGES)
async def test_changes_are_not_dropped_in_silence_at_the_end_of_the_block(
    shard: Shard, change: Callable[[ReadSession], Awaitable[None]]
):
    before = await contents(shard)

    async def forget() -> None:
        async with read_session(shard) as session:
            await change(session)
            await session.scalars(select(ItemRow))  # flushes nothing by itself

    with pytest.raises(InvalidStateError, match=r"database\.operation\(\)"):
        await forget()
    assert shard.read.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await contents(shard) == before


async def test_an_error_of_the_block_is_not_hidden_by_changes_in_it(shard: Shard):
    async def fail() -> None:
        async with read_session(shard) as session:
            session.add(ItemRow(id=4, name="item-4"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()


async def test_an_attribute_that_is_set_to_what_it_was_is_no_change(shard: Shard):
    async with read_session(shard) as session:
        row = await session.get_one(ItemRow, 1)
        row.stock = 10
        await session.flush()
        await session.commit()
    assert row.stock == 10


async def test_flush_and_commit_without_changes_do_nothing(shard: Shard):
    async with read_session(shard) as session:
        await session.flush()
        await session.commit()
        row = await session.get_one(ItemRow, 1)
        await session.commit()
    assert row.name == "item-1"


WRITES: dict[str, Callable[[ReadSession], Awaitable[Any]]] = {
    "insert": lambda session: session.execute(insert(ItemRow).values(id=4, name="item-4")),
    "insert of many": lambda session: session.execute(
        insert(ItemRow), [{"id": 4, "name": "item-4"}]
    ),
    "update": lambda session: session.execute(update(ItemRow).values(stock=0)),
    "delete": lambda session: session.execute(delete(ItemRow)),
    "core": lambda session: session.execute(delete(ItemRow.__table__)),  # type: ignore[arg-type]
    "scalar": lambda session: session.scalar(update(ItemRow).values(stock=0)),
    "scalars": lambda session: session.scalars(update(ItemRow).values(stock=0)),
    "stream": lambda session: session.stream(delete(ItemRow)),
    "table": lambda session: session.execute(CreateTable(ItemRow.__table__)),  # type: ignore[arg-type]
    "objects that return": lambda session: session.scalars(
        select(ItemRow).from_statement(
            insert(ItemRow).values(id=4, name="item-4").returning(ItemRow)
        )
    ),
    "bulk objects": lambda session: session.run_sync(
        lambda sync: sync.bulk_save_objects([ItemRow(id=4, name="item-4")])
    ),
    "bulk inserts": lambda session: session.run_sync(
        lambda sync: sync.bulk_insert_mappings(ItemRow, [{"id": 4, "name": "item-4"}])  # type: ignore[arg-type]
    ),
    "bulk updates": lambda session: session.run_sync(
        lambda sync: sync.bulk_update_mappings(ItemRow, [{"id": 1, "stock": 0}])  # type: ignore[arg-type]
    ),
    "legacy query": lambda session: session.run_sync(
        lambda sync: sync.query(ItemRow).update({"stock": 0})
    ),
}


@pytest.mark.parametrize("way", WRITES)
async def test_statements_that_write_are_refused_on_any_engine(
    shard: Shard, shared: Shard, way: str
):
    before = await contents(shard)
    for each in (shard, shared):
        with pytest.raises(InvalidStateError, match=r"database\.operation\(\)"):
            async with read_session(each) as session:
                await WRITES[way](session)
    assert await contents(shard) == before


async def test_the_database_refuses_what_the_session_can_not_see(shard: Shard):
    before = await contents(shard)

    async def by_connection(session: ReadSession) -> None:
        await (await session.connection()).execute(delete(ItemRow))

    async def by_text(session: ReadSession) -> None:
        await session.execute(text("DELETE FROM items"))

    for write in (by_connection, by_text):
        with pytest.raises(InvalidStateError, match=r"database\.operation\(\)"):
            async with read_session(shard) as session:
                await write(session)
    assert await contents(shard) == before


async def test_whatever_slips_through_on_an_engine_of_the_users_own_is_rolled_back(shared: Shard):
    before = await contents(shared)
    async with read_session(shared) as session:
        if shared.dialect == "postgresql":  # which has been told
            with pytest.raises(DBAPIError, match="read-only"):
                await session.execute(text("DELETE FROM items"))
        else:
            await session.execute(text("DELETE FROM items"))
    assert await contents(shared) == before


async def test_a_closed_shard_opens_no_sessions(sqlite_database: str):
    async with shard_with_items(sqlite_database) as shard:
        pass
    with pytest.raises(InvalidStateError, match="closed"):
        read_session(shard)


async def test_a_cancelled_read_gives_its_connection_back(shard: Shard):
    sleep = {
        "postgresql": "SELECT pg_sleep(10)",
        "mysql": "SELECT sleep(10)",
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) "
        "SELECT count(*) FROM n",
    }[shard.dialect]

    running = asyncio.Event()

    @event.listens_for(shard.read.sync_engine, "before_cursor_execute")
    def note(*_: Any) -> None:
        running.set()

    async def read() -> None:
        async with read_session(shard) as session:
            await session.execute(text(sleep))

    for _ in range(shard.read.pool.size() + 2):  # type: ignore[attr-defined]
        running.clear()
        task = asyncio.ensure_future(read())
        await running.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert shard.read.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with read_session(shard) as session:
        assert len((await session.scalars(select(ItemRow))).all()) == 3


async def test_a_hundred_readers_at_once_share_the_connections(shard: Shard):
    async def read(id: int) -> str:
        async with read_session(shard) as session:
            return (await session.get_one(ItemRow, id % 3 + 1)).name

    names = await asyncio.gather(*map(read, range(100)))
    assert names == [f"item-{number % 3 + 1}" for number in range(100)]


async def test_a_mutable_value_that_is_flagged_counts_as_a_change(shard: Shard):
    with pytest.raises(InvalidStateError):
        async with read_session(shard) as session:
            flag_modified(await session.get_one(ItemRow, 1), "stock")


async def test_a_stream_that_is_left_halfway_leaves_nothing_open(any_database: str):
    async with shard_with_items(any_database, 500):
        pass
    options = EngineOptions(read_connections=1, pool_timeout=5)
    shard = open_shard("", any_database, options=options)
    async with read_session(shard) as session:
        rows = await session.stream_scalars(select(ItemRow).order_by(ItemRow.id))
        async for row in rows:
            assert row.id == 1
            break
    async with shard.write.begin() as connection:
        await connection.execute(update(ItemRow).values(stock=77))
    async with read_session(shard) as session:
        streamed = [row.stock async for row in await session.stream_scalars(select(ItemRow))]
        assert streamed == [77] * 500
    await shard.aclose()
    assert rows is not None


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_read_that_is_cancelled_anywhere_gives_its_connection_back(
    any_database: str, is_own: bool
):
    async with shard_with_items(any_database):
        pass
    arguments: Any = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    engine = create_async_engine(any_database, **arguments)
    options = EngineOptions(read_connections=1, pool_timeout=5)
    shard = open_shard("", engine if is_own else any_database, options=options)
    pool: Any = shard.read.pool

    async def read() -> None:
        async with read_session(shard) as session:
            assert len((await session.scalars(select(ItemRow))).all()) == 3
        async with read_session(shard) as session:
            async for row in await session.stream_scalars(select(ItemRow)):
                assert row.stock == 10

    await read()
    step = 0.0
    is_done = False
    while not is_done:
        task = asyncio.ensure_future(read())
        await asyncio.sleep(step)
        task.cancel()
        await asyncio.wait([task])
        is_done = not task.cancelled()
        assert pool.checkedout() == 0
        await read()
        step += 0.0004
    await shard.aclose()
    await engine.dispose()
