"""A connection that is cut at any byte, or a server that is restarted at any moment: everything
ends as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable
from typing import Self

import pytest

from afresh.primitives.delays import RetryDelays
from afresh.remote import ComputeCalls
from afresh.rpc.hub import RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.rpc.transports.connection import Connection, Connector, ConnectRequest, Receiver
from afresh.rpc.transports.memory import MemoryConnector, MemoryLink
from afresh.rpc.transports.unix import TcpConnector
from afresh.rpc.transports.unix_server import serve_tcp
from afresh.rpc.transports.websocket import WebSocketConnector
from afresh.testing import FakeClock
from tests.remote.scenario import Scenario, leftovers
from tests.rpc.pair import Pair, until
from tests.rpc.transports.conftest import DIRECT
from tests.rpc.transports.parties import serving

ENOUGH = 10**9
HURRIED = Limits(reconnect_delays=RetryDelays.fixed(0.001, spread=0))


@contextlib.asynccontextmanager
async def undisturbed(format: str) -> AsyncIterator[tuple[Pair, Scenario]]:
    pair = Pair(format, kinds=(ComputeCalls(),), client={"limits": HURRIED})
    yield pair, Scenario(pair.server)
    await pair.aclose()


async def bytes_sent(format: str, way: str) -> int:
    """How many bytes go one way, with lengths, when nothing is disturbed."""
    total = 0

    def count(frame: bytes) -> list[bytes]:
        nonlocal total
        total += 4 + len(frame)
        return [frame]

    async with undisturbed(format) as (pair, scenario):
        disturb_next_link(pair, lambda link: setattr(getattr(link, way), "alter", count))
        await scenario.run(pair.peer)
    return total


def disturb_next_link(pair: Pair, disturb: Callable[[MemoryLink], object]) -> None:
    """Let the next connection be a bad one."""
    done = False

    async def dial_badly(receiver: Receiver, request: ConnectRequest) -> Connection:
        nonlocal done
        connection = await pair.connector(receiver, request)
        if not done:
            done = True
            disturb(pair.connector.links[-1])
        return connection

    pair.peer._connector = dial_badly


@pytest.mark.parametrize("way", ["to_server", "to_client"])
@pytest.mark.parametrize(("format", "step"), [("msgpack6c", 1), ("json5np", 11)])
async def test_a_connection_cut_at_any_byte_changes_no_result(
    format: str, step: int, way: str
) -> None:
    total = await bytes_sent(format, way)
    sizes = range(0, total, step)
    cuts = 0
    for size in sizes:
        async with undisturbed(format) as (pair, scenario):

            def cut(link: MemoryLink, size: int = size) -> None:
                getattr(link, way).cut_after(size)

            disturb_next_link(pair, cut)
            async with asyncio.timeout(20):
                await scenario.run(pair.peer)
            cuts += pair.connector.attempts - 1
            assert 1 <= scenario.workshop.runs["long"] <= 2
            assert leftovers(*pair.client.peers, *pair.server.peers) == []
    assert 0.95 * len(sizes) < cuts <= len(sizes)


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_a_client_that_comes_back_before_its_loss_is_noticed_goes_on(way: str) -> None:
    for count in itertools.count():
        async with undisturbed("msgpack6c") as (pair, scenario):
            frames = 0

            def lose(link: MemoryLink, count: int = count) -> None:
                def pass_on(frame: bytes) -> list[bytes]:
                    nonlocal frames
                    frames += 1
                    if frames == count:
                        link.client.lose()
                    return [frame]

                getattr(link, way).alter = pass_on

            disturb_next_link(pair, lose)
            async with asyncio.timeout(20):
                await scenario.run(pair.peer)
            assert scenario.workshop.runs["long"] <= 2
            assert leftovers(*pair.client.peers, *pair.server.peers) == []
            assert len(pair.server.peers) == 1
        if count > frames:
            break
    assert count > 8


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_a_server_that_loses_a_client_which_does_not_notice_is_found_out(
    clock: FakeClock, way: str
) -> None:
    for count in range(1, 9):
        async with undisturbed("msgpack6c") as (pair, scenario):
            frames = 0

            def lose(link: MemoryLink, count: int = count) -> None:
                def pass_on(frame: bytes) -> list[bytes]:
                    nonlocal frames
                    frames += 1
                    if frames == count:
                        link.server.lose()
                    return [frame]

                getattr(link, way).alter = pass_on

            disturb_next_link(pair, lose)
            run = asyncio.create_task(scenario.run(pair.peer))
            waited = 0
            while not run.done():
                await clock.advance(1)
                waited += 1
                assert waited < 60
            await run
            assert leftovers(*pair.client.peers, *pair.server.peers) == []


async def test_a_server_that_is_restarted_at_any_moment_changes_no_result() -> None:
    for moment in range(60):
        async with undisturbed("msgpack6c") as (pair, scenario):
            run = asyncio.create_task(scenario.run(pair.peer))
            for _ in range(moment):
                await asyncio.sleep(0)
            await pair.restart_server()
            async with asyncio.timeout(20):
                await run
            assert scenario.workshop.runs["long"] <= 2
            assert leftovers(*pair.client.peers, *pair.server.peers) == []


async def test_a_server_that_is_restarted_all_the_time_is_used_in_the_end() -> None:
    async with undisturbed("msgpack6c") as (pair, scenario):
        run = asyncio.create_task(scenario.run(pair.peer))
        for moment in range(100):
            for _ in range(moment):
                await asyncio.sleep(0)
            if run.done():
                break
            await pair.restart_server()
        async with asyncio.timeout(20):
            await run
        assert moment > 5
        assert leftovers(*pair.client.peers, *pair.server.peers) == []


@pytest.mark.parametrize("require_proof", [False, True])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_client_that_missed_the_servers_introduction_gets_in_again(
    require_proof: bool, is_restarted: bool
) -> None:
    async with undisturbed("msgpack6c") as (pair, scenario):
        pair.connector = MemoryConnector(pair.server, require_proof=require_proof)
        if is_restarted:
            await pair.peer.connect()
            await pair.restart_server()
            await until(lambda: not pair.peer.is_connected)
        disturb_next_link(pair, lambda link: link.to_client.cut_after(50))
        async with asyncio.timeout(20):
            await scenario.run(pair.peer)
        assert leftovers(*pair.client.peers) == []


# -- over real sockets


class Cutter:
    """A TCP proxy whose first connection is cut when so many bytes have passed one way."""

    def __init__(self, port: int, way: str, size: int) -> None:
        self._target = port
        self._way = way
        self._room = size
        self._tasks: set[asyncio.Task[None]] = set()
        self.passed = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_first = self.connections == 1
        there = await asyncio.open_connection("127.0.0.1", self._target)
        ways = {"to_server": (reader, there[1]), "to_client": (there[0], writer)}
        both = (writer, there[1])
        for way, (source, target) in ways.items():
            bounded = is_first and way == self._way
            task = asyncio.create_task(self._pump(source, target, both, bounded=bounded))
            self._tasks.add(task)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        bounded: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                if bounded:
                    data = data[: self._room - self.passed]
                    self.passed += len(data)
                target.write(data)
                if bounded and self.passed >= self._room:
                    break
        for writer in both:
            with contextlib.suppress(OSError):
                writer.close()
                await writer.wait_closed()


@pytest.mark.parametrize("way", ["to_server", "to_client"])
@pytest.mark.parametrize("transport", ["websocket", "socket"])
async def test_a_real_connection_cut_at_any_byte_changes_no_result(
    transport: str, way: str
) -> None:
    total = await cut_after(ENOUGH, way, transport)
    step = 1 if os.environ.get("AFRESH_SOAK") else 3
    for size in range(1, total, step):
        await cut_after(size, way, transport)


async def cut_after(size: int, way: str, transport: str) -> int:
    """Run the scenario over a connection that is cut, and return how many bytes went that way."""
    hub = RpcHub(kinds=(ComputeCalls(),))
    scenario = Scenario(hub)
    async with contextlib.AsyncExitStack() as stack:
        if transport == "websocket":
            port = await stack.enter_async_context(serving(RpcEndpoint(hub), DIRECT))
        else:
            server = await serve_tcp(hub)
            stack.push_async_callback(server.close)
            port = server.port
        cutter = await stack.enter_async_context(Cutter(port, way, size))
        connector: Connector = (
            WebSocketConnector(f"ws://127.0.0.1:{cutter.port}/rpc/ws")
            if transport == "websocket"
            else TcpConnector("127.0.0.1", cutter.port)
        )
        client = RpcHub(kinds=(ComputeCalls(),), limits=HURRIED)
        peer = client.client_peer("somewhere", connector=connector)
        async with asyncio.timeout(20):
            await scenario.run(peer)
        assert leftovers(peer, *hub.peers) == []
        assert cutter.connections <= 2
        await client.aclose()
        await hub.aclose()
    return cutter.passed
