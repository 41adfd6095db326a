"""States on a loop whose tasks take their first step at once: nothing runs sooner for that."""

import asyncio
import sys

import pytest

from afresh import ComputedState, MutableState, StateEvent, compute_function
from afresh.primitives.tasks import background_tasks
from afresh.states import YIELD
from afresh.testing import FakeClock

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


@pytest.fixture(autouse=True)
async def eager() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]


async def test_no_body_runs_inside_of_whatever_makes_or_invalidates_a_state(
    clock: FakeClock,
) -> None:
    source = MutableState(1)
    is_busy = True
    ran_while_busy: list[bool] = []

    async def copy() -> int:
        ran_while_busy.append(is_busy)
        return source.use()

    state = ComputedState(copy, delay=YIELD)
    is_busy = False
    async with state:
        assert state.is_initial
        await clock.settle()
        is_busy = True
        source.set(2)
        is_busy = False
        await clock.settle()
        assert state.value == 2
    assert ran_while_busy == [False, False]


async def test_handlers_that_invalidate_start_one_task_only(clock: FakeClock) -> None:
    tasks: list[int] = []
    values = iter(range(100))

    async def count() -> int:
        return next(values)

    def again(state: ComputedState[int], _: StateEvent) -> None:
        if state.value < 3:
            state.invalidate()
        tasks.append(len(background_tasks()))

    async with ComputedState(
        count, delay=YIELD, configure=lambda state: state.on(StateEvent.UPDATED, again)
    ) as state:
        await clock.settle()
        assert state.value == 3
    assert tasks == [1, 1, 1, 1]


async def test_closing_leaves_nothing_behind(clock: FakeClock) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    state = ComputedState(forever, graceful_close=1)
    await clock.settle()
    closing = asyncio.ensure_future(state.aclose())
    await clock.advance(1)
    await closing
    assert background_tasks() == frozenset()
    assert clock.timers == 0


async def test_a_result_that_consolidates_is_compared_and_stays(clock: FakeClock) -> None:
    number = MutableState(1)

    @compute_function(consolidate=0)
    async def is_even() -> bool:
        return number.use() % 2 == 0

    computed = await is_even.capture()
    for value in (3, 5, 7):
        number.set(value)
        await clock.settle()
        assert computed.is_consistent
    number.set(8)
    await clock.settle()
    assert computed.is_invalidated
