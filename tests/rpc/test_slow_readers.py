"""A side that reads slowly, or never: what waits for it is bounded; one that reads gets it all."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from afresh.errors import LimitError
from afresh.primitives.clock import current_clock
from afresh.remote import ComputeCalls
from afresh.rpc.limits import Limits
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import Pair, until
from tests.rpc.workshop import OpenWorkshop, Workshop

MEGABYTE = 1_000_000
LIMITS = Limits(max_buffered=20 * MEGABYTE)


@pytest.fixture
async def slow() -> AsyncIterator[Pair]:
    """A server whose client does not read until it is told to."""
    pair = Pair(limits=LIMITS, kinds=(ComputeCalls(),))
    await pair.peer.connect()
    pair.connector.links[-1].to_client.hold()
    yield pair
    await pair.aclose()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_large_results_that_nobody_reads_are_refused_and_the_connection_lives(
    slow: Pair,
) -> None:
    workshop = slow.service(Workshop, OpenWorkshop())
    calls = [asyncio.create_task(workshop.blob(MEGABYTE)) for _ in range(50)]
    await turns(100)
    assert slow.server_peer.waiting < 11 * MEGABYTE
    slow.connector.links[-1].to_client.release()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result == bytes(MEGABYTE) for result in results) >= 9
    refused = [result for result in results if isinstance(result, LimitError)]
    assert len(refused) == sum(isinstance(result, Exception) for result in results) > 30
    assert "max_buffered" in str(refused[0])
    assert await workshop.blob(MEGABYTE) == bytes(MEGABYTE)
    assert slow.connector.attempts == 1


async def test_one_large_result_is_never_refused() -> None:
    pair = Pair(limits=Limits(max_buffered=MEGABYTE))
    workshop = pair.service(Workshop, OpenWorkshop())
    for _ in range(3):
        assert await workshop.blob(3 * MEGABYTE) == bytes(3 * MEGABYTE)
    assert pair.connector.attempts == 1
    await pair.aclose()


async def test_streams_pause_while_nobody_reads_and_go_on_when_somebody_does(
    clock: FakeClock,
) -> None:
    pair = Pair(limits=LIMITS)
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    streams = [await workshop.blobs(100_000) for _ in range(40)]
    pair.connector.links[-1].to_client.hold()

    async def read(number: int) -> int:
        items = [await anext(streams[number]) for _ in range(100)]
        return sum(map(len, items))

    readers = [asyncio.create_task(read(number)) for number in range(40)]
    await clock.advance(1)
    assert pair.server_peer.waiting < 16 * MEGABYTE
    assert open_workshop.blobs_made * 100_000 < 40 * 4 * MEGABYTE
    made = open_workshop.blobs_made
    await clock.advance(2)
    assert open_workshop.blobs_made == made
    pair.connector.links[-1].to_client.release()
    while not all(reader.done() for reader in readers):
        await clock.advance(0.1)
    assert [reader.result() for reader in readers] == [100 * 100_000] * 40
    assert pair.connector.attempts == 1
    for stream in streams:
        await stream.aclose()
    await pair.aclose()


@pytest.mark.parametrize("kind", ["results", "errors", "invalidations"])
async def test_a_client_that_never_reads_is_let_go_with_a_reason(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(limits=Limits(max_buffered=MEGABYTE // 2), kinds=(ComputeCalls(),))
    counters = MemoryCounters()
    pair.service(Workshop, OpenWorkshop())
    pair.service(Counters, counters)
    await pair.peer.connect()
    (link,) = pair.connector.links
    link.to_client.hold()
    server_peer = pair.server_peer
    format = pair.peer.format
    blob = format.writer("Workshop.blob:2")
    unknown = format.writer("No.such:1")
    get = format.writer("Counters.get:2", 1)
    size = format.codec((int,)).encode((10_000,))
    key = format.codec((str,)).encode(("a",))
    tracemalloc.start()
    for number in range(1, 100_000):
        if kind == "results":
            link.client.send(blob(number, size))
        elif kind == "errors":
            link.client.send(unknown(number, b"") * 10)
        else:
            link.client.send(b"".join(get(50 * number + each, key) for each in range(50)))
            counters.get.invalidate("a")
        await turns(2)
        if not server_peer.is_connected:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MEGABYTE
    error = server_peer.connection_state.error
    assert isinstance(error, LimitError)
    assert "does not read" in str(error)
    assert "max_buffered" in caplog.text
    link.to_client.release()
    await until(lambda: pair.peer.connection_state.error)
    assert "reads too slowly" in str(pair.peer.connection_state.error)
    assert server_peer.waiting == 0
    await pair.aclose()


async def test_a_client_that_never_reads_items_lets_the_source_wait(slow: Pair) -> None:
    slow.connector.links[-1].to_client.release()
    open_workshop = OpenWorkshop()
    workshop = slow.service(Workshop, open_workshop)
    stream = await workshop.blobs(1000)
    slow.connector.links[-1].to_client.hold()
    reader = asyncio.create_task(anext(stream))
    await turns(1000)
    assert open_workshop.blobs_made < 3000
    slow.connector.links[-1].to_client.release()
    assert await reader == bytes(1000)
    await stream.aclose()


async def test_data_that_keeps_coming_shows_that_the_other_side_is_there(clock: FakeClock) -> None:
    pair = Pair(client={"limits": Limits(keep_alive_period=1000)})
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    for _ in range(20):
        await clock.advance(5)
        assert await workshop.add(1, 2) == 3
    assert current_clock().now() == 100
    assert pair.server_peer.is_connected
    assert pair.connector.attempts == 1
    await pair.aclose()
