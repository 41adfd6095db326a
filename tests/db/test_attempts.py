"""Commands that fail are tried again where that helps, and end wholly undone where it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.commands import CommandOf, command_filter, current_context
from afresh.db.scope import DatabaseScope
from afresh.db.shards import Shard
from afresh.errors import InvalidStateError
from afresh.operations import RetryPolicy, current_operation
from afresh.primitives.clock import use_clock
from afresh.primitives.delays import RetryDelays
from afresh.rpc.middleware import Proceed
from afresh.testing import FakeClock
from tests.db.desk import Busy, Host, Noted, NoteRow, TallyRow, VeryBusy, desk_at, ends_of

# -- attempts


async def test_a_command_that_fails_transiently_is_tried_again_as_the_same_operation(
    host: Host,
) -> None:
    desk = host.desk
    ends: list[tuple[str, bool | None]] = []
    items: list[Any] = []

    @desk.on("a")
    async def work() -> str:
        context = current_context()
        items.append(dict(context.items).get("left"))
        context.items["left"] = True
        async with desk.database.operation() as op:
            assert op.items == op.operation.events == {}
            assert not op.operation.effects
            ends_of(op.operation, ends)
            attempt = str(len(ends) or len(desk.ran))
            op.items["attempt"] = attempt
            op.session.add(NoteRow(key="a", text=attempt))
            op.add_event(Noted(attempt))
            with op.invalidating():
                desk.texts(attempt)
            await op.session.flush()
        if len(desk.ran) < 3:
            raise Busy
        return attempt

    await desk.call("a")
    assert desk.ran == ["a", "a", "a"]
    (row,) = await host.log()
    assert ends == [(row.uuid, False), (row.uuid, False), (row.uuid, True)]
    assert len(await host.notes()) == 1
    assert len(await host.events()) == 1
    assert row.effects.count('"texts"') == 2
    assert items == [None, None, None]
    assert host.operations.health()["retried"] == 2


async def test_attempts_come_to_an_end(lone_host: Host) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")
        raise Busy

    with pytest.raises(Busy):
        await lone_host.desk.call("a")
    assert len(lone_host.desk.ran) == 4
    assert await lone_host.notes() == []


async def test_super_transient_errors_do_not_count(lone_host: Host) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")
        if len(lone_host.desk.ran) <= 20:
            raise VeryBusy

    await lone_host.desk.call("a")
    assert len(lone_host.desk.ran) == 21
    assert await lone_host.notes() == [("a", "")]


async def test_super_transient_errors_wait_between_attempts_and_end_with_a_cancellation(
    sqlite_desk: str,
) -> None:
    policy = RetryPolicy(3, RetryDelays.exponential(0.5, 3, 2, 0))
    async with desk_at(sqlite_desk, retries=policy) as host:

        @host.desk.on("a")
        async def work() -> None:
            await host.desk.note("a")
            raise VeryBusy

        waited: list[float] = []
        with use_clock(FakeClock()) as clock:
            task = asyncio.create_task(host.desk.call("a"))
            while len(waited) < 6:
                await asyncio.sleep(0.001)
                if clock.timers:
                    waited.append(clock.next_due - clock.now())
                    await clock.advance(waited[-1])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert waited == [0.5] * 6
        assert await host.notes() == []


async def test_super_transient_errors_without_a_delay_end_with_a_cancellation(
    lone_host: Host,
) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        async with lone_host.database.operation():
            raise VeryBusy

    task = asyncio.create_task(lone_host.desk.call("a"))
    while len(lone_host.desk.ran) < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyError, RuntimeError])
async def test_other_errors_end_the_command(lone_host: Host, error: type[BaseException]) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")
        raise error

    with pytest.raises(error):
        await lone_host.desk.call("a")
    assert lone_host.desk.ran == ["a"]
    assert await lone_host.notes() == []


async def test_a_command_that_has_written_nothing_is_not_tried_again(lone_host: Host) -> None:
    @lone_host.desk.on("memory")
    async def memory() -> None:
        current_operation()
        raise Busy

    @lone_host.desk.on("nothing")
    async def nothing() -> None:
        raise Busy

    for name in ("memory", "nothing"):
        with pytest.raises(Busy):
            await lone_host.desk.call(name)
    assert lone_host.desk.ran == ["memory", "nothing"]


async def test_a_nested_command_is_tried_again_with_the_outermost_one_only(
    lone_host: Host,
) -> None:
    desk = lone_host.desk

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer")
        await desk.call("inner")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        if len(desk.ran) == 2:
            raise Busy

    await desk.call("outer")
    assert desk.ran == ["outer", "inner", "outer", "inner"]
    assert await lone_host.notes() == [("outer", ""), ("inner", "")]


async def test_what_was_committed_is_not_done_again(lone_host: Host) -> None:
    class Late:
        @command_filter(priority=200_000)
        async def fail(self, command: CommandOf[Any], proceed: Proceed) -> Any:
            await proceed()
            raise Busy

    lone_host.commander.add(Late())

    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")

    with pytest.raises(Busy):
        await lone_host.desk.call("a")
    assert lone_host.desk.ran == ["a"]
    assert await lone_host.notes() == [("a", "")]


async def test_an_attempt_waits_as_long_as_the_policy_or_the_error_says(
    sqlite_database: str,
) -> None:
    policy = RetryPolicy(3, RetryDelays.exponential(0.5, 3, 2, 0))
    async with desk_at(sqlite_database, retries=policy) as host:

        @host.desk.on("a")
        async def work() -> None:
            await host.desk.note("a")
            if len(host.desk.ran) < 4:
                error = Busy()
                if len(host.desk.ran) == 2:
                    error.retry_delay = 7  # type: ignore[attr-defined]
                raise error

        waited: list[float] = []
        with use_clock(FakeClock()) as clock:
            task = asyncio.create_task(host.desk.call("a"))
            while not task.done():
                await asyncio.sleep(0.001)
                if clock.timers:
                    waited.append(clock.next_due - clock.now())
                    await clock.advance(waited[-1])
            await task
        assert waited == [0.5, 7, 2]


async def test_a_command_cancelled_between_attempts_has_not_happened(
    sqlite_database: str,
) -> None:
    async with desk_at(sqlite_database, retries=RetryPolicy()) as host:

        @host.desk.on("a")
        async def work() -> None:
            await host.desk.note("a")
            raise Busy

        with use_clock(FakeClock()) as clock:
            task = asyncio.create_task(host.desk.call("a"))
            while not clock.timers:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert clock.timers == 0
        assert await host.notes() == []


async def test_a_nested_command_of_an_attempt_that_failed_can_t_write_into_the_next(
    lone_host: Host,
) -> None:
    desk = lone_host.desk
    refused: list[str] = []
    second = asyncio.Event()

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer")
        if len(desk.ran) == 1:
            task = asyncio.create_task(desk.call("slow"))
            await asyncio.sleep(0)
            tasks.append(task)
            raise Busy
        second.set()
        await asyncio.gather(*tasks)

    @desk.on("slow")
    async def slow() -> None:
        await second.wait()
        with pytest.raises(InvalidStateError, match="another one is under way"):
            await desk.note("slow")
        refused.append("slow")

    tasks: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(5):
        await desk.call("outer")
    assert refused == ["slow"]
    assert await lone_host.notes() == [("outer", "")]


async def test_a_transaction_that_can_t_be_begun_is_tried_again(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Shard.connect
    failures = 2

    async def connect_late(self: Shard, *args: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise ConnectionRefusedError
        return await connect(self, *args)

    monkeypatch.setattr(Shard, "connect", connect_late)

    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")

    await lone_host.desk.call("a")
    assert len(lone_host.desk.ran) == 3
    assert await lone_host.notes() == [("a", "")]


async def test_a_handler_that_swallows_that_there_is_no_transaction_commits_nothing(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(self: Shard, *args: Any) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(Shard, "connect", connect)

    @lone_host.desk.on("a")
    async def work() -> None:
        for _ in range(2):
            with contextlib.suppress(ValueError, InvalidStateError):
                await lone_host.desk.note("a")

    with pytest.raises(InvalidStateError, match="could not be begun"):
        await lone_host.desk.call("a")


async def test_a_transaction_that_was_begun_halfway_only_is_given_back(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failures = AsyncConnection.begin, 1

    def fail_once(self: AsyncConnection) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise LookupError("no transaction")
        return begin(self)

    monkeypatch.setattr(AsyncConnection, "begin", fail_once)

    @lone_host.desk.on("a")
    async def work() -> None:
        with contextlib.suppress(LookupError):
            await lone_host.desk.note("a")
        with pytest.raises(InvalidStateError, match="could not be begun"):
            await lone_host.desk.note("a")

    with pytest.raises(InvalidStateError, match="could not be begun"):
        await lone_host.desk.call("a")
    async with asyncio.timeout(5):
        await lone_host.desk.note("b")
    assert await lone_host.notes() == [("b", "")]


# -- conflicts of transactions


@pytest.fixture(params=["postgres_desk", "mariadb_desk"])
def locking_database(request: pytest.FixtureRequest) -> str:
    """The URL of a database that locks rows."""
    url: str = request.getfixturevalue(request.param)
    return url


async def test_commands_in_a_deadlock_happen_one_after_the_other(locking_database: str) -> None:
    async with desk_at(locking_database) as host:
        await host.tallies("x", "y")
        desk = host.desk
        both = asyncio.Barrier(2)

        def work(first: str, second: str) -> Callable[[], Awaitable[None]]:
            async def add() -> None:
                await desk.add(first)
                if len(desk.ran) <= 2:
                    await both.wait()
                await desk.add(second)

            return add

        desk.work = {"xy": work("x", "y"), "yx": work("y", "x")}
        async with asyncio.timeout(30):
            await asyncio.gather(desk.call("xy"), desk.call("yx"))
        assert (await host.tally("x"), await host.tally("y")) == (2, 2)
        assert host.operations.retried >= 1


async def test_serializable_commands_that_conflict_happen_one_after_the_other(
    postgres_desk: str,
) -> None:
    async with desk_at(postgres_desk, isolation="SERIALIZABLE") as host:
        await host.tallies("x")
        desk = host.desk
        both = asyncio.Barrier(2)

        async def work() -> int:
            async with desk.database.operation() as op:
                value = (await op.session.scalars(select(TallyRow.value))).one()
                if len(desk.ran) <= 2:
                    await both.wait()
                await op.session.execute(update(TallyRow).values(value=value + 1))
                return value

        desk.work = {"a": work, "b": work}
        async with asyncio.timeout(30):
            assert sorted(await asyncio.gather(desk.call("a"), desk.call("b"))) == [0, 1]
        assert await host.tally("x") == 2
        assert host.operations.retried == 1
        assert len(await host.log()) == 3


async def test_fifty_commands_at_once_on_one_row_all_happen(host: Host) -> None:
    await host.tallies("x")
    desk = host.desk

    @desk.on("a")
    async def work() -> int:
        return await desk.add("x")

    async with asyncio.timeout(60):
        results = await asyncio.gather(*(desk.call("a") for _ in range(50)))
    assert sorted(results) == list(range(1, 51))
    assert await host.tally("x") == 50
    assert len({row.uuid for row in await host.log()}) == 51
    pool: Any = host.database.shard().write.pool
    assert pool.checkedout() == 0


@pytest.mark.parametrize("is_nested", [True, False])
async def test_a_deadlock_that_a_handler_swallows_does_not_tear_the_operation_apart(
    mariadb_desk: str, is_nested: bool
) -> None:
    async with desk_at(mariadb_desk) as host:
        await host.tallies("x", "y")
        desk = host.desk
        both = asyncio.Barrier(2)

        async def second(name: str) -> None:
            if len(desk.ran) <= 2 + 2 * is_nested:
                await both.wait()
            await desk.add(name)

        def work(first: str, other: str) -> Callable[[], Awaitable[None]]:
            async def add() -> None:
                await desk.add(first)
                with contextlib.suppress(OperationalError):
                    if is_nested:
                        await desk.call(f"second {other}")
                    else:
                        await second(other)
                await desk.note(first)

            return add

        desk.work = {
            "xy": work("x", "y"),
            "yx": work("y", "x"),
            "second x": lambda: second("x"),
            "second y": lambda: second("y"),
        }
        async with asyncio.timeout(30):
            await asyncio.gather(desk.call("xy"), desk.call("yx"), return_exceptions=True)
        # One has added to both. The other one was tried again, as what it swallowed ended its
        # transaction.
        assert sorted(key for key, _ in await host.notes()) == ["x", "y"]
        assert await host.tally("x") == await host.tally("y") == 2
        assert len(await host.log()) == 3
        assert host.operations.retried == 1


async def test_a_transaction_that_sqlite_has_rolled_back_is_not_gone_on_with(
    lone_host: Host,
) -> None:
    trigger = (
        "CREATE TRIGGER strict BEFORE INSERT ON notes WHEN NEW.text = 'bad' "
        "BEGIN SELECT RAISE(ROLLBACK, 'strict'); END"
    )
    async with lone_host.database.shard().write.begin() as connection:
        await connection.execute(text(trigger))

    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a", "before")
        async with lone_host.database.operation() as op:
            with contextlib.suppress(IntegrityError):
                await op.session.execute(insert(NoteRow).values(key="a", text="bad"))
        await lone_host.desk.note("a", "after")

    with pytest.raises(PendingRollbackError):
        await lone_host.desk.call("a")
    assert len(lone_host.desk.ran) == 4
    assert await lone_host.notes() == await lone_host.log() == []
    await lone_host.desk.note("b")


# -- cancellation


async def test_a_nested_command_that_takes_too_long_takes_the_operation_with_it(
    postgres_desk: str,
) -> None:
    async with desk_at(postgres_desk) as host:
        desk = host.desk

        @desk.on("outer")
        async def outer() -> None:
            await desk.note("outer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await desk.call("slow")

        @desk.on("slow")
        async def slow() -> None:
            async with desk.database.operation() as op:
                op.session.add(NoteRow(key="slow"))
                await op.session.flush()
                await op.session.execute(text("SELECT pg_sleep(30)"))

        async with asyncio.timeout(20):
            with pytest.raises(InvalidStateError, match="could not be undone by themselves"):
                await desk.call("outer")
        assert await host.notes() == await host.log() == []
        pool: Any = host.database.shard().write.pool
        assert pool.checkedout() == 0


async def test_a_nested_command_that_waits_for_something_else_too_long_is_undone_alone(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await desk.call("slow")

    @desk.on("slow")
    async def slow() -> None:
        await desk.note("slow")
        await asyncio.sleep(30)

    async with asyncio.timeout(20):
        await desk.call("outer")
    assert await host.notes() == [("outer", "")]


async def test_a_caller_who_leaves_during_the_commit_finds_it_done(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = host.desk
    reached = asyncio.Event()
    store = DatabaseScope._store

    async def slow_store(self: DatabaseScope, *args: Any) -> None:
        reached.set()
        await asyncio.sleep(0.05)
        await store(self, *args)

    monkeypatch.setattr(DatabaseScope, "_store", slow_store)
    ends: list[tuple[str, bool | None]] = []

    @desk.on("a")
    async def work() -> None:
        await desk.note("a")
        ends_of(current_operation(), ends)

    computed = await desk.texts.capture("a")
    task = asyncio.create_task(desk.call("a"))
    await reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not computed.is_consistent
    assert [is_committed for _, is_committed in ends] == [True]
    assert await desk.texts("a") == ("",)
