"""States whose invalidation takes effect a while later: what is seen before that, and after."""

from typing import Any

from afresh import ComputedOptions, ComputedState, MutableState, compute_function
from afresh.states import YIELD
from afresh.testing import FakeClock
from tests.states.recording import note_events, update_number

SLOW = ComputedOptions(invalidation_delay=1)


def test_a_variable_changes_when_the_delay_is_over(clock: FakeClock) -> None:
    log: list[tuple[str, Any]] = []
    state = MutableState(0, options=SLOW, configure=note_events(log))
    state.set(1)
    clock.advance_sync(0.5)
    state.set(2)
    assert (state.value, state.use(), log) == (0, 0, [])
    clock.advance_sync(0.5)
    assert state.value == 2
    assert log == [("invalidated", 0), ("updating", 0), ("updated", 2)]
    assert clock.timers == 0


def test_a_second_change_after_that_is_delayed_as_well(clock: FakeClock) -> None:
    state = MutableState(0, options=SLOW)
    state.set(1)
    clock.advance_sync(1)
    state.set(2)
    clock.advance_sync(0.9)
    assert state.value == 1
    clock.advance_sync(0.1)
    assert state.value == 2


def test_changing_by_function_builds_on_what_was_set_before(clock: FakeClock) -> None:
    state = MutableState(0, options=SLOW)
    for _ in range(3):
        state.change(lambda value: value + 1)
    clock.advance_sync(1)
    assert state.value == 3


def test_setting_what_is_set_already_changes_nothing(clock: FakeClock) -> None:
    state = MutableState(0, options=SLOW)
    state.set(1)
    state.set(1)
    clock.advance_sync(1)
    assert state.snapshot.update_count == 1


def test_an_error_set_meanwhile_counts(clock: FakeClock) -> None:
    state = MutableState(0, options=SLOW)
    state.set(1)
    state.set_error(LookupError())
    assert state.error is None
    clock.advance_sync(1)
    assert isinstance(state.error, LookupError)


def test_an_immediate_invalidation_takes_the_set_value_along(clock: FakeClock) -> None:
    state = MutableState(0, options=SLOW)
    state.set(1)
    state.computed.invalidate(now=True)
    assert state.value == 1
    assert clock.timers == 0
    clock.advance_sync(2)
    assert state.snapshot.update_count == 1


async def test_dependants_are_told_when_the_delay_is_over(clock: FakeClock) -> None:
    source = MutableState(0, options=SLOW)

    @compute_function
    async def copy() -> int:
        return source.use()

    computed = await copy.capture()
    source.set(1)
    await clock.advance(0.9)
    assert computed.is_consistent
    assert await copy() == 0
    await clock.advance(0.1)
    assert computed.is_invalidated
    assert await copy() == 1


async def test_a_computed_state_stays_fresh_until_the_delay_is_over(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    source = MutableState(0)

    async def copy() -> int:
        return source.use()

    async with ComputedState(
        copy, delay=YIELD, options=SLOW, configure=note_events(log, update_number)
    ) as state:
        await clock.settle()
        log.clear()
        source.set(1)
        source.set(2)
        await clock.advance(0.9)
        assert state.computed.is_consistent
        assert (state.value, await state.use(), log) == (0, 0, [])
        await clock.advance(0.1)
        assert state.value == 2
        assert log == [("invalidated", 1), ("updating", 1), ("updated", 2)]
        assert clock.timers == 0


async def test_a_result_that_is_stale_from_birth_is_served_for_the_delay_too(
    clock: FakeClock,
) -> None:
    source = MutableState(0)

    async def copy() -> int:
        value = source.use()
        if value == 0:
            source.set(1)
        return value

    async with ComputedState(copy, delay=YIELD, options=SLOW) as state:
        await clock.advance(0.9)
        assert (state.value, state.computed.is_consistent) == (0, True)
        await clock.advance(0.2)
        assert state.value == 1


async def test_recomputing_skips_the_delay(clock: FakeClock) -> None:
    count = 0

    async def counting() -> int:
        nonlocal count
        count += 1
        return count

    async with ComputedState(counting, options=SLOW) as state:
        await state.update()
        assert (await state.recompute()).value == 2
        state.invalidate()
        assert (await state.recompute()).value == 3
        assert clock.timers == 0


async def test_closing_does_not_wait_for_the_delay(clock: FakeClock) -> None:
    source = MutableState(0)

    async def copy() -> int:
        return source.use()

    async with ComputedState(copy, options=SLOW) as state:
        await state.update()
        source.set(1)
    assert state.computed.is_invalidated
    assert source.computed.dependants == ()
    assert clock.timers == 0
