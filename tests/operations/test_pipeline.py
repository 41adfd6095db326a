"""What commands make stale, and when: said apart, in the body, in blocks, by nested commands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from afresh import ComputeService, invalidating, is_invalidating
from afresh.commands import Command, Delegating, Outermost, command_handler, local_command
from afresh.errors import InvalidStateError
from afresh.operations import Operation, current_operation
from afresh.operations.pipeline import says_what_is_stale
from tests.operations.library import Closed, Host, Lend, Look, Return, Through, opening_hours


class Apart(Command[None], Outermost, frozen=True):
    name: str


class Simple(Command[None], frozen=True):
    pass


class All(Command[None], Delegating, frozen=True):
    pass


# -- said apart from the handler


async def test_a_command_makes_stale_what_it_says_and_nothing_else(host: Host) -> None:
    library = host.library
    stale = [
        await library.reader_of.capture("Emma"),
        await library.titles_of.capture("ann"),
        await library.count.capture(),
    ]
    fresh = [await library.reader_of.capture("Ulysses"), await library.titles_of.capture("bob")]
    assert await host.call(Lend("Emma", "ann")) == "EMMA"
    assert [each.is_consistent for each in stale] == [False] * 3
    assert [each.is_consistent for each in fresh] == [True] * 2
    assert await library.reader_of("Emma") == "ann"
    assert await library.count() == 1


async def test_what_is_stale_is_recorded_and_not_done_before_the_command_has_happened(
    host: Host,
) -> None:
    library = host.library
    seen: list[bool] = []
    computed = await library.titles_of.capture("ann")

    async def work() -> None:
        await host.call(Lend("Emma", "ann"))  # which says so by .invalidate()
        seen.append(computed.is_consistent)

    library.work["Emma"] = work
    await host.call(Through("Emma"))
    assert seen == [True]
    assert not computed.is_consistent


async def test_a_broken_command_shows_the_stale_aggregate(host: Host) -> None:
    class Careless(ComputeService):
        @command_handler
        async def lend(self, command: Simple) -> None:
            host.library.lent["Emma"] = "ann"

        @lend.invalidates
        def _(self, command: Simple, result: None) -> None:
            host.library.reader_of("Emma")

    host.add(Careless(), "Careless")
    assert await host.library.count() == 0
    assert await host.library.reader_of("Emma") is None
    await host.call(Simple())
    assert await host.library.reader_of("Emma") == "ann"
    assert await host.library.count() == 0


async def test_a_command_that_fails_makes_nothing_stale(host: Host) -> None:
    async def work() -> None:
        raise ValueError("no")

    host.library.work["Emma"] = work
    computed = await host.library.reader_of.capture("Emma")
    with pytest.raises(ValueError, match="no"):
        await host.call(Through("Emma"))
    assert computed.is_consistent
    assert host.completed == []


async def test_what_can_t_say_what_is_stale_fails_the_command(host: Host) -> None:
    class Spoiler(ComputeService):
        @command_handler
        async def spoil(self, command: Simple) -> None:
            pass

        @spoil.invalidates
        def _(self, command: Simple, result: None) -> None:
            host.library.count()
            raise LookupError("what?")

    host.add(Spoiler(), "Spoiler")
    computed = await host.library.count.capture()
    with pytest.raises(LookupError, match="what"):
        await host.call(Simple())
    assert computed.is_consistent


async def test_a_command_that_says_nothing_has_no_operation_without_a_database(
    host: Host,
) -> None:
    async def look() -> None:
        with pytest.raises(InvalidStateError, match="There is no operation here"):
            current_operation()

    class Peeker(ComputeService):
        @command_handler
        async def peek(self, command: Simple) -> None:
            await look()

    host.add(Peeker(), "Peeker")
    await host.call(Simple())
    assert await host.call(Look("Emma")) == 0
    assert host.completed == []
    host.operations.become_durable()
    await host.call(Look("Emma"))
    assert host.completed == []  # it never asked for one


def test_outside_of_commands_there_is_no_operation() -> None:
    with pytest.raises(InvalidStateError, match="There is no operation here"):
        current_operation()


# -- said in the body


async def test_a_handler_that_asks_is_called_again_to_say_what_is_stale(host: Host) -> None:
    library = host.library
    await host.call(Lend("Emma", "ann"))
    stale = [await library.reader_of.capture("Emma"), await library.titles_of.capture("ann")]
    counted = await library.count.capture()
    await host.call(Return("Emma"))
    assert library.replayed == [(Return("Emma"), "ann")]
    assert [each.is_consistent for each in stale] == [False] * 2
    assert counted.is_consistent
    assert await library.reader_of("Emma") is None


async def test_it_is_not_called_again_if_the_command_failed(host: Host) -> None:
    with pytest.raises(KeyError):
        await host.call(Return("Emma"))
    assert host.library.replayed == []


async def test_each_handler_of_an_event_says_what_is_stale_by_itself(host: Host) -> None:
    computed = await opening_hours.capture("monday")
    await host.call(Closed("monday"))
    assert host.library.replayed == [Closed("monday")]
    assert not computed.is_consistent


async def test_which_handlers_say_what_is_stale_is_known_from_their_code(host: Host) -> None:
    handlers = {
        handler.id: says_what_is_stale(handler)
        for handler in host.commander.handlers
        if not handler.is_filter
    }
    assert handlers == {
        "Library.lend": True,
        "Library.take_back": True,
        "Library.look": False,
        "Library.on_closed": True,
        "Library.also_on_closed": False,
        "Library.through": True,
    }


async def test_one_filter_stands_before_the_handler(host: Host) -> None:
    chain = host.commander.chain_of(Lend)
    assert [each.id for each in chain.handlers] == ["afresh.operate", "Library.lend"]
    chain = host.commander.chain_of(Look)
    assert [each.id for each in chain.handlers] == ["Library.look"]
    host.operations.become_durable()
    chain = host.commander.chain_of(Look)
    assert [each.id for each in chain.handlers] == ["afresh.operate", "Library.look"]


# -- nested commands


async def test_each_nested_command_has_items_of_its_own(host: Host) -> None:
    library = host.library
    library.lent = {"Emma": "ann", "Ulysses": "bob"}
    seen: list[dict[str, Any]] = []

    async def work() -> None:
        operation = current_operation()
        operation.items["mine"] = 1
        await host.call(Return("Emma"))
        seen.append(dict(operation.items))
        await host.call(Return("Ulysses"))
        seen.append(dict(operation.items))

    library.work["a"] = work
    await host.call(Through("a"))
    assert seen == [{"mine": 1}, {"mine": 1}]
    assert library.replayed == [(Return("Emma"), "ann"), (Return("Ulysses"), "bob")]


async def test_each_level_of_a_recursion_makes_stale_what_it_has_written(host: Host) -> None:
    library = host.library

    def work(depth: int) -> Any:
        async def write() -> None:
            library.lent[str(depth)] = "before"
            if depth:
                await host.call(Through(str(depth - 1)))
            library.lent[str(depth)] = f"level {depth}"

        return write

    library.work = {str(depth): work(depth) for depth in range(3)}
    stale = [await library.reader_of.capture(str(depth)) for depth in range(3)]
    await host.call(Through("2"))
    assert [each.is_consistent for each in stale] == [False] * 3
    assert [await library.reader_of(str(n)) for n in range(3)] == ["level 0", "level 1", "level 2"]
    assert len(host.completed) == 1


async def test_what_a_nested_command_that_failed_has_said_is_dropped(host: Host) -> None:
    library = host.library
    library.lent["Emma"] = "ann"

    async def outer() -> None:
        with suppress(ValueError):
            await host.call(Through("inner"))

    async def inner() -> None:
        await host.call(Lend("Emma", "ann"))
        await host.call(Return("Emma"))
        with current_operation().invalidating():
            library.count()
        raise ValueError("no")

    library.work = {"outer": outer, "inner": inner}
    kept = [
        await library.reader_of.capture("inner"),
        await library.reader_of.capture("Emma"),
        await library.count.capture(),
    ]
    computed = await library.reader_of.capture("outer")
    await host.call(Through("outer"))
    assert [each.is_consistent for each in kept] == [True] * 3
    assert not computed.is_consistent
    assert library.replayed == []


async def test_of_nested_commands_at_the_same_time_the_good_ones_are_not_dropped(
    host: Host,
) -> None:
    library = host.library
    good_is_done = asyncio.Event()

    async def outer() -> None:
        await asyncio.gather(
            host.call(Through("bad")), host.call(Through("good")), return_exceptions=True
        )

    async def bad() -> None:
        await good_is_done.wait()
        raise ValueError("no")

    async def good() -> None:
        good_is_done.set()

    library.work = {"outer": outer, "bad": bad, "good": good}
    stale = await library.reader_of.capture("good")
    fresh = await library.reader_of.capture("bad")
    await host.call(Through("outer"))
    assert not stale.is_consistent
    assert fresh.is_consistent


async def test_outermost_commands_complete_by_themselves(host: Host) -> None:
    library = host.library

    class Aside(ComputeService):
        @command_handler
        async def apart(self, command: Apart) -> None:
            pass

        @apart.invalidates
        def _(self, command: Apart, result: None) -> None:
            library.reader_of(command.name)

    host.add(Aside(), "Aside")
    computed = await library.reader_of.capture("apart")

    async def work() -> None:
        await host.call(Apart("apart"))
        assert not computed.is_consistent
        raise ValueError("no")

    library.work["a"] = work
    with pytest.raises(ValueError, match="no"):
        await host.call(Through("a"))
    assert [each.command for each in host.completed] == [Apart("apart")]


async def test_what_a_delegating_command_calls_completes_by_itself(host: Host) -> None:
    class Everything(ComputeService):
        @command_handler
        async def do_all(self, command: All) -> None:
            await host.call(Lend("Emma", "ann"))
            await host.call(Lend("Ulysses", "bob"))

        @do_all.invalidates
        def _(self, command: All, result: None) -> None:
            raise AssertionError("A delegating command changes nothing.")

    host.add(Everything(), "Everything")
    await host.call(All())
    assert [each.command for each in host.completed] == [
        Lend("Emma", "ann"),
        Lend("Ulysses", "bob"),
    ]


async def test_a_local_command_calls_others_that_complete_by_themselves(host: Host) -> None:
    await host.call(local_command(lambda: host.call(Lend("Emma", "ann"))))
    assert [each.command for each in host.completed] == [Lend("Emma", "ann")]


# -- blocks


async def test_a_block_in_a_handler_says_what_is_stale(host: Host) -> None:
    library = host.library
    computed = await library.count.capture()

    async def work() -> None:
        with current_operation().invalidating():
            assert is_invalidating()
            assert await library.count() is None  # type: ignore[func-returns-value]
            library.titles_of.invalidate("ann")
            with invalidating():
                library.titles_of("bob")
        assert computed.is_consistent

    library.work["a"] = work
    stale = [await library.titles_of.capture(each) for each in ("ann", "bob")]
    await host.call(Through("a"))
    assert not any(each.is_consistent for each in (computed, *stale))


async def test_invalidating_in_a_handler_without_an_operation_is_at_once(host: Host) -> None:
    computed = await host.library.count.capture()

    async def work() -> None:
        with invalidating():
            host.library.count()
        assert not computed.is_consistent
        raise ValueError("no")

    host.library.work["a"] = work
    with pytest.raises(ValueError, match="no"):
        await host.call(Through("a"))


# -- the end


async def test_what_waits_for_the_end_is_told_before_the_caller_goes_on(host: Host) -> None:
    told: list[tuple[str, bool | None, bool]] = []
    computed = await host.library.reader_of.capture("a")

    async def slowly(operation: Operation) -> None:
        await asyncio.sleep(0)
        told.append(("slowly", operation.is_committed, computed.is_consistent))

    def at_once(operation: Operation) -> None:
        told.append(("at once", operation.is_committed, computed.is_consistent))

    def badly(operation: Operation) -> None:
        raise ValueError("no")

    async def work() -> None:
        for function in (badly, slowly, at_once):
            current_operation().when_done(function)

    host.library.work["a"] = work
    await host.call(Through("a"))
    assert told == [("slowly", True, True), ("at once", True, True)]
    assert not computed.is_consistent


async def test_what_waits_for_the_end_is_told_of_failures_too(host: Host) -> None:
    told: list[bool | None] = []

    async def work() -> None:
        current_operation().when_done(lambda each: told.append(each.is_committed))
        raise ValueError("no")

    host.library.work["a"] = work
    with pytest.raises(ValueError, match="no"):
        await host.call(Through("a"))
    assert told == [False]


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_caller_who_leaves_at_the_end_leaves_nothing_stale(
    host: Host, cancellations: int
) -> None:
    computed = await host.library.reader_of.capture("a")
    reached = asyncio.Event()

    async def slowly(operation: Operation) -> None:
        reached.set()
        await asyncio.sleep(0.01)

    async def work() -> None:
        current_operation().when_done(slowly)

    host.library.work["a"] = work
    task = asyncio.create_task(host.call(Through("a")))
    await reached.wait()
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not computed.is_consistent
    assert len(host.completed) == 1


async def test_a_command_cancelled_before_its_end_has_not_happened(host: Host) -> None:
    computed = await host.library.reader_of.capture("a")
    ends: list[bool | None] = []

    async def work() -> None:
        current_operation().when_done(lambda each: ends.append(each.is_committed))
        await asyncio.Event().wait()

    host.library.work["a"] = work
    task = asyncio.create_task(host.call(Through("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert computed.is_consistent
    assert ends == [False]
    assert host.completed == []


async def test_a_cancellation_in_what_waits_for_the_end_leaves_nothing_stale(host: Host) -> None:
    computed = await host.library.reader_of.capture("a")

    async def cancelled(operation: Operation) -> None:
        raise asyncio.CancelledError

    async def work() -> None:
        current_operation().when_done(cancelled)

    host.library.work["a"] = work
    with pytest.raises(asyncio.CancelledError):
        await host.call(Through("a"))
    assert not computed.is_consistent


async def test_an_operation_tells_what_it_is_and_takes_nothing_after_its_end(host: Host) -> None:
    operations: list[Operation] = []

    async def work() -> None:
        operation = current_operation()
        assert operation is current_operation()
        assert operation.command == Through("a")
        assert operation.host_id == host.operations.host_id
        assert operation.is_committed is None
        assert repr(operation) == f"<Operation {operation.uuid} of Through, open>"
        operations.append(operation)

    host.library.work["a"] = work
    await host.call(Through("a"))
    (operation,) = operations
    assert repr(operation) == f"<Operation {operation.uuid} of Through, committed>"
    assert operation.logged_at is not None
    assert operation.index is None
    assert not operation.freshness
    with pytest.raises(InvalidStateError, match="committed> has ended"):
        operation.when_done(print)


async def test_the_operation_is_not_to_be_had_in_a_task_left_behind(host: Host) -> None:
    done = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def late() -> None:
        await done.wait()
        with pytest.raises(InvalidStateError, match="was handled already"):
            current_operation()

    async def work() -> None:
        tasks.append(asyncio.create_task(late()))

    host.library.work["a"] = work
    await host.call(Through("a"))
    done.set()
    await asyncio.gather(*tasks)


async def test_health_tells_what_has_become_of_operations(host: Host) -> None:
    await host.call(Lend("Emma", "ann"))
    health = host.operations.health()
    assert health["host"] == host.operations.host_id
    assert (health["own"], health["foreign"], health["failed"], health["retried"]) == (1, 0, 0, 0)
    assert host.operations.host_id in repr(host.operations)
