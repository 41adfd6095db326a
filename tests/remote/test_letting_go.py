"""Results that nobody holds are let go on both sides, whatever happens to the connection; and what
comes and goes many times leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afresh import ComputeService, compute_method
from afresh.primitives.tasks import background_tasks
from afresh.remote import ComputeCalls
from afresh.rpc.hub import RpcHub
from afresh.rpc.transports.memory import MemoryConnector
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import URL, Pair, until
from tests.rpc.workshop import OpenWorkshop, Workshop

MANY = 10_000 if os.environ.get("AFRESH_SOAK") else 1_000


class Brief(ComputeService):
    """Results that are dropped when nobody holds them."""

    @compute_method(keep_alive=1)
    async def get(self, key: int) -> int:
        return key

    @compute_method(keep_alive=1, transient_error_delay=1e6)
    async def fail(self, key: int) -> int:
        raise ValueError(str(key))


class Waiting(ComputeService):
    """Results that never come."""

    @compute_method
    async def get(self, key: int) -> int:
        await asyncio.Event().wait()
        return key


async def test_an_error_that_nobody_holds_is_let_go_there(clock: FakeClock, pair: Pair) -> None:
    brief = pair.service(Brief, Brief())
    with pytest.raises(ValueError, match="7"):
        await brief.fail(7)
    assert len(pair.server_peer.inbound) == 1
    await clock.advance(5)
    gc.collect()
    await clock.advance(5)
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_a_result_that_was_let_go_without_a_connection_is_let_go_there(
    clock: FakeClock, pair: Pair
) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    kept = await here.get.capture("kept")
    await here.get("dropped")
    assert len(pair.server_peer.inbound) == 2
    pair.stay_offline()
    await until(lambda: not pair.server_peer.is_connected)
    here.get.invalidate("dropped")
    pair.go_online()
    await until(lambda: len(pair.server_peer.inbound) == 1)
    assert kept.is_consistent
    await there.set("kept", 1)
    await kept.when_invalidated()


async def test_a_farewell_that_was_lost_with_the_connection_is_made_up_for(pair: Pair) -> None:
    here = pair.service(Counters, MemoryCounters())
    await here.get("a")
    link = pair.connector.links[-1]
    link.to_server.hold()
    here.get.invalidate("a")
    await asyncio.sleep(0)
    link.drop()
    await until(lambda: not pair.peer.is_connected)
    pair.peer.reconnect_now()
    await until(lambda: pair.peer.is_connected and not pair.server_peer.inbound)


async def test_a_call_that_was_cancelled_without_a_connection_is_cancelled_there(
    pair: Pair,
) -> None:
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    calls = [asyncio.create_task(workshop.work(name)) for name in "ab"]
    await until(lambda: open_workshop.running == 2)
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected)
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    pair.go_online()
    await until(lambda: open_workshop.running == 1)
    open_workshop.gate.set()
    assert await calls[1] == "b"
    assert open_workshop.runs == {"a": 1, "b": 1}


async def test_calls_of_the_other_side_outlive_a_reconnection_that_does_not_concern_them(
    pair: Pair,
) -> None:
    """What is called on the new connection before the old calls are sorted out stays."""
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    await workshop.add(1, 2)
    pair.stay_offline()
    await until(lambda: not pair.server_peer.is_connected)
    call = asyncio.create_task(workshop.work("queued"))
    await asyncio.sleep(0)
    await workshop.note_slowly("lost, for there is no connection")
    pair.go_online()
    await until(lambda: open_workshop.running == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert open_workshop.running == 1
    open_workshop.gate.set()
    assert await call == "queued"
    assert open_workshop.runs == {"queued": 1}


# -- many times


async def leaves_nothing(
    rounds: int, once: Callable[[], Awaitable[Any]], counts: Callable[[], Any]
) -> None:
    """Do something so many times, and see that it takes no more and more memory.

    What leaks does so all the time; what fills caches and grows tables does so now and then.
    """
    growth: list[tuple[int, int]] = []
    before: Any = None
    tracemalloc.start()
    for _ in range(4):
        gc.collect()
        objects, memory = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
        for _ in range(rounds // 4):
            await once()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - memory
        growth.append((len(gc.get_objects()) - objects, grown))
        assert before is None or counts() == before
        before = counts()
    tracemalloc.stop()
    assert min(more for more, _ in growth) < 20
    assert min(more for _, more in growth) < 5000


async def test_10_000_subscriptions_and_farewells_leave_nothing(clock: FakeClock) -> None:
    pair = Pair(kinds=(ComputeCalls(),))
    here = pair.service(Brief, Brief())
    number = 0

    async def subscribe_to_100() -> None:
        nonlocal number
        nodes = [await here.get.capture(number := number + 1) for _ in range(100)]
        assert len(pair.server_peer.inbound) >= 100
        del nodes
        await clock.advance(3)

    def counts() -> Any:
        return len(pair.peer.outbound), len(pair.server_peer.inbound), len(background_tasks())

    await leaves_nothing(100, subscribe_to_100, counts)
    assert counts()[:2] == (0, 0)
    await pair.aclose()


async def test_clients_that_come_and_go_leave_nothing(clock: FakeClock) -> None:
    server = RpcHub(kinds=(ComputeCalls(),))
    server.serve(Workshop, OpenWorkshop())
    server.serve(Counters, MemoryCounters())

    async def come_and_go() -> None:
        client = RpcHub(kinds=(ComputeCalls(),))
        peer = client.client_peer(URL, connector=MemoryConnector(server))
        assert await peer.service(Workshop).add(1, 2) == 3
        assert await peer.service(Counters).get("a") == 0
        await client.aclose()
        await clock.advance(0)

    def counts() -> Any:
        return len(server.peers), clock.timers, len(background_tasks())

    await leaves_nothing(MANY, come_and_go, counts)
    await server.aclose()


async def test_a_client_that_comes_back_all_the_time_leaves_nothing(clock: FakeClock) -> None:
    pair = Pair(kinds=(ComputeCalls(),))
    workshop = pair.service(Workshop, OpenWorkshop())
    counters = pair.service(Counters, MemoryCounters())
    node = await counters.get.capture("a")

    async def reconnect() -> None:
        pair.peer.disconnect()
        await until(lambda: pair.peer.is_connected)
        assert await workshop.add(1, 2) == 3
        await clock.advance(0)

    def counts() -> Any:
        return (
            len(pair.server.peers),
            clock.timers,
            len(background_tasks()),
            len(pair.peer.outbound),
            len(pair.server_peer.inbound),
            len(pair.connector.links),
        )

    await leaves_nothing(MANY, reconnect, counts)
    assert node.is_consistent
    await pair.aclose()


@pytest.mark.parametrize("is_connected", [True, False])
async def test_10_000_cancelled_calls_leave_nothing(clock: FakeClock, is_connected: bool) -> None:
    pair = Pair(kinds=(ComputeCalls(),))
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    counters = pair.service(Waiting, Waiting())
    await pair.peer.connect()
    if not is_connected:
        pair.stay_offline()
        await until(lambda: not pair.server_peer.is_connected)

    async def call_and_cancel() -> None:
        calls: list[asyncio.Task[Any]] = []
        calls += [asyncio.create_task(counters.get(number)) for number in range(20)]
        calls += [asyncio.create_task(workshop.work("a")) for _ in range(80)]
        await clock.advance(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await clock.advance(0)
        open_workshop.runs.clear()

    def counts() -> Any:
        return (
            open_workshop.running,
            len(background_tasks()),
            len(pair.peer.outbound),
            len(pair.server_peer.inbound),
        )

    await leaves_nothing(100, call_and_cancel, counts)
    assert counts()[2:] == (0, 0)
    await pair.aclose()


async def test_10_000_streams_that_were_left_leave_nothing(clock: FakeClock) -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())

    async def read_a_little() -> None:
        for _ in range(10):
            numbers = aiter(await workshop.count_to(100))
            assert await anext(numbers) == 0
            await numbers.aclose()  # type: ignore[attr-defined]
        await clock.advance(0)

    def counts() -> Any:
        return len(pair.peer.streams), len(pair.server_peer.streams), len(background_tasks())

    await leaves_nothing(100, read_a_little, counts)
    assert counts()[:2] == (0, 0)
    await pair.aclose()
