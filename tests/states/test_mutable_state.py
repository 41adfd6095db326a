"""A mutable state is a variable: what it holds, what counts as a change, how it stays fresh."""

import asyncio
import math

import pytest

from afresh import ComputedOptions, DefinitionError, InvalidStateError, MutableState, invalidating
from afresh.primitives.transience import Transience, transience_of
from afresh.testing import FakeClock


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise TypeError("these can't be compared")

    __hash__ = None  # type: ignore[assignment]


class TestHolding:
    def test_a_new_state_holds_its_initial_value(self) -> None:
        state = MutableState("a")
        assert (state.value, state.value_or_none, state.last_value, state.error) == (
            "a",
            "a",
            "a",
            None,
        )
        assert state.is_initial
        assert state.computed.is_consistent

    def test_an_initial_none_is_a_value(self) -> None:
        state: MutableState[str | None] = MutableState(None)
        assert state.value is None
        assert state.error is None
        state.set("a")
        assert state.value == "a"
        state.set(None)
        assert state.value is None
        assert not state.is_initial

    def test_a_set_value_is_there_at_once(self) -> None:
        state = MutableState(1)
        state.set(2)
        assert state.value == 2
        assert state.use() == 2
        assert state.computed.is_consistent
        assert not state.is_initial

    def test_results_of_before_keep_their_value(self) -> None:
        state = MutableState(1)
        before = state.computed
        state.set(2)
        assert before.is_invalidated
        assert before.value == 1

    def test_an_error_is_raised_by_value_and_by_use(self) -> None:
        state = MutableState(1)
        state.set_error(LookupError("gone"))
        for read in (lambda: state.value, state.use, lambda: state.computed.value):
            with pytest.raises(LookupError, match="gone"):
                read()
        assert isinstance(state.error, LookupError)
        assert state.value_or_none is None

    def test_the_last_value_survives_errors(self) -> None:
        state = MutableState(1)
        state.set(2)
        state.set_error(LookupError())
        state.set_error(LookupError())
        assert state.last_value == 2
        state.set(3)
        assert (state.value, state.error) == (3, None)

    def test_it_is_confirmed_from_the_start(self) -> None:
        state = MutableState(1)
        assert state.is_initial
        assert state.is_confirmed
        assert state.computed.is_synchronized()

    def test_its_representation_names_kind_and_state(self) -> None:
        state = MutableState(1, category="counter")
        assert repr(state) == "<MutableState counter: initial, consistent>"
        state.set_error(LookupError())
        assert repr(state) == "<MutableState counter: update 1, consistent with LookupError>"


class TestWhatCountsAsChange:
    @pytest.mark.parametrize("value", ["tea", 5, (1, 2), None, math.nan], ids=repr)
    def test_setting_the_same_object_changes_nothing(self, value: object) -> None:
        state = MutableState(value)
        before = state.computed
        state.set(value)
        assert state.computed is before
        assert before.is_consistent

    def test_setting_an_equal_value_of_the_same_type_changes_nothing(self) -> None:
        state = MutableState([1, 2])
        before = state.computed
        state.set([1, 2])
        assert state.computed is before

    @pytest.mark.parametrize("value", [True, 1.0], ids=repr)
    def test_an_equal_value_of_another_type_is_a_change(self, value: float) -> None:
        state: MutableState[float] = MutableState(1)
        state.set(value)
        assert type(state.value) is type(value)
        assert state.snapshot.update_count == 1

    def test_values_that_cannot_be_compared_are_different(self) -> None:
        state = MutableState(Incomparable())
        other = Incomparable()
        state.set(other)
        assert state.value is other

    def test_a_value_changed_in_place_is_announced_by_invalidating(self) -> None:
        basket = ["tea"]
        state = MutableState(basket)
        basket.append("cake")
        state.set(basket)
        assert state.snapshot.update_count == 0
        state.invalidate()
        assert state.snapshot.update_count == 1
        assert state.value is basket

    def test_setting_the_same_error_object_again_changes_nothing(self) -> None:
        state = MutableState(1)
        error = LookupError("gone")
        state.set_error(error)
        before = state.computed
        state.set_error(error)
        assert state.computed is before

    def test_an_equal_looking_error_is_a_change(self) -> None:
        state = MutableState(1)
        state.set_error(LookupError("gone"))
        state.set_error(LookupError("gone"))
        assert state.snapshot.update_count == 2

    def test_the_value_of_before_an_error_is_a_change(self) -> None:
        state = MutableState(1)
        state.set_error(LookupError())
        state.set(1)
        assert state.value == 1


class TestChangeByFunction:
    def test_the_function_gets_the_present_value(self) -> None:
        state = MutableState(20)
        state.change(lambda value: value + 1)
        assert state.value == 21

    def test_it_counts_as_a_change_even_if_the_value_stays(self) -> None:
        basket = ["tea"]
        state = MutableState(basket)

        def add(value: list[str]) -> list[str]:
            value.append("cake")
            return value

        state.change(add)
        assert state.snapshot.update_count == 1
        assert state.value == ["tea", "cake"]

    def test_what_the_function_raises_leaves_the_state_as_it_was(self) -> None:
        state = MutableState(1)
        with pytest.raises(ZeroDivisionError):
            state.change(lambda value: value // 0)
        assert (state.value, state.error, state.snapshot.update_count) == (1, None, 0)

    def test_it_raises_the_error_that_the_state_holds(self) -> None:
        state = MutableState(1)
        error = LookupError()
        state.set_error(error)
        with pytest.raises(LookupError):
            state.change(lambda value: value + 1)
        assert state.snapshot.update_count == 1


class TestAlwaysFresh:
    def test_invalidated_by_anybody_it_has_the_next_result_at_once(self) -> None:
        state = MutableState(1)
        before = state.computed
        before.invalidate()
        assert before.is_invalidated
        assert state.computed is not before
        assert state.computed.is_consistent
        assert state.value == 1

    def test_invalidating_all_at_once_is_no_different(self) -> None:
        state = MutableState(1)
        for _ in range(3):
            state.invalidate()
        assert state.computed.is_consistent
        assert state.snapshot.update_count == 3

    async def test_updating_it_returns_what_is_there(self) -> None:
        state = MutableState(1)
        assert await state.update() is state.computed
        assert await state.recompute() is state.computed
        assert state.snapshot.update_count == 1

    async def test_an_old_result_is_updated_to_the_present_one(self) -> None:
        state = MutableState(1)
        old = state.computed
        state.set(2)
        state.set(3)
        assert await old.update() is state.computed

    async def test_the_invalidation_says_where_it_came_from(self) -> None:
        state = MutableState(1)
        first = state.computed
        state.set(2)
        second = state.computed
        state.invalidate(cause="a whim")
        assert str(first.invalidation_cause) == "a state was set"
        assert str(second.invalidation_cause) == "a whim"

    async def test_an_invalidation_without_a_cause_names_the_caller(self) -> None:
        state = MutableState(1)
        before = state.computed
        state.invalidate()
        assert "test_mutable_state.py" in str(before.invalidation_cause)


class TestDepending:
    async def test_using_it_in_a_scope_that_computes_nothing_is_refused(self) -> None:
        state = MutableState(1)
        with invalidating(), pytest.raises(InvalidStateError, match="invalidating"):
            state.use()

    async def test_a_loop_that_waits_and_updates_sees_changes(self) -> None:
        state = MutableState(0)
        seen = []

        async def watch() -> None:
            computed = state.computed
            while computed.value < 3:
                seen.append(computed.value)
                await computed.when_invalidated()
                computed = await computed.update()

        watching = asyncio.ensure_future(watch())
        for value in (1, 2, 3):
            await asyncio.sleep(0)
            state.set(value)
            await asyncio.sleep(0)
        await watching
        assert seen == [0, 1, 2]


class TestGoingStaleByItself:
    def test_an_error_never_expires_and_needs_no_timer(self, clock: FakeClock) -> None:
        state = MutableState(1)
        error = TimeoutError()
        assert transience_of(error) is Transience.TRANSIENT
        state.set_error(error)
        assert clock.timers == 0
        clock.advance_sync(3600)
        assert state.snapshot.update_count == 1

    def test_a_lifetime_counts_for_the_initial_value_and_for_all_that_follow(
        self, clock: FakeClock
    ) -> None:
        state = MutableState(1, options=ComputedOptions(auto_invalidate=10))
        clock.advance_sync(9)
        assert state.snapshot.update_count == 0
        clock.advance_sync(1)
        assert state.snapshot.update_count == 1
        clock.advance_sync(5)
        state.set(2)
        clock.advance_sync(9)
        assert state.snapshot.update_count == 2
        clock.advance_sync(1)
        assert state.snapshot.update_count == 3
        assert state.value == 2
        assert clock.timers == 1

    @pytest.mark.parametrize("option", ["auto_invalidate", "transient_error_delay", "error_delay"])
    def test_no_lifetime_at_all_is_refused_because_renewing_would_never_end(
        self, option: str
    ) -> None:
        options = MutableState.default_options.replace(**{option: 0})
        with pytest.raises(DefinitionError, match=option):
            MutableState(1, options=options)

    def test_options_that_consolidate_are_refused(self) -> None:
        with pytest.raises(DefinitionError, match="consolidate"):
            MutableState(1, options=ComputedOptions(consolidate=1))
