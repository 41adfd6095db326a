"""A bare Starlette application that sends a value to all its WebSockets, one after the other."""

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.rpc.stacks import crowd
from benchmarks.rpc.stacks.uvicorn_server import UvicornServer


class Server(UvicornServer):
    """Keeps the sockets, and tells them."""

    def __init__(self) -> None:
        self.sockets: set[WebSocket] = set()
        self.orders = {"change": self.change}

    def application(self) -> Any:
        return Starlette(routes=[WebSocketRoute("/", self.serve)])

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept()
        self.sockets.add(socket)
        try:
            while True:
                await socket.receive_bytes()
        except WebSocketDisconnect:
            self.sockets.discard(socket)

    async def change(self, value: int) -> None:
        message = value.to_bytes(8, "little")
        for socket in self.sockets:
            await socket.send_bytes(message)


class Crowd(crowd.Crowd):
    """Connections of the websockets library, each with a task that waits for values."""

    async def connect_one(self, port: int) -> asyncio.Task[None]:
        connection = await connect(f"ws://127.0.0.1:{port}", compression=None)
        return asyncio.create_task(self._listen(connection))

    async def _listen(self, connection: ClientConnection) -> None:
        async for message in connection:
            assert isinstance(message, bytes)
            self.tell(int.from_bytes(message, "little"))
