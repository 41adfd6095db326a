"""Which handlers and filters a command goes through, in which order, and what can't work."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from afresh import ComputeService
from afresh.commands import (
    LOCAL_PRIORITY,
    BackendCommand,
    Command,
    Commander,
    CommandOf,
    EventCommand,
    LocalCommand,
    Secret,
    command_filter,
    command_handler,
    current_context,
    local_command,
)
from afresh.errors import DefinitionError, HandlerNotFoundError
from afresh.rpc.middleware import Proceed
from tests.commands.services import Fail, Log, MemoryOrders, Order, Paid, PlaceOrder, ambient


class Priced(Command[int], BackendCommand, frozen=True):
    price: int = 5


class Filters(ComputeService):
    def __init__(self) -> None:
        self.seen: list[str] = []

    @command_handler(priority=-1)
    async def price(self, command: Priced) -> int:
        self.seen.append("handler")
        return command.price

    @command_filter
    async def own(self, command: Priced, proceed: Proceed) -> Any:
        self.seen.append("own")
        return await proceed()

    @command_filter
    async def every(self, command: CommandOf[Any], proceed: Proceed) -> Any:
        self.seen.append("every")
        return await proceed()

    @command_filter(priority=10)
    async def backend(self, command: BackendCommand, proceed: Proceed) -> Any:
        self.seen.append("backend")
        return 2 * await proceed()

    @command_filter(priority=-1)
    async def low(self, command: object, proceed: Proceed) -> Any:
        self.seen.append("low")
        return 1 + await proceed()


async def test_filters_come_by_priority_and_the_more_general_ones_first(
    commander: Commander,
) -> None:
    filters = commander.add(Filters())
    assert await commander.call(Priced()) == 12
    assert filters.seen == ["backend", "every", "own", "low", "handler"]
    chain = commander.chain_of(Priced)
    assert [(it.id, it.priority, it.is_filter) for it in chain.handlers] == [
        ("Filters.backend", 10, True),
        ("Filters.every", 0, True),
        ("Filters.own", 0, True),
        ("Filters.low", -1, True),
        ("Filters.price", -1, False),
    ]


async def test_a_chain_is_worked_out_once(commander: Commander) -> None:
    commander.add(Filters())
    assert commander.chain_of(Priced) is commander.chain_of(Priced)


async def test_a_subclass_overrides_a_filter_without_the_decorator(commander: Commander) -> None:
    class Quiet(Filters):
        async def backend(self, command: BackendCommand, proceed: Proceed) -> Any:
            return await proceed()

    quiet = commander.add(Quiet())
    assert await commander.call(Priced()) == 6
    assert quiet.seen == ["every", "own", "low", "handler"]


async def test_a_filter_may_go_on_again_after_a_failure(commander: Commander) -> None:
    class Retrying(ComputeService):
        def __init__(self) -> None:
            self.attempts = 0

        @command_filter(priority=1)
        async def retry(self, command: Fail, proceed: Proceed) -> Any:
            for _ in range(2):
                try:
                    return await proceed()
                except ValueError:
                    assert current_context().command is command
            return await proceed()

        @command_handler
        async def fail(self, command: Fail) -> None:
            self.attempts += 1
            if self.attempts < 3:
                raise ValueError(command.text)

    retrying = commander.add(Retrying())
    context = await commander.run(Fail())
    assert context.error is None
    assert retrying.attempts == 3


async def test_a_filter_may_answer_itself_and_may_swallow_errors(commander: Commander) -> None:
    class Soothing(ComputeService):
        @command_filter
        async def soothe(self, command: CommandOf[Any], proceed: Proceed) -> Any:
            if isinstance(command, Fail):
                try:
                    await proceed()
                except ValueError:
                    return None
            return Order(99, "cached")

    commander.add(Soothing())
    commander.add(MemoryOrders())
    await commander.call(Fail())
    assert await commander.call(PlaceOrder("u1")) == Order(99, "cached")


async def test_filters_see_commands_that_nothing_handles(commander: Commander) -> None:
    log = commander.add(Log())
    with pytest.raises(HandlerNotFoundError):
        await commander.call(Fail())
    assert log.lines == ["> Fail", "< Fail"]


# -- handler filters


async def test_without_handlers_a_command_fails_and_an_event_succeeds() -> None:
    commander = Commander(handler_filters=[lambda handler, kind: False])
    commander.add(MemoryOrders())
    commander.add(Mail())
    with pytest.raises(HandlerNotFoundError):
        await commander.call(PlaceOrder("u1"))
    await commander.call(Paid(1))


async def test_handler_filters_leave_out_what_one_of_them_does_not_accept() -> None:
    asked: list[tuple[str, type]] = []

    def not_notes(handler: Any, kind: type) -> bool:
        asked.append((handler.id, kind))
        return not handler.is_filter

    commander = Commander(handler_filters=[lambda handler, kind: True, not_notes])
    log = commander.add(Log())
    commander.add(MemoryOrders())
    await commander.call(PlaceOrder("u1"))
    assert log.lines == []
    assert ("Log.note", PlaceOrder) in asked


# -- events


class Mail(ComputeService):
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.contexts: list[Any] = []
        self.delay = 0.0
        self.error: Exception | None = None

    @command_handler
    async def on_paid(self, command: Paid) -> None:
        self.contexts.append(current_context())
        ambient.set("mail")
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        self.sent.append(command)


class Stock(Mail):
    pass


async def test_each_handler_of_an_event_runs_in_a_chain_of_its_own(commander: Commander) -> None:
    mail, stock = commander.add(Mail()), commander.add(Stock())
    log = commander.add(Log())
    mail.delay = 0.001
    await commander.call(Paid(1))
    assert mail.sent == stock.sent == [Paid(1)]
    assert log.lines == ["> Paid", "> Paid", "< Paid", "< Paid"]
    assert list(commander.chain_of(Paid).branches or ()) == ["Mail.on_paid", "Stock.on_paid"]
    assert mail.contexts[0] is not stock.contexts[0]
    assert mail.contexts[0].is_outermost
    assert mail.contexts[0].chain.final.id == "Mail.on_paid"


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_event_waits_for_all_handlers_and_then_fails(
    commander: Commander, is_late: bool
) -> None:
    mail, stock = commander.add(Mail()), commander.add(Stock())
    mail.error = ValueError("full")
    mail.delay, stock.delay = (0.002, 0) if is_late else (0, 0.002)
    with pytest.raises(ValueError, match="full"):
        await commander.call(Paid(1))
    assert stock.sent == [Paid(1)]


async def test_an_event_that_nobody_takes_succeeds_with_a_warning(
    commander: Commander, caplog: pytest.LogCaptureFixture
) -> None:
    context = await commander.run(Paid(1))
    assert context.error is None
    assert context.is_completed
    assert caplog.record_tuples == [
        ("afresh.commands", logging.WARNING, "No handler takes the event Paid.")
    ]


async def test_one_chain_of_an_event_can_be_chosen(commander: Commander) -> None:
    mail, stock = commander.add(Mail()), commander.add(Stock(), name="Shelf")
    await commander.call(Paid(1), chain="Shelf.on_paid")
    assert (mail.sent, stock.sent) == ([], [Paid(1)])
    with pytest.raises(HandlerNotFoundError, match=r"those that take it are: Mail\.on_paid, Shelf"):
        await commander.call(Paid(1), chain="Stock.on_paid")


async def test_an_event_in_a_handler_is_nested_in_each_chain(commander: Commander) -> None:
    class Outer(ComputeService):
        @command_handler
        async def fail(self, command: Fail) -> None:
            ambient.set("outer")
            await commander.call(Paid(1))
            assert ambient.get() == "outer"

    mail, stock = commander.add(Mail()), commander.add(Stock())
    commander.add(Outer())
    await commander.call(Fail())
    for context in (mail.contexts[0], stock.contexts[0]):
        assert isinstance(context.outer.command, Fail)


async def test_cancelling_an_event_cancels_all_its_handlers(commander: Commander) -> None:
    mail, stock = commander.add(Mail()), commander.add(Stock())
    mail.delay = stock.delay = 3600
    task = asyncio.create_task(commander.call(Paid(1)))
    while not (mail.contexts and stock.contexts):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mail.contexts[0].is_completed
    assert stock.contexts[0].is_completed


# -- local commands


async def now(context: Any) -> str:
    assert context is current_context()
    return "now"


def fails() -> int:
    raise ValueError("sync")


async def fails_later() -> int:
    await asyncio.sleep(0)
    raise ValueError("async")


async def test_local_commands_carry_functions_of_all_shapes(commander: Commander) -> None:
    assert await commander.call(local_command(lambda: 5)) == 5
    assert await commander.call(local_command(lambda context: context.is_outermost)) is True
    assert await commander.call(local_command(now)) == "now"
    assert await commander.call(local_command(lambda: asyncio.sleep(0, "later"))) == "later"
    assert await commander.call(local_command(lambda: None)) is None


@pytest.mark.parametrize("function", [fails, fails_later])
async def test_run_keeps_errors_of_local_commands(commander: Commander, function: Any) -> None:
    context = await commander.run(local_command(function, title="break"))
    assert isinstance(context.error, ValueError)
    assert repr(context.command) == "local_command(break)"


async def test_a_local_command_passes_by_all_filters_but_the_highest(commander: Commander) -> None:
    class High(ComputeService):
        seen = 0

        @command_filter(priority=LOCAL_PRIORITY + 1)
        async def high(self, command: object, proceed: Proceed) -> Any:
            self.seen += 1
            return await proceed()

    log, high = commander.add(Log()), commander.add(High())
    await commander.call(local_command(lambda: 5))
    assert (log.lines, high.seen) == ([], 1)


class Export(LocalCommand[str]):
    async def run(self, context: Any) -> str:
        return type(context.command).__name__


async def test_a_local_command_may_be_a_class(commander: Commander) -> None:
    assert await commander.call(Export()) == "Export"


# -- what can't work


def test_two_handlers_of_one_command_are_refused_and_leave_nothing_behind(
    commander: Commander,
) -> None:
    commander.add(MemoryOrders())
    other = MemoryOrders()
    with pytest.raises(
        DefinitionError, match=r"MemoryOrders\.place and MemoryOrders\.place both handle PlaceOrder"
    ):
        commander.add(other)
    assert len(commander.handlers) == 2
    assert Commander().add(other) is other


class Gift(PlaceOrder, frozen=True):
    text: str = ""


def test_handlers_of_a_command_and_of_its_base_are_two(commander: Commander) -> None:
    class Gifts(ComputeService):
        @command_handler
        async def give(self, command: Gift) -> Order:
            return Order(1, command.text)

    commander.add(MemoryOrders())
    with pytest.raises(DefinitionError, match="both handle Gift"):
        commander.add(Gifts())


async def test_a_handler_takes_commands_of_derived_types_too(commander: Commander) -> None:
    commander.add(MemoryOrders())
    assert await commander.call(Gift("u1", text="for you")) == Order(1, "u1")


def test_a_filter_below_the_handler_is_never_reached(commander: Commander) -> None:
    class Late(ComputeService):
        @command_filter(priority=-5)
        async def late(self, command: PlaceOrder, proceed: Proceed) -> Any:
            return await proceed()

    commander.add(Late())  # nothing is known yet of what it is for
    with pytest.raises(DefinitionError, match=r"The filter Late\.late is never reached"):
        commander.add(MemoryOrders())


def test_a_filter_of_an_event_may_be_for_some_of_the_handlers(commander: Commander) -> None:
    class Low(ComputeService):
        @command_filter(priority=-5)
        async def late(self, command: Paid, proceed: Proceed) -> Any:
            return await proceed()

        @command_handler(priority=-10)
        async def on_paid(self, command: Paid) -> None:
            pass

    commander.add(Low())
    commander.add(Mail())
    branches = commander.chain_of(Paid).branches or {}
    assert {name: len(chain.filters) for name, chain in branches.items()} == {
        "Low.on_paid": 1,
        "Mail.on_paid": 0,
    }


def test_two_handlers_of_an_event_need_two_names(commander: Commander) -> None:
    commander.add(Mail())
    with pytest.raises(DefinitionError, match="have the same id"):
        commander.add(Mail())
    commander.add(Mail(), name="OtherMail")


def test_a_handler_of_no_command_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_handler
        async def place(self, command: str) -> None: ...

    with pytest.raises(DefinitionError, match=r"Wrong\.place takes str, which is no type of comm"):
        commander.add(Wrong())


class Untold(Command, frozen=True):  # type: ignore[type-arg]
    pass


class Answering(Command[int], EventCommand, frozen=True):
    pass


def test_a_command_that_does_not_say_its_result_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_handler
        async def place(self, command: Untold) -> None: ...

    with pytest.raises(DefinitionError, match="does not say what it results in"):
        commander.add(Wrong())


def test_an_event_with_a_result_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_handler
        async def answer(self, command: Answering) -> int:
            return 1

    with pytest.raises(DefinitionError, match="is an event, which has no result"):
        commander.add(Wrong())


def test_a_handler_that_returns_something_else_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_handler
        async def place(self, command: PlaceOrder) -> str:
            return ""

    with pytest.raises(DefinitionError, match=r"returns str, and PlaceOrder says .* in Order"):
        commander.add(Wrong())


def test_a_handler_of_a_local_command_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_handler
        async def export(self, command: Export) -> str:
            return ""

    with pytest.raises(DefinitionError, match="a local command, which carries its own work"):
        commander.add(Wrong())


def test_a_filter_of_no_class_is_refused(commander: Commander) -> None:
    class Wrong(ComputeService):
        @command_filter
        async def note(self, command: PlaceOrder | Fail, proceed: Proceed) -> Any:
            return await proceed()

    with pytest.raises(DefinitionError, match="which is no class"):
        commander.add(Wrong())


def test_an_override_outside_of_services_needs_the_decorator(commander: Commander) -> None:
    class Base:
        @command_handler
        async def fail(self, command: Fail) -> None: ...

    class Derived(Base):
        async def fail(self, command: Fail) -> None: ...

    with pytest.raises(DefinitionError, match="without being one; repeat @command_handler"):
        commander.add(Derived())
    commander.add(Base())


def test_a_service_without_a_dict_is_refused(commander: Commander) -> None:
    class Slotted:
        __slots__ = ()

        @command_handler
        async def fail(self, command: Fail) -> None: ...

    with pytest.raises(DefinitionError, match="have no __dict__"):
        commander.add(Slotted())


def test_a_service_may_have_no_handlers(commander: Commander) -> None:
    service = object()
    assert commander.add(service) is service
    assert repr(commander) == "<Commander of 0 services, 0 commands>"


class SignIn(Command[None], frozen=True):
    name: str
    password: Secret[str]


async def test_logs_do_not_tell_secrets(
    commander: Commander, caplog: pytest.LogCaptureFixture
) -> None:
    class Accounts(ComputeService):
        @command_handler
        async def sign_in(self, command: SignIn) -> None:
            assert command.password.reveal() == "tea"
            raise PermissionError

    commander.add(Accounts())
    await commander.run(SignIn("ann", Secret("tea")))
    (record,) = caplog.records
    assert "SignIn(name='ann', password=Secret(…))" in record.getMessage()
    assert "'tea'" not in caplog.text
