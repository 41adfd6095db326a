"""A client that wants to know of changes: ``python -m benchmarks.db.follower PORT URL``.

Takes orders: ``follow`` the values in one way or another, and say what was ``seen``. Started by
``latency``.
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import Any

import asyncpg
from sqlalchemy import make_url

from afresh.remote import connect
from benchmarks.db.cases import KEYS, PERIODS
from benchmarks.db.values import CHANNEL, PlainValues, Values
from benchmarks.rpc.orders import carry_out_orders

PATIENCE = 1_000
"""Hundredths of a second that the last changes may take."""


class Follower:
    """What a client knows of the values, and since when.

    Arguments:
        port: of the host that it is connected to.
        url: of the database, for the way that needs no host.
    """

    def __init__(self, port: int, url: str) -> None:
        self.url = make_url(url).set(drivername="postgresql")
        self.client = connect(f"ws://127.0.0.1:{port}/rpc/ws")
        self.known: dict[int, int] = {}
        self.seen: list[tuple[int, float]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def tell(self, key: int, number: int) -> None:
        """Note a value, if it is another one than before."""
        if self.known.get(key) != number:
            self.known[key] = number
            self.seen.append((number, monotonic()))

    async def follow(self, way: str) -> None:
        """Begin; returns when all values are known."""
        await self.client.connected()
        self.known.clear()
        if way == "afresh":
            values = self.client.service(Values)
            self._start(self._follow(values, key) for key in range(KEYS))
        elif way == "LISTEN/NOTIFY":
            await self._listen()
        else:
            self._start([self._poll(PERIODS[way])])
        while len(self.known) < KEYS:
            await asyncio.sleep(0.01)
        self.seen.clear()

    async def settle(self, last: int) -> None:
        """Wait until the last numbers are known.

        Raises:
            RuntimeError: they do not come.
        """
        last_numbers = range(last - KEYS + 1, last + 1)
        for _ in range(PATIENCE):
            missing = [it for it in last_numbers if self.known.get(it % KEYS, 0) < it]
            if not missing:
                return
            for task in self.tasks:
                if task.done():
                    await task
            await asyncio.sleep(0.01)
        raise RuntimeError(f"The client was not told of {missing}, but of {self.known}.")

    async def end(self) -> list[tuple[int, float]]:
        """Stop; returns the numbers that were seen, with the moments."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        return self.seen

    def _start(self, coroutines: Any) -> None:
        self.tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]

    async def _follow(self, values: Values, key: int) -> None:
        computed = await values.get.capture(key)
        while True:
            self.tell(key, computed.value)
            await computed.when_invalidated()
            computed = await computed.update()

    async def _poll(self, period: float) -> None:
        values = self.client.service(PlainValues)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for key, number in (await values.all()).items():
                self.tell(key, number)
            due += period
            await asyncio.sleep(due - loop.time())

    async def _listen(self) -> None:
        dsn = self.url.render_as_string(hide_password=False)
        listening = await asyncpg.connect(dsn)
        reading = await asyncpg.connect(dsn)
        query = await reading.prepare("SELECT number FROM bench_values WHERE key = $1")
        changed: asyncio.Queue[int] = asyncio.Queue()

        def note(connection: object, process: int, channel: str, payload: str) -> None:
            changed.put_nowait(int(payload))

        async def read() -> None:
            try:
                while True:
                    key = await changed.get()
                    self.tell(key, await query.fetchval(key))
            finally:
                listening.terminate()
                reading.terminate()

        await listening.add_listener(CHANNEL, note)
        for key in range(KEYS):
            changed.put_nowait(key)
        self._start([read()])


async def main(port: int, url: str) -> None:
    """Follow until the process ends."""
    follower = Follower(port, url)
    await carry_out_orders(
        "ready", {"follow": follower.follow, "settle": follower.settle, "end": follower.end}
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
