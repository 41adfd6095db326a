"""States that are computed from other states: what is fresh, and how soon."""

from collections.abc import Awaitable, Callable
from typing import Any

from afresh import ComputedState, MutableState, compute_function
from afresh.states import YIELD
from afresh.testing import FakeClock


def plus_one(source: Any) -> Callable[[], Awaitable[int]]:
    async def add() -> int:
        value = source.use()
        return (value if isinstance(value, int) else await value) + 1

    return add


async def test_a_change_travels_down_a_chain_of_states(clock: FakeClock) -> None:
    source = MutableState(0)
    async with (
        ComputedState(plus_one(source), delay=YIELD) as first,
        ComputedState(plus_one(first), delay=YIELD) as second,
        ComputedState(plus_one(second), delay=YIELD) as third,
    ):
        await clock.settle()
        assert (first.value, second.value, third.value) == (1, 2, 3)
        source.set(10)
        assert not third.computed.is_consistent
        await clock.settle()
        assert (first.value, second.value, third.value) == (11, 12, 13)


async def test_whoever_computes_first_makes_the_others_fresh_without_their_delay(
    clock: FakeClock,
) -> None:
    source = MutableState(0)
    async with (
        ComputedState(plus_one(source), delay=60) as slow,
        ComputedState(plus_one(slow), delay=0.1) as quick,
    ):
        await clock.settle()
        source.set(10)
        await clock.advance(0.1)
        assert (slow.value, quick.value) == (11, 12)


async def test_a_state_closed_underneath_becomes_the_error_of_those_above(
    clock: FakeClock,
) -> None:
    source = MutableState(0)
    async with ComputedState(plus_one(source)) as lower:
        upper = ComputedState(plus_one(lower), delay=YIELD)
        await clock.settle()
    await clock.settle()
    assert "is closed" in str(upper.error)
    assert upper.last_value == 2
    await upper.aclose()


async def test_many_states_of_one_source_all_follow_it(clock: FakeClock) -> None:
    source = MutableState(0)
    states = [ComputedState(plus_one(source), delay=0.1) for _ in range(1000)]
    await clock.settle()
    source.set(1)
    await clock.advance(0.1)
    assert {state.value for state in states} == {2}
    for state in states:
        await state.aclose()
    assert source.computed.dependants == ()


async def test_a_state_between_compute_methods_passes_changes_on(clock: FakeClock) -> None:
    source = MutableState(1)

    @compute_function
    async def below() -> int:
        return source.use() * 10

    async with ComputedState(below, delay=60) as state:

        @compute_function
        async def above() -> int:
            return await state.use() + 1

        assert await above() == 11
        source.set(2)
        assert await above() == 21
        assert state.value == 20


async def test_a_state_whose_function_sets_another_settles(clock: FakeClock) -> None:
    source = MutableState(1)
    log = MutableState[tuple[int, ...]](())

    async def noting() -> int:
        value = source.use()
        log.change(lambda seen: (*seen, value))
        return value

    async def noted() -> int:
        return len(log.use())

    async with (
        ComputedState(noting, delay=YIELD) as first,
        ComputedState(noted, delay=YIELD) as second,
    ):
        await clock.settle()
        source.set(2)
        await clock.settle()
        assert (first.value, second.value, log.value) == (2, 2, (1, 2))
