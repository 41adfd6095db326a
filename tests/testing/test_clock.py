import asyncio
import math

import pytest

from afresh.errors import InvalidStateError
from afresh.primitives.clock import current_clock, use_clock
from afresh.testing import FakeClock


@pytest.fixture
def clock():
    with use_clock(FakeClock()) as clock:
        yield clock


async def test_time_stands_still_until_advanced(clock):
    assert current_clock() is clock
    assert clock.now() == 0.0
    await asyncio.sleep(0.001)
    assert clock.now() == 0.0
    await clock.advance(5)
    assert clock.now() == 5.0
    clock.advance_sync(2.5)
    assert clock.now() == 7.5


def test_time_starts_where_told():
    clock = FakeClock(100.0)
    clock.advance_sync(1)
    assert clock.now() == 101.0


async def test_each_timer_fires_in_order_at_its_own_time(clock):
    fired: list[tuple[str, float]] = []
    for name, delay in [("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("later", 3.001)]:
        clock.call_later(delay, lambda name=name: fired.append((name, clock.now())))
    await clock.advance(3)
    assert fired == [("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("c", 3.0)]
    assert clock.now() == 3.0
    assert clock.timers == 1


async def test_tasks_run_between_timers_and_see_the_time_that_woke_them(clock):
    turns: list[float] = []

    async def every_second() -> None:
        while True:
            await clock.sleep(1)
            turns.append(clock.now())

    task = asyncio.ensure_future(every_second())
    await clock.advance(3.5)
    assert turns == [1.0, 2.0, 3.0]
    task.cancel()
    await clock.settle()
    assert clock.timers == 0


async def test_a_long_chain_of_tasks_comes_to_rest_before_time_moves_on(clock):
    seen: list[float] = []

    async def relay(number: int) -> None:
        if number:
            await asyncio.ensure_future(relay(number - 1))
        seen.append(clock.now())

    async def start() -> None:
        await clock.sleep(1)
        await relay(100)

    task = asyncio.ensure_future(start())
    clock.call_later(2, lambda: seen.append(-1.0))
    await clock.advance(2)
    assert seen == [1.0] * 101 + [-1.0]
    await task


async def test_tasks_run_once_more_after_the_last_timer(clock):
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.advance(1)
    assert task.done()


async def test_three_sleeps_of_a_tenth_fit_into_three_tenths(clock):
    async def three() -> None:
        for _ in range(3):
            await clock.sleep(0.1)
        seen.append(clock.now())

    seen: list[float] = []
    task = asyncio.ensure_future(three())
    await clock.advance(0.3)
    assert task.done()
    assert seen == [clock.now()] == [0.3]


async def test_now_never_goes_back(clock):
    seen: list[float] = []

    async def often() -> None:
        while True:
            await clock.sleep(0.1)
            seen.append(clock.now())

    task = asyncio.ensure_future(often())
    for _ in range(100):
        seen.append(clock.now())
        await clock.advance(0.1)
    assert seen == sorted(seen)
    task.cancel()


async def test_advancing_by_nothing_fires_what_is_due(clock):
    fired: list[int] = []
    clock.call_later(0, lambda: fired.append(1))
    clock.call_later(1, lambda: fired.append(2))
    await clock.advance(0)
    assert fired == [1]


def test_advancing_without_tasks_follows_timers_that_timers_start(clock):
    fired: list[float] = []

    def tick() -> None:
        fired.append(clock.now())
        clock.call_later(1, tick)

    clock.call_later(1, tick)
    clock.advance_sync(3)
    assert fired == [1.0, 2.0, 3.0]
    assert clock.timers == 1


async def test_cancelled_timers_do_not_count(clock):
    timer = clock.call_later(1, lambda: None)
    assert clock.timers == 1
    timer.cancel()
    assert clock.timers == 0
    await clock.advance(1)


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
async def test_time_moves_forward_and_by_a_finite_amount(clock, seconds):
    with pytest.raises(ValueError, match="finite"):
        await clock.advance(seconds)
    with pytest.raises(ValueError, match="finite"):
        clock.advance_sync(seconds)


async def test_a_task_that_spins_is_reported_instead_of_waited_for_forever():
    clock = FakeClock(limit=50)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    task = asyncio.ensure_future(spin())
    with pytest.raises(InvalidStateError, match="spins"):
        await clock.advance(1)
    task.cancel()
    await clock.settle()
    await clock.advance(1)


@pytest.mark.parametrize("delay", [0, 1e-30])
def test_a_timer_that_restarts_itself_without_delay_is_reported(delay):
    clock = FakeClock(start=1.0, limit=50)

    def again() -> None:
        clock.call_later(delay, again)

    again()
    with pytest.raises(InvalidStateError, match="itself again"):
        clock.advance_sync(1)


async def test_two_tasks_cannot_advance_at_once(clock):
    first = asyncio.ensure_future(clock.advance(1))
    await asyncio.sleep(0)
    with pytest.raises(InvalidStateError, match="already"):
        await clock.advance(1)
    await first
    await clock.advance(1)
    assert clock.now() == 2.0


def test_a_timer_callback_cannot_advance(clock, caplog):
    clock.call_later(1, lambda: clock.advance_sync(1))
    clock.advance_sync(2)
    assert clock.now() == 2.0
    assert "already" in caplog.text


async def test_advancing_can_be_cancelled(clock):
    async def advance() -> None:
        await clock.advance(10)

    clock.call_later(5, lambda: task.cancel())
    task = asyncio.ensure_future(advance())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() == 5.0
    await clock.advance(1)
    assert clock.now() == 6.0


async def test_a_loop_that_hides_its_queue_gets_a_fixed_number_of_turns(clock, monkeypatch):
    # Such as uvloop's.
    import afresh.testing.clock as module

    class Hidden:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop

    running = asyncio.get_running_loop()
    monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: Hidden(running))
    turns = 0

    async def count() -> None:
        nonlocal turns
        for _ in range(100):
            await asyncio.sleep(0)
            turns += 1

    task = running.create_task(count())
    await clock.settle()
    assert turns > 90
    await task
