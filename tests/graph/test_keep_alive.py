"""Results that nobody needs leave: unused for their `keep_alive`, and held by nobody."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from afresh import ComputedState, ComputeService, compute_method
from afresh.graph import computed_count, prune
from afresh.graph.keep_alive import LONGEST_PERIOD, SLICE
from afresh.primitives.clock import Timer, use_clock
from afresh.testing import FakeClock
from tests.graph.services import Counters

# An unused result leaves at the first of four sweeps in `keep_alive` that finds it unused for so
# long: after 1 to 1.25 times that.
MINUTE = 60
LATEST = 75


class Kept(ComputeService):
    """Methods that keep their results for different times; counts how often bodies ran."""

    def __init__(self) -> None:
        self.runs = 0

    @compute_method
    async def usual(self, key: int) -> int:
        self.runs += 1
        return key

    @compute_method(keep_alive=0.5)
    async def short(self, key: int) -> int:
        self.runs += 1
        return key

    @compute_method(keep_alive=0)
    async def hardly(self, key: int) -> int:
        self.runs += 1
        return key

    @compute_method(keep_alive=math.inf)
    async def always(self, key: int) -> int:
        self.runs += 1
        return key

    @compute_method(keep_alive=10)
    async def short_of_usual(self, key: int) -> int:
        return await self.usual(key)

    @compute_method(keep_alive=100)
    async def long_of_short(self, key: int) -> int:
        return await self.short(key)


@pytest.mark.parametrize("way", ["call", "capture", "use"])
async def test_every_way_to_get_at_a_result_counts_as_a_use(clock: FakeClock, way: str):
    kept = Kept()
    await kept.usual(1)
    for _ in range(3):
        await clock.advance(MINUTE - 10)
        match way:
            case "call":
                await kept.usual(1)
            case "capture":
                await kept.usual.capture(1)
            case "use":
                computed = next(iter(kept.usual.table.entries.values()))
                await computed.use()
                del computed
    assert kept.runs == 1
    await clock.advance(LATEST)
    assert kept.usual.existing(1) is None


async def test_an_unused_result_leaves_after_a_minute(clock: FakeClock):
    kept = Kept()
    await kept.usual(1)
    await clock.advance(MINUTE - 0.1)
    assert kept.usual.existing(1) is not None
    await clock.advance(LATEST - MINUTE + 0.1)
    assert kept.usual.existing(1) is None
    assert await kept.usual(1) == 1
    assert kept.runs == 2


async def test_each_use_lets_it_stay_that_much_longer(clock: FakeClock):
    kept = Kept()
    for _ in range(10):
        await kept.usual(1)
        await clock.advance(MINUTE - 1)
    assert kept.runs == 1
    await clock.advance(LATEST - MINUTE + 1)
    assert kept.usual.existing(1) is None


async def test_being_looked_up_is_no_use(clock: FakeClock):
    kept = Kept()
    await kept.usual(1)
    for _ in range(6):
        assert kept.usual.existing(1) is not None
        await clock.advance(10)
    await clock.advance(LATEST - 60)
    assert kept.usual.existing(1) is None


async def test_a_method_may_keep_its_results_for_a_shorter_time(clock: FakeClock):
    kept = Kept()
    await kept.short(1)
    await clock.advance(0.25)
    gc.collect()
    assert await kept.short(1) == 1
    assert kept.runs == 1
    await clock.advance(1)
    gc.collect()
    assert await kept.short(1) == 1
    assert kept.runs == 2


async def test_a_method_may_keep_its_results_hardly_at_all(clock: FakeClock):
    kept = Kept()
    await kept.hardly(1)
    assert await kept.hardly(1) == 1
    assert kept.runs == 1
    await clock.advance(0.2)
    assert await kept.hardly(1) == 1
    assert kept.runs == 2


async def test_a_method_may_keep_its_results_for_ever(clock: FakeClock):
    kept = Kept()
    await kept.always(1)
    await clock.advance(10_000)
    assert await kept.always(1) == 1
    assert kept.runs == 1
    assert clock.timers == 0


async def test_a_result_that_is_held_stays(clock: FakeClock):
    kept = Kept()
    held: Any = await kept.short.capture(1)
    await clock.advance(1000)
    assert kept.short.existing(1) is held
    assert await kept.short(1) == 1
    assert kept.runs == 1

    del held
    await clock.advance(LONGEST_PERIOD)
    assert kept.short.existing(1) is None


async def test_where_all_is_held_it_is_looked_for_less_and_less_often():
    class Counting(FakeClock):
        timers_made = 0

        def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
            self.timers_made += 1
            return super().call_later(delay, callback)

    with use_clock(Counting()) as clock:
        kept = Kept()
        held: Any = await kept.short.capture(1)
        await clock.advance(2000)
        assert clock.timers_made < 20
        del held
        await clock.advance(LONGEST_PERIOD)
        assert kept.short.existing(1) is None


async def test_what_a_result_depends_on_stays_with_it(clock: FakeClock):
    kept = Kept()
    await kept.long_of_short(1)
    await clock.advance(99)
    assert kept.short.existing(1) is not None
    assert await kept.long_of_short(1) == 1
    assert kept.runs == 1
    kept.short.invalidate(1)
    assert kept.long_of_short.existing(1) is None


async def test_what_only_a_dropped_result_held_leaves_with_it(clock: FakeClock):
    kept = Kept()
    await kept.long_of_short(1)
    await clock.advance(125)
    assert kept.long_of_short.existing(1) is None
    assert kept.short.existing(1) is None


async def test_what_has_a_longer_time_than_what_held_it_stays_for_that(clock: FakeClock):
    kept = Kept()
    await kept.short_of_usual(1)
    await clock.advance(12.5)
    assert kept.short_of_usual.existing(1) is None
    assert kept.usual.existing(1) is not None
    await clock.advance(LATEST - 12.5)
    assert kept.usual.existing(1) is None


async def test_a_long_chain_that_nobody_needs_leaves_at_once(clock: FakeClock):
    class Chain(ComputeService):
        @compute_method
        async def link(self, number: int) -> int:
            return await self.link(number - 1) + 1 if number else 0

    chain = Chain()
    for number in range(20_000):
        await chain.link(number)
    assert len(chain.link.table.entries) == 20_000
    await clock.advance(LATEST + 1)
    assert len(chain.link.table.entries) == 0


async def test_a_chain_that_is_used_at_its_end_stays(clock: FakeClock):
    class Chain(ComputeService):
        @compute_method
        async def link(self, number: int) -> int:
            return await self.link(number - 1) + 1 if number else 0

    chain = Chain()
    await chain.link(100)
    for _ in range(5):
        await clock.advance(MINUTE - 1)
        await chain.link(100)
    assert len(chain.link.table.entries) == 101
    chain.link.invalidate(50)
    assert len(chain.link.table.entries) == 50
    await clock.advance(LATEST)
    assert len(chain.link.table.entries) == 0


async def test_a_result_somebody_watches_stays(clock: FakeClock):
    kept = Kept()
    calls: list[Any] = []
    remove = (await kept.short.capture(1)).on_invalidated(calls.append)
    await clock.advance(1000)
    assert kept.short.existing(1) is not None
    remove()
    del remove
    await clock.advance(LONGEST_PERIOD)
    assert kept.short.existing(1) is None
    assert calls == []


async def test_a_result_that_a_state_uses_stays_as_long_as_that_does(clock: FakeClock):
    kept = Kept()
    async with ComputedState(lambda: kept.short(1)) as state:
        await state.when_ready()
        await clock.advance(100)
        assert kept.short.existing(1) is not None
        assert kept.runs == 1
    del state
    gc.collect()
    await clock.advance(LONGEST_PERIOD)
    assert kept.short.existing(1) is None


async def test_a_timer_does_not_keep_a_result(clock: FakeClock):
    class Expiring(ComputeService):
        @compute_method(keep_alive=1, auto_invalidate=1000)
        async def get(self) -> int:
            return 1

    expiring = Expiring()
    await expiring.get()
    await clock.advance(2)
    assert expiring.get.existing() is None
    assert clock.timers == 0


async def test_an_error_leaves_like_a_value(clock: FakeClock):
    class Failing(ComputeService):
        @compute_method(keep_alive=1)
        async def get(self) -> int:
            raise ValueError

    failing = Failing()
    await failing.get.capture()
    await clock.advance(2)
    assert failing.get.existing() is None
    assert clock.timers == 0


async def test_a_result_being_computed_stays(clock: FakeClock):
    gate = asyncio.Event()

    class Slow(ComputeService):
        @compute_method(keep_alive=0)
        async def get(self) -> int:
            await gate.wait()
            return 1

    slow = Slow()
    call = asyncio.ensure_future(slow.get())
    await clock.advance(100)
    assert slow.get.existing() is not None
    gate.set()
    assert await call == 1


async def test_a_dropped_result_is_freed(clock: FakeClock):
    kept = Kept()
    gone = weakref.ref(await kept.usual.capture(1))
    await clock.advance(LATEST)
    assert gone() is None


async def test_a_dropped_result_leaves_the_dependants_of_what_it_used(clock: FakeClock):
    kept = Kept()
    used = await kept.usual.capture(1)
    await kept.short_of_usual(1)
    assert len(used.dependants) == 1
    await clock.advance(12.5)
    assert used.dependants == ()


async def test_more_results_than_one_slice_of_work_leave_too(clock: FakeClock):
    kept = Kept()
    count = 2 * SLICE + 100
    for key in range(count):
        await kept.usual(key)
    await clock.advance(LATEST + 1)
    assert len(kept.usual.table.entries) == 0


async def test_when_everything_has_left_no_timer_stays(clock: FakeClock):
    kept = Kept()
    for key in range(10):
        await kept.usual(key)
        await kept.short(key)
    assert clock.timers == 2
    await clock.advance(300)
    assert clock.timers == 0
    await kept.usual(1)
    assert clock.timers == 1
    await clock.advance(300)
    assert clock.timers == 0


async def test_dropped_services_take_their_sweeps_along(clock: FakeClock):
    kept = Kept()
    await kept.usual(1)
    del kept
    gc.collect()
    await clock.advance(LATEST)
    assert clock.timers == 0


async def test_results_that_come_after_a_pause_leave_in_time(clock: FakeClock):
    kept = Kept()
    held = await kept.usual.capture(0)
    await clock.advance(50_000)  # sweeps are far apart now
    await kept.usual(1)
    await clock.advance(MINUTE - 1)
    assert kept.usual.existing(1) is not None
    await clock.advance(LATEST + 1)
    assert kept.usual.existing(1) is None
    assert held.is_consistent


async def test_many_methods_with_the_same_time_share_a_timer(clock: FakeClock):
    services = [Counters() for _ in range(20)]
    for service in services:
        await service.total("a", "b")
    assert clock.timers == 1


async def test_what_nobody_holds_can_be_dropped_on_demand(clock: FakeClock):
    kept = Kept()
    held = await kept.long_of_short.capture(1)
    for key in range(10):
        await kept.long_of_short(key)
        await kept.always(key)
    before = computed_count()
    dropped = prune()
    assert dropped >= 9 + 9 + 10
    assert computed_count() == before - dropped
    assert held is kept.long_of_short.existing(1)
    assert kept.short.existing(1) is not None
    assert len(kept.always.table.entries) == 0
    assert prune() == 0


@pytest.mark.parametrize("uses", [1, 100])
async def test_time_is_counted_from_the_last_use_not_from_the_number_of_them(
    clock: FakeClock, uses: int
):
    kept = Kept()
    for _ in range(uses):
        await kept.usual(1)
    await clock.advance(LATEST)
    assert kept.usual.existing(1) is None


async def test_use_by_a_computation_is_a_use(clock: FakeClock):
    kept = Kept()
    await kept.usual(1)
    for key in range(5):
        await clock.advance(MINUTE - 20)
        kept.short_of_usual.invalidate(1)
        await kept.short_of_usual(1)
        assert kept.runs == 1, key
