"""Connections and peers: which one counts, when a side is taken for gone, what is left behind."""

import asyncio
import socket
from typing import Any

import pytest

from afresh.errors import DisconnectedError, PeerClosedError, RejectedError
from afresh.rpc.hub import RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.peer import ConnectionState
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.rpc.transports.connection import ConnectionDetails, ConnectRequest
from afresh.rpc.transports.memory import MemoryConnector, MemoryLink
from afresh.rpc.transports.unix_server import serve_unix
from afresh.testing import FakeClock
from tests.rpc.hostile import Hostile, turns
from tests.rpc.pair import URL, Pair, until
from tests.rpc.transports.conftest import DIRECT
from tests.rpc.transports.parties import eventually, serving
from tests.rpc.workshop import OpenWorkshop, Workshop

REQUEST = ConnectRequest("client", "msgpack6c")


async def open_link(hub: RpcHub) -> tuple[Hostile, MemoryLink]:
    client = Hostile("msgpack6c")
    connector = MemoryConnector(hub)
    await connector(client, REQUEST)
    return client, connector.links[-1]


# -- several connections of one client


async def test_an_older_connection_that_comes_to_life_late_does_not_replace_a_newer_one() -> None:
    hub = RpcHub()
    old, _ = await open_link(hub)
    new, _ = await open_link(hub)
    new.greet()
    await turns()
    old.greet()
    await turns()
    assert old.errors
    assert not new.errors
    (peer,) = hub.peers
    assert peer.is_connected
    await hub.aclose()
    assert new.errors


async def test_a_newer_connection_replaces_one_on_which_calls_run() -> None:
    hub = RpcHub()
    workshop = OpenWorkshop()
    hub.serve(Workshop, workshop)
    old, _ = await open_link(hub)
    old.greet()
    old.say("Workshop.work:2", 1, old.format.codec((str,)).encode(("a",)))
    await until(lambda: workshop.running)
    new, _ = await open_link(hub)
    assert not old.errors, "the old one is closed in the next turn"
    new.greet()
    await turns()
    assert "newer" in str(old.errors)
    workshop.gate.set()
    await turns()
    assert ("$sys.Ok:1", 1) in [each[:2] for each in new.heard()]
    assert workshop.runs == {"a": 1}
    await hub.aclose()


async def test_what_an_older_connection_still_brings_is_ignored() -> None:
    hub = RpcHub()
    workshop = OpenWorkshop()
    hub.serve(Workshop, workshop)
    old, old_link = await open_link(hub)
    old.greet()
    await turns()
    old_link.to_server.hold()
    old.say("Workshop.note:2", 0, old.format.codec((str,)).encode(("late",)))
    new, _ = await open_link(hub)
    new.greet()
    await turns()
    old_link.to_server.release()
    await turns()
    assert workshop.notes == []
    await hub.aclose()


async def test_another_client_of_the_same_id_ends_what_the_first_one_called() -> None:
    hub = RpcHub()
    workshop = OpenWorkshop()
    hub.serve(Workshop, workshop)
    first, _ = await open_link(hub)
    first.greet()
    first.say("Workshop.work:2", 1, first.format.codec((str,)).encode(("a",)))
    await until(lambda: workshop.running)
    second, _ = await open_link(hub)
    second.id = type(second.id)(int=8)
    second.greet()
    await until(lambda: not workshop.running)
    assert not hub.peers[0].inbound
    workshop.gate.set()
    await turns()
    assert 1 not in [each[1] for each in second.heard()]
    await hub.aclose()


# -- connections that never come to be


async def test_a_hub_that_closes_takes_leave_of_clients_that_are_just_coming() -> None:
    hub = RpcHub()
    client, _ = await open_link(hub)
    assert len(hub.peers) == 1
    await hub.aclose()
    await turns()
    assert client.errors
    assert hub.peers == ()


async def test_a_client_that_never_introduces_itself_is_forgotten(clock: FakeClock) -> None:
    hub = RpcHub()
    client, _ = await open_link(hub)
    await clock.advance(9)
    assert not client.errors
    await clock.advance(2)
    assert "no handshake" in str(client.errors)
    assert hub.peers == ()
    assert clock.timers == 0


async def test_a_client_that_leaves_before_the_connection_is_made_is_forgotten(
    clock: FakeClock,
) -> None:
    hub = RpcHub()
    hub.accept(
        client_id="client",
        format_key=None,
        is_backend=False,
        proof=None,
        require_proof=False,
        details=ConnectionDetails("test"),
    )
    assert len(hub.peers) == 1
    await clock.advance(11)
    assert hub.peers == ()
    assert clock.timers == 0


async def test_a_server_that_never_introduces_itself_is_dialled_again(clock: FakeClock) -> None:
    hub = RpcHub()
    servers: list[Hostile] = []

    async def dial(receiver: Any, request: ConnectRequest) -> Any:
        servers.append(Hostile("msgpack6c"))
        return MemoryLink(receiver, servers[-1]).client

    peer = hub.client_peer(URL, connector=dial)
    peer.wanted()
    await clock.advance(12)
    assert len(servers) == 2
    assert "did not introduce itself" in str(peer.connection_state.error)
    servers[-1].greet()
    await until(lambda: peer.is_connected)
    await hub.aclose()


# -- refusals


async def test_a_server_that_is_just_stopping_is_dialled_again(tmp_path: Any) -> None:
    old, new = RpcHub(), RpcHub()
    for hub in (old, new):
        hub.serve(Workshop, OpenWorkshop())
    client = RpcHub(limits=Limits(reconnect_delays=Limits().reconnect_delays.fixed(0.01)))
    server = await serve_unix(old, tmp_path / "hub")
    peer = client.client_peer(f"unix:{tmp_path / 'hub'}")
    workshop = peer.service(Workshop)
    assert await workshop.add(1, 2) == 3
    await old.aclose()
    await eventually(lambda: isinstance(peer.connection_state.error, RejectedError))
    assert not peer.is_closed
    await server.close()
    server = await serve_unix(new, tmp_path / "hub")
    assert await workshop.add(1, 2) == 3
    for hub in (client, new):
        await hub.aclose()
    await server.close()


async def test_a_client_that_is_forbidden_from_the_start_gives_up() -> None:
    pair = Pair()
    pair.connector.error = RejectedError("not you", 403)
    with pytest.raises(RejectedError, match="not you"):
        await pair.peer.connect()
    assert pair.connector.attempts == 1
    with pytest.raises(RejectedError, match="not you"):
        await pair.peer.connect()
    await pair.aclose()


async def test_a_client_that_is_suddenly_forbidden_tries_once_as_another(clock: FakeClock) -> None:
    pair = Pair()
    await pair.peer.connect()
    peer, id = pair.peer, pair.peer.id
    pair.connector.error = RejectedError("not you", 403)
    pair.cut()
    await clock.advance(5)
    assert pair.connector.attempts == 3
    assert peer.is_closed
    assert peer.id != id
    await pair.aclose()


# -- watchers, and what is left


async def test_a_watcher_that_closes_the_peer_leaves_no_timer(clock: FakeClock) -> None:
    pair = Pair()
    peer = pair.peer

    def close(state: ConnectionState) -> None:
        if state.is_connected:
            peer.close()

    peer.on_connection_change(close)
    with pytest.raises(PeerClosedError):
        await peer.connect()
    await turns()
    await pair.server.aclose()
    await turns()
    assert clock.timers == 0
    await pair.aclose()


async def test_a_watcher_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    seen: list[bool] = []

    def fail(state: ConnectionState) -> None:
        raise ValueError("watcher")

    pair.peer.on_connection_change(fail)
    pair.peer.on_connection_change(lambda state: seen.append(state.is_connected))
    await pair.peer.connect()
    assert seen == [True]
    assert "watcher" in caplog.text
    await pair.aclose()


@pytest.mark.parametrize("ws", ["auto", DIRECT])
async def test_closing_leaves_no_socket_open(ws: str) -> None:
    hub = RpcHub()
    hub.serve(Workshop, OpenWorkshop())
    async with serving(RpcEndpoint(hub), ws) as port:
        client = RpcHub()
        peer = client.client_peer(f"ws://127.0.0.1:{port}/rpc/ws")
        assert await peer.service(Workshop).add(1, 2) == 3
        assert peer.link is not None
        connection: Any = peer.link.connection
        bound: socket.socket = connection._transport.get_extra_info("socket")
        await client.aclose()
        assert bound.fileno() == -1
        await hub.aclose()


async def test_a_hub_may_be_closed_while_it_dials() -> None:
    pair = Pair()
    dialling = asyncio.Event()

    async def dial(receiver: Any, request: ConnectRequest) -> Any:
        dialling.set()
        await asyncio.Event().wait()

    peer = pair.client.client_peer("elsewhere:", connector=dial)
    connecting = asyncio.create_task(peer.connect())
    await dialling.wait()
    await pair.client.aclose()
    with pytest.raises(PeerClosedError):
        await connecting
    await pair.aclose()


async def test_a_call_without_a_connection_that_may_not_wait_says_so() -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())
    call = asyncio.create_task(workshop.work_once("a"))
    await until(lambda: pair.server.peers and pair.server_peer.inbound)
    await pair.restart_server()
    with pytest.raises(DisconnectedError, match="may or may not have run"):
        await call
    await pair.aclose()
