"""States that nobody closes: dropped, they vanish, with their tasks and whatever they hold."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from afresh import ComputedState, MutableState, StateEvent
from afresh.graph import registry
from afresh.primitives.tasks import background_tasks
from afresh.states import FixedDelayer, State, UIActionTracker, UIDelayer
from afresh.testing import FakeClock


def is_alive(reference: Callable[[], object | None]) -> bool:
    gc.collect()
    return reference() is not None


def copy_of(source: MutableState[int], **options: Any) -> ComputedState[int]:
    async def copy() -> int:
        return source.use()

    return ComputedState(copy, **options)


def test_a_mutable_state_that_is_dropped_is_gone() -> None:
    state = MutableState(1)
    state.on(StateEvent.UPDATED, lambda state, _: state.value)
    state.set(2)
    reference = weakref.ref(state)
    del state
    assert not is_alive(reference)


async def test_a_fresh_state_that_is_dropped_is_gone(clock: FakeClock) -> None:
    source = MutableState(1)
    state = copy_of(source)
    state.on(StateEvent.UPDATED, lambda *_, own=state: own.value)
    await state.update()
    await clock.settle()
    reference = weakref.ref(state)
    del state
    assert not is_alive(reference)
    assert source.computed.dependants == ()
    assert clock.timers == 0


@pytest.mark.parametrize(
    "delayer",
    [FixedDelayer(60), FixedDelayer(math.inf), UIDelayer(UIActionTracker(), 60)],
    ids=["a minute", "for ever", "until the user does something"],
)
async def test_a_state_that_is_dropped_while_it_waits_is_gone_with_its_task_and_timer(
    clock: FakeClock, delayer: UIDelayer
) -> None:
    source = MutableState(1)
    state = copy_of(source, delay=delayer)
    await state.update()
    source.set(2)
    await clock.settle()
    assert background_tasks()
    reference = weakref.ref(state)
    del state
    assert not is_alive(reference)
    await clock.settle()
    assert background_tasks() == frozenset()
    assert clock.timers == 0


async def test_a_state_that_is_dropped_before_it_began_is_gone(clock: FakeClock) -> None:
    source = MutableState(1)
    reference = weakref.ref(copy_of(source))
    assert not is_alive(reference)
    await clock.settle()
    assert background_tasks() == frozenset()
    assert source.computed.dependants == ()


async def test_a_state_that_is_dropped_while_it_computes_is_gone_when_it_is_done(
    clock: FakeClock,
) -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    reference = weakref.ref(ComputedState(wait))
    await clock.settle()
    assert is_alive(reference)
    gate.set()
    await clock.settle()
    assert not is_alive(reference)
    assert background_tasks() == frozenset()


async def test_a_state_that_somebody_follows_stays(clock: FakeClock) -> None:
    source = MutableState(1)
    seen: list[int] = []

    async def follow(state: ComputedState[int]) -> None:
        note = seen.append
        async for value in state:
            note(value)

    following = asyncio.ensure_future(follow(copy_of(source, delay=1)))
    await clock.settle()
    gc.collect()
    source.set(2)
    await clock.settle()
    gc.collect()
    await clock.advance(1)
    assert seen == [1, 2]
    following.cancel()


async def test_a_result_keeps_its_state_as_long_as_it_can_be_renewed(clock: FakeClock) -> None:
    source = MutableState(1)
    state = copy_of(source, delay=1)
    computed = await state.update()
    reference = weakref.ref(state)
    del state
    gc.collect()
    source.set(2)
    assert (await computed.update()).value == 2
    await clock.advance(1)
    del computed
    assert not is_alive(reference)


async def test_results_of_before_are_gone_at_once(clock: FakeClock) -> None:
    gc.disable()
    try:
        source = MutableState(1)
        async with copy_of(source, delay=0.1) as state:
            await state.update()
            old = [weakref.ref(source.computed), weakref.ref(state.computed)]
            source.set(2)
            await clock.advance(0.1)
            assert state.value == 2
            assert [reference() for reference in old] == [None, None]
    finally:
        gc.enable()


async def test_a_thousand_updates_leave_nothing_behind(clock: FakeClock) -> None:
    source = MutableState(0)
    async with copy_of(source, delay=0) as state:
        await state.update()
        gc.collect()
        before = len(gc.get_objects())
        for value in range(1, 1001):
            source.set(value)
            await state.update()
        await clock.advance(1)
        gc.collect()
        assert state.value == 1000
        assert len(gc.get_objects()) - before < 100


async def test_closed_states_are_gone_when_nobody_holds_them(clock: FakeClock) -> None:
    source = MutableState(1)
    references: list[Callable[[], State[int] | None]] = []
    for _ in range(20):
        async with copy_of(source) as state:
            await state.update()
        references.append(weakref.ref(state))
    del state
    gc.collect()
    assert [reference() for reference in references] == [None] * 20
    assert background_tasks() == frozenset()
    assert clock.timers == 0


async def test_the_registry_lets_go_of_states_too(clock: FakeClock) -> None:
    gc.collect()
    before = len(registry._producers)
    states = [MutableState(number) for number in range(10)]
    async with copy_of(states[0]):
        assert len(registry._producers) == before + 11
        await clock.settle()
    states.clear()
    await clock.settle()
    gc.collect()
    assert len(registry._producers) <= before + 1
