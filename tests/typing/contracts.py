"""What type checkers make of contracts. Not run: `make lint` gives it to mypy and to pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol, assert_type

from afresh import ComputeService, compute_method
from afresh.rpc import NoWait, RpcStream, Timeouts, rpc_error, rpc_method, rpc_service


@rpc_error
class OutOfStock(Exception):
    pass


@rpc_error(type_ref="Shop.Closed", restore=lambda text: Closed(text))
class Closed(Exception):
    pass


@rpc_service(name="IOrders")
class Orders(ComputeService):
    @rpc_method(name="ForUser")
    @compute_method(keep_alive=300)
    @abstractmethod
    async def for_user(self, user_id: str) -> tuple[str, ...]: ...

    @compute_method
    @rpc_method(name="Count")
    @abstractmethod
    async def count(self) -> int: ...

    @rpc_method(timeouts=Timeouts(run=10), survive_peer_change=False)
    @abstractmethod
    async def place(self, user_id: str) -> str: ...

    @abstractmethod
    async def ping(self, text: str) -> NoWait: ...

    @abstractmethod
    async def prices(self) -> RpcStream[float]: ...

    @rpc_method(served=False)
    def close(self) -> bool:
        return True


class MemoryOrders(Orders):
    async def place(self, user_id: str) -> str:
        return user_id

    async def ping(self, text: str) -> NoWait:
        print(text)

    async def prices(self) -> RpcStream[float]:
        return RpcStream(self._prices())

    async def _prices(self) -> AsyncIterator[float]:
        yield 1.5


@rpc_service(backend=True)
class Vault(Protocol):
    @rpc_method
    async def open(self) -> int: ...


class Misspelled:
    @rpc_method(nam="Get")  # type: ignore[call-overload,untyped-decorator]
    async def get(self) -> int:
        return 1


async def calls(orders: Orders, vault: Vault) -> None:
    assert_type(await orders.for_user("u1"), tuple[str, ...])
    assert_type(orders.for_user.invalidate("u1"), bool)
    assert_type(await orders.count(), int)
    assert_type(await orders.place("u1"), str)
    assert_type(orders.close(), bool)
    assert_type(await vault.open(), int)
    async for price in await orders.prices():
        assert_type(price, float)
    await orders.ping("x")
    await orders.place(5)  # type: ignore[arg-type]
