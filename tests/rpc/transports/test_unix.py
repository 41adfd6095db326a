"""Stream sockets: files and their owners, greetings, and streams cut or filled with garbage."""

# ruff: noqa: ASYNC240  what is looked at here are small files of this machine

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from afresh.errors import (
    CallTimeoutError,
    ConnectionClosedError,
    DisconnectedError,
    RejectedError,
)
from afresh.rpc.transports import ConnectRequest
from afresh.rpc.transports.unix import TcpConnector, UnixConnector
from afresh.rpc.transports.unix_server import serve_tcp, serve_unix
from afresh.testing import FakeClock
from tests.rpc.transports.parties import PATIENCE, Hall, Party, eventually

REQUEST = ConnectRequest("me", "msgpack6c")
GREETING = b'{"clientId":"me","format":"msgpack6c"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def framed(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


@contextlib.asynccontextmanager
async def raw(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()


# -- the file


async def test_only_the_same_user_may_connect_unless_told_otherwise(path: Path) -> None:
    before = os.umask(0)
    try:
        server = await serve_unix(Hall(), path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await server.close()
        server = await serve_unix(Hall(), path, mode=0o660)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        await server.close()
    finally:
        os.umask(before)


async def test_the_file_is_removed_with_its_server(path: Path) -> None:
    server = await serve_unix(Hall(), path)
    await server.close()
    await server.close()
    assert not path.exists()


async def test_the_file_of_a_server_that_died_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    server = await serve_unix(Hall(), path)
    connection = await UnixConnector(path)(Party(), REQUEST)
    connection.close()
    await connection.wait_closed()
    await server.close()


async def test_a_server_that_lives_keeps_its_file(path: Path) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    with pytest.raises(FileExistsError, match="Another server listens"):
        await serve_unix(Hall(), path)
    connection = await UnixConnector(path)(Party(), REQUEST)
    connection.close()
    await connection.wait_closed()
    assert len(hall.guests) == 1
    await server.close()


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="is no socket"):
        await serve_unix(Hall(), path)
    assert path.read_text() == "precious"


async def test_the_file_of_a_successor_is_left_alone(path: Path) -> None:
    server = await serve_unix(Hall(), path)
    path.unlink()
    successor = await serve_unix(Hall(), path)
    await server.close()
    assert path.exists()
    connection = await UnixConnector(path)(Party(), REQUEST)
    connection.close()
    await connection.wait_closed()
    await successor.close()


async def test_a_server_that_is_not_there_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await UnixConnector(path)(Party(), REQUEST)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        await UnixConnector(path)(Party(), REQUEST)


# -- the server


async def test_a_server_that_stops_closes_its_connections(path: Path) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    client = Party()
    await UnixConnector(path)(client, REQUEST)
    async with raw(path) as (reader, _):
        await asyncio.sleep(0.01)
        await server.close()
        assert await reader.read() == b""
    error = await client.lost()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 1001
    assert await hall.guests[0].lost() is None
    await client.connection.wait_closed()


async def test_only_tcp_has_a_port(path: Path) -> None:
    server = await serve_tcp(Hall())
    assert server.port > 0
    await server.close()
    with pytest.raises(ValueError, match="no TCP port"):
        _ = server.port
    server = await serve_unix(Hall(), path)
    with pytest.raises(ValueError, match="no TCP port"):
        _ = server.port
    await server.close()


async def test_a_client_that_does_not_introduce_itself_is_cut_off(
    path: Path, clock: FakeClock
) -> None:
    server = await serve_unix(Hall(), path)
    async with raw(path) as (reader, writer):
        writer.write(framed(GREETING)[:-1])
        await eventually(lambda: clock.timers)
        await clock.advance(9.9)
        assert not reader.at_eof()
        await clock.advance(0.2)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
    await server.close()
    assert clock.timers == 0


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"{}",
        b"garbage",
        b"[]",
        b'{"clientId":1}',
        b'{"clientId":""}',
        b'{"clientId":"a\\nb"}',
        b'{"clientId":"%s"}' % (b"x" * 129),
        b'{"clientId":"me","proof":["1"]}',
        b"\xff",
    ],
)
async def test_a_greeting_that_makes_no_sense_is_refused(path: Path, greeting: bytes) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (reader, writer):
        writer.write(framed(greeting))
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
    assert answer[3] & 0x80
    assert struct.unpack_from("<H", answer, 4) == (400,)
    assert hall.requests == []
    await server.close()


@pytest.mark.parametrize(
    "start", [b"\xff\xff\xff\xff", struct.pack("<I", 16_385), b"\x02\x00\x00\x80xx", b"GET / HTTP"]
)
async def test_a_client_of_another_kind_is_cut_off(path: Path, start: bytes) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (reader, writer):
        writer.write(start)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    assert hall.requests == []
    await server.close()


async def test_frames_that_come_with_the_greeting_are_not_lost(path: Path) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (reader, writer):
        writer.write(framed(GREETING) + framed(b"first") + framed(b"second")[:-1])
        assert await reader.readexactly(4) == framed(b"")
        assert await hall.guests[0].heard(1) == [b"first"]
        writer.write(b"d")
        assert await hall.guests[0].heard(2) == [b"first", b"second"]
    await hall.guests[0].lost()
    await server.close()


@pytest.mark.parametrize("size", range(17))
async def test_a_connection_cut_at_any_byte_of_a_frame_loses_that_frame_only(
    path: Path, size: int
) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (_, writer):
        writer.write(framed(GREETING) + (framed(b"abc") + framed(b"defgh"))[:size])
        await eventually(lambda: hall.guests)
    error = await hall.guests[0].lost()
    assert isinstance(error, ConnectionClosedError | OSError)
    assert hall.guests[0].frames == [b"abc"] * (size >= 7) + [b"defgh"] * (size >= 16)
    await server.close()


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_frames_arrive_however_the_stream_is_chopped(path: Path, step: int) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    frames = [b"x" * size for size in (0, 1, 4, 300)]
    stream = framed(GREETING) + b"".join(map(framed, frames))
    async with raw(path) as (_, writer):
        for position in range(0, len(stream), step):
            writer.write(stream[position : position + step])
            await asyncio.sleep(0)
        await eventually(lambda: hall.guests)
        assert await hall.guests[0].heard(4) == frames
    await hall.guests[0].lost()
    await server.close()


async def test_a_notice_without_a_code_is_an_error_of_the_other_side(path: Path) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (_, writer):
        writer.write(framed(GREETING) + b"\x01\x00\x00\x80x" + framed(b"more"))
        await eventually(lambda: hall.guests)
        error = await hall.guests[0].lost()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 1011
    assert hall.guests[0].frames == []
    await server.close()


async def test_a_client_that_never_reads_is_cut_off(path: Path, clock: FakeClock) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    async with raw(path) as (_, writer):
        writer.write(framed(GREETING))
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = hall.guests[0].connection
        while connection.buffered < 1_000_000:
            connection.send(b"x" * 100_000)
        connection.close(1008, "too slow")
        assert await hall.guests[0].lost() is None
        closing = asyncio.ensure_future(connection.wait_closed())
        await clock.advance(1.9)
        assert not closing.done()
        await clock.advance(0.2)
        async with asyncio.timeout(PATIENCE):
            await closing
    await server.close()


# -- the client


async def test_dialling_gives_up_when_its_time_is_over(path: Path, clock: FakeClock) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(silence, path):
        dialling = asyncio.ensure_future(
            UnixConnector(path)(Party(), ConnectRequest("me", "json5", timeout=3))
        )
        await eventually(lambda: clock.timers)
        await clock.advance(3)
        with pytest.raises(CallTimeoutError, match=r"within 3 s"):
            await dialling
    assert clock.timers == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", DisconnectedError),
        (b"\x00\x00", DisconnectedError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DisconnectedError),
        (b"\x05\x00\x00\x80" + struct.pack("<H", 403) + b"no!", RejectedError),
        (b"\x02\x00\x00\x80" + struct.pack("<H", 1012), ConnectionClosedError),
    ],
)
async def test_an_answer_that_is_no_welcome_is_no_connection(
    path: Path, answer: bytes, error: type[Exception]
) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(play, path):
        client = Party()
        with pytest.raises(error):
            await UnixConnector(path)(client, REQUEST)
        assert client._connection is None


async def test_dialling_may_be_cancelled_at_any_moment(path: Path) -> None:
    hall = Hall()
    server = await serve_unix(hall, path)
    for turns in range(10):
        client = Party()
        dialling = asyncio.ensure_future(UnixConnector(path)(client, REQUEST))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not dialling.cancel():
            (await dialling).close()
        else:
            with pytest.raises(asyncio.CancelledError):
                await dialling
        if client._connection is not None:
            assert await client.lost() is None
            await client.connection.wait_closed()
    await server.close()


async def test_a_port_that_nobody_listens_on_is_a_connection_refused(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        await TcpConnector("127.0.0.1", unused_tcp_port)(Party(), REQUEST)
