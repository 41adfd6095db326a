"""One buffer for all connections of a thread."""

from __future__ import annotations

import asyncio
import socket

from afresh.rpc.transports.reading import ReadingProtocol
from tests.rpc.transports.parties import eventually


class Reader(ReadingProtocol):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.pieces.append(data)


async def pair() -> tuple[Reader, asyncio.Transport, socket.socket]:
    near, far = socket.socketpair()
    near.setblocking(False)
    transport, reader = await asyncio.get_running_loop().create_connection(Reader, sock=near)
    return reader, transport, far


async def test_what_arrives_for_one_does_not_overwrite_what_another_got() -> None:
    parts = [await pair() for _ in range(10)]
    for number, (_, _, far) in enumerate(parts):
        far.sendall(bytes([number]) * 1000)
    await eventually(lambda: all(reader.pieces for reader, _, _ in parts))
    for number, (reader, transport, far) in enumerate(parts):
        assert b"".join(reader.pieces) == bytes([number]) * 1000
        transport.close()
        far.close()


async def test_more_than_fits_comes_in_pieces() -> None:
    reader, transport, far = await pair()
    far.setblocking(False)
    data = bytes(range(256)) * 8192
    await asyncio.get_running_loop().sock_sendall(far, data)
    await eventually(lambda: sum(map(len, reader.pieces)) == len(data))
    assert b"".join(reader.pieces) == data
    transport.close()
    far.close()


async def test_threads_do_not_share_a_buffer() -> None:
    def buffer_of_a_thread() -> memoryview:
        return Reader().get_buffer(-1)

    here = Reader().get_buffer(-1)
    assert Reader().get_buffer(-1) is here
    assert await asyncio.to_thread(buffer_of_a_thread) is not here
