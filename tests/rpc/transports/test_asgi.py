"""The endpoint behind ASGI: who may come in, and how frames move, with a client of another make."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from afresh.errors import ConnectionClosedError, RejectedError, UnknownFormatError
from afresh.primitives.tasks import background_tasks
from afresh.rpc.origins import any_origin
from afresh.rpc.transports import Connection
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.testing import FakeClock
from tests.rpc.transports.conftest import WEBSOCKETS
from tests.rpc.transports.parties import PATIENCE, Hall, Party, eventually, raw_client, serving


@pytest.fixture(params=WEBSOCKETS)
def ws(request: pytest.FixtureRequest) -> str:
    """What uvicorn speaks WebSocket with."""
    return WEBSOCKETS[request.param]


@contextlib.asynccontextmanager
async def served(hall: Hall, ws: str, **options: Any) -> AsyncIterator[str]:
    async with serving(RpcEndpoint(hall, **options), ws) as port:
        yield f"ws://127.0.0.1:{port}/rpc/ws"


async def refusal_of(url: str, **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as failure:
        await connect(url, **options)
    response = failure.value.response
    return response.status_code, bytes(response.body or b"").decode()


# -- who may come in


async def test_query_and_headers_reach_the_hub(ws: str) -> None:
    hall = Hall()
    async with served(hall, ws, is_backend=True, require_proof=True) as url:
        async with connect(
            f"{url}?x=1&p=pr%2Bof&clientId=W62-_w&c=12&f=msgpack6c&session=s%26t&x=2",
            additional_headers=[("Cookie", "a=b"), ("X-Real", "1"), ("X-Real", "2")],
        ):
            pass
    (asked,) = hall.requests
    details = asked.pop("details")
    assert asked == {
        "client_id": "W62-_w",
        "format_key": "msgpack6c",
        "is_backend": True,
        "proof": ("12", "pr+of"),
        "require_proof": True,
    }
    assert details.parameters["session"] == "s&t"
    assert details.parameters["x"] == "1"
    assert details.headers["cookie"] == "a=b"
    assert details.headers["x-real"] == "1, 2"
    assert details.address.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("query", "proof"),
    [("", None), ("&c=1", ("1", "")), ("&p=x", ("", "x")), ("&c=&p=", ("", "")), ("&c", ("", ""))],
)
async def test_half_a_proof_is_not_taken_for_none(
    query: str, proof: tuple[str, str] | None
) -> None:
    hall = Hall()
    await play(RpcEndpoint(hall), query=f"clientId=me{query}")
    assert hall.requests[0]["proof"] == proof


@pytest.mark.parametrize("query", ["", "clientId=", f"clientId={'x' * 129}", "clientId=a%0Ab"])
async def test_a_client_without_a_proper_id_is_refused(ws: str, query: str) -> None:
    hall = Hall()
    async with served(hall, ws) as url:
        status, text = await refusal_of(f"{url}?{query}")
    assert status == 400
    assert "clientId" in text
    assert hall.requests == []


async def test_pages_of_other_hosts_are_refused_by_default(ws: str) -> None:
    hall = Hall()
    async with served(hall, ws) as url:
        status, text = await refusal_of(f"{url}?clientId=me", origin="https://evil.example")
        assert status == 403
        assert "https://evil.example" in text
        assert (await refusal_of(f"{url}?clientId=me", origin="null"))[0] == 403
        assert hall.requests == []
        async with connect(f"{url}?clientId=me", origin=f"http{url[2:-7]}"):
            pass
        async with connect(f"{url}?clientId=me"):
            pass
    assert len(hall.requests) == 2


async def test_origins_may_be_listed_or_all_let_in() -> None:
    for origins, expected in (
        (["https://shop.example"], [True, False]),
        (any_origin, [True, True]),
        (lambda origin, host: origin.startswith("https://e"), [False, True]),
    ):
        hall = Hall()
        endpoint = RpcEndpoint(hall, origins=origins)  # type: ignore[arg-type]
        for origin in (b"https://shop.example", b"https://evil.example"):
            await play(endpoint, headers=[(b"origin", origin), (b"host", b"x")])
        assert len(hall.requests) == sum(expected)


async def test_the_hubs_refusal_is_answered_with_its_status(ws: str) -> None:
    hall = Hall()
    hall.refusal = RejectedError("The reconnect proof was refused.", 403)
    async with served(hall, ws) as url:
        status, text = await refusal_of(f"{url}?clientId=me")
        assert (status, text) == (403, "The reconnect proof was refused.")
        hall.refusal = RejectedError("Too many.", 503)
        assert (await refusal_of(f"{url}?clientId=me"))[0] == 503


async def test_a_status_that_http_does_not_know_becomes_403() -> None:
    hall = Hall()
    hall.refusal = RejectedError("Go away.", 4003)
    sent = await play(RpcEndpoint(hall))
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("formats", [[], "json5np"])
async def test_formats_are_a_list_of_some(formats: Any) -> None:
    with pytest.raises(ValueError, match="list of keys"):
        RpcEndpoint(Hall(), formats=formats)


async def test_a_server_that_can_only_say_no_says_403() -> None:
    hall = Hall()
    hall.refusal = RejectedError("Too many.", 503)
    sent = await play(RpcEndpoint(hall), extensions={})
    assert sent == [{"type": "websocket.close"}]


async def test_an_unknown_format_is_told_by_a_close_code(ws: str) -> None:
    hall = Hall()
    hall.refusal = UnknownFormatError("no such thing")
    async with served(hall, ws) as url, connect(f"{url}?clientId=me&f=mempack6") as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4001
        assert socket.close_reason == "Unsupported RPC serialization format: 'mempack6'"


async def test_a_format_that_the_endpoint_does_not_allow_never_reaches_the_hub() -> None:
    hall = Hall()
    endpoint = RpcEndpoint(hall, formats=["msgpack6c", "json5np"])
    sent = await play(endpoint, query="clientId=me&f=" + "x" * 1000)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == 4001
    assert len(sent[1]["reason"].encode()) <= 123
    assert hall.requests == []
    for query in ("", "&f=json5np"):
        await play(endpoint, query=f"clientId=me{query}")
    assert [request["format_key"] for request in hall.requests] == ["msgpack6c", "json5np"]


async def test_no_format_is_left_to_the_hub() -> None:
    hall = Hall()
    await play(RpcEndpoint(hall), query="clientId=me&f=")
    assert hall.requests[0]["format_key"] is None


async def test_an_error_of_the_hub_is_the_servers_to_answer(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    hall = Hall()
    hall.refusal = ZeroDivisionError()
    async with served(hall, ws) as url:
        assert (await refusal_of(f"{url}?clientId=me"))[0] == 500
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_no_websocket_gets_a_readable_answer() -> None:
    async with serving(RpcEndpoint(Hall())) as port:

        def fetch() -> tuple[int, str]:
            try:
                with urlopen(f"http://127.0.0.1:{port}/rpc/ws") as answer:
                    return answer.status, answer.read().decode()
            except OSError as error:
                return error.code, error.read().decode()  # type: ignore[attr-defined]

        status, text = await asyncio.to_thread(fetch)
    assert status == 400
    assert "WebSocket" in text


@pytest.mark.parametrize("kind", ["route", "mount", "fastapi"])
async def test_the_endpoint_can_be_part_of_a_larger_application(kind: str, ws: str) -> None:
    hall = Hall(lambda: Party(echoes=True))
    endpoint = RpcEndpoint(hall)
    app: Any
    if kind == "route":
        app = Starlette(routes=[WebSocketRoute("/rpc/ws", endpoint)])
    elif kind == "mount":
        app = Starlette(routes=[Mount("/rpc", endpoint)])
    else:
        app = FastAPI()
        app.router.routes.append(WebSocketRoute("/rpc/ws", endpoint))
    async with serving(app, ws) as port:
        async with connect(f"ws://127.0.0.1:{port}/rpc/ws?clientId=me") as socket:
            await socket.send(b"ball")
            assert await socket.recv() == b"ball"
        with contextlib.suppress(OSError):
            await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/rpc/ws")


# -- how frames move


async def test_frames_go_both_ways_with_a_client_of_another_make(ws: str) -> None:
    hall = Hall(lambda: Party(echoes=True))
    sizes = [0, 1, 125, 126, 65_535, 65_536, 300_000]
    async with served(hall, ws) as url, connect(f"{url}?clientId=me", max_size=None) as socket:
        for size in sizes:
            await socket.send(b"x" * size)
            assert await socket.recv() == b"x" * size
        await socket.send([b"in ", b"three ", b"pieces"])
        assert await socket.recv() == b"in three pieces"
        await (await socket.ping())


async def test_compression_that_the_client_offers_does_no_harm(ws: str) -> None:
    hall = Hall(lambda: Party(echoes=True))
    async with (
        served(hall, ws) as url,
        connect(f"{url}?clientId=me", compression="deflate") as socket,
    ):
        await socket.send(b"x" * 10_000)
        assert await socket.recv() == b"x" * 10_000


async def test_text_formats_travel_as_text(ws: str) -> None:
    hall = Hall(lambda: Party(is_text=True, echoes=True))
    async with served(hall, ws) as url, connect(f"{url}?clientId=me") as socket:
        await socket.send("Grüße")
        assert await socket.recv() == "Grüße"
    assert hall.guests[0].frames == ["Grüße".encode()]


@pytest.mark.parametrize("is_text", [True, False])
async def test_a_message_of_the_wrong_type_closes_the_connection(ws: str, is_text: bool) -> None:
    hall = Hall(lambda: Party(is_text=is_text))
    async with served(hall, ws) as url, connect(f"{url}?clientId=me") as socket:
        await socket.send(b"x" if is_text else "x")
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1003
        error = await hall.guests[0].lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1003
        assert hall.guests[0].frames == []


def port_in(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def masked(payload: bytes, first: int = 0x82) -> bytes:
    length = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else b"\xfe" + struct.pack("!H", len(payload))
    )
    mask = b"\x01\x02\x03\x04"
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([first]) + length + mask + body


@pytest.mark.parametrize("size", [*range(10), 11, 13, 14, 100, 141, 142])
async def test_a_connection_cut_at_any_byte_of_a_frame_loses_that_frame_only(
    ws: str, size: int
) -> None:
    hall = Hall()
    stream = masked(b"abc") + masked(b"x" * 125) + b"\x82"
    async with served(hall, ws) as url:
        async with raw_client(port_in(url)) as (_, writer):
            writer.write(stream[:size])
        guest = hall.guests[0]
        assert isinstance(await guest.lost(), ConnectionClosedError)
        assert guest.frames == [b"abc"] * (size >= 9) + [b"x" * 125] * (size >= 140)


@pytest.mark.parametrize(
    ("garbage", "codes"),
    [
        (b"\x82\x01x", {1002}),  # not masked
        (masked(b"", 0x83), {1002}),
        (masked(b"", 0xF2), {1002}),
        (masked(b"x", 0x80), {1002}),
        (masked(b"x" * 126, 0x89), {1002}),
        (b"\x82\xff" + b"\xff" * 8 + b"mask", {1009, 1002}),
        (b"\x82\xff" + struct.pack("!Q", 1 << 40) + b"mask", {1009, 1002}),
        (b"GET / HTTP/1.1\r\n\r\n" * 10, {1002}),
    ],
)
@pytest.mark.parametrize("library", ["websockets", "direct"])
async def test_a_client_that_breaks_the_rules_is_let_go(
    library: str, garbage: bytes, codes: set[int]
) -> None:
    hall = Hall()
    async with (
        served(hall, WEBSOCKETS[library]) as url,
        raw_client(port_in(url)) as (reader, writer),
    ):
        writer.write(masked(b"ok") + garbage + masked(b"more"))
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        guest = hall.guests[0]
        assert isinstance(await guest.lost(), ConnectionClosedError)
        assert guest.frames in ([b"ok"], [])  # some servers drop what came with the garbage
        assert answer[0] == 0x88
        assert struct.unpack("!H", answer[2:4])[0] in codes


async def test_a_client_that_never_reads_takes_bounded_memory_and_is_let_go(
    ws: str, clock: FakeClock
) -> None:
    hall = Hall()
    async with served(hall, ws) as url, raw_client(port_in(url)) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        guest = hall.guests[0]
        sent = 0
        while guest.connection.buffered < 1_000_000 and sent < 100:
            guest.connection.send(b"x" * 100_000)
            sent += 1
            await asyncio.sleep(0)
        assert sent < 100
        assert guest.connection.buffered < 1_200_000
        guest.connection.close(1008, "too slow")
        assert await guest.lost() is None
        closing = asyncio.ensure_future(guest.connection.wait_closed())
        await clock.advance(1.9)
        assert not closing.done()
        await clock.advance(0.2)
        async with asyncio.timeout(PATIENCE):
            await closing
        assert guest.connection.buffered == 0
        await asyncio.sleep(0)
        assert not background_tasks()


async def test_a_slow_client_still_gets_the_reason(ws: str) -> None:
    hall = Hall()
    async with (
        served(hall, ws) as url,
        connect(f"{url}?clientId=me", max_queue=1, compression=None) as socket,
    ):
        await eventually(lambda: hall.guests and hall.guests[0]._connection)
        guest = hall.guests[0]
        for _ in range(300):
            guest.connection.send(b"x" * 100_000)
        assert guest.connection.buffered > 0
        guest.connection.close(4008, "too slow")
        count = 0
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                count += len(message)
        assert (socket.close_code, socket.close_reason) == (4008, "too slow")
        assert count == 300 * 100_000


class Unconnected(Party):
    """A receiver whose connection never comes to be."""

    def connection_made(self, connection: Connection) -> None:
        raise AssertionError

    def connection_lost(self, error: Exception | None) -> None:
        self.errors.append(error)


# -- how the server's `send` is driven


async def play(
    endpoint: RpcEndpoint,
    *,
    query: str = "clientId=me",
    headers: list[tuple[bytes, bytes]] | None = None,
    extensions: dict[str, Any] | None = None,
    send: Callable[[Any], Awaitable[None]] | None = None,
    messages: list[dict[str, Any]] | None = None,
    until: asyncio.Event | None = None,
) -> list[Any]:
    """Run the endpoint without a server, and give what it sent."""
    sent: list[Any] = []
    script = [
        {"type": "websocket.connect"},
        *(messages or []),
        {"type": "websocket.disconnect", "code": 1001, "reason": "bye"},
    ]

    async def receive() -> Any:
        if len(script) == 1 and until is not None:
            await until.wait()
        return script.pop(0)

    async def record(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/rpc/ws",
        "query_string": query.encode(),
        "headers": headers or [],
        "extensions": {"websocket.http.response": {}} if extensions is None else extensions,
    }
    await endpoint(scope, receive, send or record)
    return sent


async def test_the_reason_of_the_disconnect_reaches_the_receiver() -> None:
    hall = Hall()
    await play(RpcEndpoint(hall))
    error = await hall.guests[0].lost()
    assert isinstance(error, ConnectionClosedError)
    assert (error.code, error.reason) == (1001, "bye")


async def test_a_send_that_finishes_at_once_takes_no_task() -> None:
    hall = Hall(lambda: Party(echoes=True))
    frames = [{"type": "websocket.receive", "bytes": b"%d" % number} for number in range(10)]
    before = asyncio.all_tasks()
    tasks: set[Any] = set()

    async def send(message: Any) -> None:
        tasks.update(asyncio.all_tasks() - before)

    await play(RpcEndpoint(hall), messages=frames, send=send)
    assert len(hall.guests[0].frames) == 10
    assert tasks == set()


async def test_a_send_that_waits_is_finished_by_a_task_and_later_frames_queue_up() -> None:
    hall = Hall()
    gates: list[asyncio.Future[None]] = []
    done: list[Any] = []
    end = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            for _ in range(2):
                gates.append(asyncio.get_running_loop().create_future())
                await gates[-1]
            await asyncio.sleep(0)
        done.append(message.get("bytes"))

    playing = asyncio.ensure_future(play(RpcEndpoint(hall), send=send, until=end))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    connection = hall.guests[0].connection
    for frame in (b"1", b"22", b"333"):
        connection.send(frame)
    assert len(gates) == 1
    for index, left in ((0, 6), (1, 6), (2, 5), (3, 5), (4, 3), (5, 3)):
        await eventually(lambda index=index: len(gates) > index)
        assert connection.buffered == left
        gates[index].set_result(None)
    await eventually(lambda: connection.buffered == 0)
    assert done == [None, b"1", b"22", b"333"]
    end.set()
    await playing


@pytest.mark.parametrize("waits", [False, True])
async def test_a_send_that_fails_ends_the_connection(waits: bool) -> None:
    hall = Hall()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            if waits:
                await asyncio.sleep(0)
            raise BrokenPipeError("gone")

    playing = asyncio.ensure_future(play(RpcEndpoint(hall), send=send, until=asyncio.Event()))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    hall.guests[0].connection.send(b"x")
    hall.guests[0].connection.send(b"y")
    assert isinstance(await hall.guests[0].lost(), BrokenPipeError)
    await playing
    await hall.guests[0].connection.wait_closed()


async def test_a_failure_of_what_a_send_waits_for_reaches_that_send() -> None:
    hall = Hall()
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[BaseException] = []

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            try:
                await gate
            except OSError as error:
                seen.append(error)

    end = asyncio.Event()
    playing = asyncio.ensure_future(play(RpcEndpoint(hall), send=send, until=end))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    connection = hall.guests[0].connection
    connection.send(b"x")
    gate.set_exception(BrokenPipeError())
    await eventually(lambda: seen)
    await eventually(lambda: connection.buffered == 0)
    assert hall.guests[0].errors == []
    end.set()
    await playing


async def test_a_send_may_be_any_awaitable() -> None:
    class Done:
        def __await__(self) -> Generator[None, None, None]:
            yield from ()

    hall = Hall(lambda: Party(echoes=True))
    sent: list[Any] = []

    def send(message: Any) -> Done:
        sent.append(message)
        return Done()

    await play(
        RpcEndpoint(hall), send=send, messages=[{"type": "websocket.receive", "bytes": b"x"}]
    )
    assert sent[-1] == {"type": "websocket.send", "bytes": b"x"}


@pytest.mark.parametrize("succeeds", [True, False])
async def test_a_send_may_wait_in_an_iterator_that_is_no_coroutine(succeeds: bool) -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Native:
        def __await__(self) -> Native:
            return self

        def __iter__(self) -> Native:
            return self

        def __next__(self) -> Any:
            if gate.done():
                raise StopIteration
            gate._asyncio_future_blocking = True
            return gate

    hall = Hall()

    def send(message: Any) -> Any:
        return Native() if message["type"] == "websocket.send" else asyncio.sleep(0)

    end = asyncio.Event()
    playing = asyncio.ensure_future(play(RpcEndpoint(hall), send=send, until=end))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    connection = hall.guests[0].connection
    connection.send(b"x")
    assert connection.buffered == 1
    if succeeds:
        gate.set_result(None)
        await eventually(lambda: connection.buffered == 0)
        assert hall.guests[0].errors == []
        end.set()
    else:
        gate.set_exception(BrokenPipeError())
        assert isinstance(await hall.guests[0].lost(), BrokenPipeError)
    await playing


async def test_a_server_that_cancels_the_application_is_obeyed() -> None:
    hall = Hall()
    playing = asyncio.ensure_future(play(RpcEndpoint(hall), until=asyncio.Event()))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert isinstance(await hall.guests[0].lost(), ConnectionClosedError)
    await hall.guests[0].connection.wait_closed()


async def test_an_own_close_ends_the_application_of_a_server_that_says_nothing() -> None:
    hall = Hall()
    playing = asyncio.ensure_future(play(RpcEndpoint(hall), until=asyncio.Event()))
    await eventually(lambda: hall.guests and hall.guests[0]._connection)
    hall.guests[0].connection.close(4000, "enough")
    async with asyncio.timeout(PATIENCE):
        sent = await playing
    assert sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "enough"}
    assert not playing.cancelled()


async def test_other_kinds_of_scope_are_refused() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        await RpcEndpoint(Hall())({"type": "lifespan"}, asyncio.sleep, asyncio.sleep)  # type: ignore[arg-type]


async def test_proofs_and_sessions_are_not_logged(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hall = Hall()
    query = "clientId=me&f=json5&c=1&p=topsecret&session=topsecret"
    async with served(hall, ws) as url:
        async with connect(f"{url}?{query}"):
            pass
        hall.refusal = RejectedError("no", 403)
        await refusal_of(f"{url}?{query}")
        await refusal_of(f"{url}?{query}", origin="https://evil.example")
    assert hall.requests[0]["details"].parameters["session"] == "topsecret"
    told = [record.getMessage() for record in caplog.records if not record.name.startswith("webso")]
    assert any("clientId=me&f=json5" in text for text in told)
    assert any("refused" in text for text in told)
    assert not any("topsecret" in text for text in told)


async def test_a_refused_client_can_not_forge_lines_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "afresh")
    endpoint = RpcEndpoint(Hall(), formats=["json5"])
    await play(endpoint, query="clientId=me&f=x%0AERROR+all+is+lost" + "x" * 10_000)
    await play(endpoint, headers=[(b"origin", b"x\nERROR all is lost" + b"x" * 10_000)])
    assert len(caplog.records) == 2
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert all(len(record.getMessage()) < 300 for record in caplog.records)


@pytest.mark.parametrize("error", [BrokenPipeError, asyncio.CancelledError])
async def test_the_receiver_learns_that_the_client_left_before_it_was_accepted(
    error: type[BaseException],
) -> None:
    hall = Hall(Unconnected)

    async def send(message: Any) -> None:
        raise error

    with pytest.raises(error):
        await play(RpcEndpoint(hall), send=send)
    assert len(hall.guests[0].errors) == 1
