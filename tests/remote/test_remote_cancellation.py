"""Cancellation across the wire: by the caller, by the server's method itself, many at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from afresh import ComputeService, compute_method
from afresh.testing import FakeClock
from tests.remote.services import Counters, MemoryCounters
from tests.rpc.hostile import turns
from tests.rpc.pair import Pair, until


class Moody(ComputeService):
    """Cancels itself now and then."""

    def __init__(self) -> None:
        self._random = random.Random(3)
        self._value = 0

    @compute_method
    async def get(self) -> int:
        value = self._value
        await asyncio.sleep(0)
        if self._random.random() < 0.5:
            raise asyncio.CancelledError
        return value

    async def increment(self) -> None:
        self._value += 1
        self.get.invalidate()


class Slow(ComputeService):
    """Takes its time."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()

    @compute_method
    async def get(self, key: int) -> int:
        await self._gate.wait()
        return key


async def test_a_method_that_always_cancels_itself_is_cancelled_for_the_client(
    clock: FakeClock, pair: Pair
) -> None:
    here = pair.service(Counters, MemoryCounters())
    call = asyncio.create_task(here.cancelling.capture(10**9))
    for _ in range(100):
        await clock.advance(1)
        if call.done():
            break
    with pytest.raises(asyncio.CancelledError):
        await call
    assert here.cancelling.existing(10**9) is None
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_a_method_that_cancels_itself_at_random_gives_right_values_in_the_end(
    clock: FakeClock, pair: Pair
) -> None:
    here = pair.service(Moody, Moody())
    for value in range(10):
        for _ in range(10):
            call = asyncio.create_task(here.get())
            while not call.done():
                await clock.advance(0.1)
            if not call.cancelled():
                break
        assert call.result() == value
        await here.increment()
        await turns()


async def test_a_caller_may_stop_waiting_while_others_go_on(pair: Pair) -> None:
    slow = Slow()
    here = pair.service(Slow, slow)
    await pair.peer.connect()
    first, second = (asyncio.create_task(here.get(1)) for _ in range(2))
    await until(lambda: pair.server_peer.inbound)
    first.cancel()
    await turns()
    assert first.cancelled()
    assert not second.done()
    slow._gate.set()
    assert await second == 1


async def test_of_a_thousand_calls_half_are_cancelled_and_the_others_answered(pair: Pair) -> None:
    slow = Slow()
    here = pair.service(Slow, slow)
    calls = [asyncio.create_task(here.get(number % 10)) for number in range(1000)]
    await until(lambda: pair.peer.is_connected and len(pair.server_peer.inbound) == 10)
    for call in calls[::2]:
        call.cancel()
    await until(lambda: all(call.done() for call in calls[::2]))
    assert all(call.cancelled() for call in calls[::2])
    assert not any(call.done() for call in calls[1::2])
    slow._gate.set()
    assert await asyncio.gather(*calls[1::2]) == [number % 10 for number in range(1, 1000, 2)]
    assert len(pair.peer.outbound) == len(pair.server_peer.inbound) <= 10
