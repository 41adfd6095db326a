"""The shop, the three departments and the backstage in one process, around a broker in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from afresh import App
from afresh.brokers import Broker, ConsumerOptions, MemoryTransport, RelayOptions
from afresh.brokers.transports.memory import MemoryBroker
from afresh.primitives.delays import RetryDelays
from examples.shop.backstage.board import LiveBoard
from examples.shop.backstage.mischief import BrokerMischief
from examples.shop.backstage.processes import ChildProcesses
from examples.shop.backstage.reporter import Reporter
from examples.shop.contracts import Order, PlaceOrder, PutIntoBasket, Shop
from examples.shop.data import shop_database
from examples.shop.departments.app import Department, open_department
from examples.shop.departments.contracts import DEPARTMENTS
from examples.shop.server import reporting, start
from examples.shop.services import open_shop

QUICK = RetryDelays.fixed(0.02)
CONSUMER = ConsumerOptions(retries=QUICK, deliveries=1000, drain=1)
RELAY = RelayOptions(poll=0.05, retries=QUICK, pauses=QUICK)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


class Market:
    """All of it.

    Args:
        folder: of the databases.
    """

    shop: Shop

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"memory://market-{secrets.token_hex(4)}"
        self.app = App(
            database=shop_database(self._file("shop")),
            broker=Broker(self.address, source="/shop", relay=RELAY),
        )
        self.departments: dict[str, Department] = {}
        self._lives: dict[str, AsyncExitStack] = {}
        self.board = LiveBoard()
        self._backstage = App()
        self.processes = self._backstage.add(ChildProcesses([], folder, lambda *_: None))
        self.mischief = self._backstage.add(
            BrokerMischief(self.address, self.board, self.processes)
        )

    def _file(self, name: str) -> str:
        return f"sqlite+aiosqlite:///{self.folder / name}.db"

    @property
    def broker(self) -> MemoryBroker:
        return MemoryTransport(self.address).broker

    async def open(self, name: str) -> Department:
        """Start a department, or start it again."""
        life = self._lives[name] = AsyncExitStack()
        department = open_department(name, self._file(name), self.address, consumer=CONSUMER)
        self.departments[name] = department
        department.failing.is_failing = lambda: name in self.mischief.failing
        computing = [type(department.service).__name__]
        reporter = Reporter(name, name, department.app, computing, department.service.orders)
        await life.enter_async_context(reporter.reporting_to(self.board))
        await life.enter_async_context(department.app)
        return department

    async def close(self, name: str) -> None:
        """End a department."""
        await self._lives.pop(name).aclose()

    async def order(self, product: str = "eggs", user: str = "alice") -> Order:
        """Order one piece."""
        await self.shop.baskets.put(PutIntoBasket(user, product, 1))
        return await self.shop.orders.place(PlaceOrder(user))

    async def handled(self, orders: int) -> None:
        """Wait until every department has handled so many orders."""

        async def is_done() -> bool:
            counts = [await each.service.orders() for each in self.departments.values()]
            return all(count == orders for count in counts)

        await until(is_done)


@asynccontextmanager
async def market(folder: Path) -> AsyncIterator[Market]:
    """All of it, open."""
    it = Market(folder)
    it.shop = open_shop(it.app, packing_seconds=0)
    async with AsyncExitStack() as stack:
        for name in DEPARTMENTS:
            await it.open(name)
            stack.push_async_callback(it.close, name)
        await stack.enter_async_context(reporting(it.app, it.shop, "shop", it.board))
        stack.push_async_callback(it.app.aclose)
        await start(it.app)
        await stack.enter_async_context(it.board.watching())
        await stack.enter_async_context(it.mischief.connected(is_new=False))
        yield it
