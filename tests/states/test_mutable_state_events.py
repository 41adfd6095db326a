"""What handlers of a mutable state see, in which order, and what they may do."""

import asyncio
import logging
from typing import Any

import pytest

from afresh import ComputedState, MutableState, StateEvent, compute_function, invalidating
from afresh.testing import FakeClock
from tests.states.recording import ALL, note_events, update_number


def test_a_change_is_told_in_order_of_invalidated_updating_updated() -> None:
    events: list[tuple[str, Any]] = []
    state = MutableState(1, configure=note_events(events))
    state.set(2)
    assert events == [("invalidated", 1), ("updating", 1), ("updated", 2)]


def test_the_initial_value_is_no_event() -> None:
    events: list[tuple[str, Any]] = []
    MutableState(1, configure=note_events(events))
    assert events == []


async def test_the_state_has_its_next_value_before_handlers_of_the_result_and_dependants_know() -> (
    None
):
    events: list[tuple[str, Any]] = []
    state = MutableState(1, configure=note_events(events))

    @compute_function
    async def doubled() -> int:
        return state.use() * 2

    computed = await doubled.capture()
    computed.on_invalidated(lambda _: events.append(("dependant", state.value)))
    state.computed.on_invalidated(lambda _: events.append(("result", state.value)))
    state.set(2)
    assert events == [
        ("invalidated", 1),
        ("updating", 1),
        ("updated", 2),
        ("result", 2),
        ("dependant", 2),
    ]


def test_each_result_is_told_to_be_stale_exactly_once() -> None:
    events: list[tuple[str, Any]] = []
    state = MutableState(0, configure=note_events(events, update_number, StateEvent.INVALIDATED))
    state.set(1)
    first = state.computed
    state.invalidate()
    first.invalidate()
    state.set_error(LookupError())
    assert events == [("invalidated", 0), ("invalidated", 1), ("invalidated", 2)]


@pytest.mark.parametrize("event", list(StateEvent), ids=lambda event: event.name)
def test_a_handler_may_set_the_state_that_called_it(event: StateEvent) -> None:
    events: list[tuple[str, Any]] = []

    def correct(state: MutableState[int], _: StateEvent) -> None:
        if state.snapshot.update_count < 3:
            state.set(10)

    state = MutableState(0, configure=note_events(events, update_number, StateEvent.INVALIDATED))
    state.on(event, correct)
    state.set(1)
    assert state.value == 10
    assert state.computed.is_consistent
    numbers = [number for _, number in events]
    assert numbers == list(range(state.snapshot.update_count))


def test_a_handler_of_the_result_may_set_the_state() -> None:
    state = MutableState(0)
    state.computed.on_invalidated(lambda _: state.set(10))
    state.set(1)
    assert state.value == 10
    assert state.snapshot.update_count == 2


def test_a_value_that_a_handler_sets_reaches_the_other_handlers_too() -> None:
    seen: list[int] = []
    state = MutableState(0)
    state.on(StateEvent.UPDATED, lambda state, _: state.set(10))
    state.on(StateEvent.UPDATED, lambda state, _: seen.append(state.value))
    state.set(1)
    assert seen[-1] == 10


def test_invalidating_in_the_handler_of_an_update_is_told_once() -> None:
    events: list[tuple[str, Any]] = []
    state = MutableState(0, configure=note_events(events, update_number))
    remove = state.on(StateEvent.UPDATED, lambda state, _: (remove(), state.invalidate()))
    state.set(1)
    assert [number for name, number in events if name == "invalidated"] == [0, 1]
    assert state.snapshot.update_count == 2
    assert state.computed.is_consistent


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, GeneratorExit])
def test_a_failing_handler_is_logged_and_stops_nobody(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    events: list[tuple[str, Any]] = []
    state = MutableState(0)

    def fail(*_: object) -> None:
        raise error("no page")

    state.on(ALL, fail)
    note_events(events)(state)
    with caplog.at_level(logging.ERROR, "afresh.states"):
        state.set(1)
    assert events == [("invalidated", 0), ("updating", 0), ("updated", 1)]
    assert state.value == 1
    assert len(caplog.records) == 3


@pytest.mark.parametrize("event", list(StateEvent), ids=lambda event: event.name)
def test_a_handler_that_ends_the_program_leaves_a_state_that_works(event: StateEvent) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    state = MutableState(0)
    remove = state.on(event, end)
    with pytest.raises(KeyboardInterrupt):
        state.set(1)
    remove()
    assert state.computed.is_consistent
    assert state.value == 1
    state.set(2)
    assert state.value == 2


def test_a_handler_hears_only_of_the_events_it_asked_for_until_it_is_removed() -> None:
    heard: list[StateEvent] = []
    state = MutableState(0)
    remove = state.on(
        StateEvent.INVALIDATED | StateEvent.UPDATED, lambda _, event: heard.append(event)
    )
    state.set(1)
    remove()
    remove()
    state.set(2)
    assert heard == [StateEvent.INVALIDATED, StateEvent.UPDATED]


async def test_what_handlers_read_is_no_dependency_of_the_computation_that_changes_the_state() -> (
    None
):
    state = MutableState(0)
    looked_at = MutableState("a")
    state.on(ALL, lambda *_: looked_at.use())

    @compute_function
    async def set_it() -> int:
        state.set(5)
        return 1

    computed = await set_it.capture()
    assert state.value == 5
    assert computed.dependencies == ()


async def test_handlers_run_outside_of_an_invalidation_around_the_change() -> None:
    values: list[int] = []
    state = MutableState(0)
    other = MutableState(7)
    state.on(StateEvent.UPDATED, lambda *_: values.append(other.use()))
    with invalidating():
        state.set(1)
    assert values == [7]


async def test_a_computed_state_that_handlers_set_off_is_not_lost(clock: FakeClock) -> None:
    query = MutableState("")
    echo = MutableState("")
    query.on(StateEvent.UPDATED, lambda state, _: echo.set(state.value))

    async def found() -> str:
        return f"{query.use()}={echo.use()}"

    async with ComputedState(found, delay=0.1) as state:
        await clock.settle()
        query.set("tea")
        await clock.advance(0.1)
        assert state.value == "tea=tea"
