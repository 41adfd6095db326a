"""What histories of clients and servers are about: numbers that change, and calls that count."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator

from afresh import ComputeService, compute_method
from afresh.rpc.contracts import NoWait, rpc_method
from afresh.rpc.streams import RpcStream

KEYS = 4
BRIEFLY = 60.0
"""Seconds that results are kept without a holder."""

METHODS = ("get", "total", "slow", "picky", "twice")
"""The compute methods; the last one is on the clients' side."""


class Ledger(ComputeService):
    """Numbers, and calls that are counted where they run."""

    @compute_method(keep_alive=BRIEFLY)
    @abstractmethod
    async def get(self, key: int) -> int: ...

    @compute_method(keep_alive=BRIEFLY)
    @abstractmethod
    async def total(self, key: int) -> int: ...

    @compute_method(keep_alive=BRIEFLY)
    @abstractmethod
    async def slow(self, key: int) -> int: ...

    @compute_method(keep_alive=BRIEFLY)
    @abstractmethod
    async def picky(self, key: int) -> int: ...

    @abstractmethod
    async def set(self, key: int, value: int) -> None: ...

    @abstractmethod
    async def work(self, token: int, turns: int) -> int: ...

    @rpc_method(survive_peer_change=False)
    @abstractmethod
    async def work_here(self, token: int, turns: int) -> int: ...

    @rpc_method(survive_reconnect=False, survive_peer_change=False)
    @abstractmethod
    async def work_once(self, token: int, turns: int) -> int: ...

    @abstractmethod
    async def note(self, token: int, turns: int) -> NoWait: ...

    @abstractmethod
    async def numbers(self, count: int) -> RpcStream[int]: ...


class Truth:
    """What outlives every server: the numbers, and how often each call ran."""

    def __init__(self) -> None:
        self.values = [0] * KEYS
        self.runs: Counter[int] = Counter()
        self.ends: Counter[int] = Counter()

    def of(self, method: str, key: int) -> object:
        """What a compute method must return, or the text of what it must raise."""
        value = self.values[key]
        if method == "total":
            return sum(self.values[: key + 1])
        if method == "picky" and value % 2:
            return f"{value} is odd"
        return 2 * value if method == "twice" else value


class StoredLedger(Ledger):
    """A server's view of the truth."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    async def get(self, key: int) -> int:
        return self.truth.values[key]

    async def total(self, key: int) -> int:
        return sum([await self.get(each) for each in range(key + 1)])

    async def slow(self, key: int) -> int:
        value = await self.get(key)
        for _ in range(key + 2):
            await asyncio.sleep(0)
        return value

    async def picky(self, key: int) -> int:
        value = await self.get(key)
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value

    async def set(self, key: int, value: int) -> None:
        self.truth.values[key] = value
        self.get.invalidate(key)

    async def work(self, token: int, turns: int) -> int:
        self.truth.runs[token] += 1
        for _ in range(turns):
            await asyncio.sleep(0)
        self.truth.ends[token] += 1
        return token

    async def work_here(self, token: int, turns: int) -> int:
        return await self.work(token, turns)

    async def work_once(self, token: int, turns: int) -> int:
        return await self.work(token, turns)

    async def note(self, token: int, turns: int) -> NoWait:
        await self.work(token, turns)

    async def numbers(self, count: int) -> RpcStream[int]:
        async def count_up() -> AsyncIterator[int]:
            for number in range(count):
                yield number
                if number % 3 == 0:
                    await asyncio.sleep(0)

        return RpcStream(count_up(), ack_period=4, ack_advance=9)


class Twice(ComputeService):
    """A client's own results, of remote ones."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @compute_method(keep_alive=BRIEFLY)
    async def twice(self, key: int) -> int:
        return 2 * await self.ledger.get(key)
