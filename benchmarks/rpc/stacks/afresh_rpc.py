"""afresh: plain calls, streams, and compute methods on the other side."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from afresh import Computed, ComputeService, compute_method
from afresh.remote import Client as Connected
from afresh.remote import ComputeCalls, connect
from afresh.rpc import RpcHub, RpcStream
from afresh.rpc.transports.asgi import RpcEndpoint
from benchmarks.rpc.stacks import crowd
from benchmarks.rpc.stacks.uvicorn_server import UvicornServer


class Calculator:
    """Plain calls and streams."""

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def items(self, size: int, count: int) -> RpcStream[bytes]:
        return RpcStream(self._items(size, count))

    async def _items(self, size: int, count: int) -> AsyncIterator[bytes]:
        item = b"x" * size
        for _ in range(count):
            yield item


class Values(ComputeService):
    """A value that changes, and any number of others that do not."""

    value = 0

    @compute_method
    async def latest(self) -> int:
        return self.value

    @compute_method
    async def get(self, key: int) -> int:
        return key


class Server(UvicornServer):
    """`RpcEndpoint` under uvicorn."""

    ws = "afresh.rpc.transports.uvicorn:Protocol"

    def __init__(self) -> None:
        self.values = Values()
        self.orders = {"change": self.change}

    def application(self) -> Any:
        hub = RpcHub(kinds=(ComputeCalls(),))
        hub.serve(Calculator, Calculator())
        hub.serve(Values, self.values)
        return RpcEndpoint(hub)

    async def change(self, value: int) -> None:
        self.values.value = value
        self.values.latest.invalidate()


class Client:
    """One connection, which all calls share."""

    async def connect(self, port: int) -> None:
        self.client = connect(f"ws://127.0.0.1:{port}/rpc/ws")
        calculator = self.client.service(Calculator)
        self.add = calculator.add
        self.items = calculator.items
        self.values = self.client.service(Values)
        self.local_values = Values()
        await self.client.connected()

    async def read(self, size: int, count: int) -> int:
        """Read a stream of ``count`` items of ``size`` bytes; returns how many came."""
        read = 0
        async for _ in await self.items(size, count):
            read += 1
        return read


class Crowd(crowd.Crowd):
    """Clients with a connection each, which follow the latest value once one is expected."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []
        self.kept: list[Computed[int]] = []

    async def connect_one(self, port: int) -> Connected:
        client = connect(f"ws://127.0.0.1:{port}/rpc/ws")
        await client.connected()
        return client

    def expect(self, value: int) -> None:
        super().expect(value)
        if not self.tasks:
            self.tasks = [asyncio.create_task(self._follow(client)) for client in self.clients]

    async def subscribe(self, keys: Iterable[int]) -> None:
        """Let the first client have a result for each key, and keep it."""
        values = self.clients[0].service(Values)
        for key in keys:
            self.kept.append(await values.get.capture(key))

    async def _follow(self, client: Connected) -> None:
        computed = await client.service(Values).latest.capture()
        while True:
            self.tell(computed.value)
            await computed.when_invalidated()
            computed = await computed.update()
