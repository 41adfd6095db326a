"""Who stands at the ends of connections in these tests: receivers that remember, and a hub that
lets in whoever it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn

from afresh.rpc.transports.connection import Connection, ConnectionDetails, Receiver

PATIENCE = 10.0
"""Seconds that something may take that takes milliseconds."""


class Party:
    """A receiver that keeps what it hears, and checks that it is called as receivers are."""

    def __init__(self, *, is_text: bool = False, echoes: bool = False) -> None:
        self.is_text = is_text
        self.echoes = echoes
        self.frames: list[bytes] = []
        self.errors: list[Exception | None] = []
        self.on_frame: Callable[[bytes], object] | None = None
        self.on_made: Callable[[Connection], object] | None = None
        self._connection: Connection | None = None
        self._news = asyncio.Event()

    @property
    def connection(self) -> Connection:
        assert self._connection is not None, "nothing connected"
        return self._connection

    def connection_made(self, connection: Connection) -> None:
        assert self._connection is None
        assert not self.errors
        self._connection = connection
        if self.on_made is not None:
            self.on_made(connection)
        self._news.set()

    def frame_received(self, frame: bytes) -> None:
        assert self._connection is not None
        assert not self.errors, "a frame after the end"
        assert type(frame) is bytes
        self.frames.append(frame)
        self._news.set()
        if self.echoes:
            before = len(self.frames)
            self._connection.send(frame)
            assert len(self.frames) == before, "re-entered"
        if self.on_frame is not None:
            self.on_frame(frame)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._connection is not None
        self.errors.append(error)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that news may bring about."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def heard(self, count: int) -> list[bytes]:
        """Wait for so many frames."""
        await self.until(lambda: len(self.frames) >= count)
        return self.frames

    async def lost(self) -> Exception | None:
        """Wait for the end, and give the reason."""
        await self.until(lambda: self.errors)
        assert len(self.errors) == 1
        return self.errors[0]


class Hall:
    """A hub for which every client is welcome, unless it was told otherwise."""

    def __init__(self, make: Callable[[], Receiver] = Party) -> None:
        self.make = make
        self.refusal: Exception | None = None
        self.requests: list[dict[str, Any]] = []
        self.guests: list[Any] = []

    def accept(
        self,
        *,
        client_id: str,
        format_key: str | None,
        is_backend: bool,
        proof: tuple[str, str] | None,
        require_proof: bool,
        details: ConnectionDetails,
    ) -> Receiver:
        self.requests.append({name: value for name, value in locals().items() if name != "self"})
        if self.refusal is not None:
            raise self.refusal
        guest = self.make()
        self.guests.append(guest)
        return guest


@contextlib.asynccontextmanager
async def serving(app: Any, ws: str = "auto", **options: Any) -> AsyncIterator[int]:
    """Run an application in uvicorn on a free port of this host, and give the port."""
    config = uvicorn.Config(app, ws=ws, lifespan="off", log_config=None, **options)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    await server.startup(sockets=[listener])
    try:
        yield listener.getsockname()[1]
    finally:
        # What `server.shutdown` does, without the tenth of a second that it sleeps.
        for each in server.servers:
            each.close()
        for connection in tuple(server.server_state.connections):
            connection.shutdown()
        await eventually(lambda: not (server.server_state.connections or server.server_state.tasks))
        listener.close()


@contextlib.asynccontextmanager
async def raw_client(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a WebSocket of which the test writes the bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /rpc/ws?clientId=me HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader, writer
    finally:
        writer.close()


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds that brings no news."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
