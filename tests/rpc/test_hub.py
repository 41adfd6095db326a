"""Hubs: what they serve, whom they know, and how they end."""

import asyncio
from abc import ABC, abstractmethod

import pytest

from afresh.errors import (
    DefinitionError,
    EndpointNotFoundError,
    InvalidStateError,
    PeerClosedError,
    UnknownFormatError,
)
from afresh.rpc import DOTNET, Limits, RpcHub, current_peer, rpc_service
from afresh.rpc.transports.memory import MemoryConnector
from afresh.testing import FakeClock
from tests.rpc.pair import URL, Pair, until


class Greeter(ABC):
    @abstractmethod
    async def greet(self, name: str) -> str: ...


class English(Greeter):
    async def greet(self, name: str) -> str:
        return f"Hello, {name}!"


@rpc_service(backend=True)
class Vault(ABC):
    @abstractmethod
    async def open(self) -> str: ...


class Steel(Vault):
    async def open(self) -> str:
        return "open"


async def test_two_implementations_of_one_contract_need_two_names(pair: Pair) -> None:
    english, other = English(), English()
    pair.server.serve(Greeter, english)
    pair.server.serve(Greeter, english)
    with pytest.raises(DefinitionError, match="name="):
        pair.server.serve(Greeter, other)
    pair.server.serve(Greeter, other, name="Second")
    assert await pair.peer.service(Greeter, name="Second").greet("you") == "Hello, you!"
    assert [service.wire_name for service in pair.server.services] == ["Greeter", "Second"]


async def test_what_is_served_later_can_be_called_at_once(pair: Pair) -> None:
    greeter = pair.peer.service(Greeter)
    with pytest.raises(EndpointNotFoundError):
        await greeter.greet("you")
    pair.server.serve(Greeter, English())
    assert await greeter.greet("you") == "Hello, you!"


async def test_backend_services_are_served_to_backend_peers_only() -> None:
    server = RpcHub()
    server.serve(Vault, Steel())
    client = RpcHub()
    outside = client.client_peer("memory:outside", connector=MemoryConnector(server))
    inside = client.client_peer("memory:inside", connector=MemoryConnector(server, is_backend=True))
    with pytest.raises(EndpointNotFoundError):
        await outside.service(Vault).open()
    assert await inside.service(Vault).open() == "open"
    await client.aclose()
    await server.aclose()


async def test_names_follow_the_policy_of_the_hub() -> None:
    pair = Pair("json5np", naming=DOTNET, client={"naming": DOTNET})
    greeter = pair.service(Greeter, English())
    assert await greeter.greet("you") == "Hello, you!"
    assert "IGreeter.Greet:2" in pair.server.describe(Greeter).endpoints
    await pair.aclose()


async def test_one_peer_and_one_service_for_one_address(pair: Pair) -> None:
    assert pair.peer is pair.client.client_peer(URL)
    assert pair.peer.service(Greeter) is pair.peer.service(Greeter)
    assert "Greeter" in repr(pair.peer.service(Greeter))


async def test_an_address_that_nothing_dials_is_refused() -> None:
    hub = RpcHub()
    with pytest.raises(ValueError, match="ws://"):
        hub.client_peer("gopher://server")
    with pytest.raises(UnknownFormatError):
        hub.client_peer("ws://server/rpc/ws", format="morse")


async def test_a_full_server_takes_a_client_when_another_has_gone(clock: FakeClock) -> None:
    server = RpcHub(limits=Limits(max_peers=1))
    clients = [RpcHub(), RpcHub()]
    first = clients[0].client_peer(URL, connector=MemoryConnector(server))
    await first.connect()
    second = clients[1].client_peer(URL, connector=MemoryConnector(server))
    second.wanted()
    await until(lambda: second.connection_state.error)
    assert "as many clients" in str(second.connection_state.error)
    assert not second.is_closed
    first.close()
    await clock.advance(5)
    assert second.is_connected
    assert len(server.peers) == 1
    for hub in (*clients, server):
        await hub.aclose()


async def test_a_closed_hub_makes_no_peers_and_takes_none() -> None:
    pair = Pair()
    pair.service(Greeter, English())
    await pair.peer.connect()
    peer = pair.peer
    await pair.server.aclose()
    await pair.client.aclose()
    assert peer.is_closed
    with pytest.raises(PeerClosedError):
        pair.client.client_peer(URL)


async def test_closing_a_hub_ends_what_runs_for_others() -> None:
    ended: list[str] = []
    started = asyncio.Event()

    class Slow(English):
        async def greet(self, name: str) -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)
            return name

    pair = Pair()
    call = asyncio.create_task(pair.service(Greeter, Slow()).greet("you"))
    await started.wait()
    await pair.server.aclose()
    assert ended == ["you"]
    await pair.client.aclose()
    with pytest.raises(PeerClosedError):
        await call


async def test_a_hub_can_be_used_in_one_event_loop_after_another() -> None:
    pair = Pair()
    pair.server.serve(Greeter, English())

    async def use() -> str:
        answer = await pair.peer.service(Greeter).greet("you")
        await until(lambda: not pair.peer.outbound)
        return answer

    def run() -> list[str]:
        return [asyncio.run(use()) for _ in range(2)]

    assert await asyncio.to_thread(run) == ["Hello, you!"] * 2


def test_there_is_no_current_peer_outside_a_handler() -> None:
    with pytest.raises(InvalidStateError, match="handlers"):
        current_peer()


async def test_peers_and_hubs_tell_how_they_are(pair: Pair) -> None:
    assert "disconnected" in repr(pair.peer)
    await pair.peer.connect()
    await until(lambda: pair.server_peer.is_connected)
    assert "connected" in repr(pair.peer)
    assert "1 peers" in repr(pair.server)
    pair.peer.close()
    assert "closed" in repr(pair.server_peer) or "connected" in repr(pair.server_peer)
