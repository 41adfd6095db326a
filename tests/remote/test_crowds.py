"""Many clients at once: they all lose their server, and all come back."""

import asyncio

from afresh.remote import ComputeCalls
from afresh.rpc import Limits, RpcHub
from afresh.rpc.transports.memory import MemoryConnector
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import until

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
