"""A host of the values: ``python -m benchmarks.db.host URL``. Says the port that it serves, then
takes orders: ``create`` the tables, and ``write`` values. Started by ``latency``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker

from afresh import App
from afresh.db import Database
from benchmarks.db.cases import KEYS, RATE
from benchmarks.db.places import plain_engine
from benchmarks.db.values import Base, PlainValues, SetValue, ValueRow, Values, write_and_notify
from benchmarks.rpc.orders import carry_out_orders
from benchmarks.rpc.stacks.uvicorn_server import UvicornServer


class Host(UvicornServer):
    """Serves the values, and changes them when it is told."""

    ws = "afresh.rpc.transports.uvicorn:Protocol"

    def __init__(self, url: str) -> None:
        self.written: dict[int, float] = {}
        self.sessions = async_sessionmaker(plain_engine(url), expire_on_commit=False)
        self.app = App(database=Database(url, metadata=Base.metadata, create_tables=True))
        self.app.add(Values(self.app.database, self.written))
        self.app.add(PlainValues(self.sessions))
        self.asgi = self.app.asgi()

    def application(self) -> Any:
        return self.asgi

    async def create(self) -> None:
        """Add the values."""
        async with self.sessions.begin() as session:
            session.add_all(ValueRow(key=key, number=0) for key in range(KEYS))

    async def write(self, way: str, first: int, count: int) -> dict[int, float]:
        """Change a value a hundred times a second; returns the moment just before each commit."""
        loop = asyncio.get_running_loop()
        self.written.clear()
        start = loop.time()
        tasks = []
        for position in range(count):
            await asyncio.sleep(start + position / RATE - loop.time())
            number = first + position
            if way == "LISTEN/NOTIFY":
                change = write_and_notify(self.sessions, self.written, number % KEYS, number)
                tasks.append(asyncio.create_task(change))
            else:
                tasks.append(self.app.commander.start(SetValue(number % KEYS, number)))
        await asyncio.gather(*tasks)
        return dict(self.written)


async def main(url: str) -> None:
    """Serve until the process ends."""
    host = Host(url)
    await host.app.start()
    port = await host.start()
    await carry_out_orders(port, {"create": host.create, "write": host.write})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
