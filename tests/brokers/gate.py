"""A door between a broker and its clients, for brokers that forget all when they are stopped."""

from __future__ import annotations

import asyncio
import contextlib

from tests.servers.processes import free_port


class Gate:
    """Passes connections on to another port for as long as it is open."""

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self.to = to
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Let nobody in, and cut all who are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, other_writer))
                    group.create_task(_copy(other_reader, writer))
            finally:
                other_writer.transport.abort()
        except asyncio.CancelledError:
            pass  # the gate is closed
        finally:
            writer.transport.abort()
            self._passing.discard(task)
            await asyncio.sleep(0)  # now they are gone


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
