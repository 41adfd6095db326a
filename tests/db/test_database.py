"""Operations outside of commands, what blocks refuse, isolation, and what stands in the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from afresh.db import Database
from afresh.db.shards import Shard
from afresh.errors import InvalidStateError
from afresh.graph import invalidating
from tests.db.desk import Base, Do, DoApart, Host, Noted, NoteRow, TallyRow, desk_at, ends_of

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


async def test_blocks_of_two_databases_outside_of_commands_are_operations_each(
    lone_host: Host, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'other.sqlite'}"
    other = Database(url, name="other", metadata=Base.metadata)
    other.attach(lone_host.operations)
    await other.create_tables()
    async with lone_host.database.operation() as first, other.operation() as second:
        assert first.operation is not second.operation
        first.session.add(NoteRow(key="first"))
        second.session.add(NoteRow(key="second"))
    assert await lone_host.notes() == [("first", "")]
    async with other.read() as session:
        assert (await session.scalars(select(NoteRow.key))).all() == ["second"]
    await other.aclose()


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


async def test_a_database_belongs_to_one_app(lone_host: Host, postgres_desk: str) -> None:
    async with desk_at(postgres_desk) as other:
        with pytest.raises(InvalidStateError, match="belongs to another app"):
            lone_host.database.attach(other.operations)


async def test_a_command_writes_to_one_database(lone_host: Host, postgres_desk: str) -> None:
    other = Database(postgres_desk, name="other")
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
    postgres_desk: str,
) -> None:
    async with desk_at(postgres_desk, isolation="REPEATABLE READ") as host:
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


async def test_commands_are_left_out_of_the_log_on_request(any_desk: str) -> None:
    async with desk_at(any_desk, log_commands=False) as host:

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


# -- putting it together


async def test_tables_that_are_there_are_left_alone(any_desk: str) -> None:
    async with desk_at(any_desk) as host:
        await host.desk.note("a")
        await host.database.create_tables()
        assert await host.notes() == [("a", "")]


def test_a_database_takes_the_log_tables_that_its_models_have() -> None:
    database = Database("sqlite+aiosqlite://", metadata=Base.metadata)
    other = Database("sqlite+aiosqlite://", metadata=Base.metadata)
    assert database.tables == other.tables
    assert "'default'" in repr(database)


# -- commands on their own, called by a handler that writes


async def test_sqlite_refuses_a_command_that_would_wait_for_the_one_that_called_it(
    sqlite_database: str,
) -> None:
    async with desk_at(sqlite_database) as host:

        @host.desk.on("inner")
        async def inner() -> None:
            await host.desk.note("inner")

        @host.desk.on("after")
        async def after() -> None:
            await host.desk.note("after")
            await host.commander.call(DoApart("inner"))

        @host.desk.on("before")
        async def before() -> None:
            await host.commander.call(DoApart("inner"))
            await host.desk.note("before")

        @host.desk.on("later")
        async def later() -> None:
            await host.desk.note("later")
            tasks.append(host.commander.start(DoApart("inner")))

        tasks: list[asyncio.Task[Any]] = []
        async with asyncio.timeout(10):
            with pytest.raises(InvalidStateError, match="Do, which has called it, is writing"):
                await host.desk.call("after")
            assert await host.notes() == []
            await host.desk.call("before")
            await host.desk.call("later")
            await tasks[0]
        assert len(await host.notes()) == 4
