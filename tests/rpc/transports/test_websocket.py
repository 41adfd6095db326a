"""The client's WebSocket against a server of another make, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from afresh.errors import (
    CallTimeoutError,
    ConnectionClosedError,
    DisconnectedError,
    RejectedError,
    UnknownFormatError,
)
from afresh.rpc.transports import Connection, ConnectRequest
from afresh.rpc.transports.websocket import WebSocketConnector
from afresh.testing import FakeClock
from tests.rpc.transports.parties import PATIENCE, Party, eventually

REQUEST = ConnectRequest("a-client", "msgpack6c")


def port_of(server: Server | asyncio.Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def connector_to(server: Server | asyncio.Server, path: str = "/rpc/ws") -> WebSocketConnector:
    return WebSocketConnector(f"ws://127.0.0.1:{port_of(server)}{path}")


@contextlib.asynccontextmanager
async def connected(
    handler: Callable[[ServerConnection], Awaitable[None]],
    client: Party | None = None,
    **options: Any,
) -> AsyncIterator[Party]:
    """Connect a party to a server that runs `handler`."""
    client = client or Party()
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        connection = await connector_to(server)(client, REQUEST)
        yield client
        connection.close()
        await connection.wait_closed()


async def echo(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            await socket.send(message)


@contextlib.asynccontextmanager
async def scripted(
    play: Callable[[asyncio.StreamReader, asyncio.StreamWriter, ServerProtocol], Awaitable[None]],
    *,
    handshake: bool = True,
) -> AsyncIterator[asyncio.Server]:
    """A server that does the handshake, and then writes to the socket whatever it likes."""
    failures: list[BaseException] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol()
        try:
            if handshake:
                protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
                (request,) = protocol.events_received()
                assert isinstance(request, Request)
                protocol.send_response(protocol.accept(request))
                writer.write(b"".join(protocol.data_to_send()))
            await play(reader, writer, protocol)
        except ConnectionError:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server
    assert failures == []


async def test_the_request_tells_who_dials() -> None:
    seen: list[Request] = []

    def look(connection: ServerConnection, request: Request) -> None:
        seen.append(request)

    async with serve(echo, "127.0.0.1", 0, process_request=look) as server:
        connector = WebSocketConnector(
            f"http://127.0.0.1:{port_of(server)}/rpc/ws?tenant=1", headers={"X-Token": "t"}
        )
        connection = await connector(
            Party(), ConnectRequest("W62-_w", "json5np", (7, "p-_x"), {"session": "a&b ="})
        )
        connection.close()
        await connection.wait_closed()
    (request,) = seen
    parts = urlsplit(request.path)
    assert parts.path == "/rpc/ws"
    assert parse_qs(parts.query) == {
        "tenant": ["1"],
        "clientId": ["W62-_w"],
        "f": ["json5np"],
        "c": ["7"],
        "p": ["p-_x"],
        "session": ["a&b ="],
    }
    assert request.headers["X-Token"] == "t"
    assert "Sec-WebSocket-Extensions" not in request.headers
    assert "Origin" not in request.headers


async def test_messages_of_every_length_come_back_from_another_implementation() -> None:
    sizes = [0, 1, 125, 126, 65_535, 65_536, 300_000]
    async with connected(echo, compression=None) as client:
        for size in sizes:
            client.connection.send(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        assert [len(frame) for frame in await client.heard(len(sizes))] == sizes
        assert client.frames[-1] == (bytes(range(256)) * 1171 + b"x" * 224)


async def test_text_is_sent_as_text() -> None:
    types: list[type] = []

    async def look(socket: ServerConnection) -> None:
        types.append(type(await socket.recv()))
        await socket.send("zurück")

    async with connected(look, Party(is_text=True)) as client:
        client.connection.send("Grüße".encode())
        assert await client.heard(1) == ["zurück".encode()]
    assert types == [str]


async def test_fragments_are_put_together() -> None:
    async def fragment(socket: ServerConnection) -> None:
        await socket.send([b"one ", b"two ", b"three"])
        await socket.send(b"whole")
        await socket.send([b"", b"", b"4"])

    async with connected(fragment) as client:
        assert await client.heard(3) == [b"one two three", b"whole", b"4"]


async def test_pings_between_fragments_are_answered() -> None:
    pongs: list[float] = []

    async def ping(socket: ServerConnection) -> None:
        pongs.append(await (await socket.ping(b"?")))
        await socket.send(b"done")

    async with connected(ping) as client:
        assert await client.heard(1) == [b"done"]
    assert len(pongs) == 1


async def test_fragments_over_the_limit_close_the_connection() -> None:
    codes: list[int] = []

    async def flood(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send([b"x" * 60] * 3)
            await socket.recv()
        codes.append(socket.protocol.close_code or 0)

    client = Party()
    client.on_made = lambda connection: setattr(connection, "max_frame_size", 100)
    async with connected(flood, client):
        error = await client.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1009
        await eventually(lambda: codes == [1009])
    assert client.frames == []


async def test_a_message_of_the_wrong_type_closes_the_connection() -> None:
    async def mistake(socket: ServerConnection) -> None:
        await socket.send("text")
        await socket.wait_closed()

    async with connected(mistake) as client:
        error = await client.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1003
    assert client.frames == []


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4000, "später")])
async def test_close_code_and_reason_are_told(code: int, reason: str) -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    async with connected(leave) as client:
        error = await client.lost()
        assert isinstance(error, ConnectionClosedError)
        assert (error.code, error.reason) == (code, reason)


async def test_code_4001_means_that_the_format_is_refused_for_good() -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.close(4001, "Unsupported RPC serialization format: 'x'")

    async with connected(refuse) as client:
        error = await client.lost()
        assert isinstance(error, UnknownFormatError)
        assert "format: 'x'" in str(error)


async def test_own_code_and_reason_are_sent() -> None:
    told: list[tuple[int | None, str | None]] = []

    async def listen(socket: ServerConnection) -> None:
        await socket.wait_closed()
        told.append((socket.close_code, socket.close_reason))

    async with connected(listen) as client:
        client.connection.close(4002, "genug")
        await client.connection.wait_closed()
        await eventually(lambda: told)
    assert told == [(4002, "genug")]


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refused_handshake_is_final(status: int) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), "reconnect proof was refused")

    async with serve(echo, "127.0.0.1", 0, process_request=refuse) as server:
        client = Party()
        with pytest.raises(RejectedError, match="proof was refused") as failure:
            await connector_to(server)(client, REQUEST)
        assert failure.value.status == status
        assert client._connection is None


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
async def test_a_server_in_trouble_is_no_refusal(status: int) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus(status), "")

    async with serve(echo, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(DisconnectedError, match=f"HTTP {status}"):
            await connector_to(server)(Party(), REQUEST)


async def test_a_refusal_whose_body_ends_with_the_connection_is_understood() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\ngo away")

    async with scripted(refuse, handshake=False) as server:
        with pytest.raises(RejectedError, match="go away"):
            await connector_to(server)(Party(), REQUEST)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x01\x02\n" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
        ),
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n",
        b"",
        b"HTTP/1.1 101 Swi",
        b"x" * 1_000_000,
    ],
)
async def test_what_is_no_websocket_server_is_no_connection(answer: bytes) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with scripted(play, handshake=False) as server:
        client = Party()
        with pytest.raises((DisconnectedError, OSError)):
            await connector_to(server)(client, REQUEST)
        assert client._connection is None


async def test_a_port_that_nobody_listens_on_is_a_connection_refused(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        await WebSocketConnector(f"ws://127.0.0.1:{unused_tcp_port}")(Party(), REQUEST)


async def test_dialling_gives_up_when_its_time_is_over(clock: FakeClock) -> None:
    async def silence(reader: asyncio.StreamReader, *_: Any) -> None:
        await reader.read()

    async with scripted(silence, handshake=False) as server:
        dialling = asyncio.ensure_future(
            connector_to(server)(Party(), ConnectRequest("me", "json5", timeout=3))
        )
        await eventually(lambda: clock.timers)
        await clock.advance(2.9)
        assert not dialling.done()
        await clock.advance(0.1)
        with pytest.raises(CallTimeoutError, match=r"within 3 s; is the server there\?"):
            await dialling
    assert clock.timers == 0


async def test_dialling_may_be_cancelled_at_any_moment() -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        connector = connector_to(server)
        for turns in range(12):
            client = Party()
            dialling = asyncio.ensure_future(connector(client, REQUEST))
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            if not dialling.cancel():
                (await dialling).close()
            else:
                with pytest.raises(asyncio.CancelledError):
                    await dialling
            if client._connection is not None:
                assert await client.lost() is None
                await client.connection.wait_closed()
        await eventually(lambda: not server.connections)


@pytest.mark.parametrize("size", range(14))
async def test_a_connection_cut_at_any_byte_of_a_frame_loses_that_frame_only(size: int) -> None:
    stream = bytes([0x82, 3]) + b"abc" + bytes([0x82, 126]) + struct.pack("!H", 5) + b"defgh"

    async def cut(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: ServerProtocol
    ) -> None:
        writer.write(stream[:size])

    async with scripted(cut) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        error = await client.lost()
        await connection.wait_closed()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 1006
    assert client.frames == [b"abc"] * (size >= 5) + [b"defgh"] * (size >= 14)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
async def test_frames_arrive_however_the_stream_is_chopped(step: int) -> None:
    frames = [b"x" * size for size in (0, 1, 125, 126, 300)]

    async def chop(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol
    ) -> None:
        for frame in frames:
            protocol.send_binary(frame)
            protocol.send_ping(b"!")
        protocol.send_binary(b"frag", fin=False)
        protocol.send_continuation(b"ments", fin=True)
        stream = b"".join(protocol.data_to_send())
        for position in range(0, len(stream), step):
            writer.write(stream[position : position + step])
            await asyncio.sleep(0)
        await reader.readuntil(b"\x88")

    async with scripted(chop) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        assert await client.heard(6) == [*frames, b"fragments"]
        connection.close()
        await connection.wait_closed()


async def test_frames_that_come_with_the_handshake_are_not_lost() -> None:
    async def hurry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Any) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        protocol.send_binary(b"first")
        protocol.send_binary(b"second")
        stream = b"".join(protocol.data_to_send())
        writer.write(stream[:-3])
        await asyncio.sleep(0.01)
        writer.write(stream[-3:])
        await reader.readuntil(b"\x88")

    async with scripted(hurry, handshake=False) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        assert await client.heard(2) == [b"first", b"second"]
        connection.close()
        await connection.wait_closed()


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\x83\x00", 1002),  # an unknown opcode
        (b"\xc2\x00", 1002),  # compressed, though nobody asked for it
        (b"\x82\x80abcd", 1002),  # masked by a server
        (b"\x80\x00", 1002),  # the end of what never began
        (b"\x02\x01x\x82\x01x", 1002),  # a message within another
        (b"\x09\x00", 1002),  # a ping in pieces
        (b"\x89\x7e\x00\x7e" + b"x" * 126, 1002),  # a ping too long
        (b"\x88\x01x", 1002),  # half a close code
        (b"\x88\x02\x03\xed", 1002),  # a close code that must not be sent
        (b"\x88\x03\x03\xe8\xff", 1007),  # a reason that is no text
        (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"\x82\x7f\x00\x00\x00\x00\x00\xff\x00\x01", 1009),
    ],
)
async def test_a_server_that_breaks_the_rules_is_left(garbage: bytes, code: int) -> None:
    received = bytearray()

    async def play(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: ServerProtocol
    ) -> None:
        writer.write(bytes([0x82, 2]) + b"ok" + garbage + bytes([0x82, 1]) + b"x")
        received.extend(await reader.read())

    async with scripted(play) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        error = await client.lost()
        await connection.wait_closed()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == code
    assert client.frames == [b"ok"]
    assert received[0] == 0x88
    mask = received[2:6]
    assert bytes([received[6] ^ mask[0], received[7] ^ mask[1]]) == struct.pack("!H", code)


async def test_a_server_that_does_not_answer_a_close_is_cut_off(clock: FakeClock) -> None:
    ended = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, *_: Any) -> None:
        await reader.read()
        ended.set()

    async with scripted(deaf) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        connection.close()
        assert await client.lost() is None
        closing = asyncio.ensure_future(connection.wait_closed())
        await clock.advance(1.9)
        assert not closing.done()
        await clock.advance(0.2)
        async with asyncio.timeout(PATIENCE):
            await closing
            await ended.wait()
    assert clock.timers == 0


async def test_masks_differ_from_frame_to_frame() -> None:
    received = bytearray()

    async def play(reader: asyncio.StreamReader, *_: Any) -> None:
        received.extend(await reader.readexactly(100 * 7))

    async with scripted(play) as server:
        client = Party()
        connection = await connector_to(server)(client, REQUEST)
        for _ in range(100):
            connection.send(b"x")
        await client.lost()
        await connection.wait_closed()
    masks = {bytes(received[start + 2 : start + 6]) for start in range(0, 700, 7)}
    assert len(masks) == 100


@pytest.mark.parametrize("url", ["", "localhost", "ftp://host", "ws://", "ws:/path", "ws://h/#x"])
async def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is no address of a WebSocket"):
        WebSocketConnector(url)


async def test_encrypted_connections_work_with_servers_that_are_trusted(certificate: Path) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    client_side = ssl.create_default_context(cafile=certificate)
    async with serve(echo, "127.0.0.1", 0, ssl=server_side) as server:
        url = f"wss://localhost:{port_of(server)}/rpc/ws"
        client = Party()
        connection: Connection = await WebSocketConnector(url, tls=client_side)(client, REQUEST)
        connection.send(b"secret" * 100_000)
        assert await client.heard(1) == [b"secret" * 100_000]
        connection.close()
        await connection.wait_closed()

        with pytest.raises(ssl.SSLCertVerificationError):
            await WebSocketConnector(url)(Party(), REQUEST)
