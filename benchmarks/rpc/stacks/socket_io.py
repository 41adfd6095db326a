"""python-socketio: an event with an acknowledgement that carries the result."""

from typing import Any

import socketio

from benchmarks.rpc.stacks.uvicorn_server import UvicornServer


class Server(UvicornServer):
    """`AsyncServer` as an ASGI application."""

    def application(self) -> Any:
        server = socketio.AsyncServer(async_mode="asgi")

        @server.event  # type: ignore[untyped-decorator]
        async def add(session: str, a: int, b: int) -> int:
            return a + b

        return socketio.ASGIApp(server)


class Client:
    """`AsyncClient` over a WebSocket, with no long polling before it."""

    async def connect(self, port: int) -> None:
        self.client = socketio.AsyncClient()
        await self.client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])

    async def add(self, a: int, b: int) -> int:
        return await self.client.call("add", (a, b))  # type: ignore[no-any-return]
