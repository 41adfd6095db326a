"""grpc.aio with generic handlers: no generated code, and payloads packed by `struct`, which is less
work than Protocol Buffers would be.
"""

import struct
from collections.abc import AsyncIterator

import grpc

PAIR = struct.Struct("<qq")
NUMBER = struct.Struct("<q")


def _pack_pair(pair: tuple[int, int]) -> bytes:
    return PAIR.pack(*pair)


def _unpack_number(data: bytes) -> int:
    return int(NUMBER.unpack(data)[0])


async def add(request: tuple[int, int], context: object) -> int:
    return request[0] + request[1]


async def items(request: tuple[int, int], context: object) -> AsyncIterator[bytes]:
    size, count = request
    item = b"x" * size
    for _ in range(count):
        yield item


class Server:
    """A server on a free port of the loopback interface."""

    async def start(self) -> int:
        """Listen; returns the port."""
        self.server = grpc.aio.server()
        handlers = {
            "Add": grpc.unary_unary_rpc_method_handler(add, PAIR.unpack, NUMBER.pack),
            "Items": grpc.unary_stream_rpc_method_handler(items, PAIR.unpack),
        }
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("Calculator", handlers),)
        )
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return int(port)


class Client:
    """One channel, which all calls share."""

    async def connect(self, port: int) -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._add = self.channel.unary_unary("/Calculator/Add", _pack_pair, _unpack_number)
        self._items = self.channel.unary_stream("/Calculator/Items", _pack_pair)

    async def add(self, a: int, b: int) -> int:
        return await self._add((a, b))  # type: ignore[no-any-return]

    async def read(self, size: int, count: int) -> int:
        """Read a stream of ``count`` items of ``size`` bytes; returns how many came."""
        read = 0
        async for _ in self._items((size, count)):
            read += 1
        return read
