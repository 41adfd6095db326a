"""From a result to its successors: `update`, `use`, `when_invalidated`, `when`, `changes`."""

import asyncio
import contextlib
from typing import Any

import pytest

from afresh import Computed, ComputedState, ComputeService, compute_method
from afresh.graph.computed import NEXT_TICK
from afresh.testing import FakeClock
from tests.graph.services import Counters, Gated


class Failing(Counters):
    """Fails for as long as there is no value."""

    @compute_method
    async def need(self, key: str) -> int:
        await self.get(key)
        if key not in self.values:
            raise TimeoutError(key)
        return self.values[key]


class TestUpdate:
    async def test_a_fresh_result_is_its_own_update(self):
        computed = await Counters().get.capture("a")
        assert await computed.update() is computed

    def test_that_needs_no_waiting(self):
        counters = Counters()
        computed = asyncio.run(counters.get.capture("a"))
        with pytest.raises(StopIteration) as returned:
            computed.update().send(None)
        assert returned.value.value is computed

    async def test_a_stale_one_gives_its_successor(self):
        counters = Counters()
        first = await counters.get.capture("a")
        counters.set("a", 1)
        second = await first.update()
        assert second is counters.get.existing("a")
        assert second.value == 1
        assert await first.update() is second
        assert counters.runs["a"] == 2

    async def test_a_failed_successor_is_returned(self):
        failing = Failing()
        failing.values["a"] = 1
        computed = await failing.need.capture("a")
        del failing.values["a"]
        failing.get.invalidate("a")
        failed = await computed.update()
        assert isinstance(failed.error, TimeoutError)

    async def test_updates_at_the_same_time_share_a_computation(self):
        gated = Gated()
        gated.gate.set()
        computed = await gated.get.capture()
        gated.get.invalidate()
        first, second = await asyncio.gather(computed.update(), computed.update())
        assert first is second
        assert gated.runs == 2


class TestUse:
    async def test_it_gives_the_value_of_a_fresh_result(self):
        computed = await Counters().get.capture("a")
        assert await computed.use() == 0
        assert computed.use() is computed

    async def test_it_computes_the_successor_of_a_stale_one(self):
        counters = Counters()
        computed = await counters.get.capture("a")
        counters.set("a", 1)
        assert await computed.use() == 1
        assert await computed.use(allow_inconsistent=True) == 0

    async def test_it_raises_the_error(self):
        failing = Failing()
        computed = await failing.need.capture("a")
        with pytest.raises(TimeoutError):
            await computed.use()
        failing.get.invalidate("a")
        with pytest.raises(TimeoutError):
            await computed.use()


class TestWhenInvalidated:
    async def test_it_returns_when_the_result_goes_stale(self):
        counters = Counters()
        computed = await counters.total.capture("a", "b")
        waiting = [asyncio.ensure_future(computed.when_invalidated()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        counters.get.invalidate("b")
        assert await asyncio.gather(*waiting) == [None] * 3

    async def test_it_returns_at_once_on_a_stale_one(self):
        computed = await Counters().get.capture("a")
        computed.invalidate()
        with pytest.raises(StopIteration):
            computed.when_invalidated().send(None)

    async def test_a_wait_that_is_cancelled_leaves_no_handler(self):
        computed = await Counters().get.capture("a")
        waiting = [asyncio.ensure_future(computed.when_invalidated()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert computed.extra is not None
        assert len(computed.extra.handlers or ()) == 1
        computed.invalidate()
        await waiting[1]
        assert not computed.extra.handlers

    async def test_a_wait_that_is_cancelled_before_it_begins_never_begins(self):
        computed = await Counters().get.capture("a")
        task = asyncio.ensure_future(computed.when_invalidated())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert computed.extra is None

    async def test_a_wait_can_time_out(self):
        computed = await Counters().get.capture("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await computed.when_invalidated()
        assert computed.is_consistent

    async def test_waiting_keeps_the_result(self, clock: FakeClock):
        counters = Counters()
        waiting = asyncio.ensure_future((await counters.get.capture("a")).when_invalidated())
        await clock.advance(1000)
        assert not waiting.done()
        assert counters.get.invalidate("a")
        await waiting

    async def test_an_armed_delay_and_a_cancelled_wait_do_not_hinder_an_invalidation(
        self, clock: FakeClock
    ):
        computed = await Counters().get.capture("a")
        timers = clock.timers
        computed.invalidate(after=0.1)
        waiting = asyncio.ensure_future(computed.when_invalidated())
        await asyncio.sleep(0)
        computed.on_invalidated(lambda _: waiting.cancel())
        computed.on_invalidated(lambda _: clock.advance_sync(1))

        computed.invalidate()

        assert clock.timers == timers
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert computed.is_invalidated


class TestWhen:
    async def test_the_present_value_may_do(self):
        computed = await Counters().get.capture("a")
        assert await computed.when(lambda value: value == 0) is computed

    async def test_it_looks_at_each_value_that_comes(self, clock: FakeClock):
        counters = Counters()
        waiting = asyncio.ensure_future(
            (await counters.get.capture("a")).when(lambda value: value >= 2)
        )
        for value in (1, 2, 3):
            await clock.settle()
            assert not waiting.done()
            counters.set("a", value)
            await clock.advance(NEXT_TICK)
            if waiting.done():
                break
        assert (await waiting).value == 2

    async def test_it_updates_a_stale_result_first(self):
        counters = Counters()
        computed = await counters.get.capture("a")
        counters.set("a", 1)
        assert (await computed.when(lambda value: value == 1)).value == 1

    async def test_an_error_is_raised(self):
        computed = await Failing().need.capture("a")
        with pytest.raises(TimeoutError):
            await computed.when(lambda value: True)

    async def test_when_result_gives_it_to_the_predicate(self, clock: FakeClock):
        failing = Failing()
        seen: list[Any] = []

        def is_good(value: int | None, error: BaseException | None) -> bool:
            seen.append((value, type(error)))
            return error is None

        waiting = asyncio.ensure_future((await failing.need.capture("a")).when_result(is_good))
        await clock.settle()
        failing.set("a", 3)
        await clock.advance(NEXT_TICK)
        assert (await waiting).value == 3
        assert seen == [(None, TimeoutError), (3, type(None))]

    async def test_it_may_be_told_how_long_to_wait_between(self, clock: FakeClock):
        counters = Counters()
        waiting = asyncio.ensure_future((await counters.get.capture("a")).when(bool, 5))
        await clock.settle()
        counters.set("a", 1)
        await clock.advance(4.9)
        assert not waiting.done()
        await clock.advance(0.1)
        assert (await waiting).value == 1

    async def test_errors_of_the_predicate_come_through(self):
        computed = await Counters().get.capture("a")
        with pytest.raises(ZeroDivisionError):
            await computed.when(lambda value: 1 // value > 0)

    async def test_a_wait_can_be_given_up(self):
        computed = await Counters().get.capture("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await computed.when(lambda value: False)
        assert computed.extra is not None
        assert not computed.extra.handlers

    async def test_an_assertion_can_be_waited_for_until_it_holds(self, clock: FakeClock):
        counters = Counters()

        def holds(value: int) -> bool:
            with contextlib.suppress(AssertionError):
                assert value == 2
                return True
            return False

        waiting = asyncio.ensure_future((await counters.get.capture("a")).when(holds))
        for value in (1, 2):
            await clock.settle()
            counters.set("a", value)
            await clock.advance(NEXT_TICK)
        assert (await waiting).value == 2


class TestChanges:
    async def test_the_present_result_comes_first_then_every_next_one(self, clock: FakeClock):
        counters = Counters()
        seen: list[int] = []

        async def follow() -> None:
            async for computed in (await counters.get.capture("a")).changes():
                seen.append(computed.value)
                if len(seen) == 3:
                    break

        following = asyncio.create_task(follow())
        for value in (1, 2):
            await clock.settle()
            counters.set("a", value)
            await clock.advance(NEXT_TICK)
        await following
        assert seen == [0, 1, 2]

    async def test_a_stale_result_is_updated_first(self):
        counters = Counters()
        computed = await counters.get.capture("a")
        counters.set("a", 1)
        async with contextlib.aclosing(computed.changes()) as changes:
            assert (await anext(changes)).value == 1

    async def test_what_comes_and_goes_within_the_delay_is_skipped(self, clock: FakeClock):
        counters = Counters()
        async with contextlib.aclosing((await counters.get.capture("a")).changes(1)) as changes:
            await anext(changes)
            following = asyncio.ensure_future(anext(changes))
            await clock.settle()
            for value in (1, 2, 3):
                counters.set("a", value)
                await counters.get("a")
                await clock.advance(0.3)
            assert not following.done()
            await clock.advance(0.1)
            assert (await following).value == 3

    async def test_errors_are_results_too(self, clock: FakeClock):
        failing = Failing()
        changes = (await failing.need.capture("a")).changes()
        assert isinstance((await anext(changes)).error, TimeoutError)
        following = asyncio.ensure_future(anext(changes))
        await clock.settle()
        failing.set("a", 1)
        await clock.advance(NEXT_TICK)
        assert (await following).value == 1
        await changes.aclose()

    async def test_the_delayer_is_told_how_many_transient_errors_came_in_a_row(
        self, clock: FakeClock
    ):
        counts: list[int] = []

        class Delayer:
            async def delay(self, retry_count: int) -> None:
                counts.append(retry_count)

        class Flaky(ComputeService):
            outcomes = iter([TimeoutError(), TimeoutError(), 1, OSError(), ValueError(), 2])

            @compute_method(transient_error_delay=1, error_delay=1, auto_invalidate=1)
            async def get(self) -> int:
                outcome: Any = next(self.outcomes)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

        seen: list[Any] = []

        async def follow() -> None:
            async for value, _ in (await Flaky().get.capture()).changes(Delayer()):
                seen.append(value)

        following = asyncio.create_task(follow())
        await clock.advance(5)
        following.cancel()
        assert seen == [None, None, 1, None, None, 2]
        assert counts == [1, 2, 0, 1, 0]

    async def test_closing_leaves_no_handler(self):
        computed = await Counters().get.capture("a")
        changes = computed.changes()
        await anext(changes)
        following = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        await changes.aclose()
        assert computed.extra is not None
        assert not computed.extra.handlers

    async def test_what_the_consumer_does_between_is_its_own(self):
        counters = Counters()

        class Consuming(ComputeService):
            @compute_method
            async def get(self) -> int:
                computed = await counters.get.capture("a")
                async with contextlib.aclosing(computed.changes()) as changes:
                    await anext(changes)
                    return await counters.get("b")

        computed = await Consuming().get.capture()
        assert [each.key for each in computed.dependencies] == ["b"]

    async def test_a_state_follows_results_that_expire_until_it_is_closed(self, clock: FakeClock):
        class Ticking(ComputeService):
            ticks = 0

            @compute_method(auto_invalidate=1)
            async def tick(self) -> int:
                self.ticks += 1
                return self.ticks

        ticking = Ticking()
        computed: Computed[int] = await ticking.tick.capture()
        async with ComputedState(computed.use, delay=0.1) as state:
            await clock.advance(3.5)
            assert state.value >= 3
        ticks = ticking.ticks
        await clock.advance(5)
        assert ticking.ticks == ticks
