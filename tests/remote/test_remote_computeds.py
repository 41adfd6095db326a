"""Compute methods of a remote service: nodes here that go stale when those there do."""

import asyncio
import gc

import pytest

from afresh import ComputeService, compute_method
from afresh.errors import RpcError
from afresh.rpc.hub import RpcHub
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import Pair, until


async def test_a_result_is_fetched_once_until_it_changes(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    assert [await here.get("a") for _ in range(3)] == [0, 0, 0]
    assert there.computed == ["a"]
    assert len(pair.peer.outbound) == 1
    node = here.get.existing("a")
    assert node is not None
    await here.set("a", 5)
    await node.when_invalidated()
    assert "the other side" in str(node.invalidation_cause)
    assert await here.get("a") == 5
    assert there.computed == ["a", "a"]


async def test_arguments_have_their_defaults_on_both_sides(pair: Pair) -> None:
    there = MemoryCounters()
    there.values = {"a": 1, "b": 2}
    here = pair.service(Counters, there)
    assert await here.total("a") == await here.total("a", "b") == await here.total(b="b", a="a")
    assert len(pair.peer.outbound) == 1


async def test_local_results_depend_on_remote_ones(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)

    class Doubled(ComputeService):
        @compute_method
        async def get(self, key: str) -> int:
            return 2 * await here.get(key)

    doubled = Doubled()
    node = await doubled.get.capture("a")
    await here.set("a", 4)
    await node.when_invalidated()
    assert await doubled.get("a") == 8


async def test_a_result_passes_through_a_program_in_between(pair: Pair) -> None:
    there = MemoryCounters()
    between = pair.service(Counters, there)
    outer = Pair(pair.format, kinds=pair.server.kinds[:-1])
    here = outer.service(Counters, between)
    node = await here.total.capture("a")
    await there.set("a", 4)
    await node.when_invalidated()
    assert await here.total("a") == 4
    await outer.aclose()


async def test_an_error_is_a_result_like_any_other(pair: Pair) -> None:
    there = MemoryCounters()
    there.values["a"] = -1
    here = pair.service(Counters, there)
    for _ in range(3):
        with pytest.raises(ValueError, match="a is negative"):
            await here.failing("a")
    assert there.computed == ["a"]
    node = await here.failing.capture("a")
    await here.set("a", 1)
    await node.when_invalidated()
    assert await here.failing("a") == 1


async def test_a_result_that_goes_stale_here_is_let_go_there(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    await here.get("a")
    assert len(pair.server_peer.inbound) == 1
    here.get.invalidate("a")
    await until(lambda: not pair.server_peer.inbound)
    assert not pair.peer.outbound
    assert await here.get("a") == 0
    assert there.computed == ["a"]


async def test_a_result_that_nobody_holds_is_let_go_there(clock: FakeClock, pair: Pair) -> None:
    class Brief(ComputeService):
        @compute_method(keep_alive=1)
        async def get(self, key: str) -> int:
            return 1

    here = pair.service(Brief, Brief())
    node = await here.get.capture("a")
    await until(lambda: pair.server_peer.inbound)
    await clock.advance(5)
    assert node.is_consistent
    assert pair.server_peer.inbound
    del node
    await clock.advance(5)
    await until(lambda: not pair.server_peer.inbound)
    assert not pair.peer.outbound


async def test_no_subscription_outlives_its_last_holder_in_10_000_rounds(
    clock: FakeClock, pair: Pair
) -> None:
    class Brief(ComputeService):
        @compute_method(keep_alive=1)
        async def get(self, key: int) -> int:
            return key

    here = pair.service(Brief, Brief())
    await here.get(-1)
    for start in range(0, 10_000, 100):
        nodes = await asyncio.gather(*(here.get.capture(start + i) for i in range(100)))
        assert len(pair.peer.outbound) >= 100
        del nodes
        await clock.advance(2)
    await clock.advance(5)
    await until(lambda: not pair.server_peer.inbound)
    assert not pair.peer.outbound


async def test_invalidation_while_computing_comes_after_the_answer(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    call = asyncio.create_task(here.slow.capture("a"))
    await until(lambda: there.nodes)
    await there.set("a", 7)
    there.gate.set()
    node = await call
    await node.when_invalidated()
    assert node.value == 0
    assert await here.slow("a") == 7
    assert len(pair.peer.outbound) == 1


async def test_a_cancelled_caller_leaves_nothing_behind(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    call = asyncio.create_task(here.slow("a"))
    await until(lambda: there.nodes)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: there.slow.existing("a") is None)
    assert not pair.server_peer.inbound
    assert not pair.peer.outbound
    there.gate.set()
    assert await here.slow("a") == 0


async def test_a_computation_that_cancels_itself_is_tried_again(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    assert await here.cancelling(2) == 2


async def test_disconnection_alone_makes_nothing_stale(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    node = await here.get.capture("a")
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected)
    assert node.is_consistent
    pair.go_online()
    await pair.peer.connect()
    for _ in range(20):
        await asyncio.sleep(0)
    assert node.is_consistent
    assert there.computed == ["a"]
    await here.set("a", 1)
    await node.when_invalidated()


async def test_an_invalidation_missed_while_offline_is_found_out(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    node = await here.get.capture("a")
    other = await here.get.capture("b")
    pair.stay_offline()
    await until(lambda: not pair.server_peer.is_connected)
    await there.set("a", 3)
    assert node.is_consistent
    pair.go_online()
    await node.when_invalidated()
    assert other.is_consistent
    assert await here.get("a") == 3


async def test_a_restarted_server_makes_everything_stale(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    node = await here.get.capture("a")
    pair.stay_offline()
    await until(lambda: not pair.server_peer.is_connected)
    await there.set("a", 9)
    assert node.is_consistent
    pair.connector.error = None
    await pair.restart_server()
    await node.when_invalidated()
    assert await here.get("a") == 9


async def test_a_closed_peer_makes_everything_stale(pair: Pair) -> None:
    here = pair.service(Counters, MemoryCounters())
    node = await here.get.capture("a")
    pair.peer.close()
    assert node.is_invalidated


async def test_a_plain_call_of_a_compute_method_leaves_no_subscription(pair: Pair) -> None:
    pair.service(Counters, MemoryCounters())

    class PlainCounters:
        async def get(self, key: str) -> int:
            raise NotImplementedError

    plain = RpcHub()
    peer = plain.client_peer("memory:plain", connector=pair.connector)
    assert await peer.service(PlainCounters, name="Counters").get("a") == 0
    assert not peer.outbound
    assert not any(peer.inbound for peer in pair.server.peers)
    await plain.aclose()


async def test_the_server_holds_what_it_gave_away(pair: Pair) -> None:
    class Brief(ComputeService):
        @compute_method(keep_alive=0)
        async def get(self, key: str) -> int:
            return 1

    there = Brief()
    here = pair.service(Brief, there)
    node = await here.get.capture("a")
    gc.collect()
    assert there.get.existing("a") is not None
    there.get.invalidate("a")
    await node.when_invalidated()


async def test_extra_arguments_on_the_wire_are_no_part_of_the_key(pair: Pair) -> None:

    there = MemoryCounters()
    pair.service(Counters, there)
    await pair.peer.connect()
    codec = pair.peer.format.codec((str, str))
    write = pair.peer.format.writer("Counters.get:2", 1)
    for id in (1001, 1002):
        pair.peer.send(write(id, codec.encode(("a", str(id)))))
    await until(lambda: len(pair.server_peer.inbound) == 2)
    assert there.computed == ["a"]


async def test_a_failure_that_is_no_result_is_asked_again_after_a_while(
    clock: FakeClock, pair: Pair
) -> None:
    here = pair.service(Counters, MemoryCounters())
    with pytest.raises(RpcError):
        await here.get(5)  # type: ignore[arg-type]
    node = await here.get.capture(5)  # type: ignore[arg-type]
    assert node.is_consistent
    await clock.advance(1.1)
    assert node.is_invalidated
    assert not pair.server_peer.inbound


async def test_what_a_call_changed_is_stale_at_its_caller_when_the_call_returns(pair: Pair) -> None:
    here = pair.service(Counters, MemoryCounters())
    for value in range(1, 20):
        node = await here.get.capture("a")
        await here.set("a", value)
        assert node.is_invalidated
        assert await here.get("a") == value


async def test_so_it_is_behind_a_program_in_between(pair: Pair) -> None:
    outer = Pair(pair.format, kinds=pair.server.kinds[:-1])
    here = outer.service(Counters, pair.service(Counters, MemoryCounters()))
    for value in range(1, 20):
        node = await here.total.capture("a")
        await here.set("a", value)
        assert node.is_invalidated
        assert await here.total("a") == value
    await outer.aclose()


async def test_what_was_let_go_while_offline_is_let_go_there_too(pair: Pair) -> None:
    there = MemoryCounters()
    here = pair.service(Counters, there)
    await here.get("a")
    kept = await here.get.capture("b")
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected and not pair.server_peer.is_connected)
    here.get.invalidate("a")
    assert len(pair.server_peer.inbound) == 2
    pair.go_online()
    await until(lambda: len(pair.server_peer.inbound) == 1)
    assert kept.is_consistent
    here.get.invalidate("b")
    await until(lambda: not pair.server_peer.inbound)
