"""The interop server does for clients written in other languages what they are used to.

What the reference's TypeScript client sent in recorded conversations is sent again, word for word,
and its end-to-end scenarios are gone through by a client that does what it does. All of that is
made of bare WebSocket frames.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.asyncio.client import ClientConnection, connect

from .interop.client import Client, RemoteFailure, StreamLost, soon
from .interop.process import serving
from .interop.wire import Message, wire_of

VECTORS = Path(__file__).parent / "vectors"
CONVERSATIONS: list[dict[str, Any]] = json.loads((VECTORS / "transcripts.json").read_text())[
    "conversations"
]

BASIC = "ITypeScriptTestService"
COUNTERS = "ITypeScriptTestComputeService"
SLOW_COMPUTE = "IReconnectMatrixTester"
SLOW = "IReconnectMatrixRpcTester"

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(params=["json5", "json5np", "msgpack6", "msgpack6c"])
async def client(server: str, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with Client(server, request.param) as client:
        yield client


TWO_FORMATS = pytest.mark.parametrize("client", ["json5", "msgpack6c"], indirect=True)


@pytest.fixture
def key() -> int:
    """The server is shared, so each test has counters of its own."""
    return next(numbers)


# -- recorded conversations


class Replay:
    """Sends what a recorded client sent, and waits for what its server said.

    What counts of an answer is what it says; every server has its own ids, its own words for
    errors, and sends the items of a stream in portions as it likes.
    """

    def __init__(self, url: str, conversation: dict[str, Any]) -> None:
        self.url = url
        self.wire = wire_of(conversation["format"])
        self.hosts: dict[str, str] = {}
        """What owns streams: the id in the recording, and the one of today."""
        self.socket: ClientConnection | None = None
        self.heard: list[tuple[Any, ...]] = []
        self.left_streams: set[int] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.socket is not None:
            await self.socket.close()

    async def play(self, frame: dict[str, Any]) -> None:
        recorded = frame["text"] if "text" in frame else bytes.fromhex(frame.get("hex", ""))
        if frame["dir"] == "open":
            query = "&".join(f"{name}={value}" for name, value in frame["query"].items())
            self.socket = await connect(f"{self.url}?{query}", compression=None, proxy=None)
        elif frame["dir"] == "close":
            assert self.socket is not None
            await self.socket.close()
        elif frame["dir"] == "c2s":
            await self.say(recorded)
        else:
            await self.hear(recorded)

    async def say(self, recorded: str | bytes) -> None:
        for message in self.wire.decode(recorded):
            if message.method == "$sys.AckEnd:1":
                self.left_streams.add(message.related_id)
        for then, now in self.hosts.items():
            recorded = (
                recorded.replace(then, now)
                if isinstance(recorded, str)
                else recorded.replace(then.encode(), now.encode())
            )
        assert self.socket is not None
        await self.socket.send(recorded)

    async def hear(self, recorded: str | bytes) -> None:
        assert self.socket is not None
        for message in self.wire.decode(recorded):
            if message.method == "$sys.Handshake:1":
                answer = self.wire.decode(await soon(self.socket.recv()))
                assert [each.method for each in answer] == ["$sys.Handshake:1"]
                then, now = _members(message.arguments[0]), _members(answer[0].arguments[0])
                self.hosts = {then[2]: now[0]}
                assert now[3:5] == then[3:5]
                continue
            for fact in _facts(message):
                if fact[0] == "item" and fact[1] in self.left_streams:
                    continue  # whether it was still under way is chance
                while fact not in self.heard:
                    frame = await soon(self.socket.recv())
                    for each in self.wire.decode(frame):
                        self.heard += _facts(each)
                self.heard.remove(fact)

    def nothing_is_left(self) -> bool:
        """Whether the server said nothing but what was to be expected."""
        return all(
            kind in {"item", "end"} and stream in self.left_streams
            for kind, stream, *_ in self.heard
        )


def _members(handshake: Any) -> list[Any]:
    return list(handshake.values()) if isinstance(handshake, dict) else handshake


def _facts(message: Message) -> list[tuple[Any, ...]]:
    method, number, arguments, call_type = message
    assert call_type == 0
    match method, arguments:
        case "$sys.KeepAlive:1", _:
            return []
        case "$sys.Ok:1", [] | [None] | [{}]:
            return [("nothing", number)]
        case "$sys.Ok:1", [{"SerializedId": [_, local_id]}]:
            return [("stream", number, local_id)]
        case "$sys.Ok:1", [str(text)] if text.count(",") == 5:
            return [("stream", number, int(text.split(",")[1]))]
        case "$sys.Ok:1", [value]:
            return [("result", number, value)]
        case "$sys.Error:1", [_]:
            return [("error", number)]
        case "$sys.I:2", [index, item]:
            return [("item", number, index, item)]
        case "$sys.B:2", [first, items]:
            return [("item", number, index, item) for index, item in enumerate(items, first)]
        case "$sys.End:2", [index, info]:
            assert not any(info.values())
            return [("end", number, index)]
        case "$sys-c.Invalidate:0", []:
            return [("stale", number)]
    raise AssertionError(message)


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda each: each["format"])
async def test_a_recorded_conversation_goes_as_it_went(
    server: str, conversation: dict[str, Any]
) -> None:
    async with Replay(server, conversation) as replay:
        for step in conversation["steps"]:
            for frame in step["frames"]:
                await replay.play(frame)
    assert replay.nothing_is_left(), replay.heard


# -- scenarios: calls


async def test_basic_types(client: Client) -> None:
    assert await client.ask(f"{BASIC}.Add:2", 3, 5) == 8
    assert await client.ask(f"{BASIC}.Add:2", -1, 1) == 0
    assert await client.ask(f"{BASIC}.Greet:1", "World") == "Hello, World!"
    assert await client.ask(f"{BASIC}.Negate:1", True) is False
    assert await client.ask(f"{BASIC}.Divide:2", 10, 3) == pytest.approx(10 / 3)
    assert await client.ask(f"{BASIC}.Divide:2", 10.0, 4.0) == 2.5
    assert await client.ask(f"{BASIC}.Echo:1", None) is None
    assert await client.ask(f"{BASIC}.Echo:1", "Grüße, 世界") == "Grüße, 世界"
    assert await client.ask(f"{COUNTERS}.Add:3", 1, 2) == 3


async def test_overloads_are_told_apart_by_the_number_of_arguments(client: Client) -> None:
    assert await client.ask(f"{BASIC}.Add:2", 10, 20) == 30
    assert await client.ask(f"{BASIC}.Add:3", 10, 20, 30) == 60


async def test_errors_arrive_with_their_type_and_their_text(client: Client) -> None:
    with pytest.raises(RemoteFailure) as raised:
        await client.ask(f"{BASIC}.Throw:1", "boom, as it were")
    assert str(raised.value) == "boom, as it were"
    assert raised.value.type_ref.split(",")[0] == "System.InvalidOperationException"


async def test_unknown_methods_are_errors_by_their_name(client: Client) -> None:
    with pytest.raises(RemoteFailure, match="Endpoint not found") as raised:
        await client.ask("INope.Nope:1", "x")
    assert raised.value.type_ref == "ActualLab.Rpc.RpcException, ActualLab.Rpc"
    with pytest.raises(RemoteFailure, match="Endpoint not found"):
        await client.ask(f"{BASIC}.Add:4", 1, 2, 3, 4)


async def test_a_change_is_told_to_those_who_hold_the_result(client: Client, key: int) -> None:
    await client.ask(f"{COUNTERS}.Set:3", str(key), 42)
    counter = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await counter.result() == 42
    await client.ask(f"{COUNTERS}.Increment:2", str(key))
    await counter.invalidated()
    counter = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await counter.result() == 43
    assert await client.ask(f"{COUNTERS}.GetCounter:2", str(key)) == 43
    value = client.call(f"{COUNTERS}.GetValue:2", key, is_compute=True)
    assert await value.result() == key


async def test_nobody_is_told_of_what_he_gave_up(client: Client, key: int) -> None:
    counter = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await counter.result() == 0
    await client.tell("$sys.Cancel:0", counter.number)
    await client.ask(f"{COUNTERS}.Increment:2", str(key))
    assert await client.ask(f"{COUNTERS}.GetCounterNonCompute:2", str(key)) == 1
    assert not counter.stale.done()


# -- scenarios: streams


@pytest.mark.parametrize("method", ["StreamInt32:1", "StreamInt32NoReconnect:1"])
@pytest.mark.parametrize("count", [0, 5, 5000])
async def test_streams_come_whole(client: Client, method: str, count: int) -> None:
    items = [item async for item in client.stream(f"{COUNTERS}.{method}", count)]
    assert items == list(range(count))


async def test_a_stream_that_may_not_reconnect_ends_with_the_connection(client: Client) -> None:
    items = client.stream(f"{COUNTERS}.StreamInt32NoReconnect:1", 100_000)
    received = [await anext(items)]
    await client.disconnect()
    with pytest.raises(StreamLost, match="disconnected"):
        await read_on(items, received)
    assert received == list(range(len(received)))
    assert 0 < len(received) < 100_000
    await client.connect()
    assert await client.ask(f"{BASIC}.Add:2", 3, 5) == 8


async def read_on(items: AsyncIterator[int], received: list[int]) -> None:
    async for item in items:
        received.append(item)  # noqa: PERF401 - a comprehension would lose them all in the end


# -- scenarios: connections that come and go


async def test_a_client_that_comes_back_finds_everything_in_place(client: Client, key: int) -> None:
    await client.ask(f"{COUNTERS}.Set:3", str(key), 100)
    held = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await held.result() == 100
    server_id = client.server_id
    await client.disconnect()
    await client.connect()
    assert client.server_id == server_id
    await held.invalidated(1)
    assert await client.ask(f"{BASIC}.Add:2", 10, 20) == 30
    again = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await again.result() == 100
    await client.ask(f"{COUNTERS}.Increment:2", str(key))
    await again.invalidated()
    assert await client.ask(f"{COUNTERS}.GetCounter:2", str(key)) == 101


@TWO_FORMATS
async def test_a_call_in_progress_is_not_made_twice(client: Client) -> None:
    await client.ask(f"{BASIC}.ResetSlowEchoCounter:0")
    assert await client.ask(f"{BASIC}.GetSlowEchoInvocationCount:0") == 0
    slow = client.call(f"{BASIC}.SlowEcho:2", "hello", 600)
    await until_counted(client, f"{BASIC}.GetSlowEchoInvocationCount:0")
    await client.disconnect()
    await client.connect()
    assert not slow.answer.done()
    assert await slow.result() == "hello"
    assert await client.ask(f"{BASIC}.GetSlowEchoInvocationCount:0") == 1


async def test_many_lost_connections_lose_no_change(client: Client, key: int) -> None:
    await client.ask(f"{COUNTERS}.Set:3", str(key), 0)
    for number in range(1, 21):
        change = client.call(f"{COUNTERS}.Increment:2", str(key))
        if number % 3 == 0:  # whether it came through is chance; then it is made again
            await client.disconnect()
            await client.connect()
        await change.result()
    value = await client.ask(f"{COUNTERS}.GetCounterNonCompute:2", str(key))
    assert 20 <= value <= 26
    counter = client.call(f"{COUNTERS}.GetCounter:2", str(key), is_compute=True)
    assert await counter.result() == value


@pytest.mark.parametrize("format_key", ["json5", "msgpack6c"])
async def test_a_server_that_restarts_has_forgotten_everything(format_key: str) -> None:
    with serving() as url:
        async with Client(url, format_key) as client:
            await client.ask(f"{COUNTERS}.Set:3", "k", 42)
            held = client.call(f"{COUNTERS}.GetCounter:2", "k", is_compute=True)
            assert await held.result() == 42
            server_id = client.server_id
            await client.tell("IServerControlService.RequestRestart:0", 0)
            await client.disconnected()
            await client.connect()
            assert client.server_id != server_id
            await held.invalidated(1)
            held = client.call(f"{COUNTERS}.GetCounter:2", "k", is_compute=True)
            assert await held.result() == 0
            await client.ask(f"{COUNTERS}.Set:3", "k", 99)
            await held.invalidated()
            assert await client.ask(f"{COUNTERS}.GetCounter:2", "k") == 99


# -- the matrix: what a call is up to when the connection goes, and when it is back


def compute(client: Client, key: int, delay: int, invalidation_delay: int) -> Any:
    return client.call(f"{SLOW_COMPUTE}.Compute:4", key, delay, invalidation_delay, is_compute=True)


async def computations(client: Client, key: int) -> Any:
    return await client.ask(f"{SLOW_COMPUTE}.GetComputeInvocationCount:2", key)


async def invocations(client: Client, key: int) -> Any:
    return await client.ask(f"{SLOW}.GetInvocationCount:2", key)


async def until_counted(client: Client, method: str, *arguments: Any) -> None:
    """Wait until the server has counted one, so that nothing depends on its speed."""
    async with asyncio.timeout(10):
        while await client.ask(method, *arguments) == 0:
            await asyncio.sleep(0.01)


@TWO_FORMATS
async def test_f1_a_compute_call_queued_while_offline(client: Client, key: int) -> None:
    await client.disconnect()
    call = compute(client, key, 100, 100)
    await client.connect()
    assert await call.result() == key
    assert await computations(client, key) == 1


@TWO_FORMATS
async def test_f2_a_compute_call_that_runs_while_the_connection_bounces(
    client: Client, key: int
) -> None:
    call = compute(client, key, 600, 60_000)
    await until_counted(client, f"{SLOW_COMPUTE}.GetComputeInvocationCount:2", key)
    await client.disconnect()
    await client.connect()
    assert not call.answer.done()
    assert await call.result() == key
    assert await computations(client, key) == 1


@TWO_FORMATS
async def test_f3_a_compute_call_that_ends_during_the_outage(client: Client, key: int) -> None:
    call = compute(client, key, 100, 1000)
    await until_counted(client, f"{SLOW_COMPUTE}.GetComputeInvocationCount:2", key)
    await client.disconnect()
    await asyncio.sleep(0.2)
    await client.connect()
    assert await call.result() == key
    assert not call.stale.done()
    await call.invalidated()
    assert await computations(client, key) == 1


@TWO_FORMATS
async def test_f4_a_compute_call_that_ends_and_goes_stale_during_the_outage(
    client: Client, key: int
) -> None:
    call = compute(client, key, 50, 50)
    await until_counted(client, f"{SLOW_COMPUTE}.GetComputeInvocationCount:2", key)
    await client.disconnect()
    await asyncio.sleep(0.3)
    await client.connect()
    assert await call.result() == key
    await call.invalidated()
    assert await computations(client, key) == 2


@TWO_FORMATS
async def test_f5_a_result_that_is_held_while_the_connection_bounces(
    client: Client, key: int
) -> None:
    call = compute(client, key, 10, 60_000)
    assert await call.result() == key
    await client.disconnect()
    await client.connect()
    await call.invalidated()
    assert await compute(client, key, 10, 60_000).result() == key
    assert await computations(client, key) == 1


@TWO_FORMATS
async def test_f6_a_result_that_goes_stale_during_the_outage(client: Client, key: int) -> None:
    call = compute(client, key, 10, 100)
    assert await call.result() == key
    await client.disconnect()
    await asyncio.sleep(0.2)
    await client.connect()
    await call.invalidated()
    assert await client.ask(f"{SLOW_COMPUTE}.GetInvalidationCount:2", key) == 1


@TWO_FORMATS
async def test_r1_a_call_queued_while_offline(client: Client, key: int) -> None:
    await client.disconnect()
    call = client.call(f"{SLOW}.Rpc:3", key, 50)
    await client.connect()
    assert await call.result() == key
    assert await invocations(client, key) == 1


@TWO_FORMATS
async def test_r2_a_call_that_runs_while_the_connection_bounces(client: Client, key: int) -> None:
    call = client.call(f"{SLOW}.Rpc:3", key, 600)
    await until_counted(client, f"{SLOW}.GetInvocationCount:2", key)
    await client.disconnect()
    await client.connect()
    assert not call.answer.done()
    assert await call.result() == key
    assert await invocations(client, key) == 1


@TWO_FORMATS
async def test_r3_a_call_that_ends_during_the_outage_is_made_again(
    client: Client, key: int
) -> None:
    call = client.call(f"{SLOW}.Rpc:3", key, 50)
    await until_counted(client, f"{SLOW}.GetInvocationCount:2", key)
    await client.disconnect()
    await asyncio.sleep(0.2)
    await client.connect()
    assert await call.result() == key
    assert await invocations(client, key) == 2
