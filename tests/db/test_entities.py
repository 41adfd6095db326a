"""Look-ups by key that are made at the same time share queries, and know nothing of each other."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, event, insert, text, update
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.pool import NullPool

from afresh import App, ComputeService, compute_method
from afresh.commands import Command, command_handler
from afresh.db import Database
from afresh.db.entities import EntityLoader, EntityLoaderOptions
from afresh.db.read_only import read_session
from afresh.db.shards import Shard, open_shard
from afresh.db.tracking import Read, TableName
from afresh.errors import DefinitionError, InvalidStateError
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import background_tasks
from tests.db.shop import Base, ItemRow, shard_with_items

MEMORY = "sqlite+aiosqlite://"
AT_ONCE = RetryDelays.fixed(0)


class PlaceRow(Base):
    """Has a key of two columns, a relationship that is read at once, and a name in letters."""

    __tablename__ = "places"

    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf: Mapped[str] = mapped_column(String(10), primary_key=True)
    label: Mapped[str] = mapped_column(String(20), unique=True)
    colour: Mapped[str] = mapped_column(String(20), default="blue")
    item_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"))
    item: Mapped[ItemRow | None] = relationship(lazy="joined")


@pytest.fixture
async def shard(any_database: str) -> AsyncIterator[Shard]:
    async with shard_with_items(any_database, 250) as shard:
        async with shard.write.begin() as connection:
            await connection.execute(
                insert(PlaceRow),
                [
                    {"row": row, "shelf": shelf, "label": f"{row}{shelf}", "item_id": row}
                    for row in range(1, 11)
                    for shelf in "abc"
                ],
            )
        yield shard


@pytest.fixture
async def small() -> AsyncIterator[Shard]:
    async with shard_with_items(MEMORY, 20) as shard:
        yield shard


def queries_of(shard: Shard) -> list[int]:
    """How many keys each query of the shard asks for, from now on."""
    sizes: list[int] = []

    @event.listens_for(shard.read.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sizes.append(len(parameters))

    return sizes


async def test_a_row_is_found_by_its_key_or_is_none(shard: Shard):
    loader = EntityLoader(shard, ItemRow)
    row = await loader.get(7)
    assert row is not None
    assert (row.id, row.name, row.stock) == (7, "item-7", 10)
    assert await loader.get(-1) is None
    assert await loader.get(None) is None


async def test_look_ups_of_one_turn_share_a_query(shard: Shard):
    loader = EntityLoader(shard, ItemRow)
    sizes = queries_of(shard)
    rows = await asyncio.gather(*(loader.get(id) for id in range(1, 61)))
    assert [row and row.id for row in rows] == list(range(1, 61))
    assert sizes == [64]
    await loader.get(1)
    assert sizes == [64, 1]


async def test_many_keys_are_asked_for_in_several_queries(shard: Shard):
    loader = EntityLoader(shard, ItemRow, options=EntityLoaderOptions(batch_size=100))
    sizes = queries_of(shard)
    rows = await asyncio.gather(*(loader.get(id) for id in range(1, 251)))
    assert [row and row.id for row in rows] == list(range(1, 251))
    assert sorted(sizes) == [64, 100, 100]


async def test_the_same_key_is_asked_for_once_at_a_time(shard: Shard):
    loader = EntityLoader(shard, ItemRow)
    sizes = queries_of(shard)
    first, second, third = await asyncio.gather(loader.get(1), loader.get(1), loader.get(2))
    assert first is second
    assert third is not None
    assert sizes == [2]


async def test_a_look_up_never_shares_a_query_that_runs_already(small: Shard):
    loader = EntityLoader(small, ItemRow)
    started = asyncio.Event()

    @event.listens_for(small.read.sync_engine, "before_cursor_execute")
    def note(*_: Any) -> None:
        started.set()

    early = asyncio.ensure_future(loader.get(1))
    await started.wait()
    async with small.write.begin() as connection:
        await connection.execute(update(ItemRow).values(stock=11))
    late = await loader.get(1)
    assert late is not None
    assert late.stock == 11
    assert late is not await early


async def test_many_rows_are_found_by_their_keys_in_the_order_of_these(shard: Shard):
    loader = EntityLoader(shard, ItemRow)
    sizes = queries_of(shard)
    rows = await loader.get_many([9, 3, -1, 9, 5])
    assert {key: row.name for key, row in rows.items()} == {
        9: "item-9",
        3: "item-3",
        5: "item-5",
    }
    assert list(rows) == [9, 3, 5]
    assert sizes == [4]
    assert await loader.get_many([]) == {}


async def test_a_row_is_found_by_another_attribute(shard: Shard):
    loader = EntityLoader(shard, ItemRow, key=ItemRow.name)
    rows = await asyncio.gather(loader.get("item-3"), loader.get("item-4"), loader.get("?"))
    assert [row and row.id for row in rows] == [3, 4, None]


async def test_keys_of_several_columns_are_tuples(shard: Shard):
    loader = EntityLoader(shard, PlaceRow)
    sizes = queries_of(shard)
    keys = [(1, "a"), (1, "b"), (2, "a"), (2, "z")]
    rows = await asyncio.gather(*map(loader.get, keys))
    assert [row and row.label for row in rows] == ["1a", "1b", "2a", None]
    # MariaDB is asked once more for what is missing: its text is not as exact as Python's.
    assert sizes == ([8, 2] if shard.dialect == "mysql" else [8])
    by_shelf = EntityLoader(shard, PlaceRow, key=(PlaceRow.shelf, PlaceRow.row))
    row = await by_shelf.get(("c", 10))
    assert row is not None
    assert row.label == "10c"
    for wrong in (1, (1,), [1, "a"]):
        with pytest.raises(TypeError, match="row, shelf"):
            await loader.get(wrong)
        with pytest.raises(TypeError, match="row, shelf"):
            await loader.get_many([(1, "a"), *([wrong] if not isinstance(wrong, list) else [(1,)])])


async def test_relationships_are_not_read_and_say_so(shard: Shard):
    sizes = queries_of(shard)
    row = await EntityLoader(shard, PlaceRow).get((1, "a"))
    assert row is not None
    with pytest.raises(InvalidRequestError, match="raise"):
        _ = row.item
    assert len(sizes) == 1


async def test_a_key_that_the_database_takes_for_another_finds_its_row(shard: Shard):
    """As `select … where` would: MariaDB folds case, SQLite converts."""
    wanted = {"sqlite": ("3", 3), "mysql": ("ITEM-3", "item-3"), "postgresql": ("item-3",) * 2}
    asked, found = wanted[shard.dialect]
    key = ItemRow.id if shard.dialect == "sqlite" else ItemRow.name
    loader = EntityLoader(shard, ItemRow, key=key)
    rows = await asyncio.gather(loader.get(asked), loader.get(found), loader.get("nothing"))
    assert [row and row.id for row in rows] == [3, 3, None]


async def test_a_key_that_rows_share_is_refused(shard: Shard):
    loader = EntityLoader(shard, PlaceRow, key=PlaceRow.colour)
    with pytest.raises(InvalidStateError, match=r"colour 'blue'.*no two rows"):
        await loader.get("blue")


@pytest.mark.parametrize(
    ("entity", "key"),
    [
        (int, None),
        (ItemRow, "name"),
        (ItemRow, PlaceRow.label),
        (PlaceRow, PlaceRow.item),
        (PlaceRow, (PlaceRow.row, None)),
    ],
)
def test_what_is_no_class_of_rows_or_no_column_of_it_is_refused(entity: Any, key: Any):
    shard = open_shard("", MEMORY)
    with pytest.raises(DefinitionError):
        EntityLoader(shard, entity, key=key)


async def test_a_key_that_can_not_be_hashed_is_refused(small: Shard):
    loader = EntityLoader(small, ItemRow)
    with pytest.raises(TypeError, match="unhashable"):
        await loader.get([1])
    with pytest.raises(TypeError, match="unhashable"):
        await EntityLoader(small, PlaceRow).get(([1], "a"))
    assert not loader._queues


# --- Waiters -----------------------------------------------------------------


async def test_a_caller_that_is_cancelled_takes_only_itself_out(small: Shard):
    loader = EntityLoader(small, ItemRow)
    sizes = queries_of(small)
    tasks = [asyncio.ensure_future(loader.get(id)) for id in (1, 1, 2, 3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[2], asyncio.CancelledError)
    assert [row.id for row in (results[1], results[3])] == [1, 3]  # type: ignore[union-attr]
    assert sizes == [2]


async def test_nobody_is_asked_for_callers_that_are_all_cancelled(small: Shard):
    loader = EntityLoader(small, ItemRow)
    sizes = queries_of(small)
    task = asyncio.ensure_future(loader.get(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.01)
    assert sizes == []
    assert not loader._queues


async def test_callers_that_are_cancelled_while_their_query_runs_leave_the_others_alone(
    small: Shard,
):
    loader = EntityLoader(small, ItemRow)
    started = asyncio.Event()

    @event.listens_for(small.read.sync_engine, "before_cursor_execute")
    def note(*_: Any) -> None:
        started.set()

    tasks = [asyncio.ensure_future(loader.get(id)) for id in (1, 2)]
    await started.wait()
    tasks[0].cancel()
    row = await tasks[1]
    assert row is not None
    assert tasks[0].cancelled()


async def test_get_many_that_is_cancelled_leaves_nothing_behind(small: Shard):
    loader = EntityLoader(small, ItemRow)
    for turns in range(8):
        task = asyncio.ensure_future(loader.get_many([1, 2]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(5):
        while loader._queues:
            await asyncio.sleep(0.001)
    assert small.read.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert len(await loader.get_many([1, 2])) == 2


async def test_look_ups_leave_nothing_behind_when_they_are_answered(small: Shard):
    loader = EntityLoader(small, ItemRow)
    await asyncio.gather(*(loader.get(id) for id in range(10)))
    await asyncio.sleep(0)
    assert not loader._queues
    assert not [task for task in background_tasks() if "look up" in task.get_name()]
    assert small.read.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_loader_survives_its_event_loop(sqlite_database: str):
    loaders = []

    async def leave() -> None:
        async with shard_with_items(sqlite_database, 2):
            pass
        shard = open_shard("", create_async_engine(sqlite_database, poolclass=NullPool))
        loader = EntityLoader(shard, ItemRow)
        loaders.append(loader)
        for id in (1, 2):  # nobody waits for the answers
            loader._look_up(shard, id)

    async def come_back() -> None:
        row = await loaders[0].get(2)
        assert row is not None

    asyncio.run(leave())
    asyncio.run(asyncio.wait_for(come_back(), 5))


async def test_an_error_of_many_look_ups_is_raised_once_and_told_to_nobody_else(
    small: Shard, caplog: pytest.LogCaptureFixture
):
    options = EntityLoaderOptions(batch_size=1)
    loader = EntityLoader(small, ItemRow, options=options)
    failing(small, [ZeroDivisionError(), ZeroDivisionError(), ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await loader.get_many(range(1, 6))
    await asyncio.sleep(0.05)
    gc.collect()
    assert not caplog.records
    assert not loader._queues


async def test_only_so_many_queries_run_at_once_and_the_rest_gather(small: Shard):
    options = EntityLoaderOptions(batch_size=2, batches=2)
    loader = EntityLoader(small, ItemRow, options=options)
    running: list[int] = []
    pool: Any = small.read.pool

    @event.listens_for(small.read.sync_engine, "before_cursor_execute")
    def note(*_: Any) -> None:
        running.append(pool.checkedout())

    rows = await asyncio.gather(*(loader.get(id) for id in range(1, 12)))
    assert [row and row.id for row in rows] == list(range(1, 12))
    assert len(running) == 6
    assert max(running) == 2


# --- Errors ------------------------------------------------------------------


def failing(shard: Shard, errors: list[BaseException]) -> list[float]:
    """Let the next queries fail with these; returns when there were queries."""
    times: list[float] = []

    @event.listens_for(shard.read.sync_engine, "before_cursor_execute")
    def fail(*_: Any) -> None:
        times.append(time.monotonic())
        if errors:
            raise errors.pop(0)

    return times


def lost() -> OperationalError:
    return OperationalError("SELECT", {}, Exception("gone"), connection_invalidated=True)


async def test_errors_that_may_pass_are_retried(small: Shard):
    loader = EntityLoader(small, ItemRow)
    times = failing(small, [lost(), lost(), lost()])
    row = await loader.get(1)
    assert row is not None
    assert len(times) == 4
    delays = [late - early for early, late in itertools.pairwise(times)]
    for delay, least in zip(delays, (0.11, 0.22, 0.45), strict=True):
        assert delay >= least


async def test_an_error_reaches_all_who_wait_when_retries_are_used_up(small: Shard):
    loader = EntityLoader(small, ItemRow, options=EntityLoaderOptions(retry_delays=AT_ONCE))
    times = failing(small, [lost() for _ in range(4)])
    results = await asyncio.gather(loader.get(1), loader.get(2), return_exceptions=True)
    assert [type(result) for result in results] == [OperationalError] * 2
    assert len(times) == 4
    assert await loader.get(1) is not None


async def test_other_errors_are_not_retried(small: Shard):
    loader = EntityLoader(small, ItemRow)
    times = failing(small, [ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await loader.get_many([1, 2])
    assert len(times) == 1
    async with small.write.begin() as connection:
        await connection.execute(text("ALTER TABLE items RENAME TO other"))
    with pytest.raises(OperationalError, match="no such table"):
        await loader.get(1)


async def test_a_query_that_takes_too_long_is_given_up_and_retried(postgres_database: str):
    async with shard_with_items(postgres_database) as shard:
        options = EntityLoaderOptions(timeout=0.2, retries=1, retry_delays=AT_ONCE)
        loader = EntityLoader(shard, ItemRow, options=options)
        sizes = queries_of(shard)
        async with shard.write.begin() as connection:
            await connection.execute(text("LOCK TABLE items"))
            with pytest.raises(TimeoutError):
                await loader.get(1)
        assert len(sizes) == 2
        assert await loader.get(1) is not None


async def test_a_closed_shard_fails_its_look_ups(small: Shard):
    loader = EntityLoader(small, ItemRow)
    await small.aclose()
    with pytest.raises(InvalidStateError, match="closed"):
        await loader.get(1)


@pytest.mark.parametrize("name", ["batch_size", "batches"])
def test_options_that_would_ask_for_nothing_are_refused(name: str):
    with pytest.raises(ValueError, match=name):
        EntityLoaderOptions(**{name: 0})


# --- Shards and tracking -----------------------------------------------------


async def test_a_loader_of_one_shard_refuses_others(small: Shard):
    with pytest.raises(LookupError, match="'paris'"):
        await EntityLoader(small, ItemRow).get(1, shard="paris")


async def test_what_a_look_up_reads_is_on_record_before_its_query(small: Shard):
    record: list[Any] = []
    loader = EntityLoader(small, ItemRow, record_read=record.append)

    @event.listens_for(small.read.sync_engine, "before_cursor_execute")
    def note(*_: Any) -> None:
        record.append("query")

    await loader.get_many([1, 2])
    items = TableName("default", "items")
    assert record == [
        Read(items, {"id": frozenset({1})}),
        Read(items, {"id": frozenset({2})}),
        "query",
    ]
    record.clear()
    composite = EntityLoader(small, PlaceRow, record_read=record.append)
    await composite.get((1, "a"))
    pins = {"row": frozenset({1}), "shelf": frozenset({"a"})}
    assert record == [Read(TableName("default", "places"), pins), "query"]


class ChangeStock(Command[None], frozen=True):
    id: int
    stock: int


class Stock(ComputeService):
    def __init__(self, database: Database) -> None:
        self.database = database
        self.items = EntityLoader(database, ItemRow)

    @compute_method
    async def of(self, id: int) -> int | None:
        row = await self.items.get(id)
        return row.stock if row is not None else None

    @compute_method
    async def total(self) -> int:
        return sum([item.stock for item in (await self.items.get_many([1, 2])).values()])

    @command_handler
    async def change(self, command: ChangeStock) -> None:
        async with self.database.operation() as op:
            row = await op.session.get(ItemRow, command.id)
            if row is None:
                op.session.add(ItemRow(id=command.id, name="new", stock=command.stock))
            else:
                row.stock = command.stock


async def test_results_that_share_a_query_go_stale_each_for_its_own_row(any_database: str):
    async with shard_with_items(any_database):
        pass
    database = Database(any_database, track=True, create_tables=True, watcher="local")
    async with App(database=database) as app:
        stock = app.add(Stock(database))
        first, second, missing, total = await asyncio.gather(
            *(stock.of.capture(id) for id in (1, 2, 9)), stock.total.capture()
        )
        assert [each.value for each in (first, second, missing, total)] == [10, 10, None, 20]
        await app.call(ChangeStock(1, 5))
        assert [each.is_consistent for each in (first, second, missing, total)] == [
            False,
            True,
            True,
            False,
        ]
        assert await stock.of(1) == 5
        assert await stock.total() == 15
        await app.call(ChangeStock(9, 1))
        assert not missing.is_consistent
        assert second.is_consistent
        assert await stock.of(9) == 1


# --- Speed -------------------------------------------------------------------


async def test_a_thousand_look_ups_at_once_are_far_faster_than_one_by_one(sqlite_database: str):
    """The benchmark measures how much faster; here it is seen that they are not one by one."""
    async with shard_with_items(sqlite_database, 1000) as shard:
        loader = EntityLoader(shard, ItemRow)
        sizes = queries_of(shard)
        rows = await asyncio.gather(*(loader.get(id) for id in range(1, 1001)))
        assert [row and row.id for row in rows] == list(range(1, 1001))
        assert sizes == [250] * 4
        async with read_session(shard) as session:
            assert await session.get(ItemRow, 1) is not rows[0]
