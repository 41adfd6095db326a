"""What handlers of a computed state see: each step of each generation, once, in order."""

import asyncio
from typing import Any

import pytest

from afresh import ComputedState, MutableState, StateEvent, compute_function
from afresh.states import YIELD
from afresh.testing import FakeClock
from tests.states.recording import ALL, note_events, update_number


class Delayer:
    """A delayer that notes when it is asked."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def delay(self, retry_count: int) -> None:
        self.log.append("delay")


async def test_the_steps_of_a_generation_come_in_order(clock: FakeClock) -> None:
    log: list[Any] = []
    source = MutableState(1)

    async def function() -> int:
        log.append("body")
        return source.use()

    async with ComputedState(
        function, initial=0, delay=Delayer(log), configure=note_events(log)
    ) as state:
        assert log == [("invalidated", 0)]
        await clock.settle()
        assert log == [("invalidated", 0), ("updating", 0), "body", ("updated", 1)]
        log.clear()
        source.computed.on_invalidated(lambda _: log.append("dependency"))
        state.computed.on_invalidated(lambda _: log.append("result"))
        source.set(2)
        assert log == ["dependency", ("invalidated", 1), "result"]
        log.clear()
        await clock.settle()
        assert log == ["delay", ("updating", 1), "body", ("updated", 2)]


async def test_the_snapshot_is_replaced_before_the_update_is_told(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    async with ComputedState(MutableState(1)._present, configure=note_events(log, update_number)):
        await clock.settle()
        assert log == [("invalidated", 0), ("updating", 0), ("updated", 1)]


async def test_a_result_that_is_stale_from_birth_is_told_to_be_so_once(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    source = MutableState(0)

    async def function() -> int:
        value = source.use()
        if value < 2:
            source.set(value + 1)
        return value

    async with ComputedState(
        function, delay=YIELD, configure=note_events(log, update_number)
    ) as state:
        await clock.settle()
        assert state.value == 2
        assert log == [
            ("invalidated", 0),
            ("updating", 0),
            ("updated", 1),
            ("invalidated", 1),
            ("updating", 1),
            ("updated", 2),
            ("invalidated", 2),
            ("updating", 2),
            ("updated", 3),
        ]


async def test_a_result_invalidated_while_it_is_computed_is_told_to_be_stale_once(
    clock: FakeClock,
) -> None:
    log: list[tuple[str, int]] = []
    gate = asyncio.Event()
    count = 0

    async def function() -> int:
        nonlocal count
        count += 1
        await gate.wait()
        return count

    async with ComputedState(
        function, delay=YIELD, configure=note_events(log, update_number)
    ) as state:
        await clock.settle()
        state.invalidate()
        state.invalidate()
        gate.set()
        await clock.settle()
        assert state.value == 2
        assert [number for name, number in log if name == "invalidated"] == [0, 1]


async def test_a_result_invalidated_by_the_handler_of_its_update_is_told_to_be_stale_once(
    clock: FakeClock,
) -> None:
    log: list[tuple[str, int]] = []
    count = 0

    async def function() -> int:
        nonlocal count
        count += 1
        return count

    def invalidate_first(state: ComputedState[int], _: StateEvent) -> None:
        if state.value == 1:
            state.invalidate()

    def configure(state: ComputedState[int]) -> None:
        note_events(log, update_number)(state)
        state.on(StateEvent.UPDATED, invalidate_first)

    async with ComputedState(function, delay=YIELD, configure=configure) as state:
        await clock.settle()
        assert state.value == 2
        assert log == [
            ("invalidated", 0),
            ("updating", 0),
            ("updated", 1),
            ("invalidated", 1),
            ("updating", 1),
            ("updated", 2),
        ]


async def test_an_update_that_is_given_up_and_taken_over_begins_once(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def function() -> int:
        await gate.wait()
        return 1

    async with ComputedState(
        function, start=False, configure=note_events(log, update_number)
    ) as state:
        first = asyncio.ensure_future(state.update())
        await clock.settle()
        second = asyncio.ensure_future(state.update())
        await clock.settle()
        first.cancel()
        await clock.settle()
        gate.set()
        assert (await second).value == 1
        assert log == [("invalidated", 0), ("updating", 0), ("updated", 1)]


async def test_an_update_by_anybody_is_told_like_the_states_own(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    source = MutableState(1)

    async def function() -> int:
        return source.use()

    async with ComputedState(
        function, delay=60, configure=note_events(log, update_number)
    ) as state:
        await state.use()
        source.set(2)
        await state.update()
        assert log == [
            ("invalidated", 0),
            ("updating", 0),
            ("updated", 1),
            ("invalidated", 1),
            ("updating", 1),
            ("updated", 2),
        ]


async def test_closing_tells_of_the_last_result_going_stale_once(clock: FakeClock) -> None:
    log: list[tuple[str, int]] = []
    async with ComputedState(
        MutableState(1)._present, configure=note_events(log, update_number)
    ) as state:
        await clock.settle()
        log.clear()
    assert log == [("invalidated", 1)]
    state.close()
    state.invalidate()
    await clock.advance(100)
    assert log == [("invalidated", 1)]


async def test_what_handlers_read_is_no_dependency_of_whoever_made_the_state_update(
    clock: FakeClock,
) -> None:
    seen = MutableState("seen by handlers")

    async def function() -> int:
        return 1

    async with ComputedState(
        function, start=False, configure=lambda state: state.on(ALL, lambda *_: seen.use())
    ) as state:

        @compute_function
        async def outer() -> int:
            return await state.use()

        computed = await outer.capture()
        assert computed.dependencies == (state.computed,)
        assert state.computed.dependencies == ()


async def test_a_failing_handler_does_not_keep_the_state_from_updating(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = MutableState(1)

    async def function() -> int:
        return source.use()

    def complain(*_: object) -> None:
        raise LookupError("no page")

    async with ComputedState(
        function, delay=YIELD, configure=lambda state: state.on(ALL, complain)
    ) as state:
        await clock.settle()
        source.set(2)
        await clock.settle()
        assert state.value == 2
    assert {record.name for record in caplog.records} == {"afresh.states"}
    assert "complain" in caplog.text


async def test_a_handler_may_close_the_state(clock: FakeClock) -> None:
    source = MutableState(1)

    async def function() -> int:
        return source.use()

    for event in StateEvent:
        state = ComputedState(function, delay=YIELD, graceful_close=0)
        await clock.settle()
        state.on(event, lambda state, _: state.close())
        source.set(source.value + 1)
        await clock.settle()
        assert state.is_closed
        assert state.value == source.value - (event is not StateEvent.UPDATED)
