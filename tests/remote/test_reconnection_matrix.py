"""What becomes of calls when the connection is lost: each cell of the protocol's matrix, and each
event in the life of a live result.

A server's body takes some time, and its result goes stale some time after; the connection is lost
before the call is sent, while the body runs, or when the result is there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from afresh import ComputeService, compute_method
from afresh.errors import PeerClosedError
from afresh.graph.computed import Computed
from afresh.graph.scopes import current_computed
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.hostile import turns
from tests.rpc.pair import Pair, until
from tests.rpc.workshop import OpenWorkshop, Workshop


class Bench(ComputeService):
    """What the matrix is made with."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self.invalidations: Counter[int] = Counter()
        self.ends: dict[int, asyncio.Event] = {}
        self.nodes: dict[int, Computed[int]] = {}

    @compute_method(keep_alive=1e6)
    async def compute(self, key: int) -> int:
        self.runs[key] += 1
        self.nodes[key] = current_computed()
        await self._end(key).wait()
        return key

    async def call(self, key: int) -> int:
        self.runs[key] += 1
        await self._end(key).wait()
        return key

    def _end(self, key: int) -> asyncio.Event:
        return self.ends.setdefault(key, asyncio.Event())

    def _make_stale(self, key: int) -> None:
        self.invalidations[key] += 1
        self.compute.invalidate(key)


class Scene:
    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.there = Bench()
        self.here = pair.service(Bench, self.there)

    async def connect(self) -> None:
        await self.pair.peer.connect()

    async def disconnect(self) -> None:
        self.pair.stay_offline()
        await until(lambda: not self.pair.peer.is_connected)
        await turns()

    async def reconnect(self) -> None:
        self.pair.go_online()
        await self.pair.peer.connect()
        await turns()

    def nothing_open(self, live: int = 0) -> None:
        """No calls are open, beyond those of live results."""
        assert len(self.pair.peer.outbound) == live
        assert len(self.pair.server_peer.inbound) == live


@pytest.fixture
async def scene(pair: Pair) -> Scene:
    scene = Scene(pair)
    await scene.connect()
    return scene


# -- the matrix: compute calls


async def test_f1_a_compute_call_made_offline_runs_once(scene: Scene) -> None:
    await scene.disconnect()
    call = asyncio.create_task(scene.here.compute.capture(1))
    scene.there._end(1).set()
    await turns()
    await scene.reconnect()
    node = await call
    assert node.value == 1
    assert scene.there.runs == {1: 1}
    scene.there._make_stale(1)
    await node.when_invalidated()
    scene.nothing_open()


async def test_f2_a_compute_call_that_runs_over_the_outage_runs_once(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.compute.capture(1))
    await until(lambda: scene.there.runs)
    await scene.disconnect()
    await scene.reconnect()
    scene.there._end(1).set()
    node = await call
    assert node.value == 1
    assert scene.there.runs == {1: 1}
    scene.there._make_stale(1)
    await node.when_invalidated()
    scene.nothing_open()


async def test_f3_a_compute_call_that_ends_during_the_outage_runs_once(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.compute.capture(1))
    await until(lambda: scene.there.runs)
    await scene.disconnect()
    scene.there._end(1).set()
    await turns()
    await scene.reconnect()
    node = await call
    assert node.value == 1
    assert node.is_consistent
    scene.nothing_open(live=1)
    scene.there._make_stale(1)
    await node.when_invalidated()
    assert scene.there.runs == {1: 1}
    scene.nothing_open()


async def test_f4_a_compute_call_that_ends_and_goes_stale_during_the_outage_runs_again(
    scene: Scene,
) -> None:
    call = asyncio.create_task(scene.here.compute.capture(1))
    await until(lambda: scene.there.runs)
    await scene.disconnect()
    scene.there._end(1).set()
    await turns()
    scene.there._make_stale(1)
    await scene.reconnect()
    node = await call
    assert node.value == 1
    assert node.is_consistent
    assert scene.there.runs == {1: 2}
    scene.nothing_open(live=1)


async def test_f5_a_result_from_before_the_outage_goes_stale_after_it(scene: Scene) -> None:
    scene.there._end(1).set()
    node = await scene.here.compute.capture(1)
    await scene.disconnect()
    await scene.reconnect()
    assert node.is_consistent
    scene.there._make_stale(1)
    await node.when_invalidated()
    assert scene.there.runs == {1: 1}
    scene.nothing_open()


async def test_f6_a_result_that_goes_stale_during_the_outage_is_known_to_be_after_it(
    scene: Scene,
) -> None:
    scene.there._end(1).set()
    node = await scene.here.compute.capture(1)
    await scene.disconnect()
    scene.there._make_stale(1)
    assert node.is_consistent
    await scene.reconnect()
    await node.when_invalidated()
    assert scene.there.runs == {1: 1}
    scene.nothing_open()


# -- the matrix: regular calls


async def test_r1_a_call_made_offline_runs_once(scene: Scene) -> None:
    await scene.disconnect()
    call = asyncio.create_task(scene.here.call(1))
    scene.there._end(1).set()
    await turns()
    await scene.reconnect()
    assert await call == 1
    assert scene.there.runs == {1: 1}
    scene.nothing_open()


async def test_r2_a_call_that_runs_over_the_outage_runs_once(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.call(1))
    await until(lambda: scene.there.runs)
    await scene.disconnect()
    await scene.reconnect()
    scene.there._end(1).set()
    assert await call == 1
    assert scene.there.runs == {1: 1}
    scene.nothing_open()


async def test_r3_a_call_that_ends_during_the_outage_runs_again(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.call(1))
    await until(lambda: scene.there.runs)
    await scene.disconnect()
    scene.there._end(1).set()
    await turns()
    await scene.reconnect()
    assert await call == 1
    assert scene.there.runs == {1: 2}
    scene.nothing_open()


# -- events in the life of a live result


async def test_a_disconnect_makes_nothing_stale_and_lets_calls_wait(scene: Scene) -> None:
    scene.there._end(1).set()
    node = await scene.here.compute.capture(1)
    pending = asyncio.create_task(scene.here.compute(2))
    await until(lambda: scene.there.runs[2])
    await scene.disconnect()
    await turns(100)
    assert node.is_consistent
    assert not pending.done()
    assert len(scene.pair.peer.outbound) == 2
    await scene.reconnect()
    scene.there._end(2).set()
    assert await pending == 2


async def test_another_peer_makes_results_stale_and_gets_the_calls_without_one(
    scene: Scene,
) -> None:
    scene.there._end(1).set()
    node = await scene.here.compute.capture(1)
    pending = asyncio.create_task(scene.here.compute(2))
    await until(lambda: scene.there.runs[2])
    await scene.pair.restart_server()
    await node.when_invalidated()
    assert "another peer" in str(node.invalidation_cause)
    scene.there._end(2).set()
    assert await pending == 2
    assert await scene.here.compute(1) == 1


async def test_a_peer_that_is_closed_makes_results_stale_and_fails_calls(scene: Scene) -> None:
    scene.there._end(1).set()
    node = await scene.here.compute.capture(1)
    pending = asyncio.create_task(scene.here.compute(2))
    await until(lambda: scene.there.runs[2])
    scene.pair.peer.close()
    assert node.is_invalidated
    with pytest.raises(PeerClosedError):
        await pending
    with pytest.raises(PeerClosedError):
        await scene.here.compute(1)


async def test_an_invalidation_that_comes_before_its_result_means_to_ask_again(
    scene: Scene,
) -> None:
    call = asyncio.create_task(scene.here.compute.capture(1))
    await until(lambda: scene.there.runs)
    (id,) = scene.pair.peer.outbound
    for _ in range(2):
        scene.pair.server_peer.send_system("$sys-c.Invalidate:0", id, b"")
    scene.there._end(1).set()
    node = await call
    assert node.value == 1
    assert node.is_consistent
    assert list(scene.pair.peer.outbound) != [id]


async def test_a_stray_invalidation_of_a_plain_call_is_ignored(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.call(1))
    await until(lambda: scene.there.runs)
    (id,) = scene.pair.peer.outbound
    scene.pair.server_peer.send_system("$sys-c.Invalidate:0", id, b"")
    await turns()
    scene.there._end(1).set()
    assert await call == 1
    scene.nothing_open()


async def test_a_caller_that_is_cancelled_caches_nothing(scene: Scene) -> None:
    call = asyncio.create_task(scene.here.compute(1))
    await until(lambda: scene.there.runs)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert scene.here.compute.existing(1) is None
    await turns()
    scene.nothing_open()


async def test_an_error_is_tracked_and_replaced_when_the_server_says_so(pair: Pair) -> None:
    there = MemoryCounters()
    there.values["a"] = -1
    here = pair.service(Counters, there)
    node = await here.failing.capture("a")
    assert isinstance(node.error, ValueError)
    assert len(pair.server_peer.inbound) == 1
    await there.set("a", 4)
    await node.when_invalidated()
    assert await here.failing("a") == 4


# -- duplicates and other orders


async def test_answers_that_come_twice_count_once(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    pair.connector.links[-1].to_client.alter = lambda frame: (frame, frame, frame)
    for value in range(1, 6):
        node = await here.get.capture("a")
        await here.set("a", value)
        await node.when_invalidated()
        assert await workshop.add(value, 1) == value + 1
        assert await here.get("a") == value
    assert len(pair.peer.outbound) == len(pair.server_peer.inbound) == 1


async def test_requests_that_come_twice_while_they_run_are_run_once(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    await pair.peer.connect()
    pair.connector.links[-1].to_server.alter = lambda frame: (frame, frame)
    compute = asyncio.create_task(here.slow("a"))
    call = asyncio.create_task(workshop.work("a"))
    await until(lambda: there.nodes and open_workshop.running)
    await turns()
    pair.connector.links[-1].to_server.alter = None
    assert len(pair.server_peer.inbound) == 2
    there.gate.set()
    open_workshop.gate.set()
    assert [await compute, await call] == [0, "a"]
    assert there.computed == ["a"]
    assert open_workshop.runs == {"a": 1}


@pytest.mark.parametrize("seed", range(5))
async def test_answers_in_any_order_reach_their_calls(pair: Pair, seed: int) -> None:
    there = MemoryCounters()
    there.values = {str(number): number for number in range(50)}
    here = pair.service(Counters, there)
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    link = pair.connector.links[-1]
    nodes = [await here.get.capture(str(number)) for number in range(25)]
    link.to_client.hold()
    calls = []
    for number in range(50):
        calls.append(asyncio.create_task(workshop.add(number, 1)))
        calls.append(asyncio.create_task(here.get(str(number))))
        there.values[str(number)] += 100
        there.get.invalidate(str(number))
        await turns(2)
    link.to_client.release(lambda frames: random.Random(seed).sample(frames, len(frames)))
    await asyncio.gather(*calls)
    await turns()
    assert all(node.is_invalidated for node in nodes)
    for number in range(50):
        assert await here.get(str(number)) == number + 100
        assert calls[2 * number].result() == number + 1


async def test_a_result_of_which_the_answer_was_lost_is_given_again_not_made_again(
    scene: Scene,
) -> None:
    link = scene.pair.connector.links[-1]
    call = asyncio.create_task(scene.here.compute.capture(1))
    await until(lambda: scene.there.runs)
    link.to_client.hold()
    scene.there._end(1).set()
    await turns()
    link.drop()
    await until(lambda: not scene.pair.peer.is_connected)
    scene.pair.peer.reconnect_now()
    node = await call
    assert scene.there.runs == {1: 1}
    scene.there._make_stale(1)
    await node.when_invalidated()
    scene.nothing_open()


async def test_fifty_rounds_of_changes_and_lost_connections_end_with_the_servers_value(
    clock: FakeClock, pair: Pair
) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    for value in range(1, 51):
        node = await here.get.capture("a")
        if value % 3 == 0:
            pair.cut()
        change = asyncio.create_task(here.set("a", value))
        if value % 3 == 1:
            await turns(value % 5)
            pair.cut()
        await clock.advance(0)
        await until(lambda: pair.peer.reconnect_now() or pair.peer.is_connected)
        await change
        await node.when_invalidated()
        assert await here.get("a") == value
    assert len(pair.peer.outbound) == 1
