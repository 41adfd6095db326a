"""The reconnection matrix of compute calls: when the connection goes, and what happens meanwhile.

Each ends with nothing open on either side but the result that is held.
"""

import asyncio

import pytest

from afresh import ComputeService, compute_method
from afresh.graph.scopes import current_computed
from afresh.testing import FakeClock
from tests.rpc.pair import Pair, until


class Timed(ComputeService):
    """Computes for a while, and goes stale a while after that."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()

    @compute_method
    async def get(self, key: str) -> str:
        self.runs += 1
        node = current_computed()
        await self.gate.wait()
        node.invalidate(after=10)
        return key


@pytest.fixture
async def timed(pair: Pair, clock: FakeClock) -> Timed:
    timed = Timed()
    pair.service(Timed, timed)
    return timed


async def begin(pair: Pair, timed: Timed) -> asyncio.Task[object]:
    """Make the call, and wait until its body runs."""
    call = asyncio.create_task(pair.peer.service(Timed).get.capture("a"))
    await until(lambda: timed.runs)
    return call


async def go_offline(pair: Pair) -> None:
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected and not pair.server_peer.is_connected)


async def go_online(pair: Pair) -> None:
    pair.go_online()
    await pair.peer.connect()


async def test_f1_sent_when_there_is_a_connection(pair: Pair, timed: Timed) -> None:
    pair.connector.error = OSError("not yet")
    timed.gate.set()
    call = asyncio.create_task(pair.peer.service(Timed).get("a"))
    await until(lambda: pair.connector.attempts)
    await go_online(pair)
    assert await call == "a"
    assert timed.runs == 1


async def test_f2_the_body_runs_on_during_the_outage(pair: Pair, timed: Timed) -> None:
    call = await begin(pair, timed)
    await go_offline(pair)
    await go_online(pair)
    timed.gate.set()
    node = await call
    assert node.value == "a"  # type: ignore[attr-defined]
    assert timed.runs == 1


async def test_f3_the_result_is_there_after_the_outage(
    pair: Pair, timed: Timed, clock: FakeClock
) -> None:
    call = await begin(pair, timed)
    await go_offline(pair)
    timed.gate.set()
    await clock.advance(1)
    await go_online(pair)
    node = await call
    assert node.is_consistent  # type: ignore[attr-defined]
    assert timed.runs == 1
    await clock.advance(10)
    assert node.is_invalidated  # type: ignore[attr-defined]


async def test_f4_the_result_came_and_went_during_the_outage(
    pair: Pair, timed: Timed, clock: FakeClock
) -> None:
    call = await begin(pair, timed)
    await go_offline(pair)
    timed.gate.set()
    await clock.advance(11)
    await go_online(pair)
    node = await call
    assert node.value == "a"  # type: ignore[attr-defined]
    assert timed.runs == 2


async def test_f5_nothing_happens_during_the_outage(
    pair: Pair, timed: Timed, clock: FakeClock
) -> None:
    timed.gate.set()
    node = await pair.peer.service(Timed).get.capture("a")
    await go_offline(pair)
    await go_online(pair)
    await clock.advance(5)
    assert node.is_consistent
    await clock.advance(6)
    assert node.is_invalidated
    assert timed.runs == 1
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_f6_the_result_goes_stale_during_the_outage(
    pair: Pair, timed: Timed, clock: FakeClock
) -> None:
    timed.gate.set()
    node = await pair.peer.service(Timed).get.capture("a")
    await go_offline(pair)
    await clock.advance(11)
    assert node.is_consistent
    await go_online(pair)
    await node.when_invalidated()
    assert timed.runs == 1
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound
