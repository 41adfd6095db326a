"""A service for tests in which things go wrong: calls that are quick, that wait, that stream."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator

from afresh.rpc.contracts import NoWait, rpc_method
from afresh.rpc.streams import RpcStream


class Workshop(ABC):
    @abstractmethod
    async def add(self, a: int, b: int) -> int: ...

    @abstractmethod
    async def work(self, name: str) -> str: ...

    @rpc_method(survive_peer_change=False)
    @abstractmethod
    async def work_once(self, name: str) -> str: ...

    @abstractmethod
    async def blob(self, size: int) -> bytes: ...

    @abstractmethod
    async def late_blob(self, size: int) -> bytes: ...

    @abstractmethod
    async def weigh(self, data: bytes) -> int: ...

    @abstractmethod
    async def count_to(self, end: int) -> RpcStream[int]: ...

    @abstractmethod
    async def blobs(self, size: int) -> RpcStream[bytes]: ...

    @abstractmethod
    async def total(self, numbers: RpcStream[int]) -> int: ...

    @abstractmethod
    async def note(self, text: str) -> NoWait: ...

    @abstractmethod
    async def note_slowly(self, text: str) -> NoWait: ...


class OpenWorkshop(Workshop):
    """Counts what runs; `work` and `note_slowly` wait for the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.runs: Counter[str] = Counter()
        self.running = 0
        self.notes: list[str] = []
        self.blobs_made = 0

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def work(self, name: str) -> str:
        self.runs[name] += 1
        self.running += 1
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return name

    async def work_once(self, name: str) -> str:
        return await self.work(name)

    async def blob(self, size: int) -> bytes:
        self.blobs_made += 1
        return bytes(size)

    async def late_blob(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return bytes(size)

    async def weigh(self, data: bytes) -> int:
        return len(data)

    async def count_to(self, end: int) -> RpcStream[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(end):
                yield number
                if number % 50 == 49:
                    await asyncio.sleep(0)

        return RpcStream(numbers())

    async def blobs(self, size: int) -> RpcStream[bytes]:
        async def items() -> AsyncIterator[bytes]:
            while True:
                self.blobs_made += 1
                yield bytes(size)

        return RpcStream(items())

    async def total(self, numbers: RpcStream[int]) -> int:
        return sum([number async for number in numbers])

    async def note(self, text: str) -> NoWait:
        self.notes.append(text)

    async def note_slowly(self, text: str) -> NoWait:
        await self.work(text)
