"""Many clients at once: they all lose their server, and all come back."""

import asyncio
import contextlib

import pytest

from afresh.errors import DisconnectedError
from afresh.primitives.delays import RetryDelays
from afresh.remote import ComputeCalls
from afresh.rpc import Limits, RpcHub
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.rpc.transports.connection import Connector
from afresh.rpc.transports.memory import MemoryConnector
from afresh.rpc.transports.unix import TcpConnector
from afresh.rpc.transports.unix_server import serve_tcp
from afresh.rpc.transports.websocket import WebSocketConnector
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import until
from tests.rpc.transports.conftest import DIRECT
from tests.rpc.transports.parties import eventually, serving

CLIENTS = 1000


async def test_a_thousand_clients_reconnect_at_once_and_miss_nothing() -> None:
    there = MemoryCounters()
    server = RpcHub(kinds=(ComputeCalls(),))
    server.serve(Counters, there)  # type: ignore[type-abstract]
    hubs = [RpcHub(kinds=(ComputeCalls(),), limits=Limits()) for _ in range(CLIENTS)]
    connectors = [MemoryConnector(server) for _ in hubs]
    peers = [
        hub.client_peer("memory:server", connector=connector)
        for hub, connector in zip(hubs, connectors, strict=True)
    ]
    services = [peer.service(Counters) for peer in peers]  # type: ignore[type-abstract]
    nodes = await asyncio.gather(*(service.get.capture("a") for service in services))
    others = await asyncio.gather(*(service.get.capture("b") for service in services))
    assert there.computed == ["a", "b"]
    for connector in connectors:
        connector.links[-1].drop()
    await there.set("a", 1)
    await until(lambda: not any(peer.is_connected for peer in peers))
    for peer in peers:
        peer.reconnect_now()
    await asyncio.gather(*(peer.connect() for peer in peers))
    await asyncio.gather(*(node.when_invalidated() for node in nodes))
    assert set(await asyncio.gather(*(service.get("a") for service in services))) == {1}
    assert all(node.is_consistent for node in others)
    assert there.computed == ["a", "b", "a"], "a thousand questions, and one computation"
    assert sum(len(peer.inbound) for peer in server.peers) == 2 * CLIENTS
    for hub in hubs:
        await hub.aclose()
    await until(lambda: not server.peers)
    await server.aclose()


@pytest.mark.parametrize("transport", ["websocket", "socket"])
async def test_two_hundred_clients_reconnect_at_once_over_real_sockets(transport: str) -> None:
    there = MemoryCounters()
    server = RpcHub(kinds=(ComputeCalls(),))
    server.serve(Counters, there)  # type: ignore[type-abstract]
    quickly = Limits(reconnect_delays=RetryDelays.fixed(0.001))
    hubs = [RpcHub(kinds=(ComputeCalls(),), limits=quickly) for _ in range(200)]
    async with contextlib.AsyncExitStack() as stack:
        if transport == "websocket":
            port = await stack.enter_async_context(serving(RpcEndpoint(server), DIRECT))
            connector: Connector = WebSocketConnector(f"ws://127.0.0.1:{port}/rpc/ws")
        else:
            listener = await serve_tcp(server)
            stack.push_async_callback(listener.close)
            connector = TcpConnector("127.0.0.1", listener.port)
        peers = [hub.client_peer("server", connector=connector) for hub in hubs]
        services = [peer.service(Counters) for peer in peers]  # type: ignore[type-abstract]
        nodes = await asyncio.gather(*(service.get.capture("a") for service in services))
        for server_peer in server.peers:
            assert server_peer.link is not None
            server_peer.link.close(DisconnectedError("all at once"))
        await there.set("a", 1)
        async with asyncio.timeout(20):
            await asyncio.gather(*(node.when_invalidated() for node in nodes))
            values = await asyncio.gather(*(service.get("a") for service in services))
        assert set(values) == {1}
        assert len(server.peers) == 200
        assert sum(len(peer.inbound) for peer in server.peers) == 200
        await asyncio.gather(*(hub.aclose() for hub in hubs))
        await eventually(lambda: not server.peers)
        await server.aclose()
