"""Results that outlive the process: served at once, confirmed behind the caller's back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from afresh import ComputedState
from afresh.errors import PeerClosedError
from afresh.graph.synchronizer import PRECISE
from afresh.remote import ComputeCalls, MemoryCache
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import Pair, until


@pytest.fixture
async def cache() -> AsyncIterator[MemoryCache]:
    cache = MemoryCache()
    yield cache
    await cache.aclose()


@pytest.fixture
def there() -> MemoryCounters:
    return MemoryCounters()


class World:
    """A server, and clients that come and go with the same cache."""

    def __init__(self, there: MemoryCounters, cache: MemoryCache) -> None:
        self.there = there
        self.cache = cache
        self.pair = Pair(kinds=(ComputeCalls(cache),))

    def start(self) -> Counters:
        """A new process of the client."""
        if self.pair.client._clients:
            self.pair.peer.close()
        return self.pair.service(Counters, self.there)


@pytest.fixture
async def world(there: MemoryCounters, cache: MemoryCache) -> AsyncIterator[World]:
    world = World(there, cache)
    yield world
    await world.pair.aclose()


async def test_the_first_client_asks_and_its_result_is_confirmed(world: World) -> None:
    here = world.start()
    node = await here.get.capture("a")
    assert PRECISE.is_synchronized(node)
    assert world.there.computed == ["a"]


async def test_the_next_client_is_served_from_the_cache_and_confirmed_in_place(
    world: World,
) -> None:
    await world.start().get("a")
    here = world.start()
    node = await here.get.capture("a")
    assert node.value == 0
    assert not PRECISE.is_synchronized(node)
    await PRECISE.when_synchronized(node)
    assert node.is_consistent
    assert here.get.existing("a") is node
    assert world.there.computed == ["a"], "a match: nothing was computed, and nothing was sent"
    await here.set("a", 5)
    await node.when_invalidated()
    assert await here.get("a") == 5


async def test_a_result_that_changed_meanwhile_is_replaced_with_one_call(world: World) -> None:
    await world.start().get("a")
    world.pair.peer.close()
    await world.there.set("a", 7)
    here = world.start()
    node = await here.get.capture("a")
    assert node.value == 0
    await node.when_invalidated()
    assert "cache" in str(node.invalidation_cause)
    await until(lambda: here.get.existing("a"))
    fresh = await here.get.capture("a")
    assert fresh.value == 7
    assert PRECISE.is_synchronized(fresh)
    assert world.there.computed == ["a", "a"]
    await here.set("a", 8)
    await fresh.when_invalidated()
    assert await here.get("a") == 8
    again = world.start()
    assert (await again.get.capture("a")).value == 8


async def test_it_starts_offline(world: World) -> None:
    await world.start().get("a")
    world.pair.peer.close()
    world.pair.connector.error = OSError("the network is down")
    here = world.start()
    node = await here.get.capture("a")
    assert node.value == 0
    for _ in range(50):
        await asyncio.sleep(0)
    assert not PRECISE.is_synchronized(node)
    assert node.is_consistent
    world.pair.go_online()
    await PRECISE.when_synchronized(node)


async def test_what_is_known_to_be_stale_is_not_served_while_connected(world: World) -> None:
    here = world.start()
    node = await here.get.capture("a")
    await here.set("a", 2)
    await node.when_invalidated()
    assert await here.get("a") == 2
    assert PRECISE.is_synchronized(await here.get.capture("a"))


async def test_a_stale_result_is_served_while_there_is_no_connection(world: World) -> None:
    here = world.start()
    first = await here.get.capture("a")
    pair = world.pair
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected)
    here.get.invalidate("a")
    second = await here.get.capture("a")
    assert second.value == first.value
    assert not PRECISE.is_synchronized(second)
    here.get.invalidate("a")
    third = await here.get.capture("a")
    assert third is not second
    pair.go_online()
    await third.when_invalidated()
    fresh = await here.get.capture("a")
    assert PRECISE.is_synchronized(fresh)
    await PRECISE.when_synchronized(second)


async def test_a_call_cut_short_is_served_from_the_cache(world: World) -> None:
    here = world.start()
    world.there.gate.set()
    await here.slow("a")
    world.there.gate.clear()
    here.slow.invalidate("a")
    world.there.slow.invalidate("a")
    before = len(world.there.computed)
    call = asyncio.create_task(here.slow.capture("a"))
    await until(lambda: len(world.there.computed) > before)
    world.pair.stay_offline()
    node = await call
    assert node.value == 0
    assert not PRECISE.is_synchronized(node)
    world.there.gate.set()
    world.pair.go_online()
    await node.when_invalidated()
    assert await here.slow("a") == 0
    assert len(world.pair.peer.outbound) == 1


async def test_what_failed_is_forgotten_by_the_cache(world: World) -> None:
    here = world.start()
    await here.failing("a")
    node = await here.failing.capture("a")
    await here.set("a", -1)
    await node.when_invalidated()
    with pytest.raises(ValueError, match="negative"):
        await here.failing("a")
    world.pair.peer.close()
    await world.there.set("a", 1)
    again = world.start()
    confirmed = await again.failing.capture("a")
    assert confirmed.value == 1
    assert PRECISE.is_synchronized(confirmed)


async def test_a_guess_that_turns_out_to_be_an_error_now(world: World) -> None:
    await world.start().failing("a")
    world.pair.peer.close()
    await world.there.set("a", -1)
    here = world.start()
    node = await here.failing.capture("a")
    assert node.value == 0
    await node.when_invalidated()
    with pytest.raises(ValueError, match="negative"):
        await here.failing("a")


async def test_a_guess_that_went_stale_here_asks_no_more(world: World) -> None:
    await world.start().get("a")
    world.pair.peer.close()
    world.pair.connector.error = OSError("the network is down")
    here = world.start()
    await here.get.capture("a")
    await until(lambda: world.pair.peer.outbound)
    here.get.invalidate("a")
    await until(lambda: not world.pair.peer.outbound)


async def test_a_guess_is_stale_when_the_peer_is_closed(world: World) -> None:
    await world.start().get("a")
    world.pair.peer.close()
    world.pair.connector.error = OSError("the network is down")
    here = world.start()
    node = await here.get.capture("a")
    world.pair.peer.close(PeerClosedError("closed"))
    await node.when_invalidated()


async def test_states_over_cached_results_converge(world: World) -> None:
    await world.start().total("a")
    world.pair.peer.close()
    await world.there.set("a", 3)
    here = world.start()
    async with ComputedState(lambda: here.total("a"), delay=0) as state:
        async for value in state:
            if value == 3:
                break
        await PRECISE.when_synchronized(state.snapshot.computed)


async def test_nothing_is_left_when_everything_was_let_go(world: World) -> None:
    for _ in range(20):
        here = world.start()
        await here.get("a")
        await here.get("b")
    world.pair.peer.close()
    await until(lambda: not any(peer.inbound for peer in world.pair.server.peers))
