"""Which context variables a state's function sees, and that what is around it leaves no mark."""

import asyncio
import contextvars

import pytest

from afresh import (
    ComputedState,
    MutableState,
    StateEvent,
    compute_function,
    current_computed,
    invalidating,
)
from afresh.graph.scopes import try_current_computed
from afresh.states import YIELD
from afresh.testing import FakeClock

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def who() -> str:
    return user.get()


async def test_by_default_it_sees_none_of_those_of_its_maker(clock: FakeClock) -> None:
    user.set("maker")
    async with ComputedState(who) as state:
        await clock.settle()
        assert state.value == "nobody"


async def test_those_of_its_maker_flow_into_every_update_if_asked_for(clock: FakeClock) -> None:
    source = MutableState(1)

    async def who_and_what() -> tuple[str, int]:
        return user.get(), source.use()

    user.set("maker")
    async with ComputedState(who_and_what, delay=YIELD, flow_context=True) as state:
        user.set("somebody else")
        await clock.settle()
        assert state.value == ("maker", 1)
        source.set(2)
        await clock.settle()
        assert state.value == ("maker", 2)


async def test_what_an_update_sets_is_not_there_in_the_next_one(clock: FakeClock) -> None:
    source = MutableState(1)

    async def mark() -> tuple[str, int]:
        before = user.get()
        user.set("marked")
        return before, source.use()

    user.set("maker")
    async with ComputedState(mark, delay=YIELD, flow_context=True) as state:
        await clock.settle()
        source.set(2)
        await clock.settle()
        assert state.value == ("maker", 2)
    assert user.get() == "maker"


async def test_updating_by_hand_computes_among_the_variables_of_the_caller(
    clock: FakeClock,
) -> None:
    user.set("caller")
    async with ComputedState(who, start=False) as state:
        assert (await state.update()).value == "caller"


@pytest.mark.parametrize("flow_context", [False, True])
async def test_a_state_made_by_a_computation_is_no_part_of_it(
    clock: FakeClock, flow_context: bool
) -> None:
    source = MutableState(1)
    states: list[ComputedState[int]] = []

    async def copy() -> int:
        assert current_computed() is not None
        return source.use()

    @compute_function
    async def outer() -> int:
        states.append(ComputedState(copy, delay=YIELD, flow_context=flow_context))
        await clock.sleep(1)
        return 1

    capturing = outer.capture()
    task = asyncio.ensure_future(capturing)
    await clock.advance(1)
    computed = await task
    async with states[0] as state:
        assert state.value == 1
        assert computed.dependencies == ()
        source.set(2)
        await clock.settle()
        assert state.value == 2
        assert computed.is_consistent


@pytest.mark.parametrize("flow_context", [False, True])
async def test_a_state_made_inside_an_invalidation_computes_all_the_same(
    clock: FakeClock, flow_context: bool
) -> None:
    source = MutableState(1)

    async def copy() -> int:
        return source.use()

    with invalidating():
        state = ComputedState(copy, delay=YIELD, flow_context=flow_context)
        source.set(2)
    async with state:
        await clock.settle()
        assert state.value == 2


async def test_delayers_and_handlers_run_outside_of_any_computation(clock: FakeClock) -> None:
    seen: list[object] = []
    source = MutableState(1)

    class Delayer:
        async def delay(self, retry_count: int) -> None:
            seen.append(try_current_computed())

    async def copy() -> int:
        return source.use()

    @compute_function
    async def outer() -> int:
        async with ComputedState(copy, delay=Delayer(), flow_context=True) as state:
            state.on(StateEvent.UPDATED, lambda *_: seen.append(try_current_computed()))
            await state.use()
            source.set(2)
            await clock.settle()
            return state.value

    assert await outer() == 2
    assert seen == [None, None, None]
