"""However changes and computations interleave, a state ends up with what is right."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afresh import ComputedOptions, ComputedSource, ComputedState, MutableState, compute_function
from afresh.graph import Computed
from afresh.primitives.tasks import background_tasks
from afresh.states import NEXT_TICK, NO_DELAY, YIELD, FixedDelayer, UIDelayer, UpdateDelayer
from afresh.testing import FakeClock

DELAYERS = [NO_DELAY, YIELD, NEXT_TICK, FixedDelayer(0.05), UIDelayer(None, 0.05)]


async def test_a_change_between_reading_and_the_end_of_the_computation_is_not_lost(
    clock: FakeClock,
) -> None:
    source = MutableState(1)
    gates = [asyncio.Event() for _ in range(2)]
    turns = iter(gates)

    async def slow() -> int:
        value = source.use()
        await next(turns).wait()
        return value

    async with ComputedState(slow, delay=1) as state:
        await clock.settle()
        source.set(2)
        gates[0].set()
        gates[1].set()
        await clock.settle()
        assert state.value == 1
        assert not state.computed.is_consistent
        await clock.advance(1)
        assert state.value == 2
        assert state.computed.is_consistent


async def test_recomputing_while_it_is_being_computed_is_not_lost(clock: FakeClock) -> None:
    data = 1
    gate = asyncio.Event()

    async def slow() -> int:
        value = data
        await gate.wait()
        return value

    async with ComputedState(slow, delay=60) as state:
        await clock.settle()
        data = 2
        recomputing = asyncio.ensure_future(state.recompute())
        await clock.settle()
        gate.set()
        assert (await recomputing).value == 2
        assert state.value == 2


async def test_invalidating_while_it_is_being_computed_is_not_lost(clock: FakeClock) -> None:
    data = 1
    gate = asyncio.Event()

    async def slow() -> int:
        value = data
        await gate.wait()
        return value

    async with ComputedState(slow, delay=1) as state:
        await clock.settle()
        data = 2
        state.invalidate()
        gate.set()
        await clock.settle()
        assert state.value == 1
        await clock.advance(1)
        assert state.value == 2


async def test_an_update_by_somebody_else_during_the_delay_is_enough(clock: FakeClock) -> None:
    calls = 0
    source = MutableState(1)

    async def counted() -> int:
        nonlocal calls
        calls += 1
        return source.use()

    async with ComputedState(counted, delay=1) as state:
        await clock.settle()
        source.set(2)
        await clock.advance(0.5)
        assert await state.use() == 2
        await clock.advance(10)
        assert calls == 2


async def test_a_change_after_such_an_update_is_followed_after_a_delay_of_its_own(
    clock: FakeClock,
) -> None:
    source = MutableState(1)

    async def copy() -> int:
        return source.use()

    async with ComputedState(copy, delay=1) as state:
        await clock.settle()
        source.set(2)
        await clock.advance(0.5)
        assert await state.use() == 2
        await clock.settle()
        assert background_tasks() == frozenset()
        source.set(3)
        await clock.advance(0.9)
        assert state.value == 2
        await clock.advance(0.1)
        assert state.value == 3


async def test_who_updates_while_it_is_being_updated_shares_the_result(clock: FakeClock) -> None:
    calls = 0
    gate = asyncio.Event()

    async def slow() -> int:
        nonlocal calls
        calls += 1
        await gate.wait()
        return calls

    async with ComputedState(slow, delay=1) as state:
        await clock.settle()
        updates = [asyncio.ensure_future(state.update()) for _ in range(5)]
        await clock.settle()
        gate.set()
        results = await asyncio.gather(*updates)
        assert {id(computed) for computed in results} == {id(state.computed)}
        assert calls == 1


async def test_an_update_given_up_by_its_caller_is_taken_over_by_the_state(
    clock: FakeClock,
) -> None:
    source = MutableState(1)
    gate = asyncio.Event()
    gate.set()

    async def slow() -> int:
        value = source.use()
        await gate.wait()
        return value

    async with ComputedState(slow, delay=1) as state:
        await clock.settle()
        gate.clear()
        source.set(2)
        await clock.advance(0.5)
        updating = asyncio.ensure_future(state.update())
        await clock.advance(0.6)
        updating.cancel()
        await clock.settle()
        gate.set()
        await clock.settle()
        assert state.value == 2


@pytest.mark.parametrize("delayer", DELAYERS, ids=lambda delayer: type(delayer).__name__)
async def test_ten_thousand_rapid_changes_end_with_the_right_value(
    clock: FakeClock, delayer: UpdateDelayer
) -> None:
    source = MutableState(0)

    async def copy() -> int:
        return source.use()

    async with ComputedState(copy, delay=delayer) as state:
        for value in range(1, 10_001):
            source.set(value)
            if value % 100 == 0:
                await asyncio.sleep(0)
        await clock.advance(1)
        assert state.value == 10_000
        assert state.computed.is_consistent


@pytest.mark.parametrize("delayer", DELAYERS[1:], ids=lambda delayer: type(delayer).__name__)
async def test_following_through_ten_thousand_changes_ends_with_the_right_value(
    clock: FakeClock, delayer: UpdateDelayer
) -> None:
    source = MutableState(0)
    latest: dict[str, int] = {}

    async def copy() -> int:
        return source.use()

    @compute_function
    async def method() -> int:
        return source.use()

    async def follow(name: str, computed: Computed[int]) -> None:
        async for each in computed.changes(delayer):
            latest[name] = each.value

    following = [
        asyncio.ensure_future(follow("source", ComputedSource(copy).computed)),
        asyncio.ensure_future(follow("method", await method.capture())),
        asyncio.ensure_future(follow("state", source.computed)),
    ]
    for value in range(1, 10_001):
        source.set(value)
        if value % 100 == 0:
            await asyncio.sleep(0)
    await clock.advance(1)
    assert latest == {"source": 10_000, "method": 10_000, "state": 10_000}
    for task in following:
        task.cancel()


async def test_ten_thousand_rapid_changes_pass_through_a_slow_invalidation(
    clock: FakeClock,
) -> None:
    source = MutableState(0)

    @compute_function(invalidation_delay=0.2)
    async def slow() -> int:
        return source.use()

    async with ComputedState(slow, delay=0.05) as state:
        await clock.settle()
        for value in range(1, 10_001):
            source.set(value)
            if value % 1000 == 0:
                await clock.advance(0.01)
        assert state.value < 10_000
        await clock.advance(0.5)
        assert state.value == 10_000


async def test_captures_at_the_same_time_return_the_same_result(clock: FakeClock) -> None:
    source = MutableState(0)

    @compute_function
    async def slow() -> int:
        value = source.use()
        await clock.sleep(0.1)
        return value

    captures = [asyncio.ensure_future(slow.capture()) for _ in range(20)]
    await clock.advance(0.2)
    results: list[Computed[Any]] = await asyncio.gather(*captures)
    assert len({id(computed) for computed in results}) == 1


def chain(source: MutableState[int], clock: FakeClock) -> Callable[[], Awaitable[int]]:
    @compute_function
    async def doubled() -> int:
        value = source.use()
        await clock.sleep(random.random() / 50)
        return value * 2

    async def total() -> int:
        first = source.use()
        await clock.sleep(random.random() / 50)
        return first + await doubled()

    return total


@pytest.mark.parametrize("seed", range(10))
async def test_a_state_settles_on_the_right_value_whatever_the_timing(
    clock: FakeClock, seed: int
) -> None:
    random.seed(seed)
    source = MutableState(0)
    options = ComputedOptions(invalidation_delay=random.choice([0, 0.01]))
    async with ComputedState(
        chain(source, clock), delay=random.choice(DELAYERS), options=options
    ) as state:
        for value in range(1, 100):
            source.set(value)
            match random.randrange(6):
                case 0:
                    state.invalidate()
                case 1:
                    background = asyncio.ensure_future(state.recompute())
                    await clock.advance(random.random() / 50)
                    background.cancel()
                case 2:
                    await clock.advance(random.random() / 20)
                case 3:
                    await clock.settle()
        await clock.advance(5)
        assert state.value == 99 * 3
        assert state.computed.is_consistent
