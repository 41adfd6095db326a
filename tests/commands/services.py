"""Commands and services that several modules of tests use."""

from __future__ import annotations

from abc import abstractmethod
from contextvars import ContextVar
from typing import Any

from afresh import ComputeService, compute_method
from afresh.commands import (
    Command,
    Commander,
    CommandOf,
    EventCommand,
    command_filter,
    command_handler,
    current_context,
)
from afresh.rpc.middleware import Proceed

ambient: ContextVar[str] = ContextVar("ambient", default="")


class Order(Command[None], frozen=True):
    """Not sent by anybody; only a value here."""

    id: int
    user_id: str


class PlaceOrder(Command[Order], frozen=True):
    user_id: str
    id: int = 1


class Fail(Command[None], frozen=True):
    text: str = "no"


class Countdown(Command[int], frozen=True):
    """Results in the sum of what is counted."""

    number: int


class Paid(Command[None], EventCommand, frozen=True):
    order_id: int


class Orders(ComputeService):
    @compute_method
    @abstractmethod
    async def of(self, user_id: str) -> tuple[int, ...]: ...

    @command_handler
    @abstractmethod
    async def place(self, command: PlaceOrder) -> Order: ...

    @command_handler
    @abstractmethod
    async def fail(self, command: Fail) -> None: ...


class MemoryOrders(Orders):
    def __init__(self) -> None:
        self.placed: list[Order] = []
        self.contexts: list[Any] = []

    @compute_method
    async def of(self, user_id: str) -> tuple[int, ...]:
        return tuple(order.id for order in self.placed if order.user_id == user_id)

    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        self.contexts.append(current_context())
        order = Order(command.id, command.user_id)
        self.placed.append(order)
        return order

    async def fail(self, command: Fail) -> None:
        raise ValueError(command.text)


class Counting(ComputeService):
    """Counts down through nested commands."""

    def __init__(self, commander: Commander) -> None:
        self.commander = commander
        self.seen: list[tuple[int, str, bool]] = []

    @command_handler
    async def count(self, command: Countdown) -> int:
        context = current_context(Countdown)
        self.seen.append((command.number, ambient.get(), context.is_outermost))
        ambient.set(f"{ambient.get()}{command.number}")
        if not command.number:
            return 0
        rest = await self.commander.call(Countdown(command.number - 1))
        assert current_context() is context
        return command.number + rest


class Log(ComputeService):
    """Notes what goes through."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @command_filter(priority=100)
    async def note(self, command: CommandOf[Any], proceed: Proceed) -> Any:
        self.lines.append(f"> {type(command).__name__}")
        try:
            return await proceed()
        finally:
            self.lines.append(f"< {type(command).__name__}")
