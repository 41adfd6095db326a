"""A service whose results expire by themselves, seen from a client: it goes by the server."""

from __future__ import annotations

import math
from abc import abstractmethod

import pytest

from afresh import ComputeService, compute_method, invalidating
from afresh.errors import EndpointNotFoundError
from afresh.primitives.clock import current_clock
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.pair import Pair


class Time(ComputeService):
    @compute_method(auto_invalidate=1, keep_alive=100)
    @abstractmethod
    async def now(self) -> float: ...

    @compute_method(auto_invalidate=1, keep_alive=100)
    @abstractmethod
    async def formatted(self, format: str) -> str | None: ...


class ServerTime(Time):
    @compute_method(auto_invalidate=1, keep_alive=100)
    async def now(self) -> float:
        return current_clock().now()

    @compute_method(auto_invalidate=1, keep_alive=100)
    async def formatted(self, format: str) -> str | None:
        return format % await self.now() if format else None


async def test_results_expire_when_they_do_on_the_server(clock: FakeClock, pair: Pair) -> None:
    time = pair.service(Time, ServerTime())
    node = await time.now.capture()
    assert node.value == 0
    assert node.options.auto_invalidate == math.inf
    await clock.advance(0.9)
    assert node.is_consistent
    await clock.advance(0.2)
    assert node.is_invalidated
    assert "the other side" in str(node.invalidation_cause)
    fresh = await node.update()
    assert fresh.value == pytest.approx(1.1)
    assert await node.use() == fresh.value


async def test_a_client_without_its_server_keeps_what_it_has(clock: FakeClock, pair: Pair) -> None:
    time = pair.service(Time, ServerTime())
    node = await time.now.capture()
    pair.stay_offline()
    await clock.advance(100)
    assert node.is_consistent
    assert await time.now() == 0
    pair.go_online()
    await clock.advance(1)
    assert node.is_invalidated


async def test_texts_and_nothing_are_results(clock: FakeClock, pair: Pair) -> None:
    time = pair.service(Time, ServerTime())
    assert await time.formatted("%.1f s") == "0.0 s"
    assert await time.formatted("") is None
    node = await time.formatted.capture("")
    assert node.value is None
    assert len(pair.peer.outbound) == 2


async def test_in_a_block_that_invalidates_nothing_is_asked(clock: FakeClock, pair: Pair) -> None:
    time = pair.service(Time, ServerTime())
    node = await time.now.capture()
    with invalidating():
        assert await time.now() is None  # type: ignore[func-returns-value]
        assert await time.formatted("%s") is None
    assert node.is_invalidated
    assert not pair.peer.outbound


async def test_a_method_that_the_server_does_not_have_is_an_error(
    clock: FakeClock, pair: Pair
) -> None:
    pair.service(Counters, MemoryCounters())
    time = pair.peer.service(Time)
    # In the compact format, a server knows the names of its own methods only.
    with pytest.raises(EndpointNotFoundError, match=r"Time|Service\.Method<"):
        await time.now()
    pair.server.serve(Time, ServerTime())
    await clock.advance(60)
    assert await time.now() == 60
