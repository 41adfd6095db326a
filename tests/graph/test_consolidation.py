"""Consolidation: a result that goes stale is compared with the new one before anybody is told."""

import asyncio
import contextvars
import gc
import logging
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from afresh import (
    ComputedOptions,
    ComputeService,
    DefinitionError,
    MutableState,
    compute_function,
    compute_method,
    invalidating,
)
from afresh.graph import Computed, nodes, prune
from afresh.graph.consolidation import Consolidation
from afresh.primitives.tasks import background_tasks
from afresh.testing import FakeClock


class Stock(ComputeService):
    """A number, and words about it that consolidate."""

    def __init__(self, amount: int = 5) -> None:
        self.amount = amount
        self.runs = 0
        self.summaries = 0
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    @compute_method
    async def level(self) -> int:
        return self.amount

    def put(self, amount: int) -> None:
        self.amount = amount
        self.level.invalidate()

    @compute_method(consolidate=0)
    async def is_low(self) -> bool:
        return await self._looked() < 3

    @compute_method(consolidate=0.2)
    async def is_low_slowly(self) -> bool:
        return await self._looked() < 3

    @compute_method
    async def warning(self) -> str:
        self.summaries += 1
        return "order more" if await self.is_low() else "fine"

    @compute_method
    async def slow_warning(self) -> str:
        self.summaries += 1
        return "order more" if await self.is_low_slowly() else "fine"

    async def _looked(self) -> int:
        self.runs += 1
        level = await self.level()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return level


def consolidation_of(computed: Computed[Any]) -> Consolidation:
    consolidation = computed.consolidation
    assert consolidation is not None
    return consolidation


class TestWhatBelongsToWhom:
    async def test_callers_get_the_target_and_the_source_stays_hidden(self) -> None:
        stock = Stock()
        target = await stock.is_low.capture()
        source = consolidation_of(target).source
        assert stock.is_low.existing() is target is not source
        assert (target.value, source.value) == (False, False)
        assert source.category == "~Stock.is_low"
        assert target.category == "Stock.is_low"

    async def test_dependants_depend_on_the_target_and_only_the_source_on_anything(self) -> None:
        stock = Stock()
        warning = await stock.warning.capture()
        target = await stock.is_low.capture()
        source = consolidation_of(target).source
        assert warning.dependencies == (target,)
        assert target.dependencies == ()
        assert source.dependencies == (await stock.level.capture(),)

    async def test_the_options_are_split_between_the_two(self) -> None:
        class Service(ComputeService):
            @compute_method(
                keep_alive=7,
                auto_invalidate=11,
                invalidation_delay=0.5,
                transient_error_delay=2,
                error_delay=3,
                consolidate=0.25,
            )
            async def get(self) -> int:
                return 1

        target = await Service().get.capture()
        source = consolidation_of(target).source
        assert target.options.replace(reprocessing=source.options.reprocessing) == ComputedOptions(
            keep_alive=7,
            auto_invalidate=math.inf,
            invalidation_delay=0,
            transient_error_delay=math.inf,
            error_delay=math.inf,
            consolidate=0.25,
        )
        assert target.options.reprocessing.retries == 0
        assert source.options == ComputedOptions(
            keep_alive=0,
            auto_invalidate=11,
            invalidation_delay=0.5,
            transient_error_delay=2,
            error_delay=3,
        )
        assert source.options.reprocessing.retries > 0

    async def test_an_ordinary_method_has_no_consolidation(self) -> None:
        assert (await Stock().level.capture()).consolidation is None

    async def test_a_compute_function_can_consolidate(self, clock: FakeClock) -> None:
        number = MutableState(1)

        @compute_function(consolidate=0)
        async def is_even(of: str) -> bool:
            return number.use() % 2 == 0

        computed = await is_even.capture("number")
        number.set(3)
        await clock.settle()
        assert computed.is_consistent
        number.set(4)
        await clock.settle()
        assert computed.is_invalidated


class TestWithoutDelay:
    async def test_a_change_that_makes_no_difference_is_told_to_nobody(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        warning = await stock.warning.capture()
        target = await stock.is_low.capture()
        before = consolidation_of(target).source
        stock.put(4)
        assert before.is_invalidated
        assert consolidation_of(target).task is not None
        await clock.settle()
        assert target.is_consistent
        assert warning.is_consistent
        assert consolidation_of(target).source is not before
        assert consolidation_of(target).source.is_consistent
        assert consolidation_of(target).task is None
        assert (stock.runs, stock.summaries) == (2, 1)

    async def test_a_change_that_makes_a_difference_is_told(self, clock: FakeClock) -> None:
        stock = Stock(5)
        warning = await stock.warning.capture()
        target = await stock.is_low.capture()
        stock.put(2)
        assert target.is_consistent
        task = consolidation_of(target).task
        assert task is not None
        await task
        assert target.is_invalidated
        assert warning.is_invalidated
        assert await stock.warning() == "order more"
        assert stock.runs == 2, "the next target shows the source that was compared"

    async def test_it_goes_on_comparing_with_each_change(self, clock: FakeClock) -> None:
        stock = Stock(9)
        target = await stock.is_low.capture()
        for amount in (8, 7, 6, 5):
            stock.put(amount)
            await clock.settle()
            assert target.is_consistent
        stock.put(1)
        await clock.settle()
        assert target.is_invalidated

    async def test_a_change_right_after_a_comparison_starts_the_next_one(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(9)
        target = await stock.is_low.capture()
        stock.put(8)
        consolidation = consolidation_of(target)
        while consolidation.task is not None:
            await asyncio.sleep(0)
        stock.put(7)
        await clock.settle()
        assert target.is_consistent
        assert stock.runs == 3

    async def test_invalidating_the_method_compares_too(self, clock: FakeClock) -> None:
        stock = Stock(5)
        target = await stock.is_low.capture()
        before = consolidation_of(target).source
        for _ in range(2):
            assert stock.is_low.invalidate()
            assert target.is_consistent
            await clock.settle()
            assert target.is_consistent
        with invalidating():
            stock.is_low()
        await clock.settle()
        assert consolidation_of(target).source is not before
        assert target.is_consistent
        assert stock.runs == 4

    async def test_invalidating_the_target_itself_is_told_at_once(self, clock: FakeClock) -> None:
        stock = Stock(5)
        target = await stock.is_low.capture()
        source = consolidation_of(target).source
        target.invalidate()
        assert target.is_invalidated
        assert source.is_consistent
        assert consolidation_of(target).task is None
        successor = await target.update()
        assert successor is not target
        assert successor.value == target.value
        assert consolidation_of(successor).source is source
        assert stock.runs == 1

    async def test_a_target_that_is_stale_compares_nothing(self, clock: FakeClock) -> None:
        stock = Stock(5)
        target = await stock.is_low.capture()
        source = consolidation_of(target).source
        target.invalidate()
        stock.put(4)
        await clock.settle()
        assert source.is_invalidated
        assert consolidation_of(target).task is None
        assert stock.runs == 1

    async def test_a_value_with_a_lifetime_is_compared_when_that_is_over(
        self, clock: FakeClock
    ) -> None:
        runs = 0

        @compute_function(consolidate=0, auto_invalidate=10)
        async def half_of_runs() -> int:
            nonlocal runs
            runs += 1
            return runs // 4

        computed = await half_of_runs.capture()
        await clock.advance(25)
        assert (runs, computed.is_consistent) == (3, True)
        await clock.advance(10)
        assert (runs, computed.is_consistent) == (4, False)


class TestWithDelay:
    async def test_nothing_is_compared_before_the_delay_is_over(self, clock: FakeClock) -> None:
        stock = Stock(5)
        target = await stock.is_low_slowly.capture()
        stock.put(2)
        task = consolidation_of(target).task
        assert task is not None
        await clock.advance(0.1)
        assert (target.is_consistent, stock.runs) == (True, 1)
        assert await stock.is_low_slowly() is False
        stock.put(1)
        assert consolidation_of(target).task is task
        await clock.advance(0.09)
        assert (target.is_consistent, stock.runs) == (True, 1)
        await clock.advance(0.02)
        assert (target.is_consistent, stock.runs) == (False, 2)
        assert task.done()

    async def test_what_changes_back_within_the_delay_is_told_to_nobody(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        warning = await stock.slow_warning.capture()
        for amount in (2, 9, 1, 5):
            stock.put(amount)
            await clock.advance(0.04)
        await clock.advance(0.2)
        target = await stock.is_low_slowly.capture()
        assert (warning.is_consistent, stock.runs) == (True, 2)
        assert consolidation_of(target).task is None

    async def test_a_second_invalidation_within_the_delay_adds_nothing(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        target = await stock.is_low_slowly.capture()
        stock.is_low_slowly.invalidate()
        await clock.advance(0.1)
        stock.is_low_slowly.invalidate()
        with invalidating():
            stock.is_low_slowly()
        assert target.is_consistent
        await clock.advance(0.3)
        assert (target.is_consistent, stock.runs) == (True, 2)

    async def test_a_change_while_the_new_value_is_computed_is_looked_at_again(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        target = await stock.is_low_slowly.capture()
        stock.gate = asyncio.Event()
        stock.put(4)
        await clock.advance(0.2)
        assert stock.runs == 2
        stock.put(6)
        stock.gate.set()
        await clock.advance(0.1)
        assert (target.is_consistent, stock.runs) == (True, 2)
        await clock.advance(0.1)
        assert (target.is_consistent, stock.runs) == (True, 3)
        stock.put(1)
        await clock.advance(0.2)
        assert (target.is_consistent, stock.runs) == (False, 4)

    async def test_a_target_that_goes_stale_within_the_delay_ends_the_comparison(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        target = await stock.is_low_slowly.capture()
        stock.put(4)
        await clock.advance(0.1)
        target.invalidate()
        await clock.advance(1)
        assert stock.runs == 1
        assert background_tasks() == frozenset()


class TestNothingIsLost:
    async def test_an_invalidation_while_the_first_value_is_computed(
        self, clock: FakeClock
    ) -> None:
        stock = Stock(5)
        stock.gate = asyncio.Event()
        calling = asyncio.ensure_future(stock.is_low())
        await clock.settle()
        stock.amount = 1
        stock.level.invalidate()
        stock.gate.set()
        assert await calling is False
        assert await stock.is_low() is True

    @pytest.mark.parametrize("way", ["method", "scope"])
    async def test_an_invalidation_of_the_method_itself_while_its_value_is_computed(
        self, clock: FakeClock, way: str
    ) -> None:
        data = 1
        gate = asyncio.Event()

        class Service(ComputeService):
            @compute_method(consolidate=0)
            async def get(self) -> int:
                value = data
                await gate.wait()
                return value

        service = Service()
        calling = asyncio.ensure_future(service.get())
        await clock.settle()
        data = 2
        if way == "method":
            assert service.get.invalidate()
        else:
            with invalidating():
                service.get()
        gate.set()
        assert await calling == 1
        assert await service.get() == 2

    @pytest.mark.parametrize("way", ["method", "scope"])
    async def test_an_invalidation_of_a_method_whose_target_is_gone_but_its_source_is_not(
        self, clock: FakeClock, way: str
    ) -> None:
        data = 1

        class Service(ComputeService):
            @compute_method(consolidate=0)
            async def get(self) -> int:
                return data

        service = Service()
        (await service.get.capture()).invalidate()
        data = 2
        if way == "method":
            assert service.get.invalidate()
        else:
            with invalidating():
                service.get()
        assert await service.get() == 2

    async def test_a_source_that_is_stale_from_birth_makes_a_target_that_is_too(
        self, clock: FakeClock
    ) -> None:
        number = MutableState(1)

        @compute_function(consolidate=0)
        async def restless() -> int:
            value = number.use()
            number.set(value + 1)
            return value

        computed = await restless.capture()
        assert computed.is_invalidated
        assert restless.existing() is None
        assert await restless() == 2

    async def test_a_source_that_is_always_stale_from_birth_does_not_spin(
        self, clock: FakeClock
    ) -> None:
        number = MutableState(1)
        runs = 0
        is_restless = False

        @compute_function(consolidate=0)
        async def restless() -> int:
            nonlocal runs
            runs += 1
            value = number.use()
            if is_restless:
                number.set(value + 1)
            return 0

        computed = await restless.capture()
        is_restless = True
        number.set(10)
        await clock.settle()
        assert computed.is_invalidated
        assert runs == 2

    async def test_invalidated_without_an_event_loop_it_is_told_at_once(self) -> None:
        stock = Stock(5)
        target = await stock.is_low.capture()
        await asyncio.to_thread(contextvars.Context().run, stock.put, 4)
        assert target.is_invalidated

    def test_a_comparison_that_its_event_loop_did_not_live_to_begin_is_told(self) -> None:
        stock = Stock(5)

        async def begin() -> Computed[bool]:
            target = await stock.is_low.capture()
            stock.put(2)
            return target

        target = asyncio.run(begin())
        assert target.is_invalidated
        assert asyncio.run(ask(stock)) is True

    def test_a_comparison_that_its_event_loop_did_not_live_to_end_is_told(self) -> None:
        stock = Stock(5)

        async def begin() -> Computed[bool]:
            target = await stock.is_low_slowly.capture()
            stock.put(2)
            await asyncio.sleep(0)
            return target

        target = asyncio.run(begin())
        assert target.is_invalidated

    async def test_many_changes_at_all_moments_end_with_what_is_right(
        self, clock: FakeClock
    ) -> None:
        number = MutableState(0)

        @compute_function(consolidate=0.05)
        async def tens() -> int:
            value = number.use()
            await clock.sleep(0.03)
            return value // 10

        @compute_function
        async def shown() -> str:
            return f"{await tens()}0"

        for value in range(200):
            number.set(value)
            asking = asyncio.ensure_future(shown())
            await clock.advance(0.007 * (value % 11))
            asking.cancel()
        await clock.advance(1)
        asking = asyncio.ensure_future(shown())
        await clock.advance(1)
        assert await asking == "190"
        assert background_tasks() == frozenset()


async def ask(stock: Stock) -> bool:
    return await stock.is_low()


class TestErrors:
    async def test_the_target_has_the_error_of_its_source(self, clock: FakeClock) -> None:
        stock = Stock()
        stock.error = LookupError("no stock")
        target = await stock.is_low.capture()
        assert isinstance(target.error, LookupError)
        assert isinstance(consolidation_of(target).source.error, LookupError)
        with pytest.raises(LookupError, match="no stock"):
            await stock.is_low()

    async def test_an_error_expires_with_the_source_and_is_compared(self, clock: FakeClock) -> None:
        stock = Stock()
        stock.error = TimeoutError("busy")
        target = await stock.is_low.capture()
        await clock.advance(3.5)
        assert (stock.runs, target.is_consistent) == (4, True)
        stock.error = None
        await clock.advance(1)
        assert target.is_invalidated
        assert await stock.is_low() is False

    @pytest.mark.parametrize(
        ("new", "is_same"),
        [
            (LookupError("a"), True),
            (LookupError("b"), False),
            (KeyError("a"), False),
            (None, False),
        ],
        ids=["same", "another message", "another type", "a value"],
    )
    async def test_errors_are_the_same_if_type_and_message_are(
        self, clock: FakeClock, new: Exception | None, is_same: bool
    ) -> None:
        stock = Stock()
        stock.error = LookupError("a")
        target = await stock.is_low.capture()
        stock.error = new
        stock.put(6)
        await clock.settle()
        assert target.is_consistent is is_same

    async def test_a_value_differs_from_an_error(self, clock: FakeClock) -> None:
        stock = Stock()
        target = await stock.is_low.capture()
        stock.error = LookupError("a")
        stock.put(6)
        await clock.settle()
        assert target.is_invalidated

    async def test_a_comparison_that_fails_is_logged_and_told(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        number = MutableState(1)

        def fail(old: int, new: int) -> bool:
            raise ArithmeticError("these can't be compared")

        @compute_function(consolidate=0, equals=fail)
        async def same() -> int:
            return number.use()

        computed = await same.capture()
        with caplog.at_level(logging.ERROR):
            number.set(2)
            await clock.settle()
        assert computed.is_invalidated
        assert "these can't be compared" in caplog.text

    @pytest.mark.parametrize("has_begun", [False, True])
    async def test_a_comparison_that_is_cancelled_is_told(
        self, clock: FakeClock, has_begun: bool
    ) -> None:
        stock = Stock()
        target = await stock.is_low_slowly.capture()
        stock.put(6)
        if has_begun:
            await clock.settle()
        task = consolidation_of(target).task
        assert task is not None
        task.cancel()
        await clock.settle()
        assert target.is_invalidated

    async def test_a_body_cancelled_from_within_is_tried_again_once_for_both(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs = 0

        @compute_function(consolidate=0)
        async def shaky() -> int:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise asyncio.CancelledError
            return runs

        calling = asyncio.ensure_future(shaky())
        await clock.advance(1)
        assert await calling == 2
        assert caplog.text.count("cancelled from within") == 1


class TestComparing:
    @staticmethod
    def consolidated(equals: Callable[[Any, Any], bool] | None, value: MutableState[Any]) -> Any:
        @compute_function(consolidate=0, equals=equals)
        async def get() -> Any:
            return value.use()

        return get

    @pytest.mark.parametrize(
        ("old", "new", "equals", "is_same"),
        [
            pytest.param("tea", "TEA", None, False, id="by value"),
            pytest.param([1, 2], [1, 2, 3][:2], None, True, id="by value, not by object"),
            pytest.param(
                "tea", "TEA", lambda a, b: a.lower() == b.lower(), True, id="looser, the same"
            ),
            pytest.param(
                "tea", "cake", lambda a, b: a.lower() == b.lower(), False, id="looser, another"
            ),
            pytest.param((1,), [1], lambda a, b: [*a] == [*b], True, id="looser, another type"),
            pytest.param(1, True, lambda a, b: type(a) is type(b), False, id="stricter"),
            pytest.param("a", None, lambda a, b: a is b, False, id="none is a value"),
            pytest.param(None, "a", lambda a, b: a is b, False, id="none was a value"),
        ],
    )
    async def test_values_are_compared_as_told(
        self,
        clock: FakeClock,
        old: Any,
        new: Any,
        equals: Callable[[Any, Any], bool] | None,
        is_same: bool,
    ) -> None:
        value = MutableState(old)
        computed = await self.consolidated(equals, value).capture()
        value.set(new)
        value.invalidate()
        await clock.settle()
        assert computed.is_consistent is is_same

    async def test_the_comparer_is_not_asked_about_errors(self, clock: FakeClock) -> None:
        asked: list[object] = []
        value = MutableState[int](1)
        get = self.consolidated(lambda *pair: bool(asked.append(pair)) or True, value)
        computed = await get.capture()
        value.set_error(LookupError("a"))
        await clock.settle()
        assert computed.is_invalidated
        computed = await get.capture()
        value.set_error(LookupError("a"))
        await clock.settle()
        assert computed.is_consistent
        assert asked == []

    async def test_an_equal_new_value_leaves_the_old_object_in_place(
        self, clock: FakeClock
    ) -> None:
        old, new = [1], [1]
        value = MutableState(old)
        computed = await self.consolidated(None, value).capture()
        value.change(lambda _: new)
        await clock.settle()
        assert computed.value is old
        assert consolidation_of(computed).source.value is new

    def test_a_comparer_without_a_delay_is_refused(self) -> None:
        with pytest.raises(DefinitionError, match="consolidate"):

            class Service(ComputeService):
                @compute_method(equals=lambda old, new: True)
                async def get(self) -> int:
                    return 1

    @pytest.mark.parametrize("options", [{"consolidate": -1}, {"consolidate": 0, "equals": "=="}])
    def test_a_delay_or_a_comparer_of_the_wrong_kind_is_refused(
        self, options: dict[str, Any]
    ) -> None:
        with pytest.raises(DefinitionError, match="get"):

            class Service(ComputeService):
                @compute_method(**options)
                async def get(self) -> int:
                    return 1


class TestSurroundings:
    async def test_a_comparison_inherits_nothing_from_whoever_invalidates(
        self, clock: FakeClock
    ) -> None:
        user = contextvars.ContextVar("user", default="nobody")
        number = MutableState(1)
        seen: list[str] = []

        @compute_function(consolidate=0)
        async def who() -> int:
            seen.append(user.get())
            return number.use()

        @compute_function
        async def outer() -> int:
            number.set(2)
            await clock.sleep(1)
            return 1

        computed = await who.capture()
        user.set("somebody")
        with invalidating():
            number.set(3)
        await clock.settle()
        assert computed.is_invalidated
        computed = await who.capture()
        asking = asyncio.ensure_future(outer.capture())
        await clock.advance(1)
        assert (await asking).dependencies == ()
        assert computed.is_invalidated
        assert seen == ["nobody", "nobody", "nobody"]

    async def test_a_private_method_can_shield_the_one_that_calls_it(
        self, clock: FakeClock
    ) -> None:
        class Service(ComputeService):
            def __init__(self) -> None:
                self.number = MutableState(1)

            @compute_method(consolidate=0)
            async def _is_even(self) -> bool:
                return self.number.use() % 2 == 0

            @compute_method
            async def parity(self) -> str:
                return "even" if await self._is_even() else "odd"

        service = Service()
        computed = await service.parity.capture()
        service.number.set(3)
        await clock.settle()
        assert computed.is_consistent
        service.number.set(4)
        await clock.settle()
        assert await service.parity() == "even"

    async def test_a_cause_is_found_behind_a_consolidation(self, clock: FakeClock) -> None:
        number = MutableState(1)

        @compute_function(consolidate=0)
        async def same() -> int:
            return number.use()

        computed = await same.capture()
        number.set(2)
        await clock.settle()
        assert str(computed.invalidation_cause) == "a state was set"

    async def test_one_that_needs_itself_fails(self) -> None:
        @compute_function(consolidate=0)
        async def circle() -> int:
            value: int = await circle()
            return value

        assert "needed to compute itself" in str((await circle.capture()).error)

    async def test_arguments_keep_their_results_apart(self, clock: FakeClock) -> None:
        numbers = {"a": MutableState(1), "b": MutableState(1)}

        @compute_function(consolidate=0)
        async def is_even(name: str) -> bool:
            return numbers[name].use() % 2 == 0

        first, second = await is_even.capture("a"), await is_even.capture("b")
        numbers["a"].set(2)
        await clock.settle()
        assert (first.is_consistent, second.is_consistent) == (False, True)
        assert second.consolidation is not None


class TestMemory:
    async def test_what_nobody_holds_leaves_with_its_source(self, clock: FakeClock) -> None:
        def kept() -> int:
            return sum(node.keeper.instance is stock for node in nodes())

        stock = Stock()
        await stock.is_low()
        assert kept() == 3
        prune()
        prune()
        assert kept() == 0

    async def test_a_held_target_keeps_its_source(self, clock: FakeClock) -> None:
        stock = Stock()
        target = await stock.is_low.capture()
        prune()
        assert consolidation_of(target).source.is_consistent
        stock.put(1)
        await clock.settle()
        assert target.is_invalidated

    async def test_a_service_that_is_dropped_takes_everything_along(self, clock: FakeClock) -> None:
        stock = Stock()
        await stock.warning()
        stock.put(4)
        await clock.settle()
        reference = weakref.ref(stock)
        del stock
        gc.collect()
        assert reference() is None

    async def test_targets_that_went_stale_are_let_go_by_the_source_that_stays(
        self, clock: FakeClock
    ) -> None:
        def followers(source: Computed[Any]) -> int:
            assert source.extra is not None
            return len(source.extra.handlers or ())

        stock = Stock()
        targets = [await stock.is_low.capture()]
        for _ in range(10):
            targets[-1].invalidate()
            targets.append(await stock.is_low.capture())
        source = consolidation_of(targets[-1]).source
        assert followers(source) == 1
        stock.gate = asyncio.Event()
        stock.put(6)
        await clock.settle()
        targets[-1].invalidate()  # while the new source is computed
        stock.gate.set()
        await clock.settle()
        target = await stock.is_low.capture()
        assert consolidation_of(target).source is not source
        assert followers(consolidation_of(target).source) == 1

    async def test_old_sources_and_targets_are_let_go(self, clock: FakeClock) -> None:
        stock = Stock(9)
        target = await stock.is_low.capture()
        old = [weakref.ref(consolidation_of(target).source)]
        for amount in (8, 7, 1):
            stock.put(amount)
            await clock.settle()
        old += [weakref.ref(target)]
        del target
        assert await stock.is_low() is True
        gc.collect()
        assert [reference() for reference in old] == [None, None]
