"""Many tasks at once, and very many changes: the last value wins, and it is right."""

import asyncio
import random
from typing import Any

import pytest

from afresh import Computed, ComputedSource, ComputedState, MutableState, compute_method
from afresh.states import FixedDelayer, UIDelayer
from afresh.testing import FakeClock
from tests.graph.services import Counters


class Yielding(Counters):
    """Bodies that let others have their turn, and say what was true when they ended."""

    @compute_method
    async def slow(self, key: Any) -> int:
        value = await self.get(key)
        for _ in range(random.Random(value).randint(0, 3)):
            await asyncio.sleep(0)
        return value

    @compute_method
    async def sum(self, first: Any, second: Any) -> int:
        return sum(await asyncio.gather(self.slow(first), self.slow(second)))

    @compute_method(invalidation_delay=0.2)
    async def delayed(self, key: Any) -> int:
        return await self.get(key)


async def test_races_of_invalidations_and_computations_end_with_one_fresh_result():
    service = Yielding()
    chance = random.Random(7)
    old = await service.slow.capture("a")
    for value in range(100):
        service.values["a"] = value
        tasks: list[asyncio.Future[Any]] = []
        for _ in range(16):
            match chance.randrange(4):
                case 0:
                    service.get.invalidate("a")
                case 1:
                    service.slow.invalidate("a")
                case 2:
                    tasks.append(asyncio.ensure_future(service.slow("a")))
                case _:
                    tasks.append(asyncio.ensure_future(old.update()))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        service.get.invalidate("a")
        await asyncio.gather(*tasks)

        fresh = await old.update()
        assert fresh.value == value
        assert fresh.is_consistent
        assert service.slow.existing("a") is fresh
        assert await fresh.update() is fresh
        assert await service.slow.capture("a") is fresh
        generations = [each for each in tasks if isinstance(each.result(), Computed)]
        assert sum(each.result().is_consistent for each in generations) <= len(generations)
        old = fresh
    assert dict(service.slow.table.computing) == {}


async def test_thirty_two_computations_after_as_many_invalidations_leave_one_fresh_result():
    service = Yielding()
    seen: list[Computed[int]] = []

    async def work(number: int) -> None:
        service.set("a", number)
        seen.append(await service.slow.capture("a"))

    await asyncio.gather(*map(work, range(32)))
    await service.slow("a")

    registered = service.slow.existing("a")
    assert registered is not None
    assert registered.value == 31
    assert [each for each in {*seen, registered} if each.is_consistent] == [registered]


async def test_method_results_are_right_after_ten_thousand_changes():
    service = Yielding()
    readers_done = 0

    async def read() -> None:
        nonlocal readers_done
        while service.values.get("a", 0) < 10_000:
            assert await service.sum("a", "b") <= 10_000
            await asyncio.sleep(0)
        readers_done += 1

    readers = [asyncio.create_task(read()) for _ in range(5)]
    for value in range(1, 10_001):
        service.set("a", value)
        if value % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*readers)
    assert readers_done == 5
    assert await service.sum("a", "b") == 10_000


async def test_a_source_that_is_followed_is_right_after_ten_thousand_changes(clock: FakeClock):
    state = MutableState(0)
    source: ComputedSource[int] = ComputedSource(lambda: asyncio.sleep(0, state.use()))
    seen: list[int] = []

    async def follow() -> None:
        async for computed in source.computed.changes():
            seen.append(computed.value)
            if computed.value == 10_000:
                break

    following = asyncio.create_task(follow())
    for value in range(1, 10_001):
        state.set(value)
        if value % 500 == 0:
            await clock.advance(0.01)
    await clock.advance(1)
    await following
    assert seen[-1] == 10_000
    assert seen == sorted(seen)


DELAYERS = {
    "none": 0,
    "a short one": 0.01,
    "a long one": 1.0,
    "fixed": FixedDelayer(0.05),
    "for user interfaces": UIDelayer(None, 0.1),
}


@pytest.mark.parametrize("delay", DELAYERS.values(), ids=DELAYERS)
async def test_a_state_is_right_after_ten_thousand_changes(clock: FakeClock, delay: Any):
    service = Yielding()
    number = MutableState(0)

    async def total() -> int:
        return await service.get("a") + number.use()

    async with ComputedState(total, delay=delay) as state:
        for value in range(1, 5_001):
            service.set("a", value)
            number.set(value)
            if value % 500 == 0:
                await clock.advance(0.03)
        await clock.advance(10)
        assert state.value == 10_000


async def test_a_state_over_a_delayed_result_is_right_in_the_end(clock: FakeClock):
    service = Yielding()
    async with ComputedState(lambda: service.delayed("a"), delay=0.05) as state:
        for value in range(1, 1001):
            service.set("a", value)
            if value % 10 == 0:
                await clock.advance(0.03)
        await clock.advance(2)
        assert state.value == 1000
        for value in range(10):
            service.set("a", value)
        await clock.advance(1)
        assert state.value == 9
