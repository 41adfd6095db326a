"""Commands get to their handlers, and results and errors get back."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import pickle
from dataclasses import dataclass
from typing import Any

import attrs
import pytest

from afresh import ComputeService, compute_method
from afresh.commands import (
    Command,
    Commander,
    CommandOf,
    Delegating,
    Outermost,
    PreparedCommand,
    command_handler,
    commander_of,
    current_context,
)
from afresh.errors import DefinitionError, HandlerNotFoundError, InvalidStateError
from tests.commands.services import (
    Countdown,
    Counting,
    Fail,
    MemoryOrders,
    Order,
    PlaceOrder,
    ambient,
)


async def test_a_command_gives_what_its_handler_returns(commander: Commander) -> None:
    commander.add(MemoryOrders())
    assert await commander.call(PlaceOrder("u1")) == Order(1, "u1")


async def test_a_command_raises_what_its_handler_raises(commander: Commander) -> None:
    commander.add(MemoryOrders())
    with pytest.raises(ValueError, match="no") as caught:
        await commander.call(Fail())
    assert caught.value.__context__ is None


@dataclass(frozen=True, slots=True)
class Rename(CommandOf[str]):
    name: str


@attrs.frozen
class Move(CommandOf[str]):
    place: str


class Plain(ComputeService):
    @command_handler
    async def rename(self, command: Rename) -> str:
        return command.name

    @command_handler
    async def move(self, command: Move) -> str:
        return command.place


async def test_dataclasses_and_attrs_classes_are_commands_as_well(commander: Commander) -> None:
    commander.add(Plain())
    assert await commander.call(Rename("tea")) == "tea"
    assert await commander.call(Move("shelf")) == "shelf"


async def test_a_command_without_a_handler_fails(commander: Commander) -> None:
    with pytest.raises(HandlerNotFoundError, match=r"Nothing handles PlaceOrder: add a service"):
        await commander.call(PlaceOrder("u1"))


async def test_what_is_no_command_is_refused(commander: Commander) -> None:
    with pytest.raises(DefinitionError, match="str is no type of commands"):
        await commander.call("place")  # type: ignore[arg-type]


# -- as a method


async def test_calling_a_handler_is_calling_the_command(commander: Commander) -> None:
    orders = commander.add(MemoryOrders())
    assert await orders.place(PlaceOrder("u1")) == Order(1, "u1")
    assert orders.contexts[0].is_outermost
    with pytest.raises(ValueError, match="never"):
        await orders.fail(Fail("never"))  # overridden without the decorator


async def test_a_handler_of_a_service_that_was_not_added_says_what_to_do() -> None:
    with pytest.raises(InvalidStateError, match="add it to one first"):
        await MemoryOrders().place(PlaceOrder("u1"))


class LoudOrders(MemoryOrders):
    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        order = await super().place(command)
        return Order(order.id, order.user_id.upper())


async def test_super_leads_to_the_body_that_was_overridden(commander: Commander) -> None:
    orders = commander.add(LoudOrders())
    assert await orders.place(PlaceOrder("u1")) == Order(1, "U1")
    assert len(orders.contexts) == 1


@pytest.mark.parametrize("again", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))])
async def test_a_copy_of_a_service_belongs_to_no_commander(
    commander: Commander, again: Any
) -> None:
    orders = commander.add(MemoryOrders())
    assert commander_of(orders) is commander
    other = again(orders)
    assert commander_of(other) is None
    with pytest.raises(InvalidStateError):
        await other.place(PlaceOrder("u1"))
    assert await Commander().add(other).place(PlaceOrder("u2")) == Order(1, "u2")


def test_a_service_has_one_commander(commander: Commander) -> None:
    orders = commander.add(MemoryOrders())
    assert commander.add(orders) is orders
    with pytest.raises(DefinitionError, match="belongs to another commander"):
        Commander().add(orders)


async def test_a_handler_shows_its_body(commander: Commander) -> None:
    orders = commander.add(MemoryOrders())
    assert asyncio.iscoroutinefunction(orders.place)
    assert orders.place.definition is MemoryOrders.place.definition
    assert orders.place == orders.place
    assert "MemoryOrders.place of" in repr(orders.place)
    assert await MemoryOrders.place(orders, PlaceOrder("u1")) == Order(1, "u1")


# -- nesting


async def test_nested_commands_share_what_was_set_and_nothing_leaks_out(
    commander: Commander,
) -> None:
    counting = commander.add(Counting(commander))
    ambient.set("caller ")
    assert await commander.call(Countdown(3)) == 6
    assert ambient.get() == "caller "
    # The outermost sees nothing of the caller, the others what the ones outside of them set.
    assert counting.seen == [(3, "", True), (2, "3", False), (1, "32", False), (0, "321", False)]


async def test_a_command_that_is_told_to_is_on_its_own(commander: Commander) -> None:
    seen: list[Any] = []

    class Outer(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            ambient.set("outer")
            await commander.call(PlaceOrder("u1"))
            await commander.call(PlaceOrder("u1"), outermost=True)
            seen.append(current_context())

    commander.add(Outer())
    orders = commander.add(LoudOrders2())
    await commander.call(Fail())
    nested, alone = orders.contexts
    assert nested.outer is nested.outermost is seen[0]
    assert alone.is_outermost


class Alone(Command[bool], Outermost, frozen=True):
    pass


class Delegate(Command[bool], Delegating, frozen=True):
    command: Alone | Countdown


class Nested(Command[bool], frozen=True):
    command: Alone | Delegate | Countdown


class Marks(ComputeService):
    def __init__(self, commander: Commander) -> None:
        self.commander = commander
        self.outermost: list[str] = []

    def note(self) -> None:
        if current_context().is_outermost:
            self.outermost.append(type(current_context().command).__name__)

    @command_handler
    async def alone(self, command: Alone) -> bool:
        self.note()
        return ambient.get() == ""

    @command_handler
    async def delegate(self, command: Delegate) -> bool:
        self.note()
        ambient.set("delegate")
        return bool(await self.commander.call(command.command))

    @command_handler
    async def nested(self, command: Nested) -> bool:
        self.note()
        ambient.set("nested")
        return bool(await self.commander.call(command.command))

    @command_handler
    async def count(self, command: Countdown) -> int:
        self.note()
        return command.number


async def test_a_mark_makes_a_command_stand_for_itself(commander: Commander) -> None:
    marks = commander.add(Marks(commander))
    assert await commander.call(Nested(Alone()))
    assert marks.outermost == ["Nested", "Alone"]


async def test_what_a_delegating_command_calls_stands_for_itself(commander: Commander) -> None:
    marks = commander.add(Marks(commander))
    await commander.call(Nested(Delegate(Countdown(1))))
    assert marks.outermost == ["Nested", "Delegate", "Countdown"]
    marks.outermost.clear()
    await commander.call(Nested(Countdown(1)))
    assert marks.outermost == ["Nested"]


async def test_a_command_of_another_commander_is_on_its_own(commander: Commander) -> None:
    other = Commander()
    orders = other.add(MemoryOrders())

    class Outer(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            await other.call(PlaceOrder("u1"))

    commander.add(Outer())
    await commander.call(Fail())
    assert orders.contexts[0].is_outermost


# -- prepared


class Order2(Command[str], PreparedCommand, frozen=True):
    name: str

    async def prepare(self, context: Any) -> Order2 | None:
        assert context is current_context()
        if not self.name:
            raise ValueError("a name is needed")
        if self.name == "other":
            return PlaceOrder("u1")  # type: ignore[return-value]
        return None if self.name.islower() else Order2(self.name.lower())


class Preparing(ComputeService):
    @command_handler
    async def order(self, command: Order2) -> str:
        assert current_context().command is command
        return command.name


async def test_a_prepared_command_takes_the_place_of_the_one_called(commander: Commander) -> None:
    commander.add(Preparing())
    assert await commander.call(Order2("TEA")) == "tea"
    assert await commander.call(Order2("tea")) == "tea"


async def test_a_command_that_refuses_to_be_prepared_fails(commander: Commander) -> None:
    commander.add(Preparing())
    with pytest.raises(ValueError, match="a name is needed"):
        await commander.call(Order2(""))
    with pytest.raises(TypeError, match="returned a PlaceOrder"):
        await commander.call(Order2("other"))


# -- run and start


async def test_run_keeps_the_result_and_the_error(commander: Commander) -> None:
    commander.add(MemoryOrders())
    context = await commander.run(PlaceOrder("u1"))
    assert context.is_completed
    assert context.value == Order(1, "u1")
    failed = await commander.run(Fail("too late"))
    assert isinstance(failed.error, ValueError)
    with pytest.raises(ValueError, match="too late"):
        _ = failed.value


class Wait(Command[str], frozen=True):
    seconds: float = 3600


class Waiting(ComputeService):
    def __init__(self) -> None:
        self.ended = 0
        self.begun = asyncio.Event()
        self.leaks: list[asyncio.Task[Any]] = []

    @command_handler
    async def wait(self, command: Wait) -> str:
        self.begun.set()
        try:
            if command.seconds < 0:
                raise asyncio.CancelledError
            await asyncio.sleep(command.seconds)
        finally:
            self.ended += 1
        return "waited"


async def test_run_ends_with_the_cancellation_of_its_own_task(commander: Commander) -> None:
    waiting = commander.add(Waiting())
    task = asyncio.create_task(commander.run(Wait()))
    await waiting.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.ended == 1


async def test_run_keeps_a_cancellation_that_the_handler_raised(commander: Commander) -> None:
    commander.add(Waiting())
    context = await commander.run(Wait(-1))
    assert isinstance(context.error, asyncio.CancelledError)


async def test_cancelling_a_call_cancels_the_handler(commander: Commander) -> None:
    waiting = commander.add(Waiting())
    task = asyncio.create_task(commander.call(Wait()))
    await waiting.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.ended == 1


async def test_start_works_in_the_background_on_its_own(commander: Commander) -> None:
    waiting = commander.add(Waiting())
    task = commander.start(Wait(0))
    assert not waiting.begun.is_set()
    assert await task == "waited"


async def test_a_command_that_was_started_and_fails_is_logged_once(
    commander: Commander, caplog: pytest.LogCaptureFixture
) -> None:
    commander.add(MemoryOrders())
    task = commander.start(Fail("nobody looks"))
    await asyncio.wait([task])
    del task
    assert [record.getMessage() for record in caplog.records] == [
        "Outermost command failed: Fail(text='nobody looks')"
    ]


async def test_closing_a_commander_ends_what_was_started(commander: Commander) -> None:
    waiting = commander.add(Waiting())
    task = commander.start(Wait())
    await waiting.begun.wait()
    await commander.aclose()
    assert task.cancelled()
    assert waiting.ended == 1
    with pytest.raises(InvalidStateError, match="closed"):
        commander.start(Wait())


async def test_a_handler_that_waits_runs_in_its_own_context_all_along(
    commander: Commander,
) -> None:
    class Slow(ComputeService):
        @command_handler
        async def place(self, command: PlaceOrder) -> Order:
            ambient.set(command.user_id)
            for _ in range(3):
                await asyncio.sleep(0)
                assert ambient.get() == command.user_id
                assert current_context().command is command
            child = asyncio.create_task(asyncio.sleep(0, ambient.get()))
            async with asyncio.timeout(10):
                assert await child == command.user_id
            return Order(1, ambient.get())

    commander.add(Slow())
    orders = await asyncio.gather(*(commander.call(PlaceOrder(f"u{i}")) for i in range(5)))
    assert [order.user_id for order in orders] == ["u0", "u1", "u2", "u3", "u4"]
    assert ambient.get() == ""


# -- the context


async def test_there_is_no_context_outside_of_commands(commander: Commander) -> None:
    commander.add(MemoryOrders())
    await commander.call(PlaceOrder("u1"))
    with pytest.raises(InvalidStateError, match="no command is being handled"):
        current_context()


async def test_a_task_that_is_left_behind_has_no_context_and_calls_on_its_own(
    commander: Commander,
) -> None:
    left: list[asyncio.Task[Any]] = []
    done = asyncio.Event()

    class Leaking(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            async def later() -> Any:
                await done.wait()
                await commander.call(PlaceOrder("u1"))
                return current_context()

            left.append(asyncio.create_task(later()))

    commander.add(Leaking())
    orders = commander.add(LoudOrders2())
    await commander.call(Fail())
    done.set()
    with pytest.raises(InvalidStateError, match="was handled already"):
        await left[0]
    assert orders.contexts[0].is_outermost


class LoudOrders2(ComputeService):
    def __init__(self) -> None:
        self.contexts: list[Any] = []

    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        self.contexts.append(current_context())
        return Order(2, command.user_id)


async def test_a_context_knows_the_type_that_is_asked_for(commander: Commander) -> None:
    seen: list[str] = []

    class Asking(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            assert current_context(Fail).command.text == "no"
            with pytest.raises(InvalidStateError, match="no PlaceOrder"):
                current_context(PlaceOrder)
            with pytest.raises(InvalidStateError, match=r"once Commander\.run"):
                _ = current_context().result
            seen.append(repr(current_context()))

    commander.add(Asking())
    await commander.call(Fail())
    assert seen == ["<CommandContext of Fail, outermost>"]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_put_on_the_stack_is_closed_once_at_the_end(
    commander: Commander, fails: bool
) -> None:
    events: list[Any] = []

    class Resource:
        async def __aenter__(self) -> None:
            events.append("open")

        async def __aexit__(self, kind: object, *_: object) -> None:
            await asyncio.sleep(0)
            events.append((kind, ambient.get()))

    class Using(ComputeService):
        @command_handler
        async def nested(self, command: PlaceOrder) -> Order:
            await current_context().stack.enter_async_context(Resource())
            return Order(1, "u1")

        @command_handler
        async def fail(self, command: Fail) -> None:
            ambient.set("outer")
            await commander.call(PlaceOrder("u1"))
            events.append("nested")
            if fails:
                raise ValueError(command.text)

    commander.add(Using())
    context = await commander.run(Fail())
    assert (context.error is not None) is fails
    assert events == ["open", "nested", (ValueError if fails else None, "outer")]
    with pytest.raises(InvalidStateError, match="was handled already"):
        _ = context.stack


async def test_items_are_shared_through_the_outermost_context(commander: Commander) -> None:
    class Sharing(ComputeService):
        @command_handler
        async def nested(self, command: PlaceOrder) -> Order:
            current_context().outermost.items["id"] = 7
            assert not current_context().items
            return Order(1, "u1")

        @command_handler
        async def outer(self, command: Countdown) -> int:
            await commander.call(PlaceOrder("u1"))
            found: int = current_context().items["id"]
            return found

    commander.add(Sharing())
    assert await commander.call(Countdown(1)) == 7


async def test_failures_are_logged_with_the_command(
    commander: Commander, caplog: pytest.LogCaptureFixture
) -> None:
    class Outer(ComputeService):
        @command_handler
        async def count(self, command: Countdown) -> int:
            await commander.call(Fail("inner"))
            return 1

    commander.add(Outer())
    commander.add(MemoryOrders())
    with pytest.raises(ValueError, match="inner"):
        await commander.call(Countdown(1))
    nested, outermost = caplog.records
    assert nested.levelno == logging.WARNING
    assert nested.getMessage() == "Nested command failed: Fail(text='inner'): ValueError"
    assert outermost.levelno == logging.ERROR
    assert outermost.getMessage() == "Outermost command failed: Countdown(number=1)"
    assert outermost.exc_info is not None


# -- what calls leave behind


async def test_calls_leave_no_garbage_whether_they_fail_or_not(commander: Commander) -> None:
    commander.add(MemoryOrders2())
    await commander.call(PlaceOrder("u1"))
    with contextlib.suppress(ValueError):
        await commander.call(Fail())
    found = []
    for _ in range(3):  # what earlier tests left behind may go in between
        gc.collect()
        gc.disable()
        try:
            await commander.call(PlaceOrder("u1"))
            with contextlib.suppress(ValueError):
                await commander.call(Fail())
            found.append(gc.collect())
        finally:
            gc.enable()
    assert min(found) == 0


class MemoryOrders2(ComputeService):
    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        await asyncio.sleep(0)
        return Order(1, command.user_id)

    @command_handler
    async def fail(self, command: Fail) -> None:
        await asyncio.sleep(0)
        raise ValueError(command.text)


@pytest.mark.parametrize("steps", range(8))
async def test_a_call_can_be_cancelled_wherever_it_waits(commander: Commander, steps: int) -> None:
    """And all that it began is over then."""
    contexts: list[Any] = []
    open_stacks: list[int] = []

    class Stepping(ComputeService):
        @command_handler
        async def outer(self, command: Countdown) -> int:
            contexts.append(current_context())
            open_stacks.append(1)
            current_context().stack.callback(open_stacks.pop)
            await asyncio.sleep(0)
            await commander.call(PlaceOrder("u1"))
            return 1

        @command_handler
        async def nested(self, command: PlaceOrder) -> Order:
            contexts.append(current_context())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return Order(1, "u1")

    commander.add(Stepping())
    task = asyncio.create_task(commander.call(Countdown(1)))
    for _ in range(steps):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is not was_done
    assert all(context.is_completed for context in contexts)
    assert not open_stacks


class Reading(ComputeService):
    def __init__(self, commander: Commander) -> None:
        self.commander = commander

    @compute_method
    async def source(self) -> int:
        return 1

    @compute_method
    async def result(self) -> int:
        return await self.commander.call(Countdown(1))

    @command_handler
    async def count(self, command: Countdown) -> int:
        return await self.source()


async def test_what_a_handler_reads_is_no_dependency_of_who_calls_it(commander: Commander) -> None:
    reading = commander.add(Reading(commander))
    computed = await reading.result.capture()
    reading.source.invalidate()
    assert computed.is_consistent
