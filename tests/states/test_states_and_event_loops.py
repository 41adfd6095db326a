"""States and their event loop: changed from outside of it, and left behind by one that closed."""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from afresh import ComputedState, MutableState
from afresh.primitives.tasks import background_tasks, start_background
from afresh.states import YIELD


@pytest.fixture(autouse=True)
def nothing_is_left_for_later() -> Iterator[None]:
    """Python complains of tasks that closed loops left behind when they are freed: here, then."""
    yield

    async def free() -> None:
        await start_background(asyncio.sleep(0), name="the first in a new loop")

    asyncio.run(free())
    gc.collect()


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


def copy_of(source: MutableState[int]) -> Callable[[], Awaitable[int]]:
    async def copy() -> int:
        return source.use()

    return copy


async def make(source: MutableState[int], **options: Any) -> ComputedState[int]:
    state = ComputedState(copy_of(source), **options)
    await state.update()
    await asyncio.sleep(0)
    return state


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_state_made_stale_from_outside_the_loop_updates_when_the_loop_runs_again() -> None:
    source = MutableState(1)
    with event_loop() as loop:
        state = loop.run_until_complete(make(source, delay=YIELD))
        source.set(2)
        source.set(3)
        assert not state.computed.is_consistent
        loop.run_until_complete(turns())
        assert state.value == 3
        assert state.computed.is_consistent
        loop.run_until_complete(state.aclose())


def test_a_state_dropped_after_it_was_made_stale_from_outside_is_not_kept() -> None:
    source = MutableState(1)
    with event_loop() as loop:
        state = loop.run_until_complete(make(source, delay=YIELD))
        source.set(2)
        del state
        gc.collect()
        loop.run_until_complete(turns())
        assert source.computed.dependants == ()


def test_a_state_lives_on_in_a_new_event_loop() -> None:
    source = MutableState(1)
    with event_loop() as loop:
        state = loop.run_until_complete(make(source, delay=YIELD))

    async def go_on() -> None:
        source.set(2)
        await turns()
        assert state.value == 2
        await state.aclose()

    asyncio.run(go_on())


def test_a_state_made_stale_between_two_loops_updates_when_it_is_asked_for() -> None:
    source = MutableState(1)
    with event_loop() as loop:
        state = loop.run_until_complete(make(source, delay=YIELD))
    source.set(2)
    assert state.value == 1

    async def go_on() -> None:
        assert await state.use() == 2
        source.set(3)
        await turns()
        assert state.value == 3
        await state.aclose()

    asyncio.run(go_on())


@pytest.mark.parametrize("wait", ["when_updated", "changes"])
def test_a_state_made_stale_between_two_loops_updates_when_somebody_follows_it(wait: str) -> None:
    source = MutableState(1)
    with event_loop() as loop:
        state = loop.run_until_complete(make(source, delay=YIELD))
    source.set(2)

    async def go_on() -> None:
        if wait == "when_updated":
            await state.when_updated()
            assert state.value == 2
        else:
            seen = []
            async for computed in state.changes():
                seen.append(computed.value)
                if computed.value == 2:
                    break
            assert seen == [1, 2]
        await state.aclose()

    asyncio.run(asyncio.wait_for(go_on(), 5))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("first_turns", [0, 1, 5], ids=lambda turns: f"{turns} turns")
def test_an_update_that_a_closed_loop_left_behind_is_begun_anew(
    first_turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    gate: asyncio.Event | None = None
    source = MutableState(1)

    async def function() -> int:
        if gate is not None:
            await gate.wait()
        return source.use()

    async def begin() -> ComputedState[int]:
        nonlocal gate
        gate = asyncio.Event()
        state = ComputedState(function, delay=YIELD)
        await turns(first_turns)
        return state

    with event_loop() as loop:
        state = loop.run_until_complete(begin())
    gate = None

    async def go_on() -> None:
        await state.when_updated()
        assert state.value == 1
        source.set(2)
        await turns()
        assert state.value == 2
        await state.aclose()
        assert background_tasks() == frozenset()

    asyncio.run(asyncio.wait_for(go_on(), 5))
    gc.collect()


def test_the_end_of_asyncio_run_stops_updates_and_the_next_one_goes_on() -> None:
    source = MutableState(1)

    async def begin() -> ComputedState[int]:
        state = ComputedState(copy_of(source), delay=60)
        await state.update()
        source.set(2)
        await turns()
        assert background_tasks()
        return state

    state = asyncio.run(begin())

    async def go_on() -> None:
        state.delayer = YIELD
        await state.when_updated()
        assert state.value == 2
        await state.aclose()

    asyncio.run(asyncio.wait_for(go_on(), 5))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_state_that_a_closed_loop_left_behind_can_be_closed() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def begin(**options: Any) -> ComputedState[None]:
        state = ComputedState(forever, **options)
        await turns()
        return state

    with event_loop() as loop:
        at_once = loop.run_until_complete(begin(graceful_close=0))
        gracefully = loop.run_until_complete(begin(graceful_close=0.001))
        in_another_loop = loop.run_until_complete(begin())
    at_once.close()
    gracefully.close()

    async def go_on(state: ComputedState[None]) -> None:
        await state.aclose()
        await asyncio.sleep(0.01)  # the grace of a real clock
        assert background_tasks() == frozenset()

    asyncio.run(asyncio.wait_for(go_on(in_another_loop), 5))
    assert at_once.is_closed
    assert gracefully.is_closed
    assert in_another_loop.is_closed
    del at_once, gracefully, in_another_loop
    gc.collect()


def test_a_mutable_state_changes_though_somebody_waits_for_it_in_a_closed_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = MutableState(1)

    async def wait() -> None:
        await asyncio.gather(state.when_updated(), state.computed.when_invalidated())

    with event_loop() as loop:
        waiting = loop.create_task(wait())
        loop.run_until_complete(turns())
    state.set(2)
    assert state.value == 2
    assert caplog.records == []
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_mutable_state_made_without_a_loop_serves_all_that_follow() -> None:
    source = MutableState(0)
    for number in range(1, 4):

        async def use(number: int = number) -> None:
            async with ComputedState(copy_of(source), delay=YIELD) as state:
                assert await state.use() == number - 1
                source.set(number)
                await state.when_updated()
                assert state.value == number

        asyncio.run(asyncio.wait_for(use(), 5))
    assert source.computed.dependants == ()
