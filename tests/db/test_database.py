"""Commands on a database: attempts, commits in doubt, isolation, guards, and operations alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncTransaction

from afresh.commands import CommandOf, command_filter, current_context
from afresh.db import Database
from afresh.db.scope import DatabaseScope
from afresh.db.shards import Shard
from afresh.errors import InvalidStateError
from afresh.graph import invalidating
from afresh.operations import COMMIT_GUARD, Operation, RetryPolicy, current_operation
from afresh.primitives.clock import use_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.transience import Transience
from afresh.rpc.middleware import Proceed
from afresh.testing import FakeClock
from tests.db.desk import Base, Do, Host, Noted, NoteRow, TallyRow, desk_at


@pytest.fixture
async def host(any_database: str) -> AsyncIterator[Host]:
    async with desk_at(any_database) as host:
        yield host


@pytest.fixture
async def lone_host(sqlite_database: str) -> AsyncIterator[Host]:
    async with desk_at(sqlite_database) as host:
        yield host


class Busy(Exception):
    transience = Transience.TRANSIENT


class VeryBusy(Exception):
    transience = Transience.SUPER_TRANSIENT


def ends_of(operation: Operation, ends: list[tuple[str, bool | None]]) -> None:
    """Note how each attempt ends."""
    operation.when_done(lambda each: ends.append((each.uuid, each.is_committed)))


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


# -- conflicts of transactions


@pytest.fixture(params=["postgres_database", "mariadb_database"])
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
    postgres_database: str,
) -> None:
    async with desk_at(postgres_database, isolation="SERIALIZABLE") as host:
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
    mariadb_database: str, is_nested: bool
) -> None:
    async with desk_at(mariadb_database) as host:
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
    postgres_database: str,
) -> None:
    async with desk_at(postgres_database) as host:
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


# -- commits whose outcome is not known


class Lost(OperationalError):
    """The connection is lost."""

    def __init__(self) -> None:
        super().__init__("", None, ConnectionResetError(), connection_invalidated=True)


@contextlib.contextmanager
def losing(
    monkeypatch: pytest.MonkeyPatch, *, times: int = 1, commits: bool = True
) -> Iterator[list[bool]]:
    """Lose the connection in the next commits, after they have happened or before."""
    commit = AsyncTransaction.commit
    lost: list[bool] = []

    async def commit_and_lose(self: AsyncTransaction) -> None:
        if self.nested or len(lost) >= times:
            await commit(self)
            return
        lost.append(commits)
        if commits:
            await commit(self)
        raise Lost

    with monkeypatch.context() as patch:
        patch.setattr(AsyncTransaction, "commit", commit_and_lose)
        yield lost


@contextlib.contextmanager
def misled(monkeypatch: pytest.MonkeyPatch, *answers: bool | Exception) -> Iterator[None]:
    """Let what looks commits up find this first."""
    left = list(answers)
    is_logged = DatabaseScope._is_logged

    async def look_up(self: DatabaseScope) -> bool:
        if not left:
            return await is_logged(self)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseScope, "_is_logged", look_up)
        yield
    assert not left


async def prepare(host: Host, ends: list[tuple[str, bool | None]]) -> Any:
    desk = host.desk

    @desk.on("a")
    async def work() -> int:
        async with desk.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add(NoteRow(key="a", text=str(len(desk.ran))))
            op.add_event(Noted("a"), uuid="once")
        return len(desk.ran)

    return await desk.texts.capture("a")


async def test_a_commit_that_raises_after_it_happened_has_happened(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch):
        assert await host.desk.call("a") == 1
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, True)]


async def test_a_commit_that_raises_and_did_not_happen_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch, commits=False):
        assert await host.desk.call("a") == 2
    assert not computed.is_consistent
    assert await host.notes() == [("a", "2")]
    (row,) = await host.log()
    assert sorted(ends) == [(row.uuid, False), (row.uuid, True)]


async def test_a_commit_that_can_t_be_looked_up_at_first_is_looked_up_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch), misled(monkeypatch, Lost()):
        assert await host.desk.call("a") == 1
    assert host.desk.ran == ["a"]
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, True)]


@pytest.mark.parametrize("answers", [(False, False), (Lost(), Lost())])
async def test_an_attempt_that_was_committed_after_all_gives_its_own_result(
    host: Host, monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...]
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    # The second attempt meets the first one in the log, by its event already.
    with losing(monkeypatch), misled(monkeypatch, *answers):
        assert await host.desk.call("a") == 1
    assert host.desk.ran == ["a", "a"]
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, False), (row.uuid, True)]
    assert len(await host.events()) == 1


async def test_a_commit_that_stays_in_doubt_fails(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    await prepare(lone_host, ends)
    with losing(monkeypatch, times=4, commits=False):
        with pytest.raises(Lost):
            await lone_host.desk.call("a")
    assert [is_committed for _, is_committed in ends] == [False] * 4
    assert await lone_host.notes() == []


async def test_a_commit_that_was_refused_is_not_looked_up(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = MetaData()
    parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
    key = ForeignKey("parents.id", deferrable=True, initially="DEFERRED")
    children = Table("children", metadata, Column("parent", Integer, key))
    async with desk_at(postgres_database) as host:
        async with host.database.shard().write.begin() as connection:
            await connection.run_sync(metadata.create_all)

        async def look_up(self: DatabaseScope) -> bool:
            raise AssertionError

        monkeypatch.setattr(DatabaseScope, "_is_logged", look_up)

        @host.desk.on("a")
        async def work() -> None:
            async with host.database.operation() as op:
                await op.session.execute(insert(children).values(parent=1))

        with pytest.raises(IntegrityError):
            await host.desk.call("a")
        assert host.desk.ran == ["a"]
        assert await host.log() == await host.rows(select(parents)) == []


async def test_looking_a_commit_up_is_tried_three_times(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.db.scope._VERIFICATION_DELAYS", RetryDelays.fixed(0))
    ends: list[tuple[str, bool | None]] = []
    await prepare(lone_host, ends)
    read: Any = lone_host.database.shard().read
    connect, failures = type(read).connect, 2

    def connect_late(self: Any) -> Any:
        nonlocal failures
        if self is read and failures:
            failures -= 1
            raise ConnectionRefusedError
        return connect(self)

    with losing(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(type(read), "connect", connect_late)
        assert await lone_host.desk.call("a") == 1
    assert lone_host.desk.ran == ["a"]
    assert failures == 0


async def test_an_operation_that_is_not_stored_is_looked_up_by_its_marker(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        await desk.note("a")
        current_operation().is_stored = False

    computed = await desk.texts.capture("a")
    with losing(monkeypatch):
        await desk.call("a")
    assert desk.ran == ["a"]
    assert not computed.is_consistent
    assert await host.log() == []
    (marker,) = await host.events()
    assert marker.uuid.startswith("~op-")
    assert marker.state == 1
    assert marker.value == ""


async def test_a_commit_alone_that_raises_is_looked_up_as_well(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []

    async def write() -> None:
        async with host.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add(NoteRow(key="a"))

    with losing(monkeypatch):
        await write()
    with losing(monkeypatch, commits=False), pytest.raises(Lost):
        await write()
    assert [is_committed for _, is_committed in ends] == [True, False]
    assert await host.notes() == [("a", "")]


# -- operations outside of commands


async def test_a_block_outside_of_commands_is_an_operation_by_itself(host: Host) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await host.desk.texts.capture("a")
    async with host.database.operation() as op:
        ends_of(op.operation, ends)
        op.session.add(NoteRow(key="a"))
        op.add_event(Noted("a"))
        with op.invalidating():
            host.desk.texts("a")
        assert computed.is_consistent
    assert not computed.is_consistent
    (row,) = await host.log()
    assert ends == [(row.uuid, True)] == [(op.uuid, True)]
    assert row.command is None
    assert op.operation.index == row.index
    assert len(await host.events()) == 1
    assert repr(op) == f"<WritableOperation <Operation {op.uuid} of no command, committed>>"


async def test_a_block_outside_of_commands_that_fails_has_not_happened(host: Host) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await host.desk.texts.capture("a")

    async def write() -> None:
        async with host.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add(NoteRow(key="a"))
            await op.session.flush()
            with op.invalidating():
                host.desk.texts("a")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await write()
    assert computed.is_consistent
    assert await host.notes() == await host.log() == []
    assert [is_committed for _, is_committed in ends] == [False]


async def test_a_block_outside_of_commands_whose_flush_fails_has_not_happened(
    host: Host,
) -> None:
    await host.tallies("x")
    ends: list[tuple[str, bool | None]] = []

    async def write() -> None:
        async with host.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add_all([NoteRow(key="a"), TallyRow(name="x")])

    with pytest.raises(IntegrityError):
        await write()
    assert await host.notes() == []
    assert [is_committed for _, is_committed in ends] == [False]
    await host.tallies("y")


async def test_a_block_within_a_block_outside_of_commands_joins_it(host: Host) -> None:
    async with asyncio.timeout(10):
        async with host.database.operation() as outer:
            outer.session.add(NoteRow(key="outer"))
            async with host.database.operation() as inner:
                inner.session.add(NoteRow(key="inner"))
            assert inner.operation is outer.operation
            await asyncio.create_task(host.desk.note("task"))
            assert await host.log() == []
        async with host.database.operation() as other:
            assert other.operation is not outer.operation
    assert sorted(key for key, _ in await host.notes()) == ["inner", "outer", "task"]
    assert len(await host.log()) == 2


async def test_a_block_that_is_cancelled_outside_of_commands_has_not_happened(
    host: Host,
) -> None:
    entered = asyncio.Event()

    async def write() -> None:
        async with host.database.operation() as op:
            op.session.add(NoteRow(key="a"))
            await op.session.flush()
            entered.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(write())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await host.notes() == []
    await host.desk.note("b")


async def test_a_block_that_can_t_begin_outside_of_commands_fails(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(self: Shard, *args: Any) -> Any:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "connect", connect)
        with pytest.raises(ConnectionRefusedError):
            await lone_host.desk.note("a")
    await lone_host.desk.note("b")
    assert await lone_host.notes() == [("b", "")]


async def test_many_blocks_outside_of_commands_at_once_are_operations_each(host: Host) -> None:
    await asyncio.gather(*(host.desk.note(str(number)) for number in range(20)))
    assert len(await host.notes()) == len(await host.log()) == 20


# -- what is refused


async def test_a_block_is_entered_once(lone_host: Host) -> None:
    block = lone_host.database.operation()
    async with block:
        pass
    with pytest.raises(InvalidStateError, match="was entered before"):
        async with block:
            pass


async def test_a_database_of_no_app_is_not_written_to(sqlite_database: str) -> None:
    database = Database(sqlite_database)
    with pytest.raises(InvalidStateError, match="belongs to no app"):
        database.operation()
    await database.aclose()


async def test_a_database_belongs_to_one_app(lone_host: Host, postgres_database: str) -> None:
    async with desk_at(postgres_database) as other:
        with pytest.raises(InvalidStateError, match="belongs to another app"):
            lone_host.database.attach(other.operations)


async def test_a_command_writes_to_one_database(lone_host: Host, postgres_database: str) -> None:
    other = Database(postgres_database, name="other")
    other.attach(lone_host.operations)

    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")
        async with other.operation():
            pass

    with pytest.raises(InvalidStateError, match="one transaction of one database"):
        await lone_host.desk.call("a")
    assert await lone_host.notes() == []
    await other.aclose()


async def test_nothing_is_written_where_is_invalidating_is_true(lone_host: Host) -> None:
    with invalidating(), pytest.raises(InvalidStateError, match=r"before database\.operation"):
        await lone_host.desk.note("a")
    async with lone_host.database.operation() as op:
        with op.invalidating(), pytest.raises(InvalidStateError, match="is_invalidating"):
            await lone_host.desk.note("a")
    assert await lone_host.notes() == []


# -- isolation


async def test_the_isolation_is_that_of_the_database_unless_the_first_block_says_otherwise(
    postgres_database: str,
) -> None:
    async with desk_at(postgres_database, isolation="REPEATABLE READ") as host:
        levels: list[str] = []

        async def look(isolation: Any = None) -> None:
            async with host.database.operation(isolation=isolation) as op:
                found = await op.session.scalar(text("SHOW transaction_isolation"))
                levels.append(str(found))

        @host.desk.on("a")
        async def work() -> None:
            await look("SERIALIZABLE")
            await look()
            await look("SERIALIZABLE")

        await host.desk.call("a")
        await look()
        await look("READ COMMITTED")
        await look()
        assert levels == [
            *["serializable"] * 3,
            "repeatable read",
            "read committed",
            "repeatable read",
        ]


async def test_the_isolation_can_t_be_changed_by_a_later_block(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        await host.desk.note("a")
        async with host.database.operation(isolation="SERIALIZABLE"):
            pass

    with pytest.raises(InvalidStateError, match="ask for that in the first block"):
        await host.desk.call("a")
    assert await host.notes() == []


async def test_an_isolation_that_does_not_exist_is_refused(sqlite_database: str) -> None:
    with pytest.raises(ValueError, match="no isolation level"):
        Database(sqlite_database, isolation="NONE")  # type: ignore[arg-type]


# -- the log


async def test_an_operation_that_is_not_stored_is_no_concern_of_other_hosts(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        async with desk.database.operation() as op:
            op.operation.is_stored = False
            op.session.add(NoteRow(key="a"))
            op.add_event(Noted("a"), uuid="event")

    computed = await desk.texts.capture("a")
    await desk.call("a")
    assert not computed.is_consistent
    assert await host.notes() == [("a", "")]
    assert await host.log() == []
    assert [row.uuid[:5] for row in await host.events()] in (["event", "~op-0"], ["~op-0", "event"])


async def test_commands_are_left_out_of_the_log_on_request(any_database: str) -> None:
    async with desk_at(any_database, log_commands=False) as host:

        @host.desk.on("a")
        async def work() -> None:
            await host.desk.note("a")

        await host.desk.call("a")
        (row,) = await host.log()
        assert row.command is None
        assert row.effects == '{"calls":[["Desk","texts",["a"]]]}'


async def test_a_command_that_can_t_be_logged_does_not_happen(lone_host: Host) -> None:
    class Done(Do, frozen=True):
        pass

    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")

    with pytest.raises(TypeError, match=r"does not know it: add a service that handles it"):
        await lone_host.commander.call(Done("a"))
    assert await lone_host.notes() == []
    lone_host.commander.registry.add(Done)
    await lone_host.commander.call(Done("a"))
    (row,) = await lone_host.log()
    assert lone_host.operations.codec.decode(row.command) == Done("a")


async def test_what_is_said_to_be_stale_of_a_service_without_a_name_fails_the_command(
    lone_host: Host,
) -> None:
    stranger = type(lone_host.desk)(lone_host.database, lone_host.commander)

    @lone_host.desk.on("a")
    async def work() -> None:
        async with lone_host.database.operation() as op:
            op.session.add(NoteRow(key="a"))
            with op.invalidating():
                stranger.texts("a")

    with pytest.raises(TypeError, match=r"do not know .* by a name: add it, app\.add"):
        await lone_host.desk.call("a")
    assert await lone_host.notes() == []


# -- guards


class Guard:
    """Writes a note in the transaction."""

    def __init__(self, database: str = "default", shard: str = "", fails: bool = False) -> None:
        self.database = database
        self.shard = shard
        self.is_used = False
        self.fails = fails
        self.calls = 0

    async def __call__(self, connection: Any) -> None:
        self.calls += 1
        await connection.execute(insert(NoteRow).values(key="guard"))
        if self.fails:
            raise LookupError("guarded")


def guarded(host: Host, guard: Guard) -> Any:
    return host.commander.call(Do("a"), outermost=True, items={COMMIT_GUARD: guard})


async def test_a_guard_runs_in_the_transaction_just_before_the_commit(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        await host.desk.note("a")
        assert not guard.calls
        if len(host.desk.ran) == 1:
            raise Busy

    guard = Guard()
    await guarded(host, guard)
    assert (guard.is_used, guard.calls) == (True, 1)
    assert await host.notes() == [("a", ""), ("guard", "")]


async def test_a_guard_that_raises_undoes_the_operation(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        await host.desk.note("a")

    guard = Guard(fails=True)
    with pytest.raises(LookupError, match="guarded"):
        await guarded(host, guard)
    assert not guard.is_used
    assert await host.notes() == await host.log() == []


@pytest.mark.parametrize("guard", [Guard(database="other"), Guard(shard="other")])
async def test_a_guard_of_another_transaction_is_not_used(lone_host: Host, guard: Guard) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")

    await guarded(lone_host, guard)
    assert (guard.is_used, guard.calls) == (False, 0)


async def test_a_guard_is_not_used_where_there_is_no_transaction(lone_host: Host) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        pass

    guard = Guard()
    await guarded(lone_host, guard)
    assert (guard.is_used, guard.calls) == (False, 0)


async def test_a_guard_is_used_if_a_commit_in_doubt_has_happened(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(lone_host, [])
    guard = Guard()
    with losing(monkeypatch), misled(monkeypatch, Lost()):
        await guarded(lone_host, guard)
    assert guard.is_used
    assert [key for key, _ in await lone_host.notes()] == ["a", "guard"]


# -- putting it together


async def test_tables_that_are_there_are_left_alone(any_database: str) -> None:
    async with desk_at(any_database) as host:
        await host.desk.note("a")
        await host.database.create_tables()
        assert await host.notes() == [("a", "")]


def test_a_database_takes_the_log_tables_that_its_models_have() -> None:
    database = Database("sqlite+aiosqlite://", metadata=Base.metadata)
    other = Database("sqlite+aiosqlite://", metadata=Base.metadata)
    assert database.tables == other.tables
    assert "'default'" in repr(database)
