"""One transaction for a command and all that it calls; nested ones that fail are undone alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from afresh.commands import local_command
from afresh.errors import InvalidStateError
from afresh.operations import current_operation
from tests.db.desk import (
    Desk,
    Do,
    DoAll,
    DoApart,
    DoWithin,
    Host,
    Noted,
    NoteRow,
    TallyRow,
    desk_at,
)

# -- one transaction


async def test_all_blocks_of_a_command_and_of_those_it_calls_are_one_operation(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer", "1")
        await desk.call("inner")
        await desk.note("outer", "2")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner", "1")
        await desk.note("inner", "2")

    assert await desk.texts("outer") == await desk.texts("inner") == ()
    await desk.call("outer")
    assert await desk.texts("outer") == await desk.texts("inner") == ("1", "2")
    (row,) = await host.log()
    assert host.operations.codec.decode(row.command) == Do("outer")
    assert row.host_id == host.operations.host_id


async def test_recursive_commands_with_two_blocks_each_are_one_operation(host: Host) -> None:
    desk = host.desk
    depth = 3

    @desk.on("again")
    async def again() -> None:
        nonlocal depth
        depth -= 1
        own = depth
        async with desk.database.operation() as first, desk.database.operation() as second:
            first.session.add(NoteRow(key="first", text=str(own)))
            second.session.add(NoteRow(key="second", text=str(own)))
            if own:
                await desk.call("again")

    await desk.call("again")
    assert sorted(await host.notes()) == sorted(
        (key, str(number)) for key in ("first", "second") for number in range(3)
    )
    assert len(await host.log()) == 1


async def test_a_level_that_fails_undoes_everything_if_nobody_catches_it(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer")
        await desk.call("inner")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await desk.call("outer")
    assert await host.notes() == await host.log() == await host.events() == []


async def test_a_later_block_sees_what_an_earlier_one_wrote_and_nobody_else_does(
    host: Host,
) -> None:
    desk = host.desk
    seen: list[int] = []

    @desk.on("a")
    async def work() -> None:
        await desk.note("a")
        async with desk.database.operation() as op:
            seen.append(len((await op.session.scalars(select(NoteRow))).all()))
        seen.append(await desk.count())

    await desk.call("a")
    assert seen == [1, 0]


async def test_a_command_that_opens_a_block_and_changes_nothing_is_logged_all_the_same(
    host: Host,
) -> None:
    @host.desk.on("a")
    async def work() -> None:
        async with host.database.operation():
            pass

    await host.desk.call("a")
    assert len(await host.log()) == 1


async def test_a_command_that_opens_no_block_logs_nothing_and_makes_stale_what_it_says(
    lone_host: Host,
) -> None:
    desk = lone_host.desk

    @desk.on("a")
    async def work() -> None:
        pass

    computed = await desk.texts.capture("a")
    await desk.call("a")
    assert not computed.is_consistent
    assert await lone_host.log() == []


async def test_the_commit_of_a_session_keeps_nothing_before_its_time(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="a"))
            await op.session.commit()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await desk.call("a")
    assert await host.notes() == []


async def test_a_session_that_is_rolled_back_ends_the_operation(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="a", text="1"))
            await op.session.flush()
            await op.session.rollback()
        await desk.note("a", "2")

    with pytest.raises(InvalidStateError, match="was rolled back, and with it all"):
        await desk.call("a")
    assert await host.notes() == await host.log() == []


# -- nested commands that fail


async def test_what_a_nested_command_wrote_said_and_added_is_undone_if_it_fails(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> str:
        await desk.note("outer", "before")
        with suppress(ValueError):
            await desk.call("inner")
        await desk.note("outer", "after")
        return "done"

    @desk.on("inner")
    async def inner() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="inner"))
            with op.invalidating():
                desk.count()
            op.add_event(Noted("never"))
            op.items["never"] = 1
        raise ValueError("no")

    counted = await desk.count.capture()
    noted = await desk.texts.capture("inner")
    assert await desk.call("outer") == "done"
    assert await host.notes() == [("outer", "before"), ("outer", "after")]
    assert await host.events() == []
    assert counted.is_consistent
    assert noted.is_consistent
    (row,) = await host.log()
    assert row.effects == '{"calls":[["Desk","texts",["outer"]]]}'


async def test_a_nested_command_that_begins_the_operation_and_fails_leaves_it_usable(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        with suppress(ValueError):
            await desk.call("inner")
        await desk.note("outer")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        raise ValueError("no")

    await desk.call("outer")
    assert await host.notes() == [("outer", "")]


async def test_nested_commands_within_nested_ones_are_undone_with_them(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        with suppress(ValueError):
            await desk.call("middle")
        await desk.call("second")

    @desk.on("middle")
    async def middle() -> None:
        await desk.call("good")
        with suppress(LookupError):
            await desk.call("bad")
        raise ValueError("no")

    @desk.on("second")
    async def second() -> None:
        await desk.call("good")
        with suppress(LookupError):
            await desk.call("bad")
        await desk.note("second")

    @desk.on("good")
    async def good() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="good"))
            op.add_event(Noted("good"))

    @desk.on("bad")
    async def bad() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="bad"))
            op.add_event(Noted("bad"))
        raise LookupError("no")

    await desk.call("outer")
    assert await host.notes() == [("good", ""), ("second", "")]
    assert [host.operations.codec.decode(row.value) for row in await host.events()] == [
        Noted("good")
    ]
    (row,) = await host.log()
    assert row.effects == (
        '{"calls":[["Desk","texts",["good"]],["Desk","texts",["second"]],'
        '["Desk","texts",["outer"]]]}'
    )


async def test_a_statement_that_fails_in_a_nested_command_spoils_nothing_else(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer", "before")
        with suppress(Exception):
            await desk.call("inner")
        await desk.note("outer", "after")

    @desk.on("inner")
    async def inner() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="inner"))
            await op.session.flush()
            await op.session.execute(text("SELECT * FROM nowhere"))

    await desk.call("outer")
    assert await host.notes() == [("outer", "before"), ("outer", "after")]


async def with_a_failing_flush_inside(host: Host) -> Desk:
    """A desk whose outer command notes something before and after an inner one that fails."""
    desk = host.desk
    await host.tallies("x")

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer", "before")
        with pytest.raises(InvalidStateError, match="errors of flushes end the command"):
            await desk.call("inner")
        await desk.note("outer", "after")

    return desk


async def test_a_nested_command_that_swallows_the_error_of_a_flush_is_undone_alone(
    host: Host,
) -> None:
    desk = await with_a_failing_flush_inside(host)

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner", "before")
        with suppress(IntegrityError):
            await host.tallies("x")
        await desk.note("inner", "after")

    await desk.call("outer")
    assert await host.notes() == [("outer", "before"), ("outer", "after")]


async def test_a_nested_command_that_returns_after_the_error_of_a_flush_is_undone_alone(
    host: Host,
) -> None:
    desk = await with_a_failing_flush_inside(host)

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        async with desk.database.operation() as op:
            op.session.add(TallyRow(name="x"))
            with suppress(IntegrityError):
                await op.session.flush()
            await op.session.rollback()
            await op.session.execute(insert(NoteRow).values(key="inner", text="after"))

    await desk.call("outer")
    assert await host.notes() == [("outer", "before"), ("outer", "after")]


async def test_the_error_of_a_flush_in_a_nested_command_spoils_nothing_else(host: Host) -> None:
    desk = host.desk
    await host.tallies("x")

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer", "before")
        for _ in range(2):
            with suppress(IntegrityError):
                await desk.call("inner")
        await desk.call("good")
        await desk.note("outer", "after")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        await host.tallies("x")

    @desk.on("good")
    async def good() -> None:
        await desk.note("good")

    await desk.call("outer")
    assert await host.notes() == [("outer", "before"), ("good", ""), ("outer", "after")]


async def test_a_command_that_swallows_the_error_of_a_flush_does_not_happen(host: Host) -> None:
    desk = host.desk
    await host.tallies("x")

    @desk.on("a")
    async def work() -> None:
        await desk.note("a")
        with suppress(IntegrityError):
            await host.tallies("x")

    with pytest.raises(InvalidStateError, match="errors of flushes end the command"):
        await desk.call("a")
    assert await host.notes() == []


async def test_a_flush_that_fails_is_rolled_back_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    await host.tallies("x")

    @host.desk.on("a")
    async def work() -> None:
        await host.tallies("x")

    with caplog.at_level("DEBUG", "afresh.operations"), pytest.raises(IntegrityError):
        await host.desk.call("a")
    assert not [each for each in caplog.records if each.name == "afresh.operations"]


async def test_a_savepoint_of_a_handler_s_own_undoes_what_it_says(host: Host) -> None:
    await host.tallies("x")

    @host.desk.on("a")
    async def work() -> None:
        async with host.database.operation() as op:
            op.session.add(NoteRow(key="a", text="before"))
            for name in ("x", "y"):
                with suppress(IntegrityError):
                    async with op.session.begin_nested():
                        op.session.add(TallyRow(name=name, value=5))
            op.session.add(NoteRow(key="a", text="after"))

    await host.desk.call("a")
    assert await host.notes() == [("a", "before"), ("a", "after")]
    assert (await host.tally("x"), await host.tally("y")) == (0, 5)


async def test_a_savepoint_that_a_handler_leaves_open_is_undone_with_it(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        async with host.database.operation() as op:
            await op.session.begin_nested()
            op.session.add(NoteRow(key="a"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await host.desk.call("a")
    assert await host.notes() == []
    async with asyncio.timeout(5):
        await host.desk.note("b")


async def test_what_a_handler_holds_unflushed_survives_a_nested_command_that_fails(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="outer", text="unflushed"))
            with suppress(ValueError):
                await desk.call("inner")

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        raise ValueError("no")

    await desk.call("outer")
    assert await host.notes() == [("outer", "unflushed")]


# -- at the same time


async def test_nested_commands_that_run_at_the_same_time_take_turns(host: Host) -> None:
    desk = host.desk
    names = [f"n{number}" for number in range(8)]

    @desk.on("outer")
    async def outer() -> None:
        await asyncio.gather(*(desk.call(name) for name in names))

    for name in names:

        @desk.on(name)
        async def work(name: str = name) -> None:
            await desk.note(name, "1")
            await asyncio.sleep(0)
            await desk.note(name, "2")

    async with asyncio.timeout(20):
        await desk.call("outer")
    assert sorted(await host.notes()) == sorted((name, each) for name in names for each in "12")
    assert len(await host.log()) == 1


async def test_of_nested_commands_at_the_same_time_those_that_fail_are_undone_alone(
    host: Host,
) -> None:
    desk = host.desk
    names = [f"n{number}" for number in range(8)]

    @desk.on("outer")
    async def outer() -> list[object]:
        current_operation().items["outer"] = 1
        results = await asyncio.gather(*map(desk.call, names), return_exceptions=True)
        assert current_operation().items == {"outer": 1}
        return results

    for number, name in enumerate(names):

        @desk.on(name)
        async def work(number: int = number, name: str = name) -> int:
            async with desk.database.operation() as op:
                assert op.items == {}
                op.items[name] = 1
                op.session.add(NoteRow(key=name))
                op.add_event(Noted(name))
                await op.session.flush()
                await asyncio.sleep(0)
            for _ in range(number % 3):
                await asyncio.sleep(0.001)
            if number % 2:
                raise ValueError(name)
            return number

    stale = {name: await desk.texts.capture(name) for name in names}
    async with asyncio.timeout(20):
        results = await desk.call("outer")
    assert [each for each in results if isinstance(each, int)] == [0, 2, 4, 6]
    good = names[::2]
    assert sorted(key for key, _ in await host.notes()) == good
    events = [host.operations.codec.decode(row.value) for row in await host.events()]
    assert sorted(each.name for each in events) == good
    assert [name for name in names if not stale[name].is_consistent] == good


async def test_nested_commands_begin_the_operation_at_the_same_time(host: Host) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        await asyncio.gather(desk.call("middle"), desk.call("middle"))

    @desk.on("middle")
    async def middle() -> None:
        # Neither of them has written anything before those that they call.
        await asyncio.gather(desk.call("inner"), desk.call("inner"), desk.call("failing"))

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")

    @desk.on("failing")
    async def failing() -> None:
        await desk.note("failing")

    async with asyncio.timeout(20):
        await desk.call("outer")
    assert sorted(key for key, _ in await host.notes()) == ["failing"] * 2 + ["inner"] * 4


async def test_a_handler_that_writes_beside_a_nested_command_is_not_undone_with_it(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        async def write() -> None:
            await asyncio.sleep(0.01)
            await desk.note("outer")

        await asyncio.gather(desk.call("inner"), write(), return_exceptions=True)

    @desk.on("inner")
    async def inner() -> None:
        await desk.note("inner")
        await asyncio.sleep(0.05)
        raise ValueError("no")

    async with asyncio.timeout(20):
        await desk.call("outer")
    assert await host.notes() == [("outer", "")]


async def test_blocks_in_several_tasks_take_turns(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        async def write(number: int) -> None:
            async with desk.database.operation() as op:
                for part in range(3):
                    op.session.add(NoteRow(key=str(number), text=str(part)))
                    await op.session.flush()
                    await asyncio.sleep(0)

        await asyncio.gather(*map(write, range(5)))

    async with asyncio.timeout(20):
        await desk.call("a")
    written = [key for key, _ in await host.notes()]
    assert written == [str(number) for number in range(5) for _ in range(3)]


async def test_tasks_within_a_block_take_turns_with_each_other_and_not_with_it(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="around"))
            await op.session.flush()
            await asyncio.gather(desk.call("b"), desk.call("c"), desk.note("task"))

    @desk.on("b")
    async def b() -> None:
        await desk.note("b")

    @desk.on("c")
    async def c() -> None:
        await desk.note("c")

    async with asyncio.timeout(20):
        await desk.call("a")
    assert sorted(key for key, _ in await host.notes()) == ["around", "b", "c", "task"]


async def test_handlers_of_an_event_write_into_the_operation_that_calls_it(host: Host) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        await desk.commander.call(Noted("event"))

    @desk.on("event")
    async def first() -> None:
        await desk.note("event")

    @desk.on("event too")
    async def second() -> None:
        await desk.note("event too")

    await desk.call("a")
    assert sorted(key for key, _ in await host.notes()) == ["event", "event too"]
    assert len(await host.log()) == 1


async def test_a_savepoint_that_can_t_be_made_keeps_nobody_waiting_and_dooms_the_operation(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = lone_host.desk
    begin_nested = AsyncConnection.begin_nested
    failures = 1

    def fail_once(self: AsyncConnection) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise LookupError("no savepoint")
        return begin_nested(self)

    monkeypatch.setattr(AsyncConnection, "begin_nested", fail_once)

    @desk.on("outer")
    async def outer() -> None:
        await asyncio.gather(*map(desk.call, ("a", "b", "c")), return_exceptions=True)

    for name in "abc":

        @desk.on(name)
        async def work(name: str = name) -> None:
            await desk.note(name)

    async with asyncio.timeout(5):
        with pytest.raises(InvalidStateError, match="could not be undone by themselves"):
            await desk.call("outer")
    assert desk.ran == ["outer", "a", "b", "c"]
    assert await lone_host.notes() == []


async def test_nested_commands_that_are_cancelled_while_they_wait_keep_nobody_waiting(
    host: Host,
) -> None:
    desk = host.desk

    @desk.on("outer")
    async def outer() -> None:
        first = asyncio.create_task(desk.call("slow"))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(desk.call("quick")) for _ in range(3)]
        await asyncio.sleep(0.02)
        others[1].cancel()
        await asyncio.gather(first, *others, return_exceptions=True)

    @desk.on("slow")
    async def slow() -> None:
        await desk.note("slow")
        await asyncio.sleep(0.08)

    @desk.on("quick")
    async def quick() -> None:
        await desk.note("quick")

    async with asyncio.timeout(10):
        await desk.call("outer")
    assert sorted(key for key, _ in await host.notes()) == ["quick", "quick", "slow"]


# -- tasks left behind


async def test_a_block_that_is_open_when_the_handler_returns_keeps_it_from_being_committed(
    host: Host,
) -> None:
    desk = host.desk
    tasks: list[asyncio.Task[None]] = []

    @desk.on("a")
    async def work() -> None:
        entered = asyncio.Event()

        async def write() -> None:
            async with desk.database.operation() as op:
                op.session.add(NoteRow(key="late"))
                entered.set()
                await asyncio.sleep(0.05)

        tasks.append(asyncio.create_task(write()))
        await entered.wait()

    with pytest.raises(InvalidStateError, match=r"while a block .* was open"):
        await desk.call("a")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await host.notes() == await host.log() == []


async def test_nested_commands_left_behind_by_a_nested_one_that_failed_doom_the_operation(
    host: Host,
) -> None:
    desk = host.desk
    left = asyncio.Event()

    @desk.on("outer")
    async def outer() -> None:
        await desk.note("outer")
        with suppress(ValueError):
            await desk.call("middle")
        left.set()
        await asyncio.sleep(0.05)

    @desk.on("middle")
    async def middle() -> None:
        await desk.note("middle")
        await asyncio.gather(desk.call("failing"), desk.call("slow"))

    @desk.on("failing")
    async def failing() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("no")

    @desk.on("slow")
    async def slow() -> None:
        async with desk.database.operation() as op:
            op.session.add(NoteRow(key="slow"))
            await left.wait()

    with pytest.raises(InvalidStateError, match="could not be undone by themselves"):
        await desk.call("outer")
    assert await host.notes() == await host.log() == []


async def test_an_operation_that_has_ended_takes_nothing_more(host: Host) -> None:
    desk = host.desk
    blocks = []

    @desk.on("a")
    async def work() -> None:
        async with desk.database.operation() as op:
            blocks.append(op)

        async def late() -> None:
            await done.wait()
            with pytest.raises(InvalidStateError, match="was handled already"):
                await desk.note("late")

        tasks.append(asyncio.create_task(late()))

    done = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    await desk.call("a")
    done.set()
    await asyncio.gather(*tasks)
    (op,) = blocks
    with pytest.raises(InvalidStateError, match="committed> has ended"):
        op.add_event(Noted("late"))
    with pytest.raises(InvalidStateError, match="has ended"):
        op.operation.when_done(print)
    assert await host.notes() == await host.events() == []


# -- other kinds of commands


async def test_an_outermost_command_has_an_operation_of_its_own(postgres_desk: str) -> None:
    async with desk_at(postgres_desk) as host:
        desk = host.desk

        @desk.on("outer")
        async def outer() -> None:
            await desk.note("outer")
            await desk.commander.call(DoApart("apart"))
            raise ValueError("no")

        @desk.on("apart")
        async def apart() -> None:
            await desk.note("apart")

        with pytest.raises(ValueError, match="no"):
            await desk.call("outer")
        assert await host.notes() == [("apart", "")]
        (row,) = await host.log()
        assert host.operations.codec.decode(row.command) == DoApart("apart")


async def test_what_a_delegating_command_calls_is_committed_by_itself(host: Host) -> None:
    desk = host.desk

    @desk.on("all")
    async def all_() -> None:
        await desk.call("a")
        assert await host.notes() == [("a", "")]
        with suppress(ValueError):
            await desk.call("b")
        await desk.call("c")

    @desk.on("a")
    async def a() -> None:
        await desk.note("a")

    @desk.on("b")
    async def b() -> None:
        await desk.note("b")
        raise ValueError("no")

    @desk.on("c")
    async def c() -> None:
        await desk.note("c")

    await desk.commander.call(DoAll("all"))
    assert await host.notes() == [("a", ""), ("c", "")]
    assert len(await host.log()) == 2


@pytest.mark.parametrize("command", [DoAll("a"), DoWithin("a")])
async def test_delegating_and_system_commands_write_nothing_themselves(
    lone_host: Host, command: DoAll | DoWithin
) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        with pytest.raises(InvalidStateError, match="no operation here"):
            current_operation()
        await lone_host.desk.note("a")

    with pytest.raises(InvalidStateError, match="can't change anything"):
        await lone_host.commander.call(command)
    assert await lone_host.notes() == []


async def test_a_local_command_writes_in_the_operation_of_the_one_that_calls_it(
    lone_host: Host,
) -> None:
    desk = lone_host.desk

    @desk.on("a")
    async def work() -> None:
        await lone_host.commander.call(local_command(lambda: desk.note("local")))

    await desk.call("a")
    assert await lone_host.notes() == [("local", "")]
    with pytest.raises(InvalidStateError, match="a local"):
        await lone_host.commander.call(local_command(lambda: desk.note("local")))
