"""What counts as kept: the results of compute methods, and not those of states."""

import asyncio
import gc

from afresh import ComputedSource, ComputedState, MutableState
from afresh.graph import computed_count, invalidate_everything, nodes
from tests.testing.counters import Counters


async def test_the_results_of_states_do_not_count_among_those_of_compute_methods():
    gc.collect()  # services of other tests, which would leave meanwhile
    count = computed_count()
    variable = MutableState(1)
    source = ComputedSource(lambda: asyncio.sleep(0, "x"))
    await source.update()
    async with ComputedState(lambda: asyncio.sleep(0, "x")) as state:
        await state.when_ready()
        assert computed_count() == count
        kept = set(nodes())
        assert not kept & {variable.computed, source.computed, state.computed}


async def test_invalidating_everything_reaches_states_through_what_they_use():
    counters = Counters()
    counters.values["a"] = 1
    variable = MutableState(1)
    before = variable.computed
    async with ComputedState(lambda: counters.get("a"), delay=0) as state:
        await state.when_ready()
        latest = state.computed
        invalidate_everything()
        assert latest.is_invalidated
    assert variable.computed is before
    assert before.is_consistent
