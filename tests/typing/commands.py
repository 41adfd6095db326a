"""What type checkers make of commands. Not run: `make lint` gives it to mypy and to pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from abc import abstractmethod
from asyncio import Task
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_type

from afresh import ComputeService, compute_method
from afresh.commands import (
    BackendCommand,
    Command,
    CommandContext,
    Commander,
    CommandOf,
    EventCommand,
    LocalCommand,
    PreparedCommand,
    Secret,
    command,
    command_filter,
    command_handler,
    current_context,
    local_command,
)
from afresh.rpc import Proceed, rpc_method


@dataclass(frozen=True)
class Order:
    id: int
    user_id: str


class PlaceOrder(Command[Order], BackendCommand, frozen=True):
    user_id: str
    lines: tuple[str, ...] = ()


class OrderPlaced(Command[None], EventCommand, frozen=True):
    id: int


class SignIn(Command[str], PreparedCommand, frozen=True):
    name: str
    password: Secret[str]

    async def prepare(self, context: CommandContext[Any]) -> SignIn | None:
        return SignIn(self.name.strip(), self.password)


@command("shop.rename", aliases=("Rename",))
@dataclass(frozen=True, slots=True)
class RenameOrder(CommandOf[None]):
    id: int
    name: str


class Orders(ComputeService):
    @compute_method
    @abstractmethod
    async def for_user(self, user_id: str) -> tuple[Order, ...]: ...

    @command_handler
    @abstractmethod
    async def place(self, command: PlaceOrder) -> Order: ...

    @rpc_method(name="rename")
    @command_handler(priority=5)
    @abstractmethod
    async def rename(self, command: RenameOrder) -> None: ...


class MemoryOrders(Orders):
    @compute_method
    async def for_user(self, user_id: str) -> tuple[Order, ...]:
        return ()

    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        assert_type(current_context(PlaceOrder), CommandContext[Order])
        return Order(1, command.user_id)

    @place.invalidates
    def _(self, command: PlaceOrder, order: Order) -> None:
        self.for_user(command.user_id)

    @command_handler
    async def rename(self, command: RenameOrder) -> None:
        pass

    @rename.invalidates
    def _(self, command: RenameOrder, result: None) -> None:
        self.for_user(command.name)

    @command_handler
    async def on_placed(self, command: OrderPlaced) -> None:
        pass

    @command_filter(priority=10)
    async def audit(self, command: CommandOf[Any], proceed: Proceed) -> Any:
        return await proceed()


class LoudOrders(MemoryOrders):
    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        return await super().place(command)

    async def audit(self, command: CommandOf[Any], proceed: Proceed) -> Any:
        return None


async def calls(commander: Commander, contract: Orders, loud: LoudOrders) -> None:
    assert_type(await commander.call(PlaceOrder("u1")), Order)
    assert_type(await commander.call(RenameOrder(1, "tea")), None)
    assert_type(await commander.call(SignIn("ann", Secret("tea"))), str)
    call: Coroutine[Any, Any, Order] = commander.call(PlaceOrder("u1"))
    assert_type(await call, Order)
    assert_type(await commander.run(PlaceOrder("u1")), CommandContext[Order])
    assert_type((await commander.run(PlaceOrder("u1"))).value, Order)
    assert_type(commander.start(PlaceOrder("u1")), Task[Order])
    assert_type(await contract.place(PlaceOrder("u1")), Order)
    assert_type(await loud.place(PlaceOrder("u1")), Order)
    assert_type(await loud.rename(RenameOrder(1, "tea")), None)
    assert_type(commander.add(MemoryOrders()), MemoryOrders)
    assert_type(SignIn("ann", Secret("tea")).password.reveal(), str)

    await commander.call("place")  # type: ignore[arg-type]
    await contract.place(RenameOrder(1, "tea"))  # type: ignore[arg-type]
    await contract.place()  # type: ignore[call-arg]


class Export(LocalCommand[bytes]):
    async def run(self, context: CommandContext[Any]) -> bytes:
        return b""


async def later() -> float:
    return 1.5


async def named(context: CommandContext[str]) -> str:
    return repr(context.outermost)


async def locals_(commander: Commander) -> None:
    assert_type(await commander.call(Export()), bytes)
    assert_type(await commander.call(local_command(later)), float)
    assert_type(await commander.call(local_command(named, title="named")), str)
    assert_type(await commander.call(local_command(lambda: 5)), int)


class Wrong(ComputeService):
    @command_handler  # type: ignore[arg-type]
    async def place(self, command: PlaceOrder, more: int) -> Order:
        return Order(1, "")

    @command_handler(order=1)  # type: ignore[call-overload,untyped-decorator]
    async def rename(self, command: RenameOrder) -> None: ...
