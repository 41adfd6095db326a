"""What uvicorn's short cut does beyond what plain ASGI can."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from afresh.errors import ConnectionClosedError
from afresh.rpc.transports import ConnectRequest
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.rpc.transports.uvicorn import Protocol
from afresh.rpc.transports.websocket import WebSocketConnector
from afresh.testing import FakeClock
from tests.rpc.transports.conftest import DIRECT
from tests.rpc.transports.parties import PATIENCE, Hall, Party, eventually, raw_client, serving

REQUEST = ConnectRequest("me", "msgpack6c")


async def test_frames_are_handed_over_without_the_application_taking_part() -> None:
    hall = Hall(lambda: Party(echoes=True))
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def received() -> Any:
            messages.append(await receive())
            return messages[-1]

        async def sent(message: Any) -> None:
            messages.append(message)
            await send(message)

        await RpcEndpoint(hall)(scope, received, sent)

    async with serving(app, DIRECT) as port:
        client = Party()
        connection = await WebSocketConnector(f"ws://127.0.0.1:{port}")(client, REQUEST)
        connection.send(b"x")
        await client.heard(1)
        connection.close()
        await connection.wait_closed()
    assert [message["type"] for message in messages] == ["websocket.connect", "websocket.accept"]


async def test_what_follows_an_answer_does_not_wait_for_its_confirmation() -> None:
    hall = Hall()
    async with serving(RpcEndpoint(hall), DIRECT) as port:
        client = Party()
        connection = await WebSocketConnector(f"ws://127.0.0.1:{port}")(client, REQUEST)
        (guest,) = hall.guests
        socket = guest.connection._transport.get_extra_info("socket")
        assert socket.getsockopt(IPPROTO_TCP, TCP_NODELAY)
        connection.close()
        await connection.wait_closed()


async def test_websockets_of_other_applications_work_as_ever() -> None:
    async def shout(socket: WebSocket) -> None:
        await socket.accept(subprotocol="loud")
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text((await socket.receive_text()).upper())

    hall = Hall()
    app = Starlette(
        routes=[WebSocketRoute("/shout", shout), WebSocketRoute("/rpc/ws", RpcEndpoint(hall))]
    )
    async with serving(app, DIRECT) as port:
        async with connect(f"ws://127.0.0.1:{port}/shout", subprotocols=["loud"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "loud"
            await socket.send("hello")
            assert await socket.recv() == "HELLO"
        with pytest.raises(Exception, match="403"):
            await connect(f"ws://127.0.0.1:{port}/nowhere")


async def test_compression_is_declined() -> None:
    hall = Hall()
    async with (
        serving(RpcEndpoint(hall), DIRECT) as port,
        connect(f"ws://127.0.0.1:{port}?clientId=me", compression="deflate") as socket,
    ):
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        assert socket.protocol.extensions == []


async def test_uvicorn_sends_no_pings_of_its_own() -> None:
    hall = Hall()
    async with (
        serving(RpcEndpoint(hall), DIRECT, ws_ping_interval=0.01, ws_ping_timeout=0.01) as port,
        connect(f"ws://127.0.0.1:{port}?clientId=me", ping_interval=None) as socket,
    ):
        await asyncio.sleep(0.1)
        assert hall.guests[0].errors == []
        await (await socket.ping())


async def test_a_server_that_stops_says_so_to_both_sides() -> None:
    hall = Hall()
    client = Party()
    async with serving(RpcEndpoint(hall), DIRECT) as port:
        connection = await WebSocketConnector(f"ws://127.0.0.1:{port}")(client, REQUEST)
    for party in (client, hall.guests[0]):
        error = await party.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1012
    await connection.wait_closed()


async def test_a_client_that_never_reads_loses_its_socket(clock: FakeClock) -> None:
    hall = Hall()
    protocols: list[Protocol] = []

    class Watched(Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            protocols.append(self)

    async with (
        serving(RpcEndpoint(hall), Watched) as port,  # type: ignore[arg-type]
        raw_client(port) as (_, writer),
    ):
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = hall.guests[0].connection
        while connection.buffered < 1_000_000:
            connection.send(b"x" * 100_000)
        connection.close(1008, "too slow")
        (protocol,) = protocols
        assert not protocol.transport.is_closing()
        await clock.advance(2.1)
        assert protocol.transport.is_closing()
        async with asyncio.timeout(PATIENCE):
            await connection.wait_closed()
        assert protocol.transport.get_write_buffer_size() == 0
        assert not protocol.connections


@pytest.mark.parametrize("ws", ["auto", "wsproto", DIRECT])
async def test_the_receiver_learns_that_the_client_left_before_it_was_accepted(ws: str) -> None:
    gate, ended = asyncio.Event(), asyncio.Event()
    errors: list[Exception | None] = []

    class Fleeting(Party):
        def connection_lost(self, error: Exception | None) -> None:
            errors.append(error)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def late(message: Any) -> None:
            await gate.wait()
            await send(message)

        try:
            await RpcEndpoint(hall)(scope, receive, late)
        finally:
            ended.set()

    hall = Hall(Fleeting)
    async with serving(app, ws) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /?clientId=me HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await eventually(lambda: hall.guests)
        writer.transport.abort()
        await asyncio.sleep(0.02)
        gate.set()
        await ended.wait()
    assert len(errors) == 1


async def test_pings_of_a_client_that_never_reads_take_bounded_memory() -> None:
    hall = Hall()
    async with serving(RpcEndpoint(hall), DIRECT) as port, raw_client(port) as (_, writer):
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = hall.guests[0].connection
        while connection.buffered < 1_100_000:
            connection.send(b"x" * 100_000)
        before = connection.buffered
        writer.write((b"\x89\xfd\0\0\0\0" + b"?" * 125) * 1000 + b"\x82\x82\0\0\0\0ok")
        assert await hall.guests[0].heard(1) == [b"ok"]
        assert connection.buffered <= before


async def test_endless_empty_fragments_take_no_memory() -> None:
    hall = Hall()
    async with serving(RpcEndpoint(hall), DIRECT) as port, raw_client(port) as (_, writer):
        empty = b"\x00\x80\0\0\0\0"
        writer.write(b"\x02\x82\0\0\0\0ab" + empty * 10_000 + b"\x80\x81\0\0\0\0c")
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        assert await hall.guests[0].heard(1) == [b"abc"]


@pytest.mark.parametrize("ws", ["auto", DIRECT])
async def test_encrypted_connections_work_too(ws: str, certificate: Path) -> None:
    hall = Hall(lambda: Party(echoes=True))
    client_side = ssl.create_default_context(cafile=certificate)
    async with serving(RpcEndpoint(hall), ws, ssl_certfile=certificate) as port:
        client = Party()
        connector = WebSocketConnector(f"wss://localhost:{port}/rpc/ws", tls=client_side)
        connection = await connector(client, REQUEST)
        frames = [b"secret" * size for size in (1, 100, 100_000)]
        for frame in frames:
            connection.send(frame)
        assert await client.heard(3) == frames
        hall.guests[0].connection.close(4000, "enough")
        error = await client.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 4000
        await connection.wait_closed()
