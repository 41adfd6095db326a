"""Closing a computed state: at once, in the middle of an update, and more than once."""

import asyncio
import logging

import pytest

from afresh import ComputedState, InvalidStateError, MutableState, compute_function
from afresh.primitives.tasks import background_tasks
from afresh.states import YIELD
from afresh.testing import FakeClock
from tests.states.recording import note_events, update_number


class Gated:
    """A function that computes as long as its gate is shut, and says how it ended."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started = 0
        self.ended: list[str] = []

    async def __call__(self) -> int:
        self.started += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return self.started


async def one() -> int:
    return 1


class TestClosed:
    async def test_its_value_stays_readable(self, clock: FakeClock) -> None:
        async with ComputedState(one) as state:
            await state.update()
        assert state.is_closed
        assert (state.value, state.last_value, state.error) == (1, 1, None)
        assert state.snapshot.update_count == 1

    async def test_its_result_is_stale_and_says_why(self, clock: FakeClock) -> None:
        async with ComputedState(one) as state:
            await state.update()
        assert state.computed.is_invalidated
        assert str(state.computed.invalidation_cause) == "a state was closed"

    async def test_using_updating_or_starting_it_is_refused(self, clock: FakeClock) -> None:
        async with ComputedState(one) as state:
            computed = await state.update()
        for attempt in (state.use, state.update, state.recompute, computed.update, computed.use):
            with pytest.raises(InvalidStateError, match="make a new one"):
                await attempt()
        with pytest.raises(InvalidStateError, match="make a new one"):
            state.start()
        with pytest.raises(InvalidStateError, match="make a new one"):
            async with state:
                pass

    async def test_nothing_updates_it_any_more(self, clock: FakeClock) -> None:
        source = MutableState(1)

        async def copy() -> int:
            return source.use()

        async with ComputedState(copy, delay=YIELD) as state:
            await state.update()
        source.set(2)
        state.invalidate()
        await clock.advance(100)
        assert state.value == 1

    async def test_closing_it_again_does_nothing(self, clock: FakeClock) -> None:
        state = ComputedState(one)
        await state.update()
        state.close()
        state.dispose()
        await state.aclose()
        async with ComputedState(one) as other:
            await other.aclose()
        assert state.value == 1

    async def test_what_was_computed_from_it_goes_stale_and_then_fails(
        self, clock: FakeClock
    ) -> None:
        async with ComputedState(one) as state:

            @compute_function
            async def outer() -> int:
                return await state.use() + 1

            assert await outer() == 2
        with pytest.raises(InvalidStateError, match="closed"):
            await outer()

    async def test_it_lets_go_of_all_it_was_computed_from(self, clock: FakeClock) -> None:
        sources = [MutableState(number) for number in range(50)]

        async def total() -> int:
            return sum(source.use() for source in sources)

        async with ComputedState(total) as state:
            await state.update()
            assert len(state.computed.dependencies) == 50
            assert all(source.computed.dependants for source in sources)
        assert state.computed.dependencies == ()
        assert not any(source.computed.dependants for source in sources)
        assert state.value == sum(range(50))

    async def test_it_leaves_no_task_and_no_timer(self, clock: FakeClock) -> None:
        async def fail() -> None:
            raise TimeoutError

        for function in (one, fail):
            async with ComputedState(function, delay=5) as state:
                await state.update()
                state.invalidate(after=60)
            async with ComputedState(function, delay=5) as state:
                await state.update()
                state.invalidate()
                await clock.settle()
                assert background_tasks()
        assert background_tasks() == frozenset()
        assert clock.timers == 0


class TestWhileItWaits:
    async def test_a_delay_under_way_ends_at_once(self, clock: FakeClock) -> None:
        state = ComputedState(one, delay=60)
        await state.update()
        state.invalidate()
        await clock.settle()
        await state.aclose()
        assert background_tasks() == frozenset()
        assert clock.timers == 0

    async def test_a_state_that_has_not_begun_to_compute_never_does(self, clock: FakeClock) -> None:
        function = Gated()
        state = ComputedState(function)
        state.close()
        await clock.settle()
        assert function.started == 0
        assert state.is_initial


class TestWhileItComputes:
    async def test_the_computation_may_end_and_its_result_is_dropped(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        function = Gated()
        log: list[tuple[str, int]] = []
        state = ComputedState(
            function, initial=0, graceful_close=10, configure=note_events(log, update_number)
        )
        await clock.settle()
        closing = asyncio.ensure_future(state.aclose())
        await clock.advance(9)
        assert not closing.done()
        function.gate.set()
        await closing
        assert function.ended == ["done"]
        assert (state.value, state.snapshot.update_count) == (0, 0)
        assert log == [("invalidated", 0), ("updating", 0)]
        assert clock.timers == 0
        assert caplog.records == []

    async def test_it_is_cancelled_when_the_time_is_over(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        function = Gated()
        state = ComputedState(function, graceful_close=10)
        await clock.settle()
        closing = asyncio.ensure_future(state.aclose())
        await clock.advance(9.9)
        assert (function.ended, closing.done()) == ([], False)
        await clock.advance(0.2)
        assert (function.ended, closing.done()) == (["cancelled"], True)
        assert function.started == 1
        assert clock.timers == 0
        assert caplog.records == []

    @pytest.mark.parametrize("seconds", [0, -1])
    async def test_without_any_time_it_is_cancelled_at_once(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture, seconds: float
    ) -> None:
        function = Gated()
        async with ComputedState(function, graceful_close=seconds):
            await clock.settle()
        assert function.ended == ["cancelled"]
        assert caplog.records == []

    async def test_a_function_that_looks_for_the_end_itself_is_not_run_again(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls = 0

        async def function() -> None:
            nonlocal calls
            calls += 1
            while not state.is_closed:
                await clock.sleep(1)
            raise asyncio.CancelledError

        state = ComputedState(function)
        await clock.advance(2)
        closing = asyncio.ensure_future(state.aclose())
        with caplog.at_level(logging.INFO):
            await clock.advance(100)
        assert closing.done()
        assert calls == 1
        assert [r for r in caplog.records if "cancelled from within" in r.message] == []

    async def test_those_who_wait_for_the_update_are_told(self, clock: FakeClock) -> None:
        function = Gated()
        state = ComputedState(function, graceful_close=5)
        await clock.settle()
        waiting = [
            asyncio.ensure_future(wait)
            for wait in (state.use(), state.update(), state.when_ready())
        ]
        await clock.settle()
        closing = asyncio.ensure_future(state.aclose())
        await clock.advance(5)
        await closing
        for wait in waiting:
            with pytest.raises(InvalidStateError, match="closed"):
                await asyncio.wait_for(wait, 5)
        assert function.started == 1

    async def test_one_who_updates_it_by_hand_still_gets_a_result_that_nobody_else_sees(
        self, clock: FakeClock
    ) -> None:
        function = Gated()
        state = ComputedState(function, initial=0, start=False)
        updating = asyncio.ensure_future(state.update())
        await clock.settle()
        await state.aclose()
        function.gate.set()
        computed = await updating
        assert computed.value == 1
        assert computed.is_invalidated
        assert state.value == 0

    async def test_a_function_may_close_its_own_state(self, clock: FakeClock) -> None:
        async def function() -> int:
            state.close()
            await state.aclose()
            return 5

        state = ComputedState(function, initial=0)
        await clock.settle()
        assert state.value == 0
        assert background_tasks() == frozenset()
        assert clock.timers == 0

    async def test_giving_up_waiting_for_the_end_does_not_stop_it(self, clock: FakeClock) -> None:
        function = Gated()
        state = ComputedState(function, graceful_close=5)
        await clock.settle()
        closing = asyncio.ensure_future(state.aclose())
        await clock.settle()
        closing.cancel()
        await clock.advance(5)
        assert function.ended == ["cancelled"]
        assert background_tasks() == frozenset()

    async def test_an_update_that_ended_in_time_is_not_cancelled_later(
        self, clock: FakeClock
    ) -> None:
        function = Gated()
        state = ComputedState(function, graceful_close=5)
        await clock.settle()
        state.close()
        function.gate.set()
        await clock.settle()
        assert clock.timers == 0
        await clock.advance(10)
        assert function.ended == ["done"]


async def test_the_block_of_a_state_passes_errors_on_and_closes_it(clock: FakeClock) -> None:
    with pytest.raises(LookupError):
        async with ComputedState(one) as state:
            raise LookupError
    assert state.is_closed
