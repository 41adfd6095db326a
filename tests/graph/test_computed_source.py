"""A computed source: one value without a service, computed when it is asked for."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afresh import (
    Computed,
    ComputedOptions,
    ComputedSource,
    DefinitionError,
    InvalidStateError,
    MutableState,
    compute_function,
    current_computed,
    invalidating,
)
from afresh.states import YIELD
from afresh.testing import FakeClock


def counter() -> Callable[[], Awaitable[int]]:
    numbers = itertools.count(1)

    async def count() -> int:
        return next(numbers)

    return count


class TestSource:
    async def test_it_starts_out_stale_with_the_initial_value(self) -> None:
        source = ComputedSource(counter(), initial=-1)
        assert source.computed.is_invalidated
        assert source.computed.value == -1
        assert str(source.computed.invalidation_cause) == "an initial value is never fresh"
        assert ComputedSource(counter()).computed.value is None

    async def test_the_first_use_computes_and_the_next_ones_do_not(self) -> None:
        source = ComputedSource(counter(), initial=-1)
        assert [await source.use() for _ in range(3)] == [1, 1, 1]
        assert source.computed.value == 1
        assert source.computed.is_consistent

    async def test_invalidated_it_is_computed_again_when_asked_for(self, clock: FakeClock) -> None:
        source = ComputedSource(counter())
        assert await source.use() == 1
        source.invalidate()
        await clock.advance(1000)
        assert source.computed.value == 1
        assert await source.use() == 2

    async def test_updating_returns_the_result_and_adds_no_dependency(self) -> None:
        source = ComputedSource(counter())

        @compute_function
        async def outer() -> int:
            return (await source.update()).value

        computed = await source.update()
        assert computed is source.computed is await source.update()
        assert (await outer.capture()).dependencies == ()

    async def test_recomputing_gives_a_new_result(self) -> None:
        source = ComputedSource(counter())
        assert (await source.update()).value == 1
        old = source.computed
        assert (await source.recompute()).value == 2
        assert str(old.invalidation_cause) == "a new result was asked for"

    async def test_it_follows_what_its_function_uses_and_is_followed(self) -> None:
        number = MutableState(1)

        async def doubled() -> int:
            return number.use() * 2

        source = ComputedSource(doubled)

        @compute_function
        async def shown() -> str:
            return f"= {await source.use()}"

        computed = await shown.capture()
        assert computed.dependencies == (source.computed,)
        number.set(2)
        assert not source.computed.is_consistent
        assert not computed.is_consistent
        assert await shown() == "= 4"

    async def test_an_error_is_kept_for_a_while_like_any_other(self, clock: FakeClock) -> None:
        calls = 0

        async def fail() -> None:
            nonlocal calls
            calls += 1
            raise TimeoutError("busy")

        source = ComputedSource(fail)
        for _ in range(2):
            with pytest.raises(TimeoutError, match="busy"):
                await source.use()
        assert calls == 1
        await clock.advance(1.1)
        with pytest.raises(TimeoutError):
            await source.use()
        assert calls == 2

    async def test_what_is_being_computed_is_the_computed(self, clock: FakeClock) -> None:
        gate = asyncio.Event()

        async def slow() -> int:
            assert current_computed() is source.computed
            await gate.wait()
            return 1

        source = ComputedSource(slow, initial=0)
        asking = [asyncio.ensure_future(source.use()) for _ in range(3)]
        await clock.settle()
        assert source.computed.is_computing
        with pytest.raises(InvalidStateError):
            _ = source.computed.value
        gate.set()
        assert await asyncio.gather(*asking) == [1, 1, 1]

    async def test_an_invalidation_while_it_is_computed_is_not_lost(self, clock: FakeClock) -> None:
        data = 1
        gate = asyncio.Event()

        async def slow() -> int:
            value = data
            await gate.wait()
            return value

        source = ComputedSource(slow)
        asking = asyncio.ensure_future(source.use())
        recomputing = asyncio.ensure_future(source.recompute())
        await clock.settle()
        data = 2
        source.invalidate()
        gate.set()
        assert await asking == 1
        assert (await recomputing).value == 2
        assert await source.use() == 2

    async def test_a_computation_given_up_by_its_caller_is_done_by_the_next(
        self, clock: FakeClock
    ) -> None:
        gate = asyncio.Event()

        async def slow() -> int:
            await gate.wait()
            return 1

        source = ComputedSource(slow)
        first, second = (asyncio.ensure_future(source.use()) for _ in range(2))
        await clock.settle()
        first.cancel()
        await clock.settle()
        gate.set()
        assert await second == 1
        assert first.cancelled()

    async def test_cancelled_and_asked_again_it_computes(self, clock: FakeClock) -> None:
        gate = asyncio.Event()

        async def slow() -> int:
            await gate.wait()
            return 1

        source = ComputedSource(slow)
        asking = asyncio.ensure_future(source.use())
        await clock.settle()
        asking.cancel()
        await clock.settle()
        gate.set()
        assert await source.use() == 1

    async def test_an_update_survives_a_handler_that_fails_and_runs_the_others(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = ComputedSource(counter())
        called: list[Computed[Any]] = []
        computed = await source.update()

        def fail(_: object) -> None:
            raise LookupError("no page")

        computed.on_invalidated(fail)
        computed.on_invalidated(called.append)
        assert (await source.recompute()).is_consistent
        assert called == [computed]
        assert "no page" in caplog.text

    async def test_one_that_needs_itself_fails(self) -> None:
        async def circle() -> int:
            value: int = await source.use()
            return value

        source = ComputedSource(circle)
        assert "needed to compute itself" in str((await source.update()).error)

    async def test_using_it_in_a_scope_that_computes_nothing_is_refused_at_once(self) -> None:
        source = ComputedSource(counter())
        with invalidating(), pytest.raises(InvalidStateError, match="invalidating"):
            source.use()

    async def test_options_that_consolidate_are_refused(self) -> None:
        with pytest.raises(DefinitionError, match="consolidate"):
            ComputedSource(counter(), options=ComputedOptions(consolidate=0))

    async def test_an_invalidation_names_its_caller_or_the_given_cause(self) -> None:
        source = ComputedSource(counter(), category="numbers")
        first = await source.update()
        source.invalidate()
        second = await source.update()
        source.invalidate(cause="a whim")
        assert "test_computed_source.py" in str(first.invalidation_cause)
        assert str(second.invalidation_cause) == "a whim"
        assert first.category == "numbers"
        assert repr(source).startswith("<ComputedSource numbers: <Computed numbers #")

    async def test_an_invalidation_may_be_scheduled(self, clock: FakeClock) -> None:
        source = ComputedSource(counter())
        await source.update()
        source.invalidate(after=5)
        await clock.advance(4.9)
        assert await source.use() == 1
        await clock.advance(0.2)
        assert await source.use() == 2


class TestLifetime:
    async def test_a_value_with_a_lifetime_can_be_followed(self, clock: FakeClock) -> None:
        source = ComputedSource(counter(), options=ComputedOptions(auto_invalidate=0.2))
        waiting = asyncio.ensure_future(source.computed.when(lambda value: value > 1))
        await clock.advance(0.3)
        assert (await waiting).value == 2

        seen: list[int] = []

        async def follow() -> None:
            async for computed in source.computed.changes():
                seen.append(computed.value)
                if len(seen) == 3:
                    break

        following = asyncio.ensure_future(follow())
        await clock.advance(1)
        await following
        assert seen == [2, 3, 4]
        await clock.advance(1)
        assert await source.use() > 3

    async def test_it_keeps_its_result_as_long_as_it_is_held(self, clock: FakeClock) -> None:
        source = ComputedSource(counter())
        await source.use()
        await clock.advance(10_000)
        assert await source.use() == 1

    async def test_dropped_it_is_gone(self) -> None:
        number = MutableState(1)

        async def copy() -> int:
            return number.use()

        source = ComputedSource(copy)
        await source.use()
        reference = weakref.ref(source)
        del source
        gc.collect()
        assert reference() is None
        assert number.computed.dependants == ()

    async def test_a_result_keeps_its_source(self) -> None:
        source = ComputedSource(counter())
        computed = await source.update()
        del source
        gc.collect()
        computed.invalidate()
        assert (await computed.update()).value == 2

    async def test_old_results_are_let_go_at_once(self) -> None:
        source = ComputedSource(counter())
        reference = weakref.ref(await source.update())
        await source.recompute()
        assert reference() is None


class TestAnonymous:
    async def test_it_starts_out_stale_without_a_value(self) -> None:
        computed = Computed.of(counter())
        assert computed.is_invalidated
        assert computed.value is None
        assert (await computed.update()).value == 1
        assert (await computed.update()).value == 1

    async def test_it_can_be_used_by_computations(self) -> None:
        number = MutableState(1)

        async def copy() -> int:
            return number.use()

        computed = Computed.of(copy)

        @compute_function
        async def outer() -> int:
            return await computed.use() + 1

        assert await outer() == 2
        number.set(5)
        assert await outer() == 6

    async def test_waiting_for_a_value_sees_what_expires_and_what_is_set(
        self, clock: FakeClock
    ) -> None:
        number = MutableState(1)

        @compute_function(auto_invalidate=1)
        async def seconds() -> float:
            return clock.now()

        async def both() -> tuple[float, int]:
            return await seconds(), number.use()

        computed = Computed.of(both)
        later = asyncio.ensure_future(computed.when(lambda pair: pair[0] > 3))
        larger = asyncio.ensure_future(computed.when(lambda pair: pair[1] > 3))
        await clock.advance(5)
        assert (await later).value[0] > 3
        assert not larger.done()
        number.set(4)
        await clock.advance(0.02)
        assert (await larger).value[1] == 4

    async def test_following_it_gives_every_result(self, clock: FakeClock) -> None:
        number = MutableState(1)
        seen: list[int] = []

        async def copy() -> int:
            return number.use()

        async def follow() -> None:
            note = seen.append
            async for computed in Computed.of(copy).changes(YIELD):
                note(computed.value)

        following = asyncio.ensure_future(follow())
        for value in (2, 3):
            await clock.settle()
            number.set(value)
        await clock.settle()
        assert seen == [1, 2, 3]
        following.cancel()
