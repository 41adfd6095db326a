"""The ceiling: WebSocket messages with a batch of calls each, in MessagePack, and nothing that
matches answers to callers.
"""

from typing import Any

import msgspec
from websockets.asyncio.client import connect

from benchmarks.rpc.stacks.uvicorn_server import UvicornServer

encode = msgspec.msgpack.Encoder().encode
decode_calls = msgspec.msgpack.Decoder(list[tuple[int, int, int]]).decode
decode_answers = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


async def application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        answers = [(number, a + b) for number, a, b in decode_calls(message["bytes"])]
        await send({"type": "websocket.send", "bytes": encode(answers)})


class Server(UvicornServer):
    """A bare ASGI application."""

    def application(self) -> Any:
        return application


class Client:
    """One connection of the websockets library."""

    async def connect(self, port: int) -> None:
        self.connection = await connect(f"ws://127.0.0.1:{port}", compression=None)

    async def batches(self, in_flight: int, rounds: int) -> None:
        """Send ``rounds`` batches of ``in_flight`` calls, each once the one before is answered."""
        connection = self.connection
        for _ in range(rounds):
            await connection.send(encode([(number, number, 1) for number in range(in_flight)]))
            answers = decode_answers(await connection.recv())  # type: ignore[arg-type]
            assert len(answers) == in_flight
