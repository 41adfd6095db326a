import asyncio
import contextvars
import gc
import logging
import math
import os
import subprocess
import sys
import textwrap
import time
import weakref

import pytest

from afresh.primitives.clock import Clock, LoopClock, current_clock, set_clock, use_clock
from afresh.testing import FakeClock

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def handles_of(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    return [handle for handle in loop._scheduled if not handle.cancelled()]


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


async def test_now_is_monotonic_time(clock):
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


async def test_timers_fire_in_order_of_due_time_and_then_of_the_calls(clock):
    ran: list[str] = []
    done = asyncio.Event()
    clock.call_later(0.004, done.set)
    clock.call_later(0.002, lambda: ran.append("second"))
    clock.call_later(0.001, lambda: ran.append("first"))
    for number in range(5):
        clock.call_later(0, lambda number=number: ran.append(f"now {number}"))
    await done.wait()
    assert ran == ["now 0", "now 1", "now 2", "now 3", "now 4", "first", "second"]


async def test_a_timer_never_fires_early(clock):
    fired: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(0.01, lambda: fired.set_result(clock.now()))
    assert await fired >= timer.due - time.get_clock_info("monotonic").resolution
    assert not timer.is_active


async def test_all_timers_share_one_handle_of_the_loop(clock):
    loop = asyncio.get_running_loop()
    before = len(handles_of(loop))
    for delay in (50, 40, 60, 30, 70):
        clock.call_later(delay, lambda: None)
    assert len(handles_of(loop)) == before + 1
    assert clock.timers == 5


async def test_cancelled_timers_do_not_fire_and_hold_nothing(clock):
    class Owner:
        def method(self) -> None:
            raise AssertionError

    owner = Owner()
    gone = weakref.ref(owner)
    timer = clock.call_later(0, owner.method)
    clock.call_later(60, lambda: None)
    timer.cancel()
    del owner
    assert gone() is None
    assert not timer.is_active
    await clock.sleep(0.001)
    assert clock.timers == 1


async def test_scheduling_and_cancelling_a_hundred_thousand_timers_leaves_a_small_heap(clock):
    loop = asyncio.get_running_loop()
    before = len(handles_of(loop))
    for _ in range(100_000):
        clock.call_later(60, lambda: None).cancel()
    assert clock.timers == 0
    assert clock._timers.heap_size < 200
    assert len(handles_of(loop)) <= before + 1


async def test_callbacks_run_in_an_empty_context_of_their_own(clock):
    seen: list[str] = []
    token = variable.set("mine")

    def look_and_set() -> None:
        seen.append(variable.get())
        variable.set("changed")

    clock.call_later(0, look_and_set)
    clock.call_later(0, look_and_set)
    await clock.sleep(0.001)
    variable.reset(token)
    assert seen == ["none", "none"]


async def test_the_loop_handle_pins_no_context(clock):
    class Pinned:
        pass

    holder: contextvars.ContextVar[Pinned] = contextvars.ContextVar("holder")

    def schedule() -> weakref.ref[Pinned]:
        pinned = Pinned()
        holder.set(pinned)
        clock.call_later(60, lambda: None)
        return weakref.ref(pinned)

    gone = contextvars.Context().run(schedule)
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError()])
async def test_an_error_in_a_callback_is_logged_and_does_not_stop_the_others(clock, caplog, error):
    ran: list[str] = []

    def fail() -> None:
        raise error

    clock.call_later(0, fail)
    clock.call_later(0, lambda: ran.append("other"))
    with caplog.at_level(logging.ERROR, "afresh.clock"):
        await clock.sleep(0.001)
    assert ran == ["other"]
    (record,) = caplog.records
    assert record.name == "afresh.clock"
    assert record.exc_info[1] is error


async def test_a_callback_that_schedules_itself_without_delay_does_not_hold_up_the_loop(clock):
    passes = 0

    def again() -> None:
        nonlocal passes, timer
        passes += 1
        timer = clock.call_later(0, again)

    timer = clock.call_later(0, again)
    for _ in range(10):
        await asyncio.sleep(0)
    timer.cancel()
    assert 2 <= passes <= 10


async def test_a_shorter_timer_overtakes_one_that_is_armed(clock):
    long = clock.call_later(60, lambda: None)
    await asyncio.wait_for(clock.sleep(0.001), 5)
    assert long.is_active


async def test_a_timer_for_never_waits_until_cancelled(clock):
    loop = asyncio.get_running_loop()
    before = len(handles_of(loop))
    timer = clock.call_later(math.inf, lambda: None)
    assert timer.is_active
    assert len(handles_of(loop)) == before
    timer.cancel()
    assert clock.timers == 0


async def test_a_far_timer_does_not_strain_the_loop(clock):
    loop = asyncio.get_running_loop()
    timer = clock.call_later(1e12, lambda: None)
    latest = max(handle.when() for handle in handles_of(loop))
    assert latest <= loop.time() + 86_401
    clock._wake()  # the nap ends, a day later
    assert timer.is_active
    assert any(handle.when() > loop.time() + 86_000 for handle in handles_of(loop))


@pytest.mark.parametrize("make", [LoopClock, FakeClock])
def test_a_delay_that_is_no_number_is_refused(make):
    with pytest.raises(ValueError, match="NaN"):
        make().call_later(math.nan, lambda: None)


@pytest.mark.parametrize("make", [LoopClock, FakeClock])
def test_a_negative_delay_means_now(make):
    clock = make()
    before = clock.now()
    assert before <= clock.call_later(-5, lambda: None).due <= clock.now()


# -- event loops come and go


def test_a_timer_made_without_a_loop_waits_for_one(clock):
    ran: list[str] = []
    clock.call_later(0, lambda: ran.append("ran"))

    async def main() -> None:
        clock.attach()
        for _ in range(3):
            await asyncio.sleep(0.001)

    assert ran == []
    asyncio.run(main())
    assert ran == ["ran"]


def test_timers_left_by_a_closed_loop_fire_on_the_next_one(clock):
    ran: list[str] = []

    async def first() -> None:
        clock.call_later(0.001, lambda: ran.append("one"))
        clock.call_later(0.002, lambda: ran.append("two"))

    async def second() -> None:
        await clock.sleep(0.005)

    asyncio.run(first())
    assert ran == []
    asyncio.run(second())
    assert ran == ["one", "two"]


def test_scheduling_after_the_loop_was_closed_raises_nothing(clock):
    async def use() -> None:
        clock.call_later(60, lambda: None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.close()
    clock.call_later(50, lambda: None)
    clock.attach()
    asyncio.run(use())
    assert clock.timers == 3
    assert loop.is_closed()  # and still referred to, as those of a test runner may be


def test_a_closed_loop_is_not_kept_alive(clock):
    async def use() -> None:
        clock.call_later(60, lambda: None)
        await clock.sleep(0)

    loop = asyncio.new_event_loop()
    gone = weakref.ref(loop)
    loop.run_until_complete(use())
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
    assert clock.timers == 1


def test_a_loop_that_pauses_gets_timers_made_meanwhile(clock):
    ran: list[str] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(clock.sleep(0.001))
    clock.call_later(0.001, lambda: ran.append("ran"))
    loop.run_until_complete(asyncio.sleep(0.01))  # nothing attaches here
    loop.close()
    assert ran == ["ran"]


def test_timers_move_from_a_paused_loop_to_the_running_one(clock):
    ran: list[str] = []
    paused = asyncio.new_event_loop()

    async def schedule() -> None:
        clock.call_later(0.001, lambda: ran.append("ran"))

    paused.run_until_complete(schedule())
    asyncio.run(clock.sleep(0.005))
    assert ran == ["ran"]
    assert handles_of(paused) == []
    paused.run_until_complete(clock.sleep(0.001))
    paused.close()
    assert ran == ["ran"]


def test_a_sleeper_whose_loop_was_closed_is_left_in_peace(clock, caplog):
    loop = asyncio.new_event_loop()
    task = loop.create_task(clock.sleep(0.001))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(clock.sleep(0.005))
    assert clock.timers == 0
    assert not task.done()
    assert caplog.records == []
    task._log_destroy_pending = False


def test_a_loop_that_stops_in_a_callback_leaves_the_clock_working(clock):
    ran: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.call_later(0, interrupt)
    clock.call_later(0, lambda: ran.append("rest"))
    loop = asyncio.new_event_loop()
    task = loop.create_task(clock.sleep(0.001))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    loop.close()
    assert ran == ["rest"]


async def test_attaching_again_changes_nothing(clock):
    loop = asyncio.get_running_loop()
    clock.call_later(60, lambda: None)
    before = handles_of(loop)
    clock.attach()
    assert handles_of(loop) == before


# -- sleeping


async def test_sleeping_takes_the_time_given(clock):
    start = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - start >= 0.01 - time.get_clock_info("monotonic").resolution


@pytest.mark.parametrize("delay", [0, -1])
async def test_sleeping_no_time_lets_others_run_without_a_timer(clock, delay):
    ran: list[str] = []
    task = asyncio.ensure_future(asyncio.sleep(0, ran.append("other")))
    await clock.sleep(delay)
    assert ran == ["other"]
    assert clock.timers == 0
    await task


async def test_cancelling_a_sleeper_cancels_its_timer(clock):
    task = asyncio.ensure_future(clock.sleep(60))
    await asyncio.sleep(0)
    assert clock.timers == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0


async def test_a_sleeper_that_is_cancelled_when_its_time_comes_ends_cancelled(clock):
    task = asyncio.ensure_future(clock.sleep(0.001))
    await asyncio.sleep(0)
    clock.call_later(0.001, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0


async def test_a_task_that_is_cancelled_already_does_not_sleep(clock):
    async def cancel_self_and_sleep() -> None:
        asyncio.current_task().cancel()
        await clock.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(cancel_self_and_sleep())
    assert clock.timers == 0


# -- the clock in use


def test_the_default_clock_is_one_loop_clock():
    assert isinstance(current_clock(), LoopClock)
    assert current_clock() is current_clock()


def test_setting_a_clock_returns_the_previous_one():
    default = current_clock()
    fake = FakeClock()
    assert set_clock(fake) is default
    assert current_clock() is fake
    assert set_clock(default) is fake


def test_a_clock_is_in_use_for_a_block_and_put_back_after_an_error():
    default = current_clock()
    seen: list[Clock] = []
    clock = FakeClock()

    def fail() -> None:
        with use_clock(clock) as given:
            seen.extend((given, current_clock()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [clock, clock]
    assert current_clock() is default


def test_a_clock_of_ones_own_needs_two_methods_and_can_sleep():
    class Instant(Clock):
        def now(self) -> float:
            return 0.0

        def call_later(self, delay, callback):
            timer = FakeClock().call_later(delay, callback)
            asyncio.get_running_loop().call_soon(callback)
            return timer

    clock = Instant()
    clock.attach()
    asyncio.run(clock.sleep(1_000_000))


# -- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_starts_with_an_empty_clock_and_finishes_nothing_of_the_parent():
    # In a process of its own: pytest's threads make a fork here unsafe.
    program = textwrap.dedent(
        """
        import asyncio, gc, os
        from afresh.primitives.clock import current_clock

        clock = current_clock()

        async def work():
            try:
                await clock.sleep(0.01)
            finally:
                print("cleanup in", "parent" if os.getpid() == parent else "child", flush=True)

        async def main():
            task = asyncio.ensure_future(work())
            clock.call_later(0.01, lambda: print("fired in", os.getpid() == parent, flush=True))
            await asyncio.sleep(0)
            child = os.fork()
            if child == 0:
                assert current_clock() is clock and clock.timers == 0
                del task
                gc.collect()
                asyncio.run(in_child())
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            await task

        async def in_child():
            await clock.sleep(0.03)
            print("child slept", flush=True)

        parent = os.getpid()
        asyncio.run(main())
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n") == [
        "child slept",
        "fired in True",
        "cleanup in parent",
        "",
    ]
