"""A computed state starts by itself, keeps what it computed, and computes it again when stale."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afresh import (
    ComputedOptions,
    ComputedState,
    DefinitionError,
    InvalidStateError,
    MutableState,
    compute_function,
    invalidating,
)
from afresh.graph import Tracking, track_causes
from afresh.testing import FakeClock


def counter(*, suspends: bool = False) -> Callable[[], Awaitable[int]]:
    """Make a function that returns 1, 2, 3, …; one that suspends lets others run in between."""
    count = 0

    async def count_up() -> int:
        nonlocal count
        count += 1
        value = count
        if suspends:
            await asyncio.sleep(0)
        return value

    return count_up


class TestStarting:
    @pytest.mark.parametrize("suspends", [False, True], ids=["at once", "after a while"])
    async def test_it_has_its_initial_value_until_the_first_is_computed(
        self, clock: FakeClock, suspends: bool
    ) -> None:
        async with ComputedState(counter(suspends=suspends), initial=-1) as state:
            assert (state.value, state.last_value, state.error) == (-1, -1, None)
            assert state.is_initial
            assert not state.computed.is_consistent
            await clock.settle()
            assert (state.value, state.last_value) == (1, 1)
            assert not state.is_initial
            assert state.computed.is_consistent

    async def test_the_initial_value_is_none_if_none_is_given(self, clock: FakeClock) -> None:
        async with ComputedState(counter()) as state:
            assert state.value is None
            assert str(state.computed.invalidation_cause) == "an initial value is never fresh"

    async def test_a_computed_none_is_told_from_no_value_yet(self, clock: FakeClock) -> None:
        async def nothing() -> None:
            return None

        async with ComputedState(nothing) as state:
            assert (state.value, state.is_initial) == (None, True)
            await clock.settle()
            assert (state.value, state.is_initial) == (None, False)

    async def test_using_it_before_waits_for_the_first_value(self) -> None:
        async with ComputedState(counter(suspends=True), initial=-1) as state:
            assert await state.use() == 1

    async def test_waiting_until_it_is_ready_waits_for_the_first_value(self) -> None:
        async with ComputedState(counter(suspends=True), initial=-1) as state:
            assert not state.is_confirmed
            await state.when_ready()
            assert state.value == 1
            assert state.is_confirmed
            await state.when_ready()

    async def test_the_first_value_waits_for_no_delay(self, clock: FakeClock) -> None:
        async with ComputedState(counter(), delay=60) as state:
            await clock.settle()
            assert state.value == 1

    async def test_started_later_it_computes_nothing_until_then(self, clock: FakeClock) -> None:
        async with ComputedState(counter(), start=False) as state:
            await clock.settle()
            assert state.is_initial
            assert not state.is_started
            state.start()
            state.start()
            await clock.settle()
            assert state.value == 1

    async def test_one_that_is_not_started_computes_when_asked_and_follows_nothing(
        self, clock: FakeClock
    ) -> None:
        async with ComputedState(counter(), start=False, delay=0.1) as state:
            assert await state.use() == 1
            state.invalidate()
            await clock.advance(10)
            assert state.value == 1
            assert (await state.update()).value == 2

    def test_without_an_event_loop_it_refuses_to_start(self) -> None:
        with pytest.raises(InvalidStateError, match="event loop"):
            ComputedState(counter())

    async def test_options_that_consolidate_are_refused(self) -> None:
        with pytest.raises(DefinitionError, match="consolidate"):
            ComputedState(counter(), options=ComputedOptions(consolidate=1))

    async def test_a_delay_that_is_none_is_refused(self) -> None:
        with pytest.raises(TypeError, match="no delay"):
            ComputedState(counter(), delay="soon")  # type: ignore[arg-type]

    async def test_the_defaults_are_those_of_compute_methods(self) -> None:
        async with ComputedState(counter()) as state:
            assert state.options == ComputedOptions()
            assert state.options.transient_error_delay == 1
            assert state.options.error_delay == 30
            assert state.options.auto_invalidate == float("inf")

    async def test_the_defaults_of_a_subclass_are_its_own(self, clock: FakeClock) -> None:
        class Ticking(ComputedState[int]):
            default_options = ComputedOptions(auto_invalidate=5)

        async with Ticking(counter(), delay=0) as state:
            await clock.advance(11)
            assert state.value == 3
            assert state.category == "Ticking"


class TestKeeping:
    async def test_using_it_repeatedly_computes_once(self) -> None:
        async with ComputedState(counter()) as state:
            assert [await state.use() for _ in range(3)] == [1, 1, 1]

    async def test_updating_a_fresh_one_returns_the_result_that_is_there(self) -> None:
        async with ComputedState(counter()) as state:
            computed = await state.update()
            assert await state.update() is computed
            assert await computed.update() is computed
            assert state.computed is computed

    async def test_many_who_ask_at_once_share_one_computation(self) -> None:
        async with ComputedState(counter(suspends=True)) as state:
            assert await asyncio.gather(*(state.use() for _ in range(10))) == [1] * 10

    async def test_invalidated_it_computes_when_used(self) -> None:
        async with ComputedState(counter(), delay=60) as state:
            assert await state.use() == 1
            state.invalidate()
            assert not state.computed.is_consistent
            assert state.value == 1
            assert await state.use() == 2
            assert state.computed.is_consistent

    async def test_recomputing_gives_a_new_value_without_the_delay(self) -> None:
        async with ComputedState(counter(), delay=60) as state:
            assert (await state.update()).value == 1
            assert (await state.recompute()).value == 2
            assert (await state.recompute()).value == 3

    async def test_an_invalidation_may_be_scheduled(self, clock: FakeClock) -> None:
        async with ComputedState(counter(), delay=0) as state:
            await clock.settle()
            state.invalidate(after=5, cause="time is over")
            first = state.computed
            await clock.advance(4.9)
            assert state.value == 1
            await clock.advance(0.2)
            assert state.value == 2
            assert str(first.invalidation_cause) == "time is over"

    async def test_an_invalidation_without_a_cause_names_the_caller(self) -> None:
        async with ComputedState(counter()) as state:
            await state.update()
            state.invalidate()
            assert "test_computed_state.py" in str(state.computed.invalidation_cause)

    async def test_a_value_may_have_a_lifetime(self, clock: FakeClock) -> None:
        async with ComputedState(
            counter(), delay=0, options=ComputedOptions(auto_invalidate=10)
        ) as state:
            await clock.advance(9.9)
            assert state.value == 1
            await clock.advance(0.2)
            assert state.value == 2


class TestDepending:
    async def test_it_follows_what_its_function_uses(self, clock: FakeClock) -> None:
        source = MutableState(1)

        async def doubled() -> int:
            return source.use() * 2

        async with ComputedState(doubled, delay=0.5) as state:
            await clock.settle()
            assert state.value == 2
            source.set(4)
            assert not state.computed.is_consistent
            await clock.advance(0.4)
            assert state.value == 2
            await clock.advance(0.1)
            assert state.value == 8

    async def test_errors_of_what_it_uses_are_its_own(self, clock: FakeClock) -> None:
        source = MutableState(1)

        async def doubled() -> int:
            return source.use() * 2

        async with ComputedState(doubled, delay=0) as state:
            await state.update()
            source.set_error(LookupError("gone"))
            computed = await state.update()
            assert isinstance(computed.error, LookupError)
            source.set(5)
            assert (await state.update()).value == 10

    async def test_what_is_computed_from_it_depends_on_it(self, clock: FakeClock) -> None:
        async with ComputedState(counter(), delay=60) as state:

            @compute_function
            async def shown() -> str:
                return f"no. {await state.use()}"

            @compute_function
            async def read() -> str:
                return f"no. {state.value}"

            await state.update()
            user, reader = await shown.capture(), await read.capture()
            assert user.dependencies == (state.computed,)
            assert reader.dependencies == ()
            state.invalidate()
            assert not user.is_consistent
            assert reader.is_consistent
            assert await shown() == "no. 2"

    async def test_updating_it_inside_a_computation_makes_no_dependency(self) -> None:
        async with ComputedState(counter(), delay=60) as state:

            @compute_function
            async def glance() -> int:
                return (await state.update()).value

            computed = await glance.capture()
            assert computed.dependencies == ()

    async def test_using_it_in_a_scope_that_computes_nothing_is_refused_at_once(self) -> None:
        async with ComputedState(counter()) as state:
            with invalidating(), pytest.raises(InvalidStateError, match="invalidating"):
                state.use()

    async def test_one_that_needs_itself_fails_instead_of_waiting_for_ever(self) -> None:
        async def circle() -> int:
            value: int = await state.use()
            return value

        async with ComputedState(circle) as state:
            computed = await state.update()
            assert "needed to compute itself" in str(computed.error)

    async def test_its_node_names_it_and_the_chain_of_causes_leads_through_it(self) -> None:
        before = track_causes(Tracking.CHAIN)
        try:
            source = MutableState(1, category="source")

            async def doubled() -> int:
                return source.use() * 2

            async with ComputedState(doubled, category="doubled", delay=60) as state:
                computed = await state.update()
                assert computed.category == computed.describe() == "doubled"
                old = source.computed
                source.set(2)
                assert list(computed.invalidation_cause or ()) == [old, "a state was set"]
        finally:
            track_causes(before)


async def test_its_representation_tells_category_and_condition(clock: FakeClock) -> None:
    async def fail() -> None:
        raise LookupError

    async with ComputedState(fail, category="orders", delay=60) as state:
        assert repr(state) == "<ComputedState orders: initial, stale>"
        await clock.settle()
        assert repr(state) == "<ComputedState orders: update 1, consistent with LookupError>"
        state.invalidate()
        assert repr(state) == "<ComputedState orders: update 1, stale with LookupError>"


async def test_subclasses_may_bring_their_function_along(clock: FakeClock) -> None:
    class Clockwork(ComputedState[int]):
        def __init__(self, **options: Any) -> None:
            self.turns = 0
            super().__init__(self.turn, **options)

        async def turn(self) -> int:
            self.turns += 1
            return self.turns

    async with Clockwork(delay=0) as state:
        await clock.settle()
        assert state.value == 1
        assert await state.recompute() is state.computed
        assert state.value == 2
