"""A snapshot is one generation of a state: it counts, and one can wait for its end."""

import asyncio
import gc

import pytest

from afresh import ComputedState, InvalidStateError, MutableState, StateEvent
from afresh.testing import FakeClock


def counts(state: MutableState[int]) -> tuple[int, int, int]:
    snapshot = state.snapshot
    return snapshot.update_count, snapshot.error_count, snapshot.retry_count


def test_it_counts_updates_errors_and_retries() -> None:
    state = MutableState(0)
    assert (*counts(state), state.snapshot.is_initial) == (0, 0, 0, True)
    state.set(1)
    assert (*counts(state), state.snapshot.is_initial) == (1, 0, 0, False)
    state.set_error(LookupError())
    assert counts(state) == (2, 1, 0)
    state.set_error(TimeoutError())
    state.set_error(TimeoutError())
    assert counts(state) == (4, 3, 2)
    state.set(2)
    assert counts(state) == (5, 3, 0)


def test_the_last_good_result_is_the_latest_that_was_no_error() -> None:
    state = MutableState(0)
    first = state.computed
    assert state.snapshot.last_good is first
    state.set_error(TimeoutError())
    state.set_error(LookupError())
    assert state.snapshot.last_good is first
    state.set(1)
    assert state.snapshot.last_good is state.computed is not first


def test_it_never_changes_once_it_is_superseded() -> None:
    state = MutableState(0)
    before = state.snapshot
    state.set(1)
    assert state.snapshot is not before
    assert (before.computed.value, before.update_count) == (0, 0)
    assert repr(before).startswith("<Snapshot #0 of <Computed MutableState")


async def test_one_can_wait_until_it_is_stale(clock: FakeClock) -> None:
    source = MutableState(0)

    async def copy() -> int:
        return source.use()

    async with ComputedState(copy, delay=5) as state:
        await state.update()
        waiting = asyncio.ensure_future(state.snapshot.when_invalidated())
        await clock.settle()
        assert not waiting.done()
        source.set(1)
        await clock.settle()
        assert waiting.done()


async def test_one_can_wait_until_the_next_computation_begins_and_until_it_is_over(
    clock: FakeClock,
) -> None:
    source = MutableState(0)
    gate = asyncio.Event()

    async def copy() -> int:
        value = source.use()
        await gate.wait()
        return value

    gate.set()
    async with ComputedState(copy, delay=5) as state:
        await state.update()
        gate.clear()
        snapshot = state.snapshot
        updating = asyncio.ensure_future(snapshot.when_updating())
        updated = asyncio.ensure_future(snapshot.when_updated())
        source.set(1)
        await clock.advance(4)
        assert (updating.done(), updated.done()) == (False, False)
        await clock.advance(1)
        assert (updating.done(), updated.done()) == (True, False)
        gate.set()
        await clock.settle()
        assert updated.done()
        assert state.value == 1


async def test_waiting_for_what_is_over_returns_at_once(clock: FakeClock) -> None:
    state = MutableState(0)
    before = state.snapshot
    for value in (1, 2, 3):
        state.set(value)
    await before.when_invalidated()
    await before.when_updating()
    await before.when_updated()


async def test_who_missed_generations_is_told_of_the_next_all_the_same() -> None:
    state = MutableState(0)
    waiting = asyncio.ensure_future(state.when_updated())
    await asyncio.sleep(0)
    for value in (1, 2, 3):
        state.set(value)
    await waiting
    assert state.value == 3


async def test_closing_the_state_ends_all_waiting_with_an_error(clock: FakeClock) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    state = ComputedState(forever, graceful_close=0)
    snapshot = state.snapshot
    waits = [
        asyncio.ensure_future(wait)
        for wait in (state.when_updated(), state.when_ready(), snapshot.when_updated())
    ]
    await clock.settle()
    await state.aclose()
    for wait in waits:
        with pytest.raises(InvalidStateError, match="is closed"):
            await wait
    with pytest.raises(InvalidStateError, match="is closed"):
        await state.when_updated()


async def test_errors_handed_to_many_who_wait_are_not_shared() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    state = ComputedState(forever, graceful_close=0)
    waits = [asyncio.ensure_future(state.when_updated()) for _ in range(2)]
    await asyncio.sleep(0)
    await state.aclose()
    first, second = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(first, InvalidStateError)
    assert isinstance(second, InvalidStateError)
    assert first is not second


def futures() -> int:
    gc.collect()
    return sum(type(thing) is asyncio.Future for thing in gc.get_objects())


async def test_waits_that_were_given_up_leave_nothing_behind() -> None:
    state = MutableState(0)
    before = futures()
    for _ in range(100):
        waiting = asyncio.ensure_future(state.when_updated())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert futures() < before + 10
    state.set(1)


async def test_those_who_wait_go_on_after_the_handlers(clock: FakeClock) -> None:
    order: list[str] = []
    state = MutableState(0)

    async def wait() -> None:
        await state.when_updated()
        order.append("waiting task")

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    before = state.snapshot
    state.on(StateEvent.UPDATED, lambda *_: order.append("handler"))
    state.on(StateEvent.UPDATED, lambda *_: order.append(str(state.snapshot is before)))
    state.set(1)
    await waiting
    assert order == ["handler", "False", "waiting task"]
