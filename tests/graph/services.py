"""Services that several tests compute with."""

import asyncio
from collections import Counter
from typing import Any

from afresh import ComputeService, compute_method


class Counters(ComputeService):
    """Numbers by name, and sums of two; counts how often each body ran."""

    def __init__(self) -> None:
        self.values: dict[Any, int] = {}
        self.runs: Counter[Any] = Counter()

    @compute_method
    async def get(self, key: Any) -> int:
        self.runs[key] += 1
        return self.values.get(key, 0)

    @compute_method
    async def total(self, first: Any, second: Any) -> int:
        self.runs[first, second] += 1
        return await self.get(first) + await self.get(second)

    def set(self, key: Any, value: int) -> None:
        self.values[key] = value
        self.get.invalidate(key)


class Gated(ComputeService):
    """A body that stops half-way until the test lets it go on."""

    def __init__(self) -> None:
        self.runs = 0
        self.value = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()

    @compute_method
    async def get(self, key: Any = None) -> int:
        self.runs += 1
        value = self.value
        self.started.set()
        await self.gate.wait()
        return value
