"""The faults that links in memory can be made to have."""

from __future__ import annotations

import asyncio

import pytest

from afresh.errors import ConnectionClosedError
from afresh.rpc.transports import ConnectRequest
from afresh.rpc.transports.memory import MemoryConnector, MemoryLink
from afresh.testing import FakeClock
from tests.rpc.transports.parties import Hall, Party


def linked() -> tuple[Party, Party, MemoryLink]:
    client, server = Party(), Party()
    return client, server, MemoryLink(client, server)


async def turn() -> None:
    """Let everything run that is due."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_frame_arrives_in_the_next_turn() -> None:
    client, server, _ = linked()
    client.connection.send(b"x")
    assert server.frames == []
    await asyncio.sleep(0)
    assert server.frames == [b"x"]


async def test_a_delayed_frame_arrives_when_its_time_has_come(clock: FakeClock) -> None:
    client, server, link = linked()
    link.to_server.delay = 0.5
    client.connection.send(b"x")
    await clock.advance(0.49)
    assert server.frames == []
    assert client.connection.buffered == 0
    await clock.advance(0.01)
    assert server.frames == [b"x"]
    assert clock.timers == 0


async def test_frames_keep_their_order_when_the_delay_shrinks(clock: FakeClock) -> None:
    client, server, link = linked()
    link.to_server.delay = 2.0
    client.connection.send(b"first")
    await clock.advance(0)
    link.to_server.delay = 0.0
    client.connection.send(b"second")
    await clock.advance(1)
    assert server.frames == []
    await clock.advance(1)
    assert server.frames == [b"first", b"second"]


async def test_closing_is_delayed_like_frames(clock: FakeClock) -> None:
    client, server, link = linked()
    link.to_server.delay = 1.0
    client.connection.send(b"x")
    client.connection.close(4000, "done")
    await clock.advance(0.5)
    assert client.errors == [None]
    assert server.errors == []
    await clock.advance(0.5)
    assert server.frames == [b"x"]
    assert [str(error) for error in server.errors] == ["The connection was closed: 4000, done."]


async def test_a_side_that_does_not_read_lets_frames_pile_up() -> None:
    client, server, link = linked()
    link.to_server.hold()
    for _ in range(3):
        client.connection.send(b"1234")
    await turn()
    assert (server.frames, client.connection.buffered) == ([], 12)
    assert server.connection.buffered == 0
    link.to_server.release()
    await turn()
    assert (server.frames, client.connection.buffered) == ([b"1234"] * 3, 0)


async def test_held_frames_can_be_delivered_in_another_order() -> None:
    client, server, link = linked()
    link.to_server.hold()
    for frame in (b"1", b"2", b"3"):
        client.connection.send(frame)
    client.connection.close()
    link.to_server.release(lambda frames: frames[::-1])
    await turn()
    assert server.frames == [b"3", b"2", b"1"]
    assert len(server.errors) == 1


async def test_frames_can_be_lost_doubled_and_changed_on_the_way() -> None:
    client, server, link = linked()
    link.to_server.alter = lambda frame: {b"lost": [], b"twice": [frame, frame]}.get(
        frame, [frame.upper()]
    )
    for frame in (b"lost", b"twice", b"changed"):
        client.connection.send(frame)
    server.connection.send(b"untouched")
    await turn()
    assert server.frames == [b"twice", b"twice", b"CHANGED"]
    assert client.frames == [b"untouched"]


async def test_a_dropped_link_is_noticed_on_both_ends() -> None:
    client, server, link = linked()
    client.connection.send(b"on its way")
    link.drop()
    assert client.errors == server.errors == []
    await turn()
    for party in (client, server):
        error = await party.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1006
    assert server.frames == []
    assert not link.is_open
    client.connection.send(b"too late")
    link.drop()
    await turn()
    assert server.frames == []


@pytest.mark.parametrize("loser", ["client", "server"])
async def test_one_end_can_lose_the_link_without_the_other_noticing(loser: str) -> None:
    client, server, link = linked()
    here, there = (client, server) if loser == "client" else (server, client)
    (link.client if loser == "client" else link.server).lose(ConnectionResetError("cable"))
    await turn()
    assert isinstance(await here.lost(), ConnectionResetError)
    there.connection.send(b"anybody?")
    await turn()
    assert (there.errors, here.frames) == ([], [])
    assert link.is_open


@pytest.mark.parametrize("size", range(4 + 3 + 4 + 5 + 1))
async def test_a_link_cut_at_any_byte_delivers_whole_frames_only(size: int) -> None:
    client, server, link = linked()
    link.to_server.cut_after(size)
    client.connection.send(b"abc")
    client.connection.send(b"defgh")
    await turn()
    assert server.frames == [b"abc"] * (size >= 7) + [b"defgh"] * (size >= 16)
    assert bool(server.errors) == bool(client.errors) == (size <= 16)


async def test_the_same_history_gives_the_same_result_each_time() -> None:
    async def history() -> list[bytes]:
        client, server, link = linked()
        server.echoes = True
        order: list[bytes] = []
        client.on_frame = server.on_frame = order.append
        for number in range(10):
            client.connection.send(b"c%d" % number)
            server.connection.send(b"s%d" % number)
            if number == 5:
                link.to_client.hold()
            await asyncio.sleep(0)
        link.to_client.release()
        await turn()
        return order

    assert await history() == await history()


async def test_dialling_fails_as_long_as_the_connector_says_so() -> None:
    hall = Hall()
    connector = MemoryConnector(hall, is_backend=True, require_proof=True)
    connector.error = ConnectionRefusedError("out of order")
    request = ConnectRequest("me", "msgpack6c")
    with pytest.raises(ConnectionRefusedError):
        await connector(Party(), request)
    connector.error = None
    client = Party()
    await connector(client, request)
    assert connector.attempts == 2
    assert (hall.requests[0]["is_backend"], hall.requests[0]["require_proof"]) == (True, True)
    assert [link.client for link in connector.links] == [client.connection]


async def test_links_that_are_over_are_forgotten() -> None:
    connector = MemoryConnector(Hall())
    for _ in range(10):
        client = Party()
        await connector(client, ConnectRequest("me", "msgpack6c"))
        client.connection.close()
        await turn()
    assert len(connector.links) == 1
