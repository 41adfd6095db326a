"""Signals wake up their readers, lose nothing, and end in time."""

import asyncio

import pytest

from afresh.db.watchers import Signal
from afresh.primitives.clock import use_clock
from afresh.testing import FakeClock


async def test_a_new_signal_is_set_as_its_reader_has_not_looked_yet():
    assert await Signal().wait(0)


async def test_a_signal_stays_set_until_it_is_cleared():
    signal = Signal()
    signal.clear()
    assert not signal.is_set
    signal.set()
    assert await signal.wait()
    assert await signal.wait()


async def test_what_is_set_during_a_read_is_found_after_it():
    signal = Signal()
    signal.clear()
    signal.set()  # while the read goes on
    assert await signal.wait(0)


async def test_all_who_wait_are_woken_up():
    signal = Signal()
    signal.clear()
    waiting = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    signal.set()
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_whoever_was_woken_up_hears_of_it_even_if_another_clears_at_once():
    signal = Signal()
    signal.clear()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    signal.set()
    signal.clear()
    assert await waiting


async def test_a_wait_ends_with_its_time_and_says_so():
    with use_clock(FakeClock()) as clock:
        signal = Signal()
        signal.clear()
        waiting = asyncio.create_task(signal.wait(5))
        await clock.advance(4.9)
        assert not waiting.done()
        await clock.advance(0.2)
        assert waiting.result() is False
        assert clock.timers == 0


@pytest.mark.parametrize("timeout", [0, -1])
async def test_a_wait_without_time_only_looks(timeout: float):
    signal = Signal()
    signal.clear()
    assert not await asyncio.wait_for(signal.wait(timeout), 1)


async def test_a_cancelled_wait_leaves_nothing_behind():
    with use_clock(FakeClock()) as clock:
        signal = Signal()
        signal.clear()
        waiting = asyncio.create_task(signal.wait(5))
        await clock.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert clock.timers == 0
        signal.set()  # has nobody to answer
        assert signal.is_set


def test_a_signal_outlives_the_event_loop_of_its_waiters():
    signal = Signal()
    signal.clear()
    waiting = signal.wait()

    async def begin() -> None:
        waiting.send(None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    signal.set()
    assert signal.is_set
    waiting.close()
