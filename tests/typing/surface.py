"""What type checkers make of user code. Not run: `make lint` gives it to mypy and to pyright.

A line that must be refused carries an ignore comment; both checkers report such a comment
when there is nothing to ignore.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from abc import abstractmethod
from asyncio import TaskGroup, gather
from dataclasses import dataclass
from typing import assert_type

from afresh import (
    Computed,
    ComputedState,
    ComputeService,
    MutableState,
    capture,
    compute_function,
    compute_method,
    get_existing,
    invalidating,
)
from afresh.graph import ComputeCall


@dataclass(frozen=True)
class Order:
    number: int


class Orders(ComputeService):
    @compute_method(keep_alive=300)
    @abstractmethod
    async def for_user(self, user_id: str, limit: int = 10) -> tuple[Order, ...]: ...


class MemoryOrders(Orders):
    @compute_method
    async def for_user(self, user_id: str, limit: int = 10) -> tuple[Order, ...]:
        return (Order(1),)

    @compute_method(auto_invalidate=30, error_delay=5)
    async def count(self) -> int:
        return len(await self.for_user("u1"))


@compute_function(auto_invalidate=3600)
async def rate(currency: str) -> float:
    return 1.0


@compute_function
async def rates() -> dict[str, float]:
    return {"EUR": await rate("EUR")}


async def calls(contract: Orders, orders: MemoryOrders) -> None:
    assert_type(await contract.for_user("u1"), tuple[Order, ...])
    assert_type(await orders.for_user("u1", limit=5), tuple[Order, ...])
    assert_type(await orders.count(), int)
    assert_type(await rate("EUR"), float)
    assert_type(await rates(), dict[str, float])
    assert_type(await MemoryOrders.count(orders), int)

    assert_type(orders.count(), ComputeCall[int])
    count, euro = await gather(orders.count(), rate("EUR"))
    assert_type(count, int)
    assert_type(euro, float)
    async with TaskGroup() as group:
        assert_type(group.create_task(orders.count()).result(), int)

    await orders.for_user(5)  # type: ignore[arg-type]
    await orders.for_user()  # type: ignore[call-arg]


async def what_a_method_carries(orders: Orders) -> None:
    assert_type(await orders.for_user.capture("u1"), Computed[tuple[Order, ...]])
    assert_type(orders.for_user.existing("u1"), Computed[tuple[Order, ...]] | None)
    assert_type(orders.for_user.invalidate("u1", limit=3), bool)
    orders.for_user.invalidate(5)  # type: ignore[arg-type]
    with invalidating():
        orders.for_user("u1")


async def results(computed: Computed[int]) -> None:
    assert_type(computed.value, int)
    assert_type(computed.value_or_none, int | None)
    assert_type(computed.error, BaseException | None)
    assert_type(await computed.use(), int)
    assert_type(await computed.update(), Computed[int])
    assert_type(await computed.when(lambda value: value > 3), Computed[int])
    async for later in computed.changes():
        assert_type(later, Computed[int])


async def captures(orders: MemoryOrders) -> None:
    assert_type(await capture(lambda: orders.count()), Computed[int])
    assert_type(get_existing(lambda: orders.count()), Computed[int] | None)
    assert_type(Computed.of(lambda: orders.count()), Computed[int])


async def states(orders: MemoryOrders) -> None:
    user = MutableState("u1")
    assert_type(user.use(), str)
    assert_type(user.value, str)
    user.set(5)  # type: ignore[arg-type]
    async with ComputedState(lambda: orders.for_user(user.use()), delay=0.1) as state:
        assert_type(state.value, tuple[Order, ...])
        assert_type(state.last_value, tuple[Order, ...])
        async for value in state:
            assert_type(value, tuple[Order, ...])


class WrongOption(ComputeService):
    @compute_method(keepalive=5)  # type: ignore[call-overload,untyped-decorator]
    async def get(self) -> int:
        return 1
