"""Making results stale: at once, later, while they are computed, with a delay of their own."""

import asyncio
import gc
import math
import weakref

import pytest

from afresh import ComputeService, compute_method, current_computed
from afresh.graph import invalidate_everything
from afresh.testing import FakeClock
from tests.graph.services import Counters, Gated


class Delayed(Counters):
    """The same, where each invalidation waits half a second."""

    @compute_method(invalidation_delay=0.5)
    async def get(self, key: str) -> int:
        self.runs[key] += 1
        return self.values.get(key, 0)

    @compute_method(invalidation_delay=0.5)
    async def sum(self, first: str, second: str) -> int:
        return await self.plain(first) + await self.plain(second)

    @compute_method
    async def plain(self, key: str) -> int:
        return self.values.get(key, 0)


async def test_invalidate_says_whether_there_was_a_result():
    counters = Counters()
    assert counters.get.invalidate("a") is False
    await counters.get("a")
    assert counters.get.invalidate("a") is True
    assert counters.get.invalidate("a") is False


async def test_a_result_goes_stale_for_good():
    counters = Counters()
    computed = await counters.get.capture("a")
    for _ in range(2):
        computed.invalidate()
        assert (computed.is_consistent, computed.is_invalidated) == (False, True)
    assert counters.get.existing("a") is None


async def test_a_stale_result_does_not_take_its_successor_along():
    counters = Counters()
    first = await counters.get.capture("a")
    first.invalidate()
    second = await counters.get.capture("a")
    first.invalidate()
    first.invalidate(now=True)
    assert second.is_consistent


async def test_a_result_that_is_computed_goes_stale_as_soon_as_it_is_there():
    gated = Gated()
    computing = asyncio.ensure_future(gated.get.capture())
    await gated.started.wait()
    computed = gated.get.existing()
    assert computed is not None

    assert gated.get.invalidate()
    computed.invalidate()
    assert computed.is_computing

    gated.gate.set()
    assert await computing is computed
    assert computed.is_invalidated
    assert computed.value == 0
    assert gated.get.existing() is None
    assert gated.runs == 1


async def test_others_who_wait_for_it_compute_anew():
    gated = Gated()
    calls = [asyncio.ensure_future(gated.get()) for _ in range(3)]
    await gated.started.wait()
    gated.value = 1
    gated.get.invalidate()
    gated.gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 1]
    assert gated.runs == 2


async def test_a_body_may_invalidate_its_own_result():
    class Once(ComputeService):
        runs = 0

        @compute_method
        async def get(self) -> int:
            self.runs += 1
            current_computed().invalidate()
            assert current_computed().is_computing
            return self.runs

    once = Once()
    assert [await once.get(), await once.get()] == [1, 2]


async def test_everything_can_be_invalidated_at_once():
    counters = Counters()
    counters.values["a"] = 1
    before = [await counters.get.capture("a"), await counters.total.capture("a", "b")]

    invalidate_everything()

    assert all(computed.is_invalidated for computed in before)
    after = [await computed.update() for computed in before]
    assert [each.value for each in after] == [each.value for each in before]
    assert all(new is not old for new, old in zip(after, before, strict=True))


async def test_everything_includes_what_is_being_computed():
    gated = Gated()
    computing = asyncio.ensure_future(gated.get.capture())
    await gated.started.wait()
    invalidate_everything()
    gated.gate.set()
    assert (await computing).is_invalidated


class TestAfterSomeTime:
    async def test_a_result_goes_stale_then(self, clock: FakeClock):
        counters = Counters()
        computed = await counters.get.capture("a")
        dependant = await counters.total.capture("a", "b")

        computed.invalidate(after=3)
        await clock.advance(2.9)
        assert computed.is_consistent
        assert await counters.get("a") == 0
        assert counters.runs["a"] == 1

        await clock.advance(0.1)
        assert computed.is_invalidated
        assert dependant.is_invalidated

    @pytest.mark.parametrize("after", [0, -1, -math.inf])
    async def test_zero_or_less_is_at_once(self, clock: FakeClock, after: float):
        computed = await Counters().get.capture("a")
        computed.invalidate(after=after)
        assert computed.is_invalidated

    async def test_infinity_is_never(self, clock: FakeClock):
        computed = await Counters().get.capture("a")
        computed.invalidate(after=math.inf)
        await clock.advance(10_000)
        assert computed.is_consistent

    async def test_the_earliest_time_counts(self, clock: FakeClock):
        counters = Counters()
        one, other = await counters.get.capture("a"), await counters.get.capture("b")
        timers = clock.timers

        one.invalidate(after=3)
        one.invalidate(after=5)
        other.invalidate(after=5)
        other.invalidate(after=3)
        assert clock.timers == timers + 2

        await clock.advance(2.9)
        assert (one.is_consistent, other.is_consistent) == (True, True)
        await clock.advance(0.1)
        assert (one.is_invalidated, other.is_invalidated) == (True, True)

    async def test_a_result_that_goes_stale_before_leaves_no_timer(self, clock: FakeClock):
        counters = Counters()
        computed = await counters.get.capture("a")
        timers = clock.timers
        computed.invalidate(after=3)
        assert clock.timers == timers + 1
        counters.get.invalidate("a")
        assert clock.timers == timers
        computed.invalidate(after=3)
        assert clock.timers == timers

    async def test_a_timer_keeps_no_result(self, clock: FakeClock):
        counters = Counters()
        computed = await counters.get.capture("a")
        computed.invalidate(after=3)
        gone = weakref.ref(computed)
        del computed, counters
        gc.collect()
        assert gone() is None
        await clock.advance(3)

    async def test_a_body_may_let_its_result_expire(self, clock: FakeClock):
        class Now(ComputeService):
            @compute_method
            async def seconds(self) -> float:
                current_computed().invalidate(after=1)
                return clock.now()

            @compute_method
            async def minutes(self) -> float:
                return await self.seconds() / 60

        now = Now()
        assert await now.seconds() == 0
        minutes = await now.minutes.capture()
        await clock.advance(0.9)
        assert await now.seconds() == 0
        await clock.advance(0.1)
        assert await now.seconds() == 1
        assert minutes.is_invalidated

    async def test_time_that_is_over_while_it_is_computed_takes_effect_at_the_end(
        self, clock: FakeClock
    ):
        class Slow(Gated):
            @compute_method(invalidation_delay=10)
            async def slow(self) -> int:
                current_computed().invalidate(after=1)
                return await super().get()

        slow = Slow()
        computing = asyncio.ensure_future(slow.slow.capture())
        await clock.advance(2)
        slow.gate.set()
        computed = await computing
        assert computed.is_invalidated

    async def test_what_expires_does_not_wait_for_the_delay_of_its_options(self, clock: FakeClock):
        computed = await Delayed().get.capture("a")
        computed.invalidate(after=1)
        await clock.advance(1)
        assert computed.is_invalidated


class TestWithADelayOfItsOwn:
    async def test_a_result_is_served_until_the_delay_is_over(self, clock: FakeClock):
        counters = Delayed()
        computed = await counters.get.capture("a")

        counters.set("a", 1)
        await clock.advance(0.4)
        assert await counters.get("a") == 0

        await clock.advance(0.1)
        assert computed.is_invalidated
        assert await counters.get("a") == 1

    async def test_invalidations_in_between_join_the_first(self, clock: FakeClock):
        counters = Delayed()
        computed = await counters.get.capture("a")
        for value in range(5):
            counters.set("a", value)
            await clock.advance(0.1)
        assert computed.is_invalidated
        assert await counters.get("a") == 4
        assert counters.runs["a"] == 2

    async def test_now_skips_the_delay(self, clock: FakeClock):
        counters = Delayed()
        computed = await counters.get.capture("a")
        timers = clock.timers
        computed.invalidate()
        computed.invalidate(now=True)
        assert computed.is_invalidated
        assert clock.timers == timers

    async def test_dependants_are_told_when_it_is_over(self, clock: FakeClock):
        counters = Delayed()
        dependant = await counters.total.capture("a", "b")
        counters.set("a", 1)
        assert dependant.is_consistent
        await clock.advance(0.5)
        assert dependant.is_invalidated
        assert await counters.total("a", "b") == 1

    async def test_it_counts_for_what_dependencies_do_as_well(self, clock: FakeClock):
        counters = Delayed()
        dependant = await counters.sum.capture("a", "b")
        counters.plain.invalidate("a")
        await clock.advance(0.4)
        counters.plain.invalidate("b")
        assert dependant.is_consistent
        await clock.advance(0.1)
        assert dependant.is_invalidated

    async def test_it_counts_for_an_invalidation_during_the_computation(self, clock: FakeClock):
        class Slow(Gated):
            @compute_method(invalidation_delay=0.5)
            async def slow(self) -> int:
                return await super().get()

        slow = Slow()
        computing = asyncio.ensure_future(slow.slow.capture())
        await slow.started.wait()
        slow.slow.invalidate()
        slow.gate.set()
        computed = await computing
        assert computed.is_consistent
        await clock.advance(0.5)
        assert computed.is_invalidated

    async def test_handlers_are_called_when_it_is_over(self, clock: FakeClock):
        computed = await Delayed().get.capture("a")
        times: list[float] = []
        computed.on_invalidated(lambda _: times.append(clock.now()))
        computed.invalidate()
        await clock.advance(1)
        assert times == [0.5]

    def test_it_needs_no_event_loop(self, clock: FakeClock):
        counters = Delayed()
        asyncio.run(counters.get("a"))
        counters.set("a", 1)
        clock.advance_sync(0.5)
        assert counters.get.existing("a") is None


class TestByThemselves:
    class Expiring(Counters):
        @compute_method(auto_invalidate=2)
        async def get(self, key: str) -> int:
            self.runs[key] += 1
            return self.runs[key]

    async def test_values_go_stale_after_a_while(self, clock: FakeClock):
        counters = self.Expiring()
        assert await counters.get("a") == 1
        await clock.advance(1.9)
        assert await counters.get("a") == 1
        await clock.advance(0.1)
        computed = await counters.get.capture("a")
        assert computed.value == 2
        assert await counters.get.capture("a") is computed

    async def test_what_was_computed_from_them_goes_with_them(self, clock: FakeClock):
        counters = self.Expiring()
        dependant = await counters.total.capture("a", "b")
        await clock.advance(2)
        assert dependant.is_invalidated
        assert await counters.total("a", "b") == 4

    async def test_use_does_not_make_them_live_longer(self, clock: FakeClock):
        counters = self.Expiring()
        for _ in range(9):
            await counters.get("a")
            await clock.advance(0.5)
        assert counters.runs["a"] == 3

    async def test_a_value_that_went_stale_before_leaves_no_timer(self, clock: FakeClock):
        counters = self.Expiring()
        await counters.get("a")
        timers = clock.timers
        for _ in range(10):
            counters.get.invalidate("a")
            await counters.get("a")
        assert clock.timers == timers

    async def test_a_value_of_no_seconds_is_stale_from_the_start(self, clock: FakeClock):
        class Never(Counters):
            @compute_method(auto_invalidate=0)
            async def get(self, key: str) -> int:
                self.runs[key] += 1
                return self.runs[key]

        never = Never()
        assert [await never.get("a"), await never.get("a")] == [1, 2]
        assert (await never.total.capture("a", "b")).is_invalidated

    async def test_the_delay_of_invalidations_is_not_added(self, clock: FakeClock):
        class Both(Counters):
            @compute_method(auto_invalidate=2, invalidation_delay=10)
            async def get(self, key: str) -> int:
                return 0

        computed = await Both().get.capture("a")
        await clock.advance(2)
        assert computed.is_invalidated
