"""A network between hosts and a PostgreSQL that loses things at the worst moment.

The proxy passes bytes on, until a client sends a COMMIT that something is planned for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from sqlalchemy import make_url

Plan = Literal["lose the commit", "lose the answer", "delay the commit"]


class Proxy:
    """A listener on a loopback port that leads to the database of a URL.

    Args:
        database: the URL of the database.
    """

    def __init__(self, database: str) -> None:
        self._database = make_url(database)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.plans: list[Plan] = []
        """What becomes of the next commits: the connection breaks before one reaches the database,
        after it did, or it reaches the database `lateness` seconds after the client's side broke.
        """
        self.lateness = 1.0
        self.delayed = asyncio.Event()
        """Set once a delayed commit has reached the database."""

    @property
    def url(self) -> str:
        """The database's URL by way of this proxy."""
        port = self._server.sockets[0].getsockname()[1]
        return self._database.set(port=port).render_as_string(hide_password=False)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def aclose(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*closing, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        answers: asyncio.Task[None] | None = None
        try:
            upstream, to_database = await asyncio.open_connection(
                self._database.host, self._database.port
            )
            self._writers.append(to_database)
            answers = asyncio.create_task(self._pass_on(upstream, writer))
            while data := await reader.read(65_536):
                if self.plans and b"COMMIT;" in data:
                    answers.cancel()
                    await self._break(self.plans.pop(0), data, to_database, writer)
                    break
                to_database.write(data)
        except OSError:
            pass  # as networks do
        finally:
            if answers is not None:
                answers.cancel()
                to_database.close()
            writer.close()
            self._tasks.discard(task)

    async def _break(
        self,
        plan: Plan,
        data: bytes,
        to_database: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        if plan == "lose the answer":
            to_database.write(data)
            await to_database.drain()
            await asyncio.sleep(0.1)  # the database gets to it
        to_client.transport.abort()
        if plan == "delay the commit":
            await asyncio.sleep(self.lateness)
            to_database.write(data)
            await to_database.drain()
            self.delayed.set()
            await asyncio.sleep(0.1)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxy_to(database: str) -> AsyncIterator[Proxy]:
    """A `Proxy` that ends with the block."""
    proxy = Proxy(database)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()
