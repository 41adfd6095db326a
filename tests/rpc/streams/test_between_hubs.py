import asyncio
from contextlib import aclosing

import msgspec
import pytest

from afresh.errors import DisconnectedError, PeerChangedError, RpcError
from afresh.rpc import RpcStream, current_peer

from ..pair import Pair, until
from .ends import Feed, numbers, read_on


class Row(msgspec.Struct):
    name: str
    cells: RpcStream[int]


class Streams:
    async def count(self, upto: int) -> RpcStream[int]:
        raise NotImplementedError

    async def follow(self, allow_reconnect: bool) -> RpcStream[int]:
        raise NotImplementedError

    async def sum(self, values: RpcStream[int]) -> int:
        raise NotImplementedError

    async def doubled(self, values: RpcStream[int]) -> RpcStream[int]:
        raise NotImplementedError

    async def table(self, rows: int) -> RpcStream[Row]:
        raise NotImplementedError

    async def readers(self) -> RpcStream[bool]:
        raise NotImplementedError


class Server(Streams):
    def __init__(self) -> None:
        self.feed = Feed()

    async def count(self, upto: int) -> RpcStream[int]:
        return RpcStream(numbers(upto))

    async def follow(self, allow_reconnect: bool) -> RpcStream[int]:
        return RpcStream(self.feed.follow(), allow_reconnect=allow_reconnect)

    async def sum(self, values: RpcStream[int]) -> int:
        return sum([value async for value in values])

    async def doubled(self, values: RpcStream[int]) -> RpcStream[int]:
        async def double():
            async for value in values:
                yield 2 * value

        return RpcStream(double())

    async def table(self, rows: int) -> RpcStream[Row]:
        async def give():
            for size in range(rows):
                yield Row(str(size), RpcStream(numbers(size)))

        return RpcStream(give(), item_type=Row)

    async def readers(self) -> RpcStream[bool]:
        caller = current_peer()

        async def give():
            yield current_peer() is caller

        return RpcStream(give())


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(pair: Pair, server: Server) -> Streams:
    return pair.service(Streams, server)


def objects(pair: Pair) -> int:
    return sum(len(peer.streams) for hub in (pair.server, pair.client) for peer in hub.peers)


async def test_a_result_is_read_to_its_end(pair: Pair, client: Streams):
    assert [number async for number in await client.count(5000)] == list(range(5000))
    await until(lambda: not objects(pair))


async def test_an_argument_is_read_to_its_end(pair: Pair, client: Streams):
    assert await client.sum(RpcStream(numbers(5000))) == sum(range(5000))
    await until(lambda: not objects(pair))


async def test_a_stream_goes_there_and_back(pair: Pair, client: Streams):
    doubled = await client.doubled(RpcStream(numbers(3000, lambda number: number % 100 == 0)))
    assert [number async for number in doubled] == list(range(0, 6000, 2))
    await until(lambda: not objects(pair))


async def test_a_table_is_a_stream_of_streams(pair: Pair, client: Streams):
    table = {row.name: [cell async for cell in row.cells] async for row in await client.table(16)}
    assert table == {str(size): list(range(size)) for size in range(16)}
    await until(lambda: not objects(pair))


async def test_many_streams_run_side_by_side(pair: Pair, client: Streams):
    async def total(upto: int) -> int:
        return sum([number async for number in await client.count(upto)])

    totals = await asyncio.gather(*(total(upto) for upto in range(100)))
    assert totals == [sum(range(upto)) for upto in range(100)]
    await until(lambda: not objects(pair))


async def test_the_source_knows_who_reads(client: Streams):
    assert [known async for known in await client.readers()] == [True]


async def test_a_stream_survives_the_loss_of_the_connection(
    pair: Pair, server: Server, client: Streams
):
    stream = await client.follow(True)
    for number in range(50):
        server.feed.put(2 * number, 2 * number + 1)
        if number % 10 == 5:
            pair.cut()
            await until(lambda: not pair.peer.is_connected)
            pair.go_online()
        assert await anext(stream) == 2 * number
        if number % 10 == 6:
            pair.peer.disconnect()
        assert await anext(stream) == 2 * number + 1
    await stream.aclose()


async def test_a_stream_that_may_not_survive_fails(pair: Pair, server: Server, client: Streams):
    stream = await client.follow(False)
    server.feed.put(1, 2)
    assert await anext(stream) == 1
    pair.cut()
    with pytest.raises(DisconnectedError, match="disconnected"):
        await read_on(stream)
    await until(lambda: server.feed.is_closed)


async def test_a_stream_fails_when_the_server_is_restarted(
    pair: Pair, server: Server, client: Streams
):
    stream = await client.follow(True)
    server.feed.put(1)
    assert await anext(stream) == 1
    await pair.restart_server()
    with pytest.raises(PeerChangedError):
        await anext(stream)
    assert server.feed.is_closed
    assert [number async for number in await client.count(3)] == [0, 1, 2]


async def test_a_source_is_closed_when_its_reader_is_gone(
    pair: Pair, server: Server, client: Streams
):
    async with aclosing(await client.follow(True)) as stream:
        server.feed.put(1)
        assert await anext(stream) == 1
    await until(lambda: server.feed.is_closed)
    await until(lambda: not objects(pair))


async def test_a_source_here_is_closed_when_the_call_over_there_fails(pair: Pair, client: Streams):
    feed = Feed()
    feed.put(1, "two")
    with pytest.raises(RpcError):
        await client.sum(RpcStream(feed.follow()))
    await until(lambda: feed.is_closed)
    await until(lambda: not objects(pair))


async def test_streams_end_with_their_hub(pair: Pair, server: Server, client: Streams):
    stream = await client.follow(True)
    server.feed.put(1)
    assert await anext(stream) == 1
    await pair.client.aclose()
    with pytest.raises(RpcError):
        await anext(stream)
    await pair.server.aclose()
    await until(lambda: server.feed.is_closed)
