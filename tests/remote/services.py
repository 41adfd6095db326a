"""Services for tests of compute methods across the wire."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from afresh import ComputeService, compute_method
from afresh.graph.computed import Computed
from afresh.graph.scopes import current_computed


class Counters(ComputeService):
    """Numbers that change."""

    @compute_method
    @abstractmethod
    async def get(self, key: str) -> int: ...

    @compute_method
    @abstractmethod
    async def total(self, a: str, b: str = "b") -> int: ...

    @compute_method
    @abstractmethod
    async def slow(self, key: str) -> int: ...

    @compute_method
    @abstractmethod
    async def failing(self, key: str) -> int: ...

    @compute_method
    @abstractmethod
    async def cancelling(self, times: int) -> int: ...

    @abstractmethod
    async def set(self, key: str, value: int) -> None: ...


class MemoryCounters(Counters):
    """Counts what it computes, and can be held up."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.computed: list[str] = []
        self.gate = asyncio.Event()
        self.nodes: list[Computed[object]] = []
        self.cancellations = 0

    async def get(self, key: str) -> int:
        self.computed.append(key)
        return self.values.get(key, 0)

    async def total(self, a: str, b: str = "b") -> int:
        return await self.get(a) + await self.get(b)

    async def slow(self, key: str) -> int:
        self.computed.append(key)
        self.nodes.append(current_computed())
        value = self.values.get(key, 0)
        await self.gate.wait()
        return value

    async def failing(self, key: str) -> int:
        self.computed.append(key)
        value = self.values.get(key, 0)
        if value < 0:
            raise ValueError(f"{key} is negative")
        return value

    async def cancelling(self, times: int) -> int:
        if self.cancellations < times:
            self.cancellations += 1
            raise asyncio.CancelledError
        return self.cancellations

    async def set(self, key: str, value: int) -> None:
        self.values[key] = value
        self.get.invalidate(key)
        self.slow.invalidate(key)
        self.failing.invalidate(key)
