"""Many clients in one process that wait for the same value."""

import asyncio
from typing import Any


class Crowd:
    """Counts who has the newest value. Subclasses make the clients."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self._expected: int | None = None
        self._told = 0
        self._all_told = asyncio.Event()

    async def connect(self, port: int, count: int) -> None:
        """Connect so many more clients."""
        for _ in range(count):
            self.clients.append(await self.connect_one(port))

    async def connect_one(self, port: int) -> Any:
        raise NotImplementedError

    def expect(self, value: int) -> None:
        """From now on, count the clients that are told this value."""
        self._expected = value
        self._told = 0
        self._all_told.clear()

    def tell(self, value: int) -> None:
        """One of the clients has a new value."""
        if value == self._expected:
            self._told += 1
            if self._told == len(self.clients):
                self._all_told.set()

    async def all_told(self) -> None:
        """Wait until every client was told the expected value."""
        await self._all_told.wait()
