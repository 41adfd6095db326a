"""Results of compute methods go stale when rows change that they were read from, and not before."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import selectinload

from afresh.db.read_only import ReadSession, read_session
from afresh.db.shards import Shard, open_shard
from afresh.db.tracked import OperationWrites, TrackedReads
from afresh.db.tracking import EVERYTHING, FollowedSession, Read, TableName, Write
from afresh.errors import InvalidStateError
from afresh.graph import (
    Computed,
    ComputeService,
    compute_method,
    isolated,
    prune,
)
from afresh.testing import audit, fresh_graph
from tests.db.tracking.shop import Base, Order, User


class Orders(ComputeService):
    """What is computed from the shop, and how often."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.computed = 0
        self.pause: asyncio.Event | None = None
        self.reached = asyncio.Event()

    def read(self) -> ReadSession:
        return read_session(self.shard)

    @compute_method
    async def total(self, user: int) -> int:
        self.computed += 1
        async with self.read() as session:
            found = await session.scalar(select(func.sum(Order.total)).where(Order.user_id == user))
        return found or 0

    @compute_method
    async def name(self, user: int) -> str | None:
        async with self.read() as session:
            return await session.scalar(select(User.name).where(User.id == user))

    @compute_method
    async def line(self, user: int) -> str:
        return f"{await self.name(user)}: {await self.total(user)}"

    @compute_method
    async def name_and_orders(self, user: int) -> tuple[str, list[int]]:
        """In one transaction, with a pause in its midst."""
        async with self.read() as session:
            name = await session.scalar(select(User.name).where(User.id == user))
            self.reached.set()
            if self.pause is not None:
                await self.pause.wait()
            found = await session.scalars(select(Order.total).where(Order.user_id == user))
            return name or "", list(found)

    @compute_method
    async def with_orders(self, user: int) -> list[int]:
        async with self.read() as session:
            found = await session.get_one(User, user, options=[selectinload(User.orders)])
            return [order.total for order in found.orders]

    @compute_method
    async def count(self) -> int:
        async with self.read() as session:
            return await session.scalar(text("SELECT count(*) FROM orders")) or 0

    @compute_method
    async def unseen(self) -> int:
        async with self.read() as session:
            with isolated():
                return await session.scalar(select(func.count()).select_from(Order)) or 0


@pytest.fixture(autouse=True)
def graph() -> Any:
    with fresh_graph():
        yield


async def fill(shard: Shard) -> None:
    """Users 1 and 2, and an order of 10 for each."""
    async with shard.write.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(shard.write) as session:
        session.add_all([User(id=1, name="a"), User(id=2, name="b")])
        session.add_all([Order(id=1, user_id=1, total=10), Order(id=2, user_id=2, total=10)])
        await session.commit()


@pytest.fixture
async def shard() -> AsyncIterator[Shard]:
    """A temporary SQLite, filled."""
    opened = open_shard("", "sqlite+aiosqlite://")
    await fill(opened)
    yield opened
    await opened.aclose()


@pytest.fixture
def tracked(shard: Shard) -> Any:
    made = TrackedReads()
    stop = made.track([shard.read, shard.write])
    yield made
    stop()


@pytest.fixture
def orders(shard: Shard, tracked: TrackedReads) -> Orders:
    return Orders(shard)


def followed(connection: AsyncConnection) -> AsyncSession:
    return AsyncSession(connection, sync_session_class=FollowedSession)


@asynccontextmanager
async def changing(shard: Shard, tracked: TrackedReads) -> AsyncIterator[AsyncSession]:
    """An operation: what it changed is announced when it is committed."""
    writes = OperationWrites()
    async with shard.write.connect() as connection:
        async with connection.begin(), followed(connection) as session:
            writes.bind(connection)
            writes.follow(session)
            yield session
            await session.flush()
            changes = writes.collected()
    if changes is not None:
        tracked.apply(changes, "a change")


async def pay(shard: Shard, tracked: TrackedReads, order: int, total: int) -> None:
    async with changing(shard, tracked) as session:
        (await session.get_one(Order, order)).total = total


async def test_what_was_read_from_the_changed_rows_goes_stale_and_nothing_else(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    lines = [await orders.line.capture(user) for user in (1, 2)]
    names = [await orders.name.capture(user) for user in (1, 2)]
    await pay(shard, tracked, 1, 25)
    assert [line.is_consistent for line in lines] == [False, True]
    assert [name.is_consistent for name in names] == [True, True]
    assert "a change" in str(lines[0].invalidation_cause)
    assert await orders.line(1) == "a: 25"
    assert orders.computed == 3
    assert not (await audit()).stale


async def test_a_row_that_moves_leaves_one_result_and_enters_another(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    assert [await orders.total(user) for user in (1, 2, 3)] == [10, 10, 0]
    third = await orders.total.capture(3)
    async with changing(shard, tracked) as session:
        (await session.get_one(Order, 1)).user_id = 2
    assert third.is_consistent
    assert [await orders.total(user) for user in (1, 2, 3)] == [0, 20, 0]


async def test_nothing_goes_stale_when_nothing_was_committed(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    line = await orders.line.capture(1)
    with pytest.raises(ZeroDivisionError):
        async with changing(shard, tracked) as session:
            (await session.get_one(Order, 1)).total = 1 // 0
    async with changing(shard, tracked) as session:
        nested = await session.begin_nested()
        await session.execute(update(Order).values(total=7))
        await nested.rollback()
    assert line.is_consistent


async def test_a_change_between_the_query_and_the_result_is_not_missed(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    orders.pause = asyncio.Event()
    computing = asyncio.create_task(orders.name_and_orders.capture(1))
    await orders.reached.wait()
    async with changing(shard, tracked) as session:
        (await session.get_one(User, 1)).name = "z"
    orders.pause.set()
    computed = await computing
    assert computed.value == ("a", [10])
    assert computed.is_invalidated
    assert await orders.name_and_orders(1) == ("z", [10])


async def test_a_transaction_that_began_before_a_change_does_not_hide_it(tmp_path: Any) -> None:
    """It goes on showing what was when it began, and its second read was not on record yet when the
    change was announced.
    """
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    shard = open_shard("", engine)
    await fill(shard)
    tracked = TrackedReads()
    tracked.track([shard.read, shard.write])
    orders = Orders(shard)
    orders.pause = asyncio.Event()
    computing = asyncio.create_task(orders.name_and_orders.capture(1))
    await orders.reached.wait()
    await pay(shard, tracked, 1, 25)
    await pay(shard, tracked, 2, 26)
    orders.pause.set()
    computed = await computing
    assert computed.value == ("a", [10])
    assert computed.is_invalidated
    assert await orders.name_and_orders(1) == ("a", [25])
    current = await orders.name_and_orders.capture(1)
    assert [leaf.key.table.name for leaf in current.dependencies] == ["users", "orders"]
    await engine.dispose()


async def test_changes_of_other_rows_do_not_trouble_a_transaction_under_way(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    orders.pause = asyncio.Event()
    computing = asyncio.create_task(orders.name_and_orders.capture(1))
    await orders.reached.wait()
    await pay(shard, tracked, 2, 26)
    orders.pause.set()
    assert (await computing).is_consistent


async def test_a_transaction_older_than_what_is_remembered_counts_as_changed(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    orders.pause = asyncio.Event()
    computing = asyncio.create_task(orders.name_and_orders.capture(1))
    await orders.reached.wait()
    for _ in range(1001):
        tracked.invalidate([Write(TableName("", "other"))], "another change")
    orders.pause.set()
    assert (await computing).is_invalidated


async def test_a_second_query_of_the_session_is_seen(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    assert await orders.with_orders(1) == [10]
    await pay(shard, tracked, 1, 25)
    assert await orders.with_orders(1) == [25]


async def test_raw_sql_depends_on_everything(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    count = await orders.count.capture()
    async with changing(shard, tracked) as session:
        (await session.get_one(User, 2)).name = "z"
    assert count.is_invalidated


async def test_reads_in_isolation_are_no_dependencies(
    shard: Shard, tracked: TrackedReads, orders: Orders
) -> None:
    unseen = await orders.unseen.capture()
    assert tracked.count == 0
    tracked.invalidate_everything("a test")
    assert unseen.is_consistent


async def test_reads_outside_of_computations_leave_no_trace(
    shard: Shard, tracked: TrackedReads
) -> None:
    async with read_session(shard) as session:
        await session.scalars(select(Order))
    assert tracked.count == 0


async def test_everything_can_be_made_stale(tracked: TrackedReads, orders: Orders) -> None:
    line = await orders.line.capture(1)
    tracked.invalidate_everything("the log has a gap")
    assert "the log has a gap" in str(line.invalidation_cause)


async def test_what_asks_the_program_to_end_keeps_nothing_fresh(
    tracked: TrackedReads, orders: Orders
) -> None:
    lines = [await orders.line.capture(user) for user in (1, 2)]

    def leave(_: Computed[str]) -> None:
        raise KeyboardInterrupt

    for line in lines:
        line.on_invalidated(leave)
    with pytest.raises(KeyboardInterrupt):
        tracked.invalidate_everything("a test")
    assert all(line.is_invalidated for line in lines)
    assert tracked.count == 0


async def test_equal_reads_are_one_leaf_of_the_graph(tracked: TrackedReads, orders: Orders) -> None:
    line = await orders.line.capture(1)
    await orders.total(1)
    await orders.name(1)
    await orders.name_and_orders(1)
    assert tracked.count == 2
    (leaf,) = (await orders.name.capture(1)).dependencies
    assert len(leaf.dependants) == 2
    assert leaf.describe() == "rows of users {id in ['1']}"
    tracked.invalidate_everything("a test")
    assert line.is_invalidated
    with pytest.raises(InvalidStateError, match="have no value"):
        await leaf.update()
    with pytest.raises(InvalidStateError, match="have no value"):
        await leaf.use()


async def test_reads_leave_with_the_last_result_that_depends_on_them(
    tracked: TrackedReads, orders: Orders
) -> None:
    line = await orders.line.capture(1)
    prune()
    gc.collect()
    assert tracked.count == 2
    del line
    prune()
    gc.collect()
    assert tracked.count == 0
    assert tracked._index._databases == {}


async def test_a_hundred_thousand_reads_come_and_go() -> None:
    tracked = TrackedReads()

    class Rows(ComputeService):
        @compute_method
        async def row(self, key: int) -> int:
            tracked.record(Read(TableName("", "orders"), {"id": frozenset({key})}))
            return key

    rows = Rows()
    for start in range(0, 100_000, 10_000):
        held: list[Computed[int]] = [
            await rows.row.capture(key) for key in range(start, start + 10_000)
        ]
        assert tracked.count == 10_000
        touched = Write(TableName("", "orders"), ({"id": frozenset({start, start + 1, -1})},))
        tracked.invalidate([touched], "a change")
        assert [node.is_invalidated for node in held[:3]] == [True, True, False]
        assert tracked.count == 9_998
        del held
        prune()
    gc.collect()
    assert tracked.count == 0
    assert not tracked._leaves
    assert tracked._index._databases == {}


async def test_a_read_that_comes_back_is_found_again(tracked: TrackedReads) -> None:
    """Its new leaf takes the place of the one that is gone, though that was not swept up yet."""

    class Rows(ComputeService):
        @compute_method
        async def row(self) -> int:
            tracked.record(Read(TableName("", "orders")))
            return 1

    rows = Rows()
    await rows.row()
    tracked._is_busy = True  # as while something else is looked up
    rows.row.invalidate()
    assert tracked._gone
    row = await rows.row.capture()
    assert tracked.count == 1
    tracked.invalidate([Write(TableName("", "orders"))], "a change")
    assert row.is_invalidated


async def test_leaves_may_be_collected_in_other_threads(tracked: TrackedReads) -> None:
    class Rows(ComputeService):
        @compute_method
        async def row(self) -> int:
            tracked.record(Read(TableName("", "orders")))
            return 1

    rows = Rows()
    held = [await rows.row.capture()]
    prune()
    rows.row.table.entries.clear()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert len(tracked._gone) == 1
    assert tracked.count == 0


async def test_objects_are_trusted_as_the_isolation_allows(shard: Shard) -> None:
    writes = OperationWrites("SERIALIZABLE")
    assert writes.collected() is None
    async with shard.write.connect() as connection, followed(connection) as session:
        writes.bind(connection)
        assert writes.collected() is None
        writes.follow(session)
        stop = TrackedReads().track([shard.write], "east")
        (await session.get_one(Order, 1)).total = 3
        await session.flush()
        stop()
        await session.rollback()
    assert writes.collected() == {"east": {"orders": [{"id": 1, "user_id": 1, "status": "new"}]}}


async def test_engines_that_share_a_pool_are_seen_once(tmp_path: Any) -> None:
    base: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    twin = base.execution_options(some_option=True)
    tracked = TrackedReads()
    stop = tracked.track([twin, base, base])
    async with base.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for engine in (base, twin):
        writes = OperationWrites()
        async with engine.begin() as connection:
            writes.bind(connection)
            await connection.execute(update(Order).where(Order.id == 1).values(total=1))
        assert writes.collected() == {"": {"orders": [{"id": 1}]}}
    stop()
    async with base.begin() as connection:
        writes = OperationWrites()
        writes.bind(connection)
        await connection.execute(update(Order).values(total=1))
    assert writes.collected() is None
    await base.dispose()


async def test_what_a_newer_host_wrote_makes_everything_stale(
    tracked: TrackedReads, orders: Orders
) -> None:
    line = await orders.line.capture(1)
    tracked.apply([{"kind": EVERYTHING}], "a newer host")
    assert line.is_invalidated
