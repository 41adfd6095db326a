"""What holds for connections of every kind."""

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from afresh.errors import ConnectionClosedError, RejectedError, UnknownFormatError
from afresh.primitives.clock import LoopClock, use_clock
from afresh.primitives.tasks import background_tasks
from afresh.rpc.transports import Connection, ConnectRequest
from tests.rpc.transports.conftest import WEBSOCKETS, Network, network_named
from tests.rpc.transports.parties import PATIENCE, Party, eventually

REQUEST = ConnectRequest("a-client", "msgpack6c")
SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000]


async def connect(network: Network, client: Party | None = None) -> tuple[Party, Party]:
    """Connect, and give both ends."""
    client = client or Party()
    connection = await network.connect(client, REQUEST)
    assert client.connection is connection
    await eventually(lambda: network.hall.guests and network.hall.guests[-1]._connection)
    return client, network.hall.guests[-1]


async def close(*parties: Party) -> None:
    for party in parties:
        party.connection.close()
        await party.lost()
        await party.connection.wait_closed()


async def test_frames_arrive_whole_and_in_order_both_ways(network: Network) -> None:
    client, server = await connect(network)
    frames = [bytes([number % 256]) * size for number, size in enumerate(SIZES * 3)]
    for frame in frames:
        client.connection.send(frame)
        server.connection.send(frame)
    assert await server.heard(len(frames)) == frames
    assert await client.heard(len(frames)) == frames
    await close(client)


@pytest.mark.parametrize("text", ["", "x", "Grüße, 世界 🌍", "a" * 70_000])
async def test_text_arrives_as_its_bytes(network: Network, text: str) -> None:
    network.hall.make = lambda: Party(is_text=True, echoes=True)
    client, server = await connect(network, Party(is_text=True))
    client.connection.send(text.encode())
    assert await client.heard(1) == [text.encode()]
    assert server.frames == [text.encode()]
    await close(client)


async def test_many_frames_may_be_sent_in_one_turn(network: Network) -> None:
    client, server = await connect(network)
    for number in range(5_000):
        server.connection.send(b"%d" % number)
    assert (await client.heard(5_000))[-1] == b"4999"
    await close(client)


async def test_nothing_is_delivered_within_send(network: Network) -> None:
    network.hall.make = lambda: Party(echoes=True)
    client, _ = await connect(network, Party())
    rounds = 50

    def answer(frame: bytes) -> None:
        if len(client.frames) < rounds:
            before = len(client.frames)
            client.connection.send(frame)
            assert len(client.frames) == before

    client.on_frame = answer
    client.connection.send(b"ball")
    assert await client.heard(rounds) == [b"ball"] * rounds
    await close(client)


@pytest.mark.parametrize("closer", ["client", "server"])
async def test_a_side_that_closes_is_told_so_in_the_next_turn(
    network: Network, closer: str
) -> None:
    client, server = await connect(network)
    party = client if closer == "client" else server
    party.connection.close()
    assert not party.errors
    await asyncio.sleep(0)
    assert party.errors == [None]
    await client.connection.wait_closed()
    await server.connection.wait_closed()


@pytest.mark.parametrize("closer", ["client", "server"])
async def test_the_other_side_learns_code_and_reason(network: Network, closer: str) -> None:
    client, server = await connect(network)
    here, there = (client, server) if closer == "client" else (server, client)
    here.connection.send(b"last words")
    here.connection.close(4123, "enough")
    error = await there.lost()
    assert isinstance(error, ConnectionClosedError)
    assert (error.code, error.reason) == (4123, "enough")
    assert there.frames == [b"last words"]
    await client.connection.wait_closed()
    await server.connection.wait_closed()


async def test_a_long_reason_does_not_keep_a_connection_from_closing(network: Network) -> None:
    client, server = await connect(network)
    server.connection.close(4000, "ä" * 10_000)
    error = await client.lost()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 4000
    assert error.reason.startswith("ä" * 61)
    await client.connection.wait_closed()


async def test_closing_again_and_sending_afterwards_do_nothing(network: Network) -> None:
    client, server = await connect(network)
    client.connection.close(4001 + 1, "first")
    client.connection.close(4003, "second")
    client.connection.send(b"too late")
    error = await server.lost()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 4002
    server.connection.send(b"too late")
    server.connection.close()
    await close(client, server)
    assert client.frames == server.frames == []


async def test_frames_that_arrive_after_an_own_close_are_dropped(network: Network) -> None:
    client, server = await connect(network)

    def close_at_first(frame: bytes) -> None:
        server.connection.close()

    server.on_frame = close_at_first
    for _ in range(10):
        client.connection.send(b"frame")
    await client.lost()
    assert server.frames == [b"frame"]
    await server.connection.wait_closed()


async def test_both_sides_may_close_at_once(network: Network) -> None:
    client, server = await connect(network)
    client.connection.close(4002)
    server.connection.close(4003)
    assert await client.lost() is None
    assert await server.lost() is None
    await client.connection.wait_closed()
    await server.connection.wait_closed()


async def test_a_frame_over_the_limit_closes_the_connection(network: Network) -> None:
    client, server = await connect(network)
    server.connection.max_frame_size = 1000
    client.connection.send(b"x" * 1000)
    client.connection.send(b"x" * 1001)
    client.connection.send(b"x")
    for party in (client, server):
        error = await party.lost()
        assert isinstance(error, ConnectionClosedError)
        assert error.code == 1009
    assert server.frames == [b"x" * 1000]
    await client.connection.wait_closed()
    await server.connection.wait_closed()


async def test_the_limit_may_be_raised_by_the_frame_before(network: Network) -> None:
    client, server = await connect(network)
    server.connection.max_frame_size = 10

    def trust(frame: bytes) -> None:
        server.connection.max_frame_size = 1000

    server.on_frame = trust
    client.connection.send(b"hello")
    client.connection.send(b"x" * 1000)
    assert await server.heard(2) == [b"hello", b"x" * 1000]
    await close(client)


@pytest.mark.parametrize("method", ["frame_received", "connection_lost", "connection_made"])
async def test_an_error_of_the_receiver_ends_its_connection_only(
    network: Network, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Party):
        def _stumble(self) -> None:
            raise ZeroDivisionError

        def connection_made(self, connection: Connection) -> None:
            super().connection_made(connection)
            if method == "connection_made":
                self._stumble()

        def frame_received(self, frame: bytes) -> None:
            if method == "frame_received":
                self._stumble()

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            if method == "connection_lost":
                self._stumble()

    network.hall.make = Clumsy
    client, server = await connect(network)
    if method == "connection_lost":
        server.connection.close(1011)
    client.connection.send(b"banana skin")
    error = await client.lost()
    assert isinstance(error, ConnectionClosedError)
    assert error.code == 1011
    assert await server.lost() is None
    assert "ZeroDivisionError" in caplog.text
    await client.connection.wait_closed()
    await server.connection.wait_closed()


async def test_the_hub_learns_who_dials(network: Network) -> None:
    client = Party()
    request = ConnectRequest(
        "W62PD8vZn0ahZXCGdyiVDg", "json5np", (3, "a-_b"), {"session": "ä &=?#/"}
    )
    connection = await network.connect(client, request)
    (asked,) = network.hall.requests
    details = asked.pop("details")
    assert asked == {
        "client_id": "W62PD8vZn0ahZXCGdyiVDg",
        "format_key": "json5np",
        "is_backend": False,
        "proof": ("3", "a-_b"),
        "require_proof": False,
    }
    assert details.parameters["session"] == "ä &=?#/"
    assert details.transport == ("websocket" if network.is_websocket else network.name)
    connection.close()
    await connection.wait_closed()


async def test_a_client_without_a_proof_is_known_as_such(network: Network) -> None:
    client, _ = await connect(network)
    assert network.hall.requests[0]["proof"] is None
    await close(client)


async def test_a_client_that_the_hub_refuses_learns_why(network: Network) -> None:
    network.hall.refusal = RejectedError("not you", 403)
    client = Party()
    with pytest.raises(RejectedError, match="not you") as why:
        await network.connect(client, REQUEST)
    assert why.value.status == 403
    assert client._connection is None


async def test_a_format_that_the_hub_does_not_know_ends_in_that_error(network: Network) -> None:
    network.hall.refusal = UnknownFormatError("what is that")
    client = Party()
    if network.is_websocket:
        await network.connect(client, REQUEST)
        error = await client.lost()
        assert isinstance(error, UnknownFormatError)
        assert "Unsupported RPC serialization format: 'msgpack6c'" in str(error)
        await client.connection.wait_closed()
    else:
        with pytest.raises(UnknownFormatError, match="what is that"):
            await network.connect(client, REQUEST)


async def test_what_waits_for_a_side_that_does_not_read_is_counted(network: Network) -> None:
    client, server = await connect(network)
    if network.name == "memory":
        network.connect.links[0].to_client.hold()  # type: ignore[attr-defined]
    else:
        transport_of(client.connection).pause_reading()
    frame = b"x" * 100_000
    for _ in range(200):
        server.connection.send(frame)
    await eventually(lambda: server.connection.buffered > 1_000_000)
    held = server.connection.buffered
    if network.name == "memory":
        network.connect.links[0].to_client.release()  # type: ignore[attr-defined]
    else:
        transport_of(client.connection).resume_reading()
    assert held <= 200 * (len(frame) + 10)
    assert await client.heard(200) == [frame] * 200
    await eventually(lambda: server.connection.buffered == 0)
    await close(client)


async def test_quick_comers_and_goers_leave_nothing_behind(network: Network) -> None:
    tasks, background = len(asyncio.all_tasks()), len(background_tasks())

    async def come_and_go() -> None:
        client = Party()
        connection = await network.connect(client, REQUEST)
        connection.close()
        await connection.wait_closed()
        assert client.errors == [None]

    for _ in range(8):
        await asyncio.gather(*(come_and_go() for _ in range(25)))
    for guest in network.hall.guests:
        await guest.lost()
        await guest.connection.wait_closed()
    await eventually(lambda: len(asyncio.all_tasks()) == tasks)
    assert len(network.hall.guests) == 200
    assert len(background_tasks()) == background


async def test_a_client_may_come_twice(network: Network) -> None:
    first, first_guest = await connect(network)
    second, second_guest = await connect(network)
    first_guest.connection.close(4000, "superseded")
    assert isinstance(await first.lost(), ConnectionClosedError)
    second.connection.send(b"still here")
    assert await second_guest.heard(1) == [b"still here"]
    await close(second)
    await first.connection.wait_closed()


async def test_receivers_do_not_run_in_the_context_of_who_sent(network: Network) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    client, server = await connect(network)
    seen: list[str] = []
    for party in (client, server):
        party.on_frame = lambda _: seen.append(variable.get())
    variable.set("sender's")
    client.connection.send(b"x")
    server.connection.send(b"x")
    await client.heard(1)
    await server.heard(1)
    assert seen == ["none", "none"]
    client.connection.close()
    await client.lost()
    await client.connection.wait_closed()


@pytest.mark.parametrize("name", ["unix", "tcp", *WEBSOCKETS])
async def test_uvloop_will_do_as_well(name: str, tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def play() -> None:
        async with network_named(name, tmp_path) as network:
            network.hall.make = lambda: Party(echoes=True)
            client, _ = await connect(network)
            for size in SIZES:
                client.connection.send(b"x" * size)
            assert [len(frame) for frame in await client.heard(len(SIZES))] == SIZES
            await close(client)

    def run() -> None:
        with use_clock(LoopClock()), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(play())

    await asyncio.to_thread(run)


def transport_of(connection: Connection) -> Any:
    return connection._transport  # type: ignore[attr-defined]


async def test_waiting_for_the_end_may_be_given_up(network: Network) -> None:
    client, server = await connect(network)
    waiter = asyncio.ensure_future(client.connection.wait_closed())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    server.connection.close()
    async with asyncio.timeout(PATIENCE):
        await client.connection.wait_closed()
    await server.connection.wait_closed()
