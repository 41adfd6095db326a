"""Following a state: its values, its results, and those of the node behind it, as they come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from afresh import Computed, ComputedState, InvalidStateError, MutableState
from afresh.primitives.delays import RetryDelays
from afresh.states import NEXT_TICK, YIELD, FixedDelayer
from afresh.testing import FakeClock


def copy_of(source: MutableState[int]) -> Callable[[], Awaitable[int]]:
    async def copy() -> int:
        return source.use()

    return copy


async def each(items: AsyncIterator[Any], note: Callable[[Any], object]) -> None:
    async for item in items:
        note(item)


class TestValues:
    async def test_iterating_gives_the_present_value_and_every_next_one(
        self, clock: FakeClock
    ) -> None:
        source = MutableState(1)
        seen: list[int] = []
        async with ComputedState(copy_of(source), initial=0, delay=0.5) as state:
            following = asyncio.ensure_future(each(aiter(state), seen.append))
            await clock.settle()
            assert seen == [1]
            source.set(2)
            await clock.advance(0.5)
            source.set(3)
            await clock.advance(0.5)
            assert seen == [1, 2, 3]
        await following

    async def test_the_initial_value_is_none_of_them(self, clock: FakeClock) -> None:
        async with ComputedState(copy_of(MutableState(1)), initial=0) as state:
            async for value in state:
                assert value == 1
                break

    async def test_a_mutable_state_can_be_followed_as_well(self, clock: FakeClock) -> None:
        state = MutableState(0)
        seen: list[int] = []
        following = asyncio.ensure_future(each(aiter(state), seen.append))
        await clock.settle()
        assert seen == []
        for value in (1, 2):
            state.set(value)
            await clock.settle()
        assert seen == [1, 2]
        following.cancel()

    async def test_values_that_come_and_go_between_two_steps_are_skipped(
        self, clock: FakeClock
    ) -> None:
        state = MutableState(0)
        seen: list[int] = []
        following = asyncio.ensure_future(each(aiter(state), seen.append))
        await clock.settle()
        for value in range(1, 6):
            state.set(value)
        await clock.settle()
        assert seen == [5]
        following.cancel()

    async def test_an_error_is_raised_and_ends_it(self, clock: FakeClock) -> None:
        state = MutableState(0)
        seen: list[int] = []
        following = asyncio.ensure_future(each(aiter(state), seen.append))
        await clock.settle()
        state.set(1)
        await clock.settle()
        state.set_error(LookupError("gone"))
        with pytest.raises(LookupError, match="gone"):
            await following
        assert seen == [1]

    async def test_closing_the_state_ends_it_in_peace(self, clock: FakeClock) -> None:
        seen: list[int] = []
        async with ComputedState(copy_of(MutableState(1))) as state:
            following = asyncio.ensure_future(each(aiter(state), seen.append))
            await clock.settle()
        await following
        assert seen == [1]

    async def test_a_closed_state_gives_its_last_value_once(self, clock: FakeClock) -> None:
        async with ComputedState(copy_of(MutableState(1))) as state:
            await state.update()
        assert [value async for value in state] == [1]

    async def test_a_state_closed_before_its_first_value_gives_none(self, clock: FakeClock) -> None:
        async with ComputedState(copy_of(MutableState(1)), start=False) as state:
            pass
        assert [value async for value in state] == []

    async def test_the_last_value_is_not_missed_when_the_state_closes_at_once(
        self, clock: FakeClock
    ) -> None:
        source = MutableState(1)
        seen: list[int] = []
        state = ComputedState(copy_of(source), delay=60)
        following = asyncio.ensure_future(each(aiter(state), seen.append))
        await clock.settle()
        source.set(2)
        await state.update()
        state.close()
        await following
        assert seen == [1, 2]

    async def test_several_can_follow_each_at_its_own_pace(self, clock: FakeClock) -> None:
        state = MutableState(0)
        quick: list[int] = []
        slow: list[int] = []

        async def dawdle() -> None:
            async for value in state:
                slow.append(value)
                await clock.sleep(10)

        tasks = [
            asyncio.ensure_future(each(aiter(state), quick.append)),
            asyncio.ensure_future(dawdle()),
        ]
        await clock.settle()
        for value in range(1, 5):
            state.set(value)
            await clock.advance(4)
        assert quick == [1, 2, 3, 4]
        assert slow == [1, 3]
        for task in tasks:
            task.cancel()


class TestResults:
    async def test_the_results_of_a_state_include_errors(self, clock: FakeClock) -> None:
        state = MutableState(0)
        seen: list[Computed[int]] = []
        following = asyncio.ensure_future(each(state.changes(), seen.append))
        await clock.settle()
        state.set_error(LookupError())
        await clock.settle()
        state.set(2)
        await clock.settle()
        assert [type(computed.error) for computed in seen] == [LookupError, type(None)]
        following.cancel()

    async def test_a_loop_that_ends_early_leaves_nothing_that_waits(self, clock: FakeClock) -> None:
        state = MutableState(1)
        state.set(2)
        async with contextlib.aclosing(state.changes()) as changes:
            async for computed in changes:
                assert computed.value == 2
                break
        state.set(3)


class TestResultsOfTheNode:
    async def test_the_changes_of_a_node_start_with_the_present_result(
        self, clock: FakeClock
    ) -> None:
        source = MutableState(1)
        seen: list[int] = []
        async with ComputedState(copy_of(source), start=False) as state:
            following = asyncio.ensure_future(
                each(state.computed.changes(0.5), lambda computed: seen.append(computed.value))
            )
            await clock.settle()
            assert seen == [1]
            source.set(2)
            await clock.advance(0.4)
            source.set(3)
            assert seen == [1]
            await clock.advance(0.1)
            assert seen == [1, 3]
            following.cancel()

    async def test_the_delayer_is_told_of_transient_errors_in_a_row(self, clock: FakeClock) -> None:
        source = MutableState(1)
        asked: list[int] = []

        class Delayer:
            async def delay(self, retry_count: int) -> None:
                asked.append(retry_count)

        async def follow() -> None:
            async for _ in source.computed.changes(Delayer()):
                pass

        following = asyncio.ensure_future(follow())
        await clock.settle()
        for error in (TimeoutError(), TimeoutError(), LookupError(), TimeoutError()):
            source.set_error(error)
            await clock.settle()
        source.set(2)
        await clock.settle()
        assert asked == [0, 1, 2, 0, 1]
        following.cancel()

    async def test_retries_are_delayed_longer(self, clock: FakeClock) -> None:
        times: list[float] = []

        async def fail() -> None:
            times.append(clock.now())
            raise TimeoutError

        delayer = FixedDelayer(0.5, retry_delays=RetryDelays.exponential(1, 60, 2, spread=0))
        async with ComputedState(fail, start=False) as state:

            async def follow() -> None:
                async for _ in state.computed.changes(delayer):
                    pass

            following = asyncio.ensure_future(follow())
            await clock.advance(12)
            assert times == [0, 2, 5, 10]
            following.cancel()

    async def test_waiting_for_a_value_sees_those_to_come(self, clock: FakeClock) -> None:
        source = MutableState(1)
        async with ComputedState(copy_of(source), delay=60) as state:
            waiting = asyncio.ensure_future(state.computed.when(lambda value: value > 2))
            await clock.settle()
            for value in (2, 3):
                source.set(value)
                await clock.advance(0.02)
            computed = await waiting
            assert computed.value == 3
            assert computed is state.computed

    async def test_waiting_for_a_value_raises_the_error_that_comes_instead(
        self, clock: FakeClock
    ) -> None:
        source = MutableState(1)
        waiting = asyncio.ensure_future(source.computed.when(lambda value: value > 2, YIELD))
        await clock.settle()
        source.set_error(LookupError("gone"))
        with pytest.raises(LookupError, match="gone"):
            await waiting

    async def test_waiting_for_a_result_sees_errors_as_well(self, clock: FakeClock) -> None:
        source = MutableState(1)
        waiting = asyncio.ensure_future(
            source.computed.when_result(lambda value, error: error is not None, NEXT_TICK)
        )
        await clock.settle()
        source.set_error(LookupError("gone"))
        await clock.advance(0.02)
        assert isinstance((await waiting).error, LookupError)

    async def test_following_the_node_of_a_closed_state_fails_instead_of_computing_for_ever(
        self, clock: FakeClock
    ) -> None:
        calls = 0

        async def function() -> int:
            nonlocal calls
            calls += 1
            return calls

        async with ComputedState(function) as state:
            following = asyncio.ensure_future(each(state.computed.changes(0.1), repr))
            waiting = asyncio.ensure_future(state.computed.when(lambda value: False, 0.1))
            await clock.settle()
        await clock.advance(1)
        assert calls == 1
        for task in (following, waiting):
            with pytest.raises(InvalidStateError, match="closed"):
                await task
